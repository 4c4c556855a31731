"""Many searches of one request: those by stored images share their calls of the store."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from time import monotonic

from api.sources import Source, UnknownFilepath
from api.use_cases.search_images import SearchImages, SearchResult, StoredQuery
from common.errors import BUSY_RETRY_AFTER_S, MatchError, Overloaded, StoreUnavailable
from common.images.flatness import are_featureless
from common.modes import Mode
from common.search import SearchOptions, SignatureQuery, find_all_by_signature, pages
from common.sketch_matches import decide_by_sketches
from common.store.base import Record

# Searches that share their calls of the store. One pass over 100,000 images for all of them takes half a second.
TOGETHER = 256
# Downloads of one request at once: one waits for its host while the other is decoded.
DOWNLOADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchItem:
    """One of the searches: its image, which matches it returns, and its mode."""

    source: Source
    options: SearchOptions
    mode: Mode


Result = SearchResult | MatchError


@dataclass(frozen=True, slots=True)
class SearchMany:
    """Searches with many images; `images` searches with one."""

    images: SearchImages

    def search(self, items: Iterable[SearchItem | MatchError], *, client: str, within_s: float) -> Iterator[Result]:
        """Yield the result of each item in order, or its error; an item may be an error already.

        An item that is not begun after `within_s` is Overloaded, and so is one without a slot of searches.
        """
        deadline = monotonic() + within_s
        remaining = iter(items)
        while some := list(islice(remaining, TOGETHER)):
            results: dict[int, Result] = {}
            requested: dict[int, SearchItem] = {}
            for index, item in enumerate(some):
                if isinstance(item, MatchError):
                    results[index] = item
                else:
                    requested[index] = item
            stored = {index: item for index, item in requested.items() if item.source.filepath is not None}
            others = {index: item for index, item in requested.items() if index not in stored}
            results |= self._stored(stored, client, deadline)
            results |= self._singly(others, client, deadline)
            yield from (results[index] for index in range(len(some)))

    def _singly(self, items: Mapping[int, SearchItem], client: str, deadline: float) -> dict[int, Result]:
        if not items:
            return {}
        with ThreadPoolExecutor(DOWNLOADS) as threads:
            results = threads.map(partial(self._one, client=client, deadline=deadline), items.values())
            return dict(zip(items, results, strict=True))

    def _one(self, item: SearchItem, *, client: str, deadline: float) -> Result:
        if monotonic() >= deadline:
            return _too_late()
        try:
            return self.images.search(item.source, item.options, client=client, mode=item.mode)
        except MatchError as error:
            return error

    def _stored(self, items: Mapping[int, SearchItem], client: str, deadline: float) -> dict[int, Result]:
        if monotonic() >= deadline:
            return dict.fromkeys(items, _too_late())
        try:
            with self.images.search_slot(client):
                return self._together(items, client, deadline)
        except (StoreUnavailable, Overloaded) as error:
            return dict.fromkeys(items, error)
        except MatchError:
            # The store rejects one of the searches: the others must not fail with it.
            return {index: self._one(item, client=client, deadline=deadline) for index, item in items.items()}

    def _together(self, items: Mapping[int, SearchItem], client: str, deadline: float) -> dict[int, Result]:
        """Return the results of searches by stored images."""
        results: dict[int, Result] = {}
        records: dict[int, Record] = {}
        modes: dict[int, Mode] = {}
        for index, record in self._records(items).items():
            collection = items[index].options.selection.collection
            mode = self.images.local_features.allowed(items[index].mode, collection)
            if record is None:
                results[index] = UnknownFilepath(items[index].source.field)
            elif are_featureless(record.signatures):
                results[index] = SearchResult([], mode, is_featureless=True, collection=collection)
            else:
                records[index], modes[index] = record, mode
        queries = [
            SignatureQuery(signatures=record.signatures, options=items[index].options)
            for index, record in records.items()
        ]
        matched = {}
        for (index, record), similar in zip(
            records.items(), find_all_by_signature(queries, self.images.store), strict=True
        ):
            query, options = StoredQuery(record), items[index].options
            decided = decide_by_sketches(similar, query.small_copy, self.images.store, options)
            if modes[index] != "fast" and monotonic() >= deadline:
                results[index] = _too_late()
                continue
            try:
                matches, modes[index] = self.images.add_local(decided, query, options, client=client, mode=modes[index])
            except Overloaded as error:
                results[index] = error
                continue
            matched[index] = matches, options
        for index, part in zip(matched, pages([*matched.values()], self.images.store), strict=True):
            collection = items[index].options.selection.collection
            results[index] = SearchResult(part, modes[index], is_featureless=False, collection=collection)
        return results

    def _records(self, items: Mapping[int, SearchItem]) -> dict[int, Record | None]:
        """Return the record of each item, read by one call for each collection."""
        filepaths: defaultdict[str, list[str]] = defaultdict(list)
        for item in items.values():
            filepaths[item.source.collection].append(item.source.filepath or "")
        records = {name: self.images.store.records(paths, collection=name) for name, paths in filepaths.items()}
        return {index: records[item.source.collection].get(item.source.filepath or "") for index, item in items.items()}


def _too_late() -> Overloaded:
    return Overloaded("the searches before this one took too long", retry_after=BUSY_RETRY_AFTER_S)
