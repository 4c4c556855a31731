"""Many searches of one request: those by stored images share their calls of the store."""

from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import TypeVar

from api.sources import Source, UnknownFilepath
from api.use_cases.search_images import SearchImages, SearchResult, StoredQuery
from common.errors import BUSY_RETRY_AFTER_S, MatchError, Overloaded, StoreUnavailable
from common.images.flatness import are_featureless
from common.modes import Mode
from common.search import Match, SearchOptions, SignatureQuery, find_all_by_signature, pages
from common.sketch_matches import decide_by_sketches
from common.store.base import Record

# Searches that share their calls of the store. One pass over 100,000 images for all of them takes half a second.
TOGETHER = 256
# Candidates that they request together, for one signature each: the store has all of them in memory at once.
CANDIDATES = 200_000
# Matches whose metadata are in memory at once, as of a single search: each may have 64 KiB.
MATCHES = 1000
# Downloads of one request at once: one waits for its host while the other is decoded.
DOWNLOADS = 2
# Searches with a download that are begun before an earlier result is taken.
AHEAD = 2 * DOWNLOADS


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchItem:
    """One of the searches: its image, which matches it returns, and its mode."""

    source: Source
    options: SearchOptions
    mode: Mode


Result = SearchResult | MatchError
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """The matches of a search without metadata."""

    matches: Sequence[Match]
    options: SearchOptions
    mode: Mode


@dataclass(frozen=True, slots=True)
class SearchMany:
    """Searches with many images; `images` searches with one."""

    images: SearchImages

    def search(self, items: Iterable[SearchItem | MatchError], *, client: str, within_s: float) -> Iterator[Result]:
        """Yield the result of each item in order, or its error; an item may be an error already.

        An item that is not begun after `within_s` is Overloaded, and so is one without a slot of searches. Results are
        computed while they are taken, so that few are in memory.
        """
        deadline = monotonic() + within_s
        remaining = iter(items)
        while some := list(islice(remaining, TOGETHER)):
            requested = [item for item in some if isinstance(item, SearchItem)]
            stored = [item for item in requested if item.source.filepath is not None]
            others = [item for item in requested if item.source.filepath is None]
            with (
                closing(self._stored(stored, client, deadline)) as by_filepath,
                closing(self._singly(others, client, deadline)) as by_image,
            ):
                for item in some:
                    if isinstance(item, MatchError):
                        yield item
                    else:
                        yield next(by_image if item.source.filepath is None else by_filepath)

    def _singly(self, items: Sequence[SearchItem], client: str, deadline: float) -> Generator[Result, None, None]:
        if not items:
            return
        begun: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(DOWNLOADS) as threads:
            for item in items:
                if len(begun) == AHEAD:
                    yield begun.popleft().result()
                begun.append(threads.submit(self._one, item, client=client, deadline=deadline))
            while begun:
                yield begun.popleft().result()

    def _one(self, item: SearchItem, *, client: str, deadline: float) -> Result:
        if monotonic() >= deadline:
            return _too_late()
        try:
            return self.images.search(item.source, item.options, client=client, mode=item.mode)
        except MatchError as error:
            return error

    def _stored(self, items: Sequence[SearchItem], client: str, deadline: float) -> Generator[Result, None, None]:
        """Yield the results of searches by stored images, in parts that share their calls of the store."""
        for part in _parts(items, [_candidates(item.options) for item in items], most=CANDIDATES):
            if monotonic() >= deadline:
                yield from [_too_late()] * len(part)
                continue
            try:
                with self.images.search_slot(client):
                    ranked = self._ranked(part, client, deadline)
            except (StoreUnavailable, Overloaded) as error:
                yield from [error] * len(part)
            except MatchError:
                # The store rejects one of the searches: the others must not fail with it.
                yield from (self._one(item, client=client, deadline=deadline) for item in part)
            else:
                for some in _parts(ranked, [_returned(each) for each in ranked], most=MATCHES):
                    yield from self._paged(some)

    def _ranked(self, items: Sequence[SearchItem], client: str, deadline: float) -> list[Result | _Ranked]:
        """Return the matches of searches by stored images, or their results without matches."""
        results: dict[int, Result | _Ranked] = {}
        records: dict[int, Record] = {}
        modes: dict[int, Mode] = {}
        for index, (item, record) in enumerate(zip(items, self._records(items), strict=True)):
            collection = item.options.selection.collection
            mode = self.images.local_features.allowed(item.mode, collection)
            if record is None:
                results[index] = UnknownFilepath(item.source.field)
            elif are_featureless(record.signatures):
                results[index] = SearchResult([], mode, is_featureless=True, collection=collection)
            else:
                records[index], modes[index] = record, mode
        queries = [
            SignatureQuery(
                signatures=record.signatures,
                options=items[index].options,
                own_filepath=items[index].source.filepath,
            )
            for index, record in records.items()
        ]
        for (index, record), similar in zip(
            records.items(), find_all_by_signature(queries, self.images.store), strict=True
        ):
            if modes[index] != "fast" and monotonic() >= deadline:
                results[index] = _too_late()
                continue
            query, options = StoredQuery(record), items[index].options
            decided = decide_by_sketches(similar, query.small_copy, self.images.store, options)
            try:
                matches, mode = self.images.add_local(decided, query, options, client=client, mode=modes[index])
            except Overloaded as error:
                results[index] = error
            else:
                results[index] = _Ranked(matches=matches, options=options, mode=mode)
        return [results[index] for index in range(len(items))]

    def _paged(self, ranked: Sequence[Result | _Ranked]) -> Iterator[Result]:
        """Yield the results with the metadata of their matches, which are read by one call for each collection."""
        searches = [(each.matches, each.options) for each in ranked if isinstance(each, _Ranked)]
        try:
            parts = iter(pages(searches, self.images.store))
        except MatchError as error:
            yield from (error if isinstance(each, _Ranked) else each for each in ranked)
            return
        for each in ranked:
            if isinstance(each, _Ranked):
                collection = each.options.selection.collection
                yield SearchResult(next(parts), each.mode, is_featureless=False, collection=collection)
            else:
                yield each

    def _records(self, items: Sequence[SearchItem]) -> list[Record | None]:
        """Return the record of each item, read by one call for each collection."""
        filepaths: defaultdict[str, list[str]] = defaultdict(list)
        for item in items:
            filepaths[item.source.collection].append(item.source.filepath or "")
        records = {name: self.images.store.records(paths, collection=name) for name, paths in filepaths.items()}
        return [records[item.source.collection].get(item.source.filepath or "") for item in items]


def _parts(items: Sequence[T], sizes: Sequence[int], *, most: int) -> Iterator[list[T]]:
    """Yield the items in parts, each with sizes of `most` together, or of one item."""
    part: list[T] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if part and total + size > most:
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part


def _candidates(options: SearchOptions) -> int:
    """Return the number of candidates of an image with one signature."""
    return options.orientations * options.candidates


def _returned(ranked: Result | _Ranked) -> int:
    """Return the number of matches that the search returns."""
    return len(ranked.matches[ranked.options.offset :][: ranked.options.limit]) if isinstance(ranked, _Ranked) else 0


def _too_late() -> Overloaded:
    return Overloaded("the searches before this one took too long", retry_after=BUSY_RETRY_AFTER_S)
