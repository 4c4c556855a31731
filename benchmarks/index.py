"""Match's index against image-match's: recall, latency, size and write rate, on one real server.

    PYTHONPATH=. python benchmarks/index.py [--server elasticsearch|opensearch] [--images N ...] [--vectors hnsw|flat]
                                            [--peer words|dynamic|lean|none] [--large] [--overwrite] [--results FILE]

The peer is image-match's own index. A document has 63 words, the signature as an array of 648 in `_source`, and the
metadata. A search has 63 `term`s; the client computes the distances of the best 100 hits. The words are integer
fields, and the server maps the other fields dynamically, as for image-match. `--peer dynamic` maps the words
dynamically too: they become long. `--peer lean` indexes only the words, which image-match itself does not do.

Match's side is the store and the search of the service. Both indices have the same signatures, filepaths and metadata.
Four threads write them in requests of 500. Both indices are searched alternately as the server's merges leave them.
The sizes are those after a merge to one segment; Match's index is then searched again. A write rate includes
serialisation, requests and the final refresh, but not the creation of the records. image-match sends one request per
image: the benchmark prints that rate too. The rate of flat vectors is measured on an index of their own.

`--large` leaves out flat vectors, the merge to one segment, and the peer unless `--peer` names one: for millions of
images. `--overwrite` finally adds half of the images again, and searches before and after another merge. `--sweep`
searches Match's index with other values of `num_candidates`. Each size has a node of its own. With `--grow` all are of
one index: each adds the images that it lacks, with the options of `--large` and without a peer, and `--sweep` is of the
largest. `--results` adds the measurements to a JSON file, and `--plot` draws all of that file.

`benchmarks/parts/collection.py` describes the synthetic signatures and their limits.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import median

import numpy as np
from parts.collection import BLOCK, Queries, Rows, altered, collection, filepath
from parts.growth import Size, growth, load, save
from parts.image_match import TIMEOUT_S, Peer, peer_records, verify_words
from parts.measured_searches import Side, search_both, search_store
from parts.segments import await_merges, drop, memory, merged_bytes, release_copies, segments, stored_bytes
from parts.timing import timed
from parts.writing import REQUEST, THREADS, match_records, newer, put, rate

from common.errors import StoreError
from common.store.elastic import ElasticStore, Shape
from common.store.elastic.cluster import Cluster
from dev.elasticsearch_node import Node
from dev.opensearch_node import OpenSearchNode

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
HEAP_MIB = 4096
SERVERS = {"elasticsearch": Node, "opensearch": OpenSearchNode}
WARM_UP_WRITES = 30_000
LIST_CALLS = 25
SAMPLE = 50
SINGLE_WRITES = 2_000


@dataclass(frozen=True)
class Line:
    """One line of the table: a measured value and its target, a lower or an upper bound."""

    name: str
    bound: str
    target: float
    measured: float
    details: str

    def __str__(self) -> str:
        is_met = self.measured >= self.target if self.bound == ">=" else self.measured <= self.target
        verdict = "ok" if is_met else "MISSED"
        return f"{self.name:<44} {self.bound} {self.target:>5g}  {self.measured:>7.3f}  {verdict:<6}  {self.details}"


def main(options: argparse.Namespace) -> None:
    for size in grown(options) if options.grow else each_size(options):
        if options.results:
            save(options.results, size)
    if options.results:
        sizes = load(options.results)
        print(*growth(sizes), sep="\n")
        if options.plot:
            from parts.drawing import draw_growth  # noqa: PLC0415 - only a plot needs matplotlib

            draw_growth(sizes, options.plot)


def each_size(options: argparse.Namespace) -> Iterator[Size]:
    """Measure each size on a node of its own."""
    for count in options.images:
        with SERVERS[options.server](heap_mib=HEAP_MIB) as node:
            yield run(node.url, count, options)


def grown(options: argparse.Namespace) -> Iterator[Size]:
    """Measure one index at each size."""
    counts = sorted(options.images)
    paths = sorted(options.photos.glob("*.jpg"))
    rows, pixels = collection(np.random.default_rng(1), paths, counts[-1])
    queries = altered(pixels, options.queries, rows)
    with SERVERS[options.server](heap_mib=HEAP_MIB) as node:
        warm_up(node.url, rows[:WARM_UP_WRITES])
        store = create(node.url, "match", options.vectors, options.num_candidates)
        yield from sizes_of(store, rows, queries, counts)
        sweep(store, node.url, queries, options)
        store.close()


def sizes_of(
    store: ElasticStore, rows: Rows, queries: Queries, counts: Sequence[int], *, written: int = 0
) -> Iterator[Size]:
    """Write the first rows of each count, those that the index lacks, and measure its searches; then the next count."""
    for count in counts:
        side = Side(rate=write_rate(store, rows[:count], first=written) if written < count else 0.0)
        written = count
        yield measured(store, queries.among(count), side, count)


def measured(store: ElasticStore, queries: Queries, side: Side, count: int) -> Size:
    """Search the index without a peer, as the merges left it."""
    cluster = cluster_of(store)
    await_merges(cluster)
    documents = segments(cluster, store.index)
    print(f"\n{count:,} images in {len(documents)} segments: {documents}", flush=True)
    search_both(store, None, queries, side, Side())
    side.bytes_per_image = stored_bytes(cluster, store.index) / count
    size = size_of(count, documents, memory(cluster), match=side, flat=Side(), peer=Side())
    report(side, Side(), queries, list_page(store, None, count))
    return size


def size_of(  # noqa: PLR0913 - the sides are keyword arguments
    count: int, documents: Sequence[int], used: tuple[float, float], *, match: Side, flat: Side, peer: Side
) -> Size:
    """Return the measurements of an index with these segments; `used` is MiB of the heap, and of vectors and graphs."""
    heap, vectors = used
    return Size(
        images=count,
        p50=match.p(50),
        p95=match.p(95),
        all_p50=median(match.all_s) * 1000,
        flat_p50=flat.p(50),
        peer_p50=peer.p(50),
        recall=match.recall,
        bytes_per_image=match.bytes_per_image,
        peer_bytes=peer.bytes_per_image,
        heap_mib=heap,
        vectors_mib=vectors,
        one_cpu_ms=match.one_cpu_s * 1000,
        all_cpu_ms=match.all_cpu_s * 1000,
        segments=len(documents),
        images_per_s=match.rate,
    )


def run(url: str, count: int, options: argparse.Namespace) -> Size:
    paths = sorted(options.photos.glob("*.jpg"))[:count]
    rows, pixels = collection(np.random.default_rng(1), paths, count)
    verify_words(rows[:SAMPLE])
    queries = altered(pixels, options.queries, rows)
    print(
        f"\n{count:,} images, {options.server}, {options.vectors}, "
        f"num_candidates {options.num_candidates or 'by the sizes of the segments'}, peer {options.peer}",
        flush=True,
    )
    warm_up(url, rows[:WARM_UP_WRITES])
    flat = Side() if options.large else measure_flat(url, rows, queries)
    store = create(url, "match", options.vectors, options.num_candidates)
    cluster = cluster_of(store)
    match_side, peer_side = Side(rate=write_rate(store, rows)), Side()
    await_merges(cluster)
    peer = None if options.peer == "none" else Peer(url, options.peer)
    single_rate = write_peer(peer, rows, peer_side) if peer else 0.0
    documents = segments(cluster, store.index)
    print(f"{len(documents)} segments: {documents}", flush=True)
    search_both(store, peer, queries, match_side, peer_side)
    match_side.bytes_per_image = stored_bytes(cluster, store.index) / count
    used = memory(cluster)
    page = list_page(store, peer, count)
    merged = Side()
    if not options.large:
        release_copies(store, cluster, match_records(0, rows[:SAMPLE]))
        match_side.bytes_per_image = merged_bytes(cluster, "match") / count
        merged = search_store(store, 100, queries)
        merged.bytes_per_image = match_side.bytes_per_image
        if peer:
            peer_side.bytes_per_image = merged_bytes(cluster, "peer") / (count + min(SINGLE_WRITES, count))
    report(match_side, peer_side, queries, page)
    if not options.large:
        report_others(flat, peer_side, single_rate)
        print(in_state("merged to one segment", merged, merged.bytes_per_image), flush=True)
    sweep(store, url, queries, options)
    size = size_of(count, documents, used, match=match_side, flat=flat, peer=peer_side)
    if options.overwrite:
        overwrite(store, rows, queries, size)
    store.close()
    return size


def warm_up(url: str, rows: Rows) -> None:
    """Write some records of each kind: a JVM that has just started is many times slower."""
    store, peer = create(url, "warm-up", "hnsw", 1), Peer(url, "words")
    write_rate(store, rows)
    rate(rows, peer_records, peer.put, peer.refresh)
    drop(peer.cluster, "warm-up", "peer")
    store.close()


def create(url: str, name: str, vectors: str, num_candidates: int | None) -> ElasticStore:
    store = ElasticStore(
        url, index=name, timeout_s=TIMEOUT_S, shape=Shape(vectors=vectors, replicas="0"), num_candidates=num_candidates
    )
    store.prepare()
    return store


def cluster_of(store: ElasticStore) -> Cluster:
    """Return the store's own cluster, for statistics of the index."""
    return store._connection.cluster()  # noqa: SLF001 - only this benchmark needs it


