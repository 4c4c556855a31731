"""The index against image-match's: what is found, how fast, in how many bytes, on one real Elasticsearch node.

    PYTHONPATH=. python benchmarks/index.py [--images N ...] [--vectors hnsw|flat] [--num-candidates N] [--queries N]
                                            [--sweep N ...] [--peer words|dynamic|lean|none] [--overwrite]
                                            [--before-merge] [--results FILE] [--picture FILE] [--photos FOLDER]

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from elasticsearch import BadRequestError, Elasticsearch
from parts.collection import BLOCK, Queries, Rows, altered, collection, filepath
from parts.growth import Size, growth, keep, kept
from parts.image_match import TIMEOUT_S, Peer, peer_records, require_image_matchs_words
from parts.searching import Side, alone, searches
from parts.segments import drop, forget_copies, memory, merged_bytes, settle, stored_bytes
from parts.timing import timed
from parts.writing import REQUEST, THREADS, newer, our_records, put, rate

from common.store.elastic import ElasticStore, Shape
from dev.elasticsearch_node import Node

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
HEAP_MIB = 4096
WARM_UP_WRITES = 30_000
LISTS = 25
FEW = 50
OWN_WAY = 2_000


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
            from parts.drawing import draw_growth  # noqa: PLC0415 - said above

            draw_growth(sizes, options.picture)


def run(url: str, count: int, options: argparse.Namespace) -> Size:
    paths = sorted(options.photos.glob("*.jpg"))[:count]
    rows, pixels = collection(np.random.default_rng(1), paths, count)
    require_image_matchs_words(rows[:FEW])
    queries = altered(pixels, options.queries, rows)
    print(
        f"\n{count:,} images, {options.vectors}, num_candidates {options.num_candidates}, peer {options.peer}",
        flush=True,
    )
    warm_up(url, rows[:WARM_UP_WRITES])
    flat = alone_flat(url, rows, queries)
    store = made(url, "ours", options.vectors, options.num_candidates)
    client = client_of(store)
    ours, theirs = Side(rate=rate_of(store, rows)), Side()
    settle(client)
    peer = None if options.peer == "none" else Peer(url, options.peer)
    own_way = write_peer(peer, rows, theirs) if peer else 0.0
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
    report_others(flat, theirs, own_way)
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
    rate_of(store, rows)
    rate(rows, peer_records, peer.put, peer.refresh)
    drop(peer.client, "warm-up", "peer")
    store.close()


def made(url: str, name: str, vectors: str, num_candidates: int) -> ElasticStore:
    store = ElasticStore(
        url, index=name, timeout_s=TIMEOUT_S, shape=Shape(vectors=vectors, replicas="0"), num_candidates=num_candidates
    )
    store.prepare()
    return store


def client_of(store: ElasticStore) -> Elasticsearch:
    """Return the store's own client, to look at what stands."""
    return store._client  # noqa: SLF001 - said above


def rate_of(store: ElasticStore, rows: Rows) -> float:
    """Write all to the store, and return images a second."""
    return rate(rows, our_records, lambda records: put(store, records), store.refresh)


def write_peer(peer: Peer, rows: Rows, theirs: Side) -> float:
    """Write all to the peer, then some once more with a request each; return images a second of the latter."""
    theirs.rate = rate(rows, peer_records, peer.put, peer.refresh)
    settle(peer.client)
    records = peer_records(0, rows[:OWN_WAY])
    with ThreadPoolExecutor(THREADS) as pool:
        return len(records) / timed(lambda: list(pool.map(peer.put_one, records)))[0]


def alone_flat(url: str, rows: Rows, queries: Queries) -> Side:
    """Write and search flat vectors while nothing else is there; the index is gone afterwards."""
    store = made(url, "flat", "flat", 1)
    client = client_of(store)
    images_a_second = rate_of(store, rows)
    settle(client)
    merged_bytes(client, "flat")
    side = alone(store, 100, queries)
    side.rate = images_a_second
    drop(client, "flat")
    store.close()
    return side


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
    client = client_of(store)
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


def report_others(flat: Side, theirs: Side, own_way: float) -> None:
    """Tell of flat vectors, and of the peer as image-match itself writes to it."""
    print(
        f"flat: {flat.rate:,.0f} images/s ({against(flat.rate, theirs.rate)} the peer's, asked 4), "
        f"p50 {flat.p(50):.1f} ms, p95 {flat.p(95):.1f} ms, share found {flat.share:.4f}"
    )
    print(f"the peer with a request a picture, as image-match writes: {own_way:,.0f} images/s", flush=True)


def sweep(store: ElasticStore, url: str, queries: Queries, options: argparse.Namespace) -> None:
    """Search ours alone with other values of num_candidates and limits."""
    for num_candidates in options.sweep:
        other = ElasticStore(url, index=store.index, timeout_s=TIMEOUT_S, num_candidates=num_candidates)
        for limit in (50, 100):
            side = alone(other, limit, queries)
            share = f"share {side.share:.4f}, of all {side.found_of_all:,}"
            times = f"p50 {side.p(50):.1f} ms, p95 {side.p(95):.1f} ms"
            print(
                f"num_candidates {num_candidates}, limit {limit}: {share}, {times}",
                flush=True,
            )
        other.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[300_000])
    parser.add_argument("--vectors", choices=("hnsw", "flat"), default="hnsw")
    parser.add_argument("--num-candidates", type=int, default=500)
    parser.add_argument("--peer", choices=("words", "dynamic", "lean", "none"), default="words")
    parser.add_argument("--overwrite", action="store_true", help="add half of it again at the end")
    parser.add_argument("--results", type=Path, help="a file of JSON that keeps what is drawn")
    parser.add_argument("--picture", type=Path, help="an SVG of all results")
    parser.add_argument("--queries", type=int, default=100, help="originals, each altered in seven ways")
    parser.add_argument("--sweep", type=int, nargs="*", default=[], help="other values of num_candidates, ours alone")
    parser.add_argument("--before-merge", action="store_true")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
