"""`python -m common.store.import_elasticsearch URL INDEX`: stores the images of an index of image-match or dsys/match.

It reads Elasticsearch 2 to 9 and OpenSearch by plain HTTP, oldest images first. The signatures are kept, so the images
are not needed.
"""

import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from common import command_line
from common.config import Settings
from common.errors import ConfigError, MatchError, StoreUnavailable
from common.store.base import DEFAULT_COLLECTION, Record, Store, Verdict
from common.store.factory import open_store
from common.store.image_match import FIELDS, InvalidDocument, read_document
from common.store.preparing import prepare_within
from common.store.resumable import FAILED, ResumableCommand

COMMAND = ResumableCommand("import")
PAGE = 500
SCROLL = "10m"
TIMEOUT_S = 60.0
# The store may restart meanwhile.
STORE_WITHIN_S = 120.0
PAUSE_S = 1.0
# Requests of the service's clients have the time as their sequence number. Those of imported images end an hour before
# the start of the import, so that a client's add or delete always wins. Their count is below the microseconds of it.
MARGIN_US = 3_600 * 1_000_000
SHOWN_REJECTIONS = 20
REPORT_EVERY = 10_000
AUTHORIZATION = "MATCH_IMPORT_AUTHORIZATION"
OK = 200


class SourceError(MatchError):
    """The index to import cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The position of an import, and its counts.

    `after_ms` is the timestamp of the last document that was stored, `ids` are the documents with this timestamp. `seq`
    is the last sequence number, `ceiling_us` the highest timestamp that is used as one. Documents without a timestamp
    are the last; they are not counted before the end.
    """

    after_ms: int | None = None
    ids: Sequence[str] = ()
    seq: int = 0
    ceiling_us: int
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document of the index: its fields, and its timestamp as the index sorts it."""

    id: str
    source: Mapping[str, Any]
    timestamp_ms: int | None


class Index:
    """An index of image-match or dsys/match; `authorization` is the header of that name."""

    def __init__(self, url: str, name: str, *, authorization: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._path = f"/{quote(name, safe='')}"
        headers = {"Accept": "application/json"} | ({"Authorization": authorization} if authorization else {})
        self._http = urllib3.PoolManager(timeout=TIMEOUT_S, headers=headers, retries=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def count(self) -> int:
        """Return the number of documents."""
        return int(self._call("GET", f"{self._path}/_count")["count"])

    def pages(self, after_ms: int | None) -> Iterator[list[Hit]]:
        """Yield the documents, oldest first, from a timestamp on, and then those without one."""
        has_time = {"exists": {"field": "timestamp"}}
        since = {"range": {"timestamp": {"gte": after_ms, "format": "epoch_millis"}}}
        dated = {"bool": {"filter": [has_time if after_ms is None else since]}}
        yield from self._scroll(dated, [{"timestamp": {"order": "asc", "unmapped_type": "date"}}], has_time=True)
        yield from self._scroll({"bool": {"must_not": [has_time]}}, ["_doc"], has_time=False)

    def _scroll(self, query: Mapping[str, Any], order: Sequence[Any], *, has_time: bool) -> Iterator[list[Hit]]:
        body = {"size": PAGE, "query": query, "sort": order, "_source": list(FIELDS)}
        reply = self._call("POST", f"{self._path}/_search?scroll={SCROLL}", body)
        scroll_id = reply["_scroll_id"]
        try:
            while hits := reply["hits"]["hits"]:
                yield [Hit(hit["_id"], hit["_source"], int(hit["sort"][0]) if has_time else None) for hit in hits]
                reply = self._call("POST", "/_search/scroll", {"scroll": SCROLL, "scroll_id": scroll_id})
                scroll_id = reply["_scroll_id"]
        finally:
            with suppress(SourceError):
                self._call("DELETE", "/_search/scroll", {"scroll_id": [scroll_id]})

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        try:
            reply = self._http.request(method, self._url + path, json=body)
            document = json.loads(reply.data)
        except urllib3.exceptions.HTTPError as error:
            # A page cannot be read twice: the next run resumes.
            raise SourceError(f"{self._url} does not answer: {error}") from error
        except ValueError as error:
            raise SourceError(f"{self._url} is not an Elasticsearch or OpenSearch") from error
        if reply.status != OK:
            raise SourceError(f"{self._url}{path.partition('?')[0]} answered {reply.status}: {_reason(document)}")
        shards = document.get("_shards", {})
        if shards.get("failed"):
            raise SourceError(f"{self._url}: {shards['failed']} shards of the index failed")
        return document


class ImportProgress:
    """A file with the progress of an import. Methods raise ConfigError if it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_suffix(".partial")

    def check(self) -> None:
        """Check that the file can be written."""
        with self._wrap_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.touch()
            self._partial.unlink()

    def load(self) -> Progress:
        """Return the progress of the earlier run, or that of a new import."""
        try:
            return Progress(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return Progress(ceiling_us=time.time_ns() // 1000 - MARGIN_US)

    def save(self, progress: Progress) -> None:
        """Replace the file whole."""
        with self._wrap_errors():
            self._partial.write_text(json.dumps(asdict(progress)))
            self._partial.replace(self._path)

    def remove(self) -> None:
        """Remove the file: a next import begins again."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"MATCH_HOME: the progress cannot be written to {self._path}: {error.strerror or error}"
            raise ConfigError(message) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Importing:
    """An import into a collection of a store; `report` receives lines for people."""

    index: Index
    store: Store
    progress: ImportProgress
    report: Callable[[str], None]
    collection: str = DEFAULT_COLLECTION
    keeps_url: bool = True

    def run(self) -> Counter[str]:
        """Store all documents from the progress on, and return the number of documents by outcome."""
        self.progress.check()
        state = self.progress.load()
        counts = Counter(state.counts)
        total = self.index.count()
        self.report(f"{total:,} documents" + (f", {counts.total():,} of them by an earlier run" if counts else ""))
        for hits in self.index.pages(state.after_ms):
            before = counts.total()
            new = [hit for hit in hits if hit.id not in state.ids]
            records, seq = self._records(new, counts, seq=state.seq, ceiling_us=state.ceiling_us)
            self._put(records, counts)
            state = replace(state, seq=seq)
            last_ms = hits[-1].timestamp_ms
            if last_ms is not None:
                earlier = state.ids if last_ms == state.after_ms else ()
                ids = {*earlier, *(hit.id for hit in hits if hit.timestamp_ms == last_ms)}
                state = replace(state, after_ms=last_ms, ids=sorted(ids), counts=dict(counts))
                self.progress.save(state)
            if before // REPORT_EVERY != counts.total() // REPORT_EVERY:
                self.report(f"{counts.total():,} of {total:,}: {text(counts)}")
        self.store.refresh()
        self.progress.remove()
        return counts

    def _records(
        self, hits: Sequence[Hit], counts: Counter[str], *, seq: int, ceiling_us: int
    ) -> tuple[list[Record], int]:
        """Return the records of valid documents, and the last sequence number."""
        records = []
        for hit in hits:
            try:
                document = read_document(hit.source)
            except InvalidDocument as error:
                self._reject(hit.id, str(error), counts)
                continue
            # Strictly increasing, and the timestamp wherever it is: lists have the order of the first adds.
            seq = max(seq + 1, min(document.timestamp_us or 0, ceiling_us))
            records.append(document.record(seq=seq, collection=self.collection, keeps_url=self.keeps_url))
        return records, seq

    def _put(self, records: Sequence[Record], counts: Counter[str]) -> None:
        """Write the records; wait while the store cannot accept them."""
        deadline = time.monotonic() + STORE_WITHIN_S
        while records:
            again = []
            try:
                results = self.store.put(records)
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                again = list(records)
            else:
                for record, written in zip(records, results, strict=True):
                    if written.verdict is Verdict.RETRY:
                        again.append(record)
                    elif written.verdict is Verdict.REJECTED:
                        self._reject(record.filepath, written.reason, counts)
                    else:
                        counts[written.verdict.value] += 1
            if again:
                if time.monotonic() > deadline:
                    raise StoreUnavailable("the store does not accept the images")
                time.sleep(PAUSE_S)
            records = again

    def _reject(self, name: str, reason: str, counts: Counter[str]) -> None:
        counts["rejected"] += 1
        if counts["rejected"] <= SHOWN_REJECTIONS:
            self.report(f"{name}: {reason}")


def text(counts: Counter[str]) -> str:
    """Return the counts as one line."""
    return ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counts.items())) or "no documents"


def main() -> int:
    """Import an index, or resume an earlier run; return the exit status."""
    description = (
        "Store the images of an index of image-match or dsys/match, without downloading them. Local features and sizes "
        f"are not carried over. {AUTHORIZATION} is the Authorization header for the index."
    )
    parser = command_line.parser("common.store.import_elasticsearch", description)
    parser.add_argument("url", metavar="URL", help="the Elasticsearch or OpenSearch to read, such as http://old:9200")
    parser.add_argument("index", metavar="INDEX", help="its index, such as images")
    parser.add_argument("--collection", metavar="NAME", default=DEFAULT_COLLECTION, help="the collection to fill")
    arguments = parser.parse_args()
    return COMMAND.run(lambda settings: _run(settings, arguments.url, arguments.index, arguments.collection))


def _run(settings: Settings, url: str, index: str, collection: str) -> int:
    target = settings.store_url or f"{settings.elasticsearch_url} {settings.elasticsearch_index}"
    digest = hashlib.sha256(f"{url} {index} {collection} {target}".encode()).hexdigest()[:16]
    with (
        closing(open_store(settings)) as store,
        closing(Index(url, index, authorization=os.environ.get(AUTHORIZATION))) as source,
    ):
        prepare_within(store, STORE_WITHIN_S)
        importing = Importing(
            index=source,
            store=store,
            progress=ImportProgress(settings.home / f"import-{digest}.json"),
            report=COMMAND.report,
            collection=collection,
            keeps_url=settings.keep_source_url,
        )
        counts = importing.run()
    COMMAND.report(text(counts))
    return FAILED if counts["rejected"] else 0


def _reason(document: Any) -> str:  # noqa: ANN401 - JSON
    error = document.get("error") if isinstance(document, dict) else None
    return str(error.get("reason", "")) if isinstance(error, dict) else str(error or "")


if __name__ == "__main__":
    sys.exit(main())