def write_rate(store: ElasticStore, rows: Rows, *, first: int = 0) -> float:
    """Write the rows from `first` on to the store; return images a second."""
    return rate(rows, match_records, lambda records: put(store, records), store.refresh, first=first)


def write_peer(peer: Peer, rows: Rows, peer_side: Side) -> float:
    """Write all rows to the peer, then some again with a request each; return images a second of the latter."""
    peer_side.rate = rate(rows, peer_records, peer.put, peer.refresh)
    await_merges(peer.cluster)
    records = peer_records(0, rows[:SINGLE_WRITES])
    with ThreadPoolExecutor(THREADS) as pool:
        return len(records) / timed(lambda: list(pool.map(peer.put_one, records)))[0]


def measure_flat(url: str, rows: Rows, queries: Queries) -> Side:
    """Write and search an index of flat vectors on an empty node, then delete it."""
    store = create(url, "flat", "flat", 1)
    cluster = cluster_of(store)
    images_per_s = write_rate(store, rows)
    await_merges(cluster)
    merged_bytes(cluster, "flat")
    side = search_store(store, 100, queries)
    side.rate = images_per_s
    drop(cluster, "flat")
    store.close()
    return side


def overwrite(store: ElasticStore, rows: Rows, queries: Queries, size: Size) -> None:
    """Add every other image again, as a client does that adds a folder twice; search before and after a merge."""
    again = np.arange(0, len(rows), 2)
    with ThreadPoolExecutor(THREADS) as pool:
        for part in np.array_split(again, max(1, len(again) // BLOCK)):
            renewed = [
                newer(record, len(rows)) for row in part.tolist() for record in match_records(row, rows[row : row + 1])
            ]
            requests = [renewed[start : start + REQUEST] for start in range(0, len(renewed), REQUEST)]
            list(pool.map(lambda records: put(store, records), requests))
    store.refresh()
    cluster = cluster_of(store)
    await_merges(cluster)
    before = search_store(store, 100, queries)
    bytes_before = stored_bytes(cluster, store.index) / len(rows)
    release_copies(store, cluster, [newer(record, len(rows)) for record in match_records(0, rows[:SAMPLE])])
    bytes_after = merged_bytes(cluster, store.index) / len(rows)
    after = search_store(store, 100, queries)
    print(in_state("half of the images added again", before, bytes_before))
    print(in_state("then merged", after, bytes_after), flush=True)
    size.overwritten_p50, size.overwritten_recall = before.p(50), before.recall
    size.merged_p50, size.merged_recall = after.p(50), after.recall


def in_state(name: str, side: Side, bytes_per_image: float) -> str:
    times = f"p50 {side.p(50):.1f} ms, p95 {side.p(95):.1f} ms"
    return f"{name}: recall {side.recall:.4f}, {times}, {bytes_per_image:.0f} bytes per image"


def list_page(store: ElasticStore, peer: Peer | None, count: int) -> tuple[float, bool]:
    """Return the milliseconds of a page with a large offset, and whether the peer rejects that offset."""
    offset = count * 5 // 6
    assert store.filepaths(offset=offset, limit=20).filepaths == [filepath(row) for row in range(offset, offset + 20)]
    spent = median(timed(lambda: store.filepaths(offset=offset, limit=20))[0] for _ in range(LIST_CALLS))
    if peer is None:
        return spent * 1000, False
    try:
        peer.cluster.post("/peer/_search", {"from": offset, "size": 20, "_source": ["path"]})
    except StoreError:
        return spent * 1000, True
    return spent * 1000, False


def search_lines(match_side: Side, peer_side: Side) -> list[Line]:
    all_ms, peer_all_ms = median(match_side.all_s) * 1000, median(peer_side.all_s or [0.0]) * 1000
    pairs = f"{len(match_side.is_found)} pairs, peer {peer_side.recall:.3f}"
    return [
        Line("recall of the originals", ">=", 0.999, match_side.recall, pairs),
        Line(
            "p50 of a search / peer's",
            "<=",
            0.5,
            ratio(match_side.p(50), peer_side.p(50)),
            in_ms(match_side.p(50), peer_side.p(50)),
        ),
        Line(
            "p95 of a search / peer's",
            "<=",
            0.65,
            ratio(match_side.p(95), peer_side.p(95)),
            in_ms(match_side.p(95), peer_side.p(95)),
        ),
        Line(
            "16 orientations / peer's 16 searches", "<=", 0.35, ratio(all_ms, peer_all_ms), in_ms(all_ms, peer_all_ms)
        ),
        Line("16 orientations / one", "<=", 2.5, ratio(all_ms, match_side.p(50)), ""),
        Line("16 orientations / one, CPU of the node", "<=", 2.5, match_side.cpu_ratio, match_side.cpu_details),
    ]


def ratio(match_value: float, peer_value: float) -> float:
    """Return the ratio of both values, or nan without a peer."""
    return match_value / peer_value if peer_value else float("nan")


def in_ms(match_ms: float, peer_ms: float) -> str:
    return f"{match_ms:.1f} ms, peer {peer_ms:.1f} ms"


def report(match_side: Side, peer_side: Side, queries: Queries, page: tuple[float, bool]) -> None:
    page_ms, is_rejected = page
    sizes = f"{match_side.bytes_per_image:,.0f}, peer {peer_side.bytes_per_image:,.0f}"
    size_ratio = ratio(match_side.bytes_per_image, peer_side.bytes_per_image)
    rates = f"{match_side.rate:,.0f}, peer {peer_side.rate:,.0f}"
    lines = [
        *search_lines(match_side, peer_side),
        Line("bytes per image / peer's", "<=", 0.2, size_ratio, sizes),
        Line("bulk images/s / peer's", ">=", 1.2, ratio(match_side.rate, peer_side.rate), rates),
        Line("list at 5/6 of the images, ms", "<=", 60, page_ms, "rejected by the peer" if is_rejected else ""),
    ]
    # Without a peer there is no ratio to it.
    known = [line for line in lines if not isnan(line.measured)]
    print(f"{'':44} {'target':>8}  {'measured':>8}", *known, sep="\n")
    total = sum(len(near) for near in queries.near)
    print(
        f"of {total:,} matches within the cutoff: {match_side.found_of_all:,} found, peer {peer_side.found_of_all:,}",
        flush=True,
    )


def report_others(flat: Side, peer_side: Side, single_rate: float) -> None:
    """Report flat vectors, and the peer's rate with one request per image."""
    print(
        f"flat: {flat.rate:,.0f} images/s ({ratio(flat.rate, peer_side.rate):.1f} x the peer's, target 4), "
        f"p50 {flat.p(50):.1f} ms, p95 {flat.p(95):.1f} ms, recall {flat.recall:.4f}"
    )
    print(f"peer with one request per image, as image-match writes: {single_rate:,.0f} images/s", flush=True)


def sweep(store: ElasticStore, url: str, queries: Queries, options: argparse.Namespace) -> None:
    """Search Match's index with other values of num_candidates and limits."""
    for num_candidates in options.sweep:
        other = ElasticStore(url, index=store.index, timeout_s=TIMEOUT_S, num_candidates=num_candidates)
        for limit in (50, 100):
            side = search_store(other, limit, queries)
            recall = f"recall {side.recall:.4f}, matches {side.found_of_all:,}"
            times = f"p50 {side.p(50):.1f} ms, p95 {side.p(95):.1f} ms"
            print(f"num_candidates {num_candidates}, limit {limit}: {recall}, {times}", flush=True)
        other.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[300_000])
    parser.add_argument("--server", choices=tuple(SERVERS), default="elasticsearch")
    parser.add_argument("--vectors", choices=("hnsw", "flat"), default="hnsw")
    parser.add_argument("--num-candidates", type=int, help="instead of the service's own choice")
    parser.add_argument("--peer", choices=("words", "dynamic", "lean", "none"), help="default: words; none if --large")
    parser.add_argument("--large", action="store_true", help="without flat vectors and the merge to one segment")
    parser.add_argument("--grow", action="store_true", help="all sizes in one index, without a peer")
    parser.add_argument("--overwrite", action="store_true", help="finally add half of the images again")
    parser.add_argument("--results", type=Path, help="JSON file of the measurements")
    parser.add_argument("--plot", type=Path, help="SVG file to draw all results to")
    parser.add_argument("--queries", type=int, default=100, help="number of originals, each altered in seven ways")
    parser.add_argument("--sweep", type=int, nargs="*", default=[], help="other values of num_candidates")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    options = parser.parse_args()
    options.peer = options.peer or ("none" if options.large else "words")
    return options


if __name__ == "__main__":
    main(arguments())
