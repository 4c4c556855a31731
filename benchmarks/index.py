"""The index against image-match's: what is found, how fast, in how many bytes, on one real Elasticsearch node.

    python benchmarks/index.py [--images N ...] [--vectors hnsw|flat] [--breadth N] [--queries N] [--sweep N ...]
                               [--peer words|dynamic|lean|none] [--overwrite] [--before-merge]
                               [--results FILE] [--picture FILE] [--photos FOLDER]

The peer is image-match's own way: its documents (63 words, the signature as an array of 648 in `_source`, metadata), a
search of 63 `term`s of which the best 100 are measured here. Its words are integer fields; all else is left to
Elasticsearch, as image-match leaves it. `--peer dynamic` leaves the words to it as well (they become long); `--peer
lean` is a mapping that image-match has not: nothing but the words is indexed.

Ours is the service's store and search as they stand. Both hold the same signatures, names and metadata, are written by
four threads in requests of 500, and are merged to one segment before they are searched, in turns. A rate counts
serialising, sending and the refresh at the end, not the making of the records. image-match itself sends a request a
picture: its rate is printed too. The rate of flat vectors comes from an index of their own that is searched as well.

`--before-merge` searches once more before the merge; `--overwrite` adds half of the pictures again at the end and
searches before and after another merge; `--sweep` tries other breadths on ours. With several sizes each has its own
node. `--results` adds what was measured to a file of JSON, and `--picture` draws all that stands in it.

What the synthetic signatures are, and what they can mislead about: `benchmarks/parts/collection.py`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from elasticsearch import BadRequestError, Elasticsearch
from image_match.signature_database_base import get_words, max_contrast, words_to_int
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts.collection import (  # noqa: E402 - run as a script, the checkout is not on the path yet
    BLOCK,
    Queries,
    Rows,
    altered,
    collection,
    filepath,
    metadata,
)
from common.orientations import turn  # noqa: E402 - the same
from common.search import CUTOFF, search  # noqa: E402 - the same
from common.signature import expand  # noqa: E402 - the same
from common.store.base import Record, Verdict  # noqa: E402 - the same
from common.store.elastic import ElasticStore, Shape  # noqa: E402 - the same
from dev.elasticsearch_node import Node  # noqa: E402 - the same

PHOTOS = ROOT.parent / "shared" / "data" / "photos"
WORD, WORDS, SIZE = 16, 63, 100
REQUEST = 500
THREADS = 4
HEAP_MIB = 4096
TIMEOUT_S = 3600.0
# Requests take their places from a clock in microseconds: a far offset is sought in such a range.
FIRST_SEQ, STEP_SEQ = 1_700_000_000_000_000, 1_700
WARM_UP = 200
WARM_UP_WRITES = 30_000
TURNED = 60
LISTS = 25
LEASES_S = 90.0
FEW = 50
OWN_WAY = 2_000

T = TypeVar("T")


@dataclass
class Side:
    """What was measured of one index."""

    rate: float = 0.0
    bytes_an_image: float = 0.0
    one_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    found_of_all: int = 0

    def p(self, percent: float) -> float:
        return float(np.percentile(self.one_s, percent)) * 1000 if self.one_s else 0.0

    @property
    def share(self) -> float:
        return float(np.mean(self.found)) if self.found else 0.0


@dataclass(frozen=True)
class Line:
    """One line of the table; `got` is good when it is at least, or at most, what is asked."""

    what: str
    sense: str
    ask: float
    got: float
    told: str

    def __str__(self) -> str:
        good = self.got >= self.ask if self.sense == ">=" else self.got <= self.ask
        verdict = "ok" if good else "MISSED"
        return f"{self.what:<44} {self.sense} {self.ask:>5g}  {self.got:>7.3f}  {verdict:<6}  {self.told}"


@dataclass
class Size:
    """What is drawn of one size; milliseconds and bytes, 0 where it was not measured."""

    images: int
    p50: float
    p95: float
    flat_p50: float
    peer_p50: float
    found: float
    bytes_an_image: float
    peer_bytes: float
    heap_mib: float
    vectors_mib: float
    overwritten_p50: float = 0.0
    overwritten_found: float = 0.0
    merged_p50: float = 0.0
    merged_found: float = 0.0


class Peer:
    """image-match's index and search (its driver asks for Elasticsearch 2.3: this is what it sends)."""

    def __init__(self, url: str, mapping: str) -> None:
        self.client = Elasticsearch(url, request_timeout=TIMEOUT_S)
        word = {f"simple_word_{number}": {"type": "integer"} for number in range(WORDS)}
        lean: dict[str, Any] = {
            "path": {"type": "keyword"},
            "signature": {"type": "integer", "index": False, "doc_values": False},
            "metadata": {"type": "object", "enabled": False},
        }
        self.client.indices.create(
            index="peer",
            mappings={"properties": {"lean": word | lean, "words": word, "dynamic": {}}[mapping]},
            settings={"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "1000ms"},
        )

    def put(self, records: Sequence[dict[str, Any]]) -> None:
        answer = self.client.bulk(
            index="peer", operations=[f'{{"index":{{}}}}\n{json.dumps(one)}\n' for one in records]
        )
        assert not answer["errors"]

    def put_one(self, record: dict[str, Any]) -> None:
        self.client.index(index="peer", document=record)

    def refresh(self) -> None:
        self.client.indices.refresh(index="peer")

    def search(self, signature: Rows) -> list[str]:
        should = [
            {"term": {f"simple_word_{n}": word}} for n, word in enumerate(words(signature[np.newaxis])[0].tolist())
        ]
        found = self.client.search(
            index="peer", query={"bool": {"should": should}}, source_excludes="simple_word_*", size=SIZE
        )["hits"]["hits"]
        if not found:
            return []
        rows = np.array([hit["_source"]["signature"] for hit in found], np.int8)
        apart = peer_distances(rows, expand(signature))
        return [hit["_source"]["path"] for hit, far in zip(found, apart, strict=True) if far < CUTOFF]


def words(signatures: Rows) -> NDArray[np.int64]:
    """Return (n, 63), what image-match's `get_words`, `max_contrast` and `words_to_int` make of each signature."""
    values = np.stack([expand(signature) for signature in signatures])
    starts = np.linspace(0, values.shape[1], WORDS, endpoint=False).astype(int)
    padded = np.pad(np.sign(values), ((0, 0), (0, WORD)))
    found: NDArray[np.int64] = (padded[:, starts[:, np.newaxis] + np.arange(WORD)] + 1) @ 3 ** np.arange(WORD)
    return found


def require_image_matchs_words(signatures: Rows) -> None:
    """Stop where ours are not the words that image-match itself makes."""
    for signature, ours in zip(signatures, words(signatures), strict=True):
        theirs = get_words(expand(signature), WORD, WORDS)
        max_contrast(theirs)
        assert (words_to_int(theirs) == ours).all()


def peer_distances(rows: Rows, one: Rows) -> NDArray[np.float64]:
    """Return image-match's `normalized_distance`."""
    many, query = rows.astype(int), one.astype(int)
    norms = np.linalg.norm(many, axis=1) + np.linalg.norm(query)
    return np.linalg.norm(many - query, axis=1) / norms


def main(options: argparse.Namespace) -> None:
    for count in options.images:
        with Node(heap_mib=HEAP_MIB) as node:
            size = run(node.url, count, options)
        if options.results:
            keep(options.results, size)
    if options.results:
        sizes = kept(options.results)
        print(*growth(sizes), sep="\n")
        if options.picture:
            # Only who draws needs matplotlib.
            from benchmarks.parts.drawing import draw_growth  # noqa: PLC0415 - said above

            draw_growth(sizes, options.picture)


def run(url: str, count: int, options: argparse.Namespace) -> Size:
    paths = sorted(options.photos.glob("*.jpg"))[:count]
    rows, pixels = collection(np.random.default_rng(1), paths, count)
    require_image_matchs_words(rows[:FEW])
    queries = altered(pixels, options.queries, rows)
    print(f"\n{count:,} images, {options.vectors}, breadth {options.breadth}, peer {options.peer}", flush=True)
    warm_up(url, rows[:WARM_UP_WRITES])
    flat, flat_rate = alone_flat(url, rows, queries)
    store = made(url, "ours", options.vectors, options.breadth)
    ours = Side(rate=rate(rows, our_records, lambda records: put(store, records), store.refresh))
    client = store._client  # noqa: SLF001 - to look at what stands
    settle(client)
    peer, theirs, own_way = None, Side(), 0.0
    if options.peer != "none":
        peer = Peer(url, options.peer)
        theirs.rate = rate(rows, peer_records, peer.put, peer.refresh)
        settle(client)
        own_way = one_by_one(peer, rows)
    if options.before_merge:
        before = Side(), Side()
        searches(store, peer, queries, *before)
        print("before the merge:", *lines_of_searches(*before), sep="\n", flush=True)
    forget_copies(store, client, our_records(0, rows[:FEW]))
    ours.bytes_an_image = merged_bytes(client, "ours") / count
    if peer:
        theirs.bytes_an_image = merged_bytes(client, "peer") / (count + min(OWN_WAY, count))
    searches(store, peer, queries, ours, theirs)
    heap, vectors = memory(client)
    report(ours, theirs, queries, listing(store, peer, count))
    print(
        f"flat: {flat_rate:,.0f} images/s ({against(flat_rate, theirs.rate)} the peer's, asked 4), "
        f"p50 {flat.p(50):.1f} ms, p95 {flat.p(95):.1f} ms, share found {flat.share:.4f}"
    )
    print(f"the peer with a request a picture, as image-match writes: {own_way:,.0f} images/s", flush=True)
    sweep(store, url, queries, options)
    size = Size(
        images=count,
        p50=ours.p(50),
        p95=ours.p(95),
        flat_p50=flat.p(50),
        peer_p50=theirs.p(50),
        found=ours.share,
        bytes_an_image=ours.bytes_an_image,
        peer_bytes=theirs.bytes_an_image,
        heap_mib=heap,
        vectors_mib=vectors,
    )
    if options.overwrite:
        overwritten(store, rows, queries, size)
    store.close()
    return size


def warm_up(url: str, rows: Rows) -> None:
    """Write some of each kind first: a Java that has just started is many times slower."""
    store, peer = made(url, "warm-up", "hnsw", 1), Peer(url, "words")
    rate(rows, our_records, lambda records: put(store, records), store.refresh)
    rate(rows, peer_records, peer.put, peer.refresh)
    drop(peer.client, "warm-up", "peer")
    store.close()


def drop(client: Elasticsearch, *names: str) -> None:
    for name in names:
        client.indices.delete(index=list(client.indices.get(index=name)))


def made(url: str, name: str, vectors: str, breadth: int) -> ElasticStore:
    store = ElasticStore(
        url, index=name, timeout_s=TIMEOUT_S, shape=Shape(vectors=vectors, replicas="0"), breadth=breadth
    )
    store.prepare()
    return store


def alone_flat(url: str, rows: Rows, queries: Queries) -> tuple[Side, float]:
    """Write and search flat vectors while nothing else is there; the index is gone afterwards."""
    store = made(url, "flat", "flat", 1)
    images_a_second = rate(rows, our_records, lambda records: put(store, records), store.refresh)
    client = store._client  # noqa: SLF001 - to look at what stands
    settle(client)
    merged_bytes(client, "flat")
    side = alone(store, 100, queries)
    drop(client, "flat")
    store.close()
    return side, images_a_second


def one_by_one(peer: Peer, rows: Rows) -> float:
    """Return the peer's images a second with a request each, by as many threads."""
    records = peer_records(0, rows[:OWN_WAY])
    with ThreadPoolExecutor(THREADS) as pool:
        return len(records) / timed(lambda: list(pool.map(peer.put_one, records)))[0]


def overwritten(store: ElasticStore, rows: Rows, queries: Queries, size: Size) -> None:
    """Add every other picture again, as those who add a folder anew do, and search before and after a merge."""
    again = np.arange(0, len(rows), 2)
    with ThreadPoolExecutor(THREADS) as pool:
        for part in np.array_split(again, max(1, len(again) // BLOCK)):
            renewed = [
                newer(record, len(rows)) for row in part.tolist() for record in our_records(row, rows[row : row + 1])
            ]
            requests = [renewed[at : at + REQUEST] for at in range(0, len(renewed), REQUEST)]
            list(pool.map(lambda records: put(store, records), requests))
    store.refresh()
    client = store._client  # noqa: SLF001 - to look at what stands
    settle(client)
    before = alone(store, 100, queries)
    bytes_before = stored_bytes(client, store.index) / len(rows)
    forget_copies(store, client, [newer(record, len(rows)) for record in our_records(0, rows[:FEW])])
    bytes_after = merged_bytes(client, store.index) / len(rows)
    after = alone(store, 100, queries)
    print(in_state("half of it added again", before, bytes_before))
    print(in_state("and merged", after, bytes_after), flush=True)
    size.overwritten_p50, size.overwritten_found = before.p(50), before.share
    size.merged_p50, size.merged_found = after.p(50), after.share


def in_state(name: str, side: Side, bytes_an_image: float) -> str:
    times = f"p50 {side.p(50):.1f} ms, p95 {side.p(95):.1f} ms"
    return f"{name}: share {side.share:.4f}, {times}, {bytes_an_image:.0f} bytes an image"


def newer(record: Record, count: int) -> Record:
    return replace(record, seq=record.seq + STEP_SEQ * count)


def our_records(start: int, rows: Rows) -> list[Record]:
    return [
        Record(
            filepath=filepath(row),
            seq=FIRST_SEQ + STEP_SEQ * row,
            signatures=(signature,),
            metadata=metadata(row),
            added=FIRST_SEQ // 1000 + row,
            width=500,
            height=375,
        )
        for row, signature in enumerate(rows, start)
    ]


def peer_records(start: int, rows: Rows) -> list[dict[str, Any]]:
    return [
        {
            "path": filepath(row),
            "signature": expand(signature).tolist(),
            "metadata": metadata(row),
            **{f"simple_word_{number}": word for number, word in enumerate(some)},
        }
        for row, (signature, some) in enumerate(zip(rows, words(rows).tolist(), strict=True), start)
    ]


def put(store: ElasticStore, records: Sequence[Record]) -> None:
    assert all(one.verdict is Verdict.STORED for one in store.put(records))


def rate(
    rows: Rows,
    make: Callable[[int, Rows], list[T]],
    write: Callable[[Sequence[T]], None],
    refresh: Callable[[], object],
) -> float:
    """Return images a second, all blocks and the refresh at the end; a block's records are made while nobody waits."""
    spent = 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(rows), BLOCK):
            block = make(start, rows[start : start + BLOCK])
            requests = [block[at : at + REQUEST] for at in range(0, len(block), REQUEST)]
            spent += timed(lambda requests=requests: list(pool.map(write, requests)))[0]
    return len(rows) / (spent + timed(refresh)[0])


def settle(client: Elasticsearch) -> None:
    """Wait until merges in the background have ended: they are not to touch what comes next."""
    quiet = 0
    while quiet < 3:
        running = client.indices.stats(metric="merge")["_all"]["total"]["merges"]["current"]
        quiet = 0 if running else quiet + 1
        time.sleep(0.5)


def merged_bytes(client: Elasticsearch, index: str) -> int:
    client.indices.flush(index=index)
    client.indices.forcemerge(index=index, max_num_segments=1)
    client.indices.flush(index=index)
    return stored_bytes(client, index)


def stored_bytes(client: Elasticsearch, index: str) -> int:
    return int(client.indices.stats(index=index, metric="store")["_all"]["primaries"]["store"]["size_in_bytes"])


def forget_copies(store: ElasticStore, client: Elasticsearch, few: Sequence[Record]) -> None:
    """Have the next merge drop the copies of what `_source` leaves out, kept for replicas that might ask for them.

    A single segment would not be merged, so a few pictures are written again; twice, because a commit counts only once
    the next one knows that all before it has arrived.
    """
    await_leases(client, store.index)
    for _ in range(2):
        put(store, few)
        client.indices.flush(index=store.index)


def await_leases(client: Elasticsearch, index: str) -> None:
    """Wait until Elasticsearch needs its copies no more: every half minute it looks."""
    deadline = time.monotonic() + LEASES_S
    while time.monotonic() < deadline:
        (told,) = client.indices.stats(index=index, level="shards")["indices"].values()
        ((shard,),) = told["shards"].values()
        done = shard["seq_no"]["global_checkpoint"]
        if all(lease["retaining_seq_no"] > done for lease in shard["retention_leases"]["leases"]):
            return
        time.sleep(0.5)
    print(f"{index}: its recovery copies are still kept and counted")


def memory(client: Elasticsearch) -> tuple[float, float]:
    """Return MiB: the node's heap in use, and what vectors and graph want to have in the page cache."""
    (node,) = client.nodes.stats(metric="jvm")["nodes"].values()
    vectors = client.indices.stats(index="ours", metric="dense_vector")["_all"]["total"]["dense_vector"]
    off_heap = vectors.get("off_heap", {}).get("total_size_bytes", 0)
    return node["jvm"]["mem"]["heap_used_in_bytes"] / 2**20, off_heap / 2**20


def timed(call: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    answer = call()
    return time.perf_counter() - begun, answer


def in_turns(place: int, one: Callable[[], T], other: Callable[[], T]) -> tuple[tuple[float, T], tuple[float, T]]:
    """Time both; who comes second changes from call to call."""
    if place % 2:
        second, first = timed(other), timed(one)
        return first, second
    return timed(one), timed(other)


def searches(store: ElasticStore, peer: Peer | None, queries: Queries, ours: Side, theirs: Side) -> None:
    if peer is None:
        side = alone(store, 100, queries)
        ours.one_s, ours.found, ours.found_of_all = side.one_s, side.found, side.found_of_all
        ours.all_s = [timed(lambda s=one: search(s, store, all_orientations=True))[0] for one in some_of(queries)]
        return

    def one(signature: Rows) -> list[str]:
        return [match.filepath for match in search(signature, store, all_orientations=False)]

    def sixteen(signature: Rows) -> object:
        return [peer.search(turned) for turned in turn(signature)]

    for signature in queries.signatures[:: max(1, len(queries.signatures) // WARM_UP)]:
        one(signature)
        peer.search(signature)
    for place, signature in enumerate(queries.signatures):
        # Bound now: called before the next turn.
        answers = in_turns(place, lambda s=signature: one(s), lambda s=signature: peer.search(s))
        for side, (spent, found) in zip((ours, theirs), answers, strict=True):
            side.one_s.append(spent)
            note(side, found, queries, place)
    some = some_of(queries)
    for place, signature in enumerate(some):
        answers = in_turns(
            place, lambda s=signature: search(s, store, all_orientations=True), lambda s=signature: sixteen(s)
        )
        # The first few warm up.
        if place >= len(some) // 10:
            ours.all_s.append(answers[0][0])
            theirs.all_s.append(answers[1][0])


def some_of(queries: Queries) -> Rows:
    return queries.signatures[:: max(1, len(queries.signatures) // TURNED)]


def note(side: Side, found: Sequence[str], queries: Queries, place: int) -> None:
    """Count what was to be found."""
    near, original = queries.near[place], queries.originals[place]
    side.found_of_all += len({filepath(row) for row in near}.intersection(found))
    if original in near:
        side.found.append(filepath(original) in found)


def listing(store: ElasticStore, peer: Peer | None, count: int) -> tuple[float, bool]:
    """Return the milliseconds of a page far down the list, and whether the peer refuses that offset."""
    offset = count * 5 // 6
    assert store.filepaths(offset=offset, limit=20).filepaths == [filepath(row) for row in range(offset, offset + 20)]
    spent = median(timed(lambda: store.filepaths(offset=offset, limit=20))[0] for _ in range(LISTS))
    if peer is None:
        return spent * 1000, False
    try:
        peer.client.search(index="peer", from_=offset, size=20, source=["path"])
    except BadRequestError:
        return spent * 1000, True
    return spent * 1000, False


def lines_of_searches(ours: Side, theirs: Side) -> list[Line]:
    every, every_peer = median(ours.all_s) * 1000, median(theirs.all_s or [0.0]) * 1000
    return [
        Line("share of pairs found", ">=", 0.995, ours.share, f"{len(ours.found)} pairs, peer {theirs.share:.3f}"),
        Line(
            "p50 of a search, against the peer",
            "<=",
            0.65,
            ratio(ours.p(50), theirs.p(50)),
            in_ms(ours.p(50), theirs.p(50)),
        ),
        Line("p95", "<=", 0.65, ratio(ours.p(95), theirs.p(95)), in_ms(ours.p(95), theirs.p(95))),
        Line("16 orientations, against 16 searches", "<=", 0.35, ratio(every, every_peer), in_ms(every, every_peer)),
    ]


def ratio(ours: float, theirs: float) -> float:
    """Return ours over theirs, or nan where the peer was left out."""
    return ours / theirs if theirs else float("nan")


def against(ours: float, theirs: float) -> str:
    return f"{ratio(ours, theirs):.1f} x"


def in_ms(ours: float, theirs: float) -> str:
    return f"{ours:.1f} ms, peer {theirs:.1f} ms"


def report(ours: Side, theirs: Side, queries: Queries, listed: tuple[float, bool]) -> None:
    listed_ms, refused = listed
    sizes = f"{ours.bytes_an_image:,.0f}, peer {theirs.bytes_an_image:,.0f}"
    rates = f"{ours.rate:,.0f}, peer {theirs.rate:,.0f}"
    lines = [
        *lines_of_searches(ours, theirs),
        Line("bytes an image, against the peer", "<=", 0.2, ratio(ours.bytes_an_image, theirs.bytes_an_image), sizes),
        Line("bulk images/s, against the peer", ">=", 1.2, ratio(ours.rate, theirs.rate), rates),
        Line("list at 5/6 of the images, ms", "<=", 60, listed_ms, "peer refuses" if refused else "peer answers"),
    ]
    print(f"{'':44} {'ask':>8}  {'got':>7}", *lines, sep="\n")
    total = sum(len(near) for near in queries.near)
    print(f"of all {total:,} stored below the cutoff: {ours.found_of_all:,} found, peer {theirs.found_of_all:,}")


def sweep(store: ElasticStore, url: str, queries: Queries, options: argparse.Namespace) -> None:
    """Search ours alone with other breadths and limits."""
    for breadth in options.sweep:
        other = ElasticStore(url, index=store.index, timeout_s=TIMEOUT_S, breadth=breadth)
        for limit in (50, 100):
            side = alone(other, limit, queries)
            share = f"share {side.share:.4f}, of all {side.found_of_all:,}"
            print(
                f"breadth {breadth}, limit {limit}: {share}, p50 {side.p(50):.1f} ms, p95 {side.p(95):.1f} ms",
                flush=True,
            )
        other.close()


def alone(store: ElasticStore, limit: int, queries: Queries) -> Side:
    side = Side()
    for signature in queries.signatures[:: max(1, len(queries.signatures) // WARM_UP)]:
        search(signature, store, all_orientations=False, limit=limit)
    for place, signature in enumerate(queries.signatures):
        spent, found = timed(lambda s=signature: search(s, store, all_orientations=False, limit=limit))
        side.one_s.append(spent)
        note(side, [match.filepath for match in found], queries, place)
    return side


def keep(file: Path, size: Size) -> None:
    """Put the size in the place of what stands there for as many images."""
    sizes = [one for one in kept(file) if one.images != size.images]
    file.write_text(json.dumps([asdict(one) for one in sorted([*sizes, size], key=lambda one: one.images)], indent=1))


def kept(file: Path) -> list[Size]:
    return [Size(**one) for one in json.loads(file.read_text())] if file.exists() else []


def growth(sizes: Sequence[Size]) -> list[str]:
    names = (
        f"{'p50 ms':>7} {'p95':>7} {'flat':>7} {'peer':>7}  {'bytes':>6} {'peer':>6}  {'vectors':>8} {'heap':>6} MiB"
    )
    lines = [f"\n{'images':>9}  {names}"]
    for one in sizes:
        times = f"{one.p50:7.1f} {one.p95:7.1f} {one.flat_p50:7.1f} {one.peer_p50:7.1f}"
        sizes_told = f"{one.bytes_an_image:6.0f} {one.peer_bytes:6.0f}  {one.vectors_mib:8.0f} {one.heap_mib:6.0f}"
        lines.append(f"{one.images:9,}  {times}  {sizes_told}")
    return lines


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[300_000])
    parser.add_argument("--vectors", choices=("hnsw", "flat"), default="hnsw")
    parser.add_argument("--breadth", type=int, default=500)
    parser.add_argument("--peer", choices=("words", "dynamic", "lean", "none"), default="words")
    parser.add_argument("--overwrite", action="store_true", help="add half of it again at the end")
    parser.add_argument("--results", type=Path, help="a file of JSON that keeps what is drawn")
    parser.add_argument("--picture", type=Path, help="an SVG of all results")
    parser.add_argument("--queries", type=int, default=100, help="originals, each altered in seven ways")
    parser.add_argument("--sweep", type=int, nargs="*", default=[], help="other breadths, ours alone")
    parser.add_argument("--before-merge", action="store_true")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
