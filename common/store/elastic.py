"""The store that carries Match beyond one machine: an Elasticsearch index of bit vectors, signatures and metadata."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from elasticsearch import ApiError, Elasticsearch, TransportError
from numpy.typing import NDArray

from common.errors import StoreError, StoreUnavailable
from common.signature import LENGTH, Signature
from common.store.base import (
    Candidate,
    Health,
    Page,
    Record,
    Tombstone,
    Verdict,
    Written,
    signatures_from_bytes,
    signatures_to_bytes,
)
from common.store.labels import labels, wanted

DEFAULT_PORT = 9200
# One connection a thread of the busiest process; those above it would be opened and thrown away.
CONNECTIONS = 32
HEALTH_TIMEOUT_S = 3.0
# Bodies stay far below http.max_content_length (100 MiB): a node holds each in memory.
BULK_BYTES = 8 * 1024 * 1024
# Elasticsearch refuses from + size, and num_candidates, above 10,000: a page and what is skipped before it share it.
WINDOW = 10_000
PAGE = WINDOW // 2
IDS_AT_ONCE = 1_000
# HNSW looks at this many vectors a shard at least: recall .995 at 300,000 pictures, where 200 give .982.
CANDIDATES_MIN = 500
REASON_MAX = 500

# A mapping has one vector field for each place in a record's signatures; a field that is empty costs a search nothing.
SIGNATURES_MAX = 2
VECTORS = tuple(f"bits_{place}" for place in range(SIGNATURES_MAX))
_VECTOR: Final = {
    "type": "dense_vector",
    "element_type": "bit",
    "dims": 2 * LENGTH,
    "index": True,
    "index_options": {"type": "hnsw", "m": 16, "ef_construction": 100},
}
MAPPINGS: Final = {
    "dynamic": "strict",
    # Read from elsewhere (doc values, the vector index), or made from the metadata.
    "_source": {"excludes": ["sig", "labels", *VECTORS]},
    "properties": {
        # Looked up by _id; here to be read, not searched.
        "path": {"type": "keyword", "index": False},
        "seq": {"type": "long"},
        "deleted": {"type": "boolean"},
        "added": {"type": "long", "index": False},
        "width": {"type": "integer", "index": False, "doc_values": False},
        "height": {"type": "integer", "index": False, "doc_values": False},
        "sig": {"type": "binary", "doc_values": True},
        # Kept as it is, looked at by nobody.
        "metadata": {"type": "object", "enabled": False},
        # One field however many keys there are. For metadata of 200 bytes it takes 120 bytes, `flattened` 250.
        "labels": {"type": "keyword", "doc_values": False},
        **dict.fromkeys(VECTORS, _VECTOR),
    },
}
SETTINGS: Final = {
    "index": {
        "number_of_shards": 1,
        "auto_expand_replicas": "0-1",
        # Said in so many words: left unsaid, a shard that nobody searches for 30 s stops refreshing.
        "refresh_interval": "1s",
    }
}
LIVE: Final = {"term": {"deleted": False}}

# An operator, or time, can mend these: away, not created yet, read-only, not allowed, too much at once.
UNAVAILABLE = {401, 403, 404, 408, 429, 500, 502, 503, 504}
HELD = UNAVAILABLE
CONFLICT = 409
OK = 300

_Json: TypeAlias = Mapping[str, Any]


class ElasticStore:
    """Store behind the alias `index` of the cluster at `url`; user and password may stand in the URL.

    Nothing is sent before the first call. Calls are not repeated here: a writer holds its items and comes back, a
    reader is told.
    """

    def __init__(self, url: str, *, index: str, timeout_s: float) -> None:
        host, login = _split_url(url)
        self.index = index
        self._client = Elasticsearch(
            [host],
            basic_auth=login,
            request_timeout=timeout_s,
            max_retries=0,
            retry_on_timeout=False,
            connections_per_node=CONNECTIONS,
        )
        self._prober = self._client.options(request_timeout=min(timeout_s, HEALTH_TIMEOUT_S))
        self._refresh = _Shared(lambda: self._client.indices.refresh(index=index))

    def prepare(self) -> None:
        """Create index and alias in one step where absent, and wait until the index answers."""
        with _our_errors():
            if not self._client.indices.exists_alias(name=self.index):
                self._create()
            self._client.cluster.health(index=self.index, wait_for_status="yellow")

    def put(self, items: Sequence[Record | Tombstone]) -> list[Written]:
        """Index all; a deletion is a small document of its own, because Elasticsearch soon forgets its own ones."""
        lines: list[str] = []
        written: dict[int, Written] = {}
        for place, item in enumerate(items):
            try:
                lines.append(_lines(item))
            except (ValueError, TypeError, RecursionError) as error:
                written[place] = Written(Verdict.REFUSED, f"cannot be stored: {error}")
        results = (_written(result) for result in self._bulk(lines))
        return [written.get(place) or next(results) for place in range(len(items))]

    def candidates(
        self, queries: NDArray[np.int8], *, limit: int, where: Mapping[str, str] | None = None
    ) -> list[list[Candidate]]:
        """Return the nearest in Hamming distance, for all queries in one request; at most 10,000 for each."""
        found: list[list[Candidate]] = [[] for _ in queries]
        places = [place for place, query in enumerate(queries) if query.any()]
        if places:
            limit, passing = min(limit, WINDOW), _passing(where)
            searches = [line for place in places for line in ({}, _nearest(queries[place], limit, passing))]
            with _our_errors():
                answer = self._client.msearch(index=self.index, searches=searches)
            for place, response in zip(places, answer["responses"], strict=True):
                found[place] = [_candidate(hit) for hit in _hits(response)]
        return found

    def records(self, filepaths: Sequence[str]) -> dict[str, Record]:
        """Return the records as they were last written: a realtime lookup tells whether a refresh is due."""
        ids = [_id(filepath) for filepath in dict.fromkeys(filepaths)]
        found: dict[str, Record] = {}
        for start in range(0, len(ids), IDS_AT_ONCE):
            found |= self._records(ids[start : start + IDS_AT_ONCE])
        return found

    def filepaths(self, *, offset: int, limit: int, where: Mapping[str, str] | None = None) -> list[str]:
        """Return filepaths by seq; far offsets are found by counting what lies before a seq, in some 30 steps."""
        filters = [LIVE, *_passing(where)]
        seq, skip = self._start(offset, filters)
        return self._listed(filters, seq=seq, skip=skip, limit=limit).filepaths if skip <= PAGE else []

    def filepaths_after(self, seq: int, *, limit: int, where: Mapping[str, str] | None = None) -> Page:
        """Return the filepaths that follow `seq`, as searches see them."""
        return self._listed([LIVE, *_passing(where)], seq=seq + 1, skip=0, limit=limit)

    def count(self, *, where: Mapping[str, str] | None = None) -> int:
        """Return how many pictures searches see."""
        return self._count([LIVE, *_passing(where)])

    def refresh(self) -> None:
        """Refresh; callers that come while a refresh runs share the next."""
        with _our_errors():
            self._refresh()

    def purge(self, *, before: int, limit: int) -> int:
        """Delete old tombstones, save those that something newer has replaced meanwhile; at most 10,000 a call."""
        hits = self._search(
            query={"bool": {"filter": [{"term": {"deleted": True}}, {"range": {"added": {"lt": before}}}]}},
            size=min(limit, WINDOW),
            source=False,
            version=True,
        )
        results = self._bulk([_action("delete", hit["_id"], hit["_version"]) + "\n" for hit in hits])
        return sum(result.get("result") == "deleted" for result in results)

    def health(self) -> Health:
        """Ask for the index's status, and whether something blocks writes."""
        try:
            with _our_errors():
                # First of the two, because it knows an absent index: the health of none at all is green.
                settings = self._prober.indices.get_settings(
                    index=self.index, name="index.blocks.*", flat_settings=True
                )
                parts = self._prober.cluster.health(index=self.index, level="indices", timeout="1s")["indices"]
        except StoreError as error:
            return Health(reads=False, writes=False, detail=str(error))
        # Counted, because the status of an index that is just being created is yellow before any of it answers.
        if any(part["active_primary_shards"] < part["number_of_shards"] for part in parts.values()):
            return Health(reads=False, writes=False, detail="Elasticsearch: a part of the index does not answer")
        blocks = sorted({name for index in settings.values() for name, on in index["settings"].items() if on == "true"})
        return Health(reads=True, writes=not blocks, detail=", ".join(blocks))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _create(self) -> None:
        try:
            self._client.indices.create(
                index=f"{self.index}-1",
                aliases={self.index: {"is_write_index": True}},
                mappings=MAPPINGS,
                settings=SETTINGS,
            )
        except ApiError:
            # Another process may have been quicker; what else stands in the way is for the operator.
            if not self._client.indices.exists_alias(name=self.index):
                raise

    def _bulk(self, lines: Sequence[str]) -> Iterator[_Json]:
        """Send actions in bodies of bounded size, and yield each action's result."""
        for body in _bodies(lines):
            with _our_errors():
                answer = self._client.bulk(
                    index=self.index,
                    require_alias=True,
                    operations=body,  # type: ignore[arg-type] # the client sends strings as they are
                )
            for item in answer["items"]:
                yield from item.values()

    def _search(self, **body: Any) -> list[_Json]:  # noqa: ANN401 - passed on to the client as it is
        with _our_errors():
            answer = self._client.search(index=self.index, track_total_hits=False, **body)
        return _hits(answer.body)

    def _count(self, filters: Sequence[_Json]) -> int:
        with _our_errors():
            answer = self._client.count(index=self.index, query={"bool": {"filter": filters}})
        if answer["_shards"]["failed"]:
            raise StoreUnavailable("Elasticsearch: a part of the index did not answer")
        return int(answer["count"])

    def _records(self, ids: Sequence[str]) -> dict[str, Record]:
        versions = self._versions(ids)
        hits = self._by_ids(versions)
        if any(identity not in hits or hits[identity]["_version"] < version for identity, version in versions.items()):
            self.refresh()
            hits = self._by_ids(versions)
        records = [_record(hit) for hit in hits.values() if not hit["_source"]["deleted"]]
        return {record.filepath: record for record in records}

    def _versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the versions that stand, also those that no search sees yet."""
        if not ids:
            return {}
        with _our_errors():
            answer = self._client.mget(index=self.index, ids=ids, source=False)
        if errors := [doc["error"] for doc in answer["docs"] if "error" in doc]:
            message = f"Elasticsearch: {_reason(errors[0])}"
            raise StoreUnavailable(message)
        return {doc["_id"]: doc["_version"] for doc in answer["docs"] if doc["found"]}

    def _by_ids(self, ids: Mapping[str, int]) -> dict[str, _Json]:
        if not ids:
            return {}
        hits = self._search(
            query={"ids": {"values": list(ids)}}, size=len(ids), source=True, docvalue_fields=["sig"], version=True
        )
        return {hit["_id"]: hit for hit in hits}

    def _listed(self, filters: Sequence[_Json], *, seq: int, skip: int, limit: int) -> Page:
        """Return what comes from `seq` on, less the first `skip`."""
        paths: list[str] = []
        while len(paths) < limit:
            size = min(limit - len(paths), PAGE)
            hits = self._search(
                query={"bool": {"filter": [*filters, {"range": {"seq": {"gte": seq}}}]}},
                sort=["seq"],
                from_=skip,
                size=size,
                source=False,
                docvalue_fields=["path"],
            )
            paths += [hit["fields"]["path"][0] for hit in hits]
            if hits:
                seq, skip = hits[-1]["sort"][0] + 1, 0
            if len(hits) < size:
                break
        return Page(paths, seq - 1)

    def _start(self, offset: int, filters: Sequence[_Json]) -> tuple[int, int]:
        """Return a seq, and how many records from there on come before `offset`; few, unless it lies past the end."""
        if offset <= PAGE:
            return 0, offset
        low, high, before = 0, self._newest_seq() + 1, 0
        while offset - before > PAGE and high - low > 1:
            middle = (low + high) // 2
            count = self._count([*filters, {"range": {"seq": {"lt": middle}}}])
            if count <= offset:
                low, before = middle, count
            else:
                high = middle
        return low, offset - before

    def _newest_seq(self) -> int:
        hits = self._search(query=LIVE, sort=[{"seq": "desc"}], size=1, source=False)
        return int(hits[0]["sort"][0]) if hits else 0


class _Shared:
    """An action that its callers share: each returns after a run that began after its call."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._next: Future[None] | None = None

    def __call__(self) -> None:
        with self._lock:
            leads = self._next is None
            run = self._next = self._next or Future()
        if leads:
            with self._running:
                # From here on a caller is too late for this run.
                with self._lock:
                    self._next = None
                self._lead(run)
        run.result()

    def _lead(self, run: Future[None]) -> None:
        try:
            self._action()
        except BaseException as error:  # noqa: BLE001 - handed to every caller, this one included
            run.set_exception(error)
        else:
            run.set_result(None)


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        kind = StoreUnavailable if error.status_code in UNAVAILABLE else StoreError
        message = f"Elasticsearch answered {error.status_code}: {_told(error)}"
        raise kind(message) from error
    except TransportError as error:
        message = f"Elasticsearch cannot be reached: {error.message}"[:REASON_MAX]
        raise StoreUnavailable(message) from error


def _split_url(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return the URL without its login, and the login.

    >>> _split_url("http://me:s%40fe@search.lan/prefix")
    ('http://search.lan:9200/prefix', ('me', 's@fe'))
    """
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    if parts.port is None:
        place = f"{place.rstrip(':')}:{DEFAULT_PORT}"
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return urlunsplit((parts.scheme, place, parts.path, "", "")), login


def _id(filepath: str) -> str:
    """Return the document's name: a filepath may be four times as long as Elasticsearch lets a name be.

    Lone surrogates are no UTF-8 and still name a file apart from any other.
    """
    return hashlib.sha256(filepath.encode("utf-8", "surrogatepass")).hexdigest()


def _action(name: str, identity: str, version: int) -> str:
    # external_gte: a redelivery is written again, anything older is a conflict.
    return json.dumps({name: {"_id": identity, "version": version, "version_type": "external_gte"}})


def _lines(item: Record | Tombstone) -> str:
    # ASCII throughout: a lone surrogate in the metadata would otherwise be bytes that cost the whole body.
    document = json.dumps(_document(item), allow_nan=False)
    return f"{_action('index', _id(item.filepath), item.seq)}\n{document}\n"


def _document(item: Record | Tombstone) -> _Json:
    deleted = isinstance(item, Tombstone)
    document = {"path": item.filepath, "seq": item.seq, "deleted": deleted, "added": item.added}
    if isinstance(item, Tombstone):
        return document
    if len(item.signatures) > SIGNATURES_MAX:
        message = f"a record has at most {SIGNATURES_MAX} signatures here"
        raise ValueError(message)
    document |= {"width": item.width, "height": item.height}
    document["sig"] = base64.b64encode(signatures_to_bytes(item.signatures)).decode()
    # A featureless picture has no vector: no search finds it.
    document |= {field: _hex(sig) for field, sig in zip(VECTORS, item.signatures, strict=False) if sig.any()}
    if item.metadata is not None:
        document |= {"metadata": item.metadata, "labels": sorted(labels(item.metadata))}
    return document


def _passing(where: Mapping[str, str] | None) -> list[_Json]:
    return [{"term": {"labels": label}} for label in wanted(where)]


def _hex(signature: Signature) -> str:
    """Return the signs as bits: first where a value is above zero, then where it is below."""
    return np.packbits(np.concatenate([signature > 0, signature < 0])).tobytes().hex()


def _nearest(query: Signature, limit: int, passing: Sequence[_Json]) -> _Json:
    """Return the search: a picture's score is that of its nearest signature."""
    breadth = {"k": limit, "num_candidates": min(max(CANDIDATES_MIN, 2 * limit), WINDOW)}
    near = {"query_vector": _hex(query), **breadth, "filter": passing}
    return {
        "query": {"dis_max": {"queries": [{"knn": {"field": field, **near}} for field in VECTORS]}},
        "size": limit,
        "_source": False,
        "track_total_hits": False,
        "docvalue_fields": ["path", "sig"],
    }


def _hits(response: _Json) -> list[_Json]:
    """Return the hits of one search; a search that a part of the index did not answer has none to trust."""
    if error := response.get("error"):
        message = f"Elasticsearch: {_reason(error)}"
        raise StoreUnavailable(message) if response["status"] in UNAVAILABLE else StoreError(message)
    if response["timed_out"] or response["_shards"]["failed"]:
        raise StoreUnavailable("Elasticsearch: a part of the index did not answer")
    return list(response["hits"]["hits"])


def _candidate(hit: _Json) -> Candidate:
    return Candidate(hit["fields"]["path"][0], _signatures(hit))


def _record(hit: _Json) -> Record:
    source = hit["_source"]
    return Record(
        filepath=source["path"],
        seq=source["seq"],
        signatures=_signatures(hit),
        metadata=source.get("metadata"),
        added=source["added"],
        width=source["width"],
        height=source["height"],
    )


def _signatures(hit: _Json) -> tuple[Signature, ...]:
    return signatures_from_bytes(base64.b64decode(hit["fields"]["sig"][0]))


def _written(result: _Json) -> Written:
    status = result["status"]
    if status < OK:
        return Written(Verdict.STORED)
    if status == CONFLICT:
        return Written(Verdict.SUPERSEDED)
    return Written(Verdict.HELD if status in HELD else Verdict.REFUSED, _reason(result["error"]))


def _told(error: ApiError) -> str:
    told = error.body.get("error") if isinstance(error.body, dict) else None
    return _reason(told) if isinstance(told, dict) else error.message[:REASON_MAX]


def _reason(error: _Json) -> str:
    """Return what Elasticsearch says, down to the cause.

    >>> _reason({"type": "t", "reason": "failed to parse", "caused_by": {"reason": "no number"}})
    'failed to parse: no number'
    """
    reasons = [_first_line(error.get("reason", error.get("type", "no reason given")))]
    while cause := error.get("caused_by"):
        reasons.append(_first_line(cause.get("reason")))
        error = cause
    return ": ".join(reasons)[-REASON_MAX:]


def _first_line(reason: object) -> str:
    """Leave out the document, which the parser repeats from the second line on."""
    return str(reason).partition("\n")[0]


def _bodies(lines: Sequence[str]) -> Iterator[list[str]]:
    """Group lines so that no body is larger than BULK_BYTES, save for a line that is so alone."""
    body: list[str] = []
    size = 0
    for line in lines:
        if body and size + len(line) > BULK_BYTES:
            yield body
            body, size = [], 0
        body.append(line)
        size += len(line)
    if body:
        yield body
