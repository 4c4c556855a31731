"""The index against image-match's: what is found, how fast, in how many bytes, on one real Elasticsearch node.

    python benchmarks/index.py [--images N ...] [--vectors hnsw|flat] [--breadth N] [--queries N] [--sweep N ...]
                               [--before-merge] [--peer-mapping lean|dynamic] [--photos FOLDER]

The peer is image-match's own way: 63 integer fields of words, the signature an array in `_source`, a search of 63
`term`s of which the best 100 are measured here. Ours is the service's store and search as they stand. Both hold the
same signatures, names and metadata, are written by two threads in requests of 500, and are merged to one segment
before they are searched, in turns. A rate counts serialising, sending and the refresh at the end, not the making of
the records.

image-match makes no mapping: what Elasticsearch then makes of its records (words as long, the 648 values indexed, the
metadata as text) is `--peer-mapping dynamic`; lean, the default, keeps an index of nothing but the words, as integers.

`--before-merge` searches once more before the merge; `--sweep` tries other breadths on ours; with several sizes, each
has its own node and the last table is the growth.

Queries are altered photographs, and what has to be found is the original, where its distance is below the cutoff.

Signatures other than the photographs' are synthetic. A photograph's grey levels, at a contrast of one, are a mix of the
patterns that photographs have in common (principal components): a synthetic one takes the 15 strongest patterns from
one photograph and how much there is of each of the others from a photograph of its own. How much of it is even, where
values are 0, it takes from yet another. So neighbours go together as in photographs, values have the same shares, and
unrelated pairs are as far apart (both are printed). What that can mislead about: there are no near copies, series or
drawings, even regions do not hang together, and what is alike in the 15 patterns is so in all of them. A few hundred
photographs know few themes: a graph over millions of real pictures may be walked better or worse, and words that in
real life come again and again (skies, frames, white grounds) make image-match's searches longer than here.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from elasticsearch import BadRequestError, Elasticsearch
from image_match.signature_database_base import get_words, max_contrast, words_to_int
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.images import decode  # noqa: E402 - run as a script, the checkout is not on the path yet
from common.orientations import turn  # noqa: E402 - the same
from common.search import CUTOFF, search  # noqa: E402 - the same
from common.signature import FIRST, SECOND, _levels, distances, expand, sign  # noqa: E402 - the same
from common.store.base import Record, Verdict  # noqa: E402 - the same
from common.store.elastic import ElasticStore, Shape  # noqa: E402 - the same
from dev.elasticsearch_node import Node  # noqa: E402 - the same

PHOTOS = ROOT.parent / "shared" / "data" / "photos"
WORD, WORDS, SIZE = 16, 63, 100
BLOCK = 10_000
REQUEST = 500
THREADS = 2
HEAP_MIB = 4096
TIMEOUT_S = 3600.0
# Patterns that a synthetic signature has from one photograph: with 15, pairs as near as .47 are as rare as in reality.
TOGETHER = 15
METADATA_BYTES = 200
# Requests take their places from a clock in microseconds: a far offset is sought in such a range.
FIRST_SEQ, STEP_SEQ = 1_700_000_000_000_000, 1_700
WARM_UP = 200
TURNED = 60
LISTS = 25
LEASES_S = 90.0
FEW = 50

Rows = NDArray[np.int8]
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
        return float(np.percentile(self.one_s, percent)) * 1000


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


@dataclass(frozen=True)
class Queries:
    """Altered photographs, the row of each one's original, and all rows below the cutoff."""

    signatures: Rows
    originals: list[int]
    near: list[set[int]]


class Peer:
    """image-match's index and search (its driver asks for Elasticsearch 2.3: this is what it sends)."""

    def __init__(self, url: str, mapping: str) -> None:
        self.client = Elasticsearch(url, request_timeout=TIMEOUT_S)
        word = {f"simple_word_{number}": {"type": "integer"} for number in range(WORDS)}
        kept: dict[str, Any] = {
            "path": {"type": "keyword"},
            "signature": {"type": "integer", "index": False, "doc_values": False},
            "metadata": {"type": "object", "enabled": False},
        }
        self.client.indices.create(
            index="peer",
            mappings={"properties": word | kept} if mapping == "lean" else {},
            settings={"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "1000ms"},
        )

    def put(self, records: Sequence[dict[str, Any]]) -> None:
        answer = self.client.bulk(
            index="peer", operations=[f'{{"index":{{}}}}\n{json.dumps(one)}\n' for one in records]
        )
        assert not answer["errors"]

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
    found = (padded[:, starts[:, np.newaxis] + np.arange(WORD)] + 1) @ 3 ** np.arange(WORD)
    theirs = get_words(values[0], WORD, WORDS)
    max_contrast(theirs)
    assert (words_to_int(theirs) == found[0]).all()
    return found


def peer_distances(rows: Rows, one: Rows) -> NDArray[np.float64]:
    """Return image-match's `normalized_distance`."""
    many, query = rows.astype(int), one.astype(int)
    norms = np.linalg.norm(many, axis=1) + np.linalg.norm(query)
    return np.linalg.norm(many - query, axis=1) / norms


def main(options: argparse.Namespace) -> None:
    growth = []
    for count in options.images:
        with Node(heap_mib=HEAP_MIB) as node:
            growth.append(run(node.url, count, options))
    if len(growth) > 1:
        print(f"\n{'images':>9}  {'p50 ms':>7} {'peer':>7}  {'bytes':>6} {'peer':>6}  heap MiB, vectors MiB")
        print(*growth, sep="\n")


def run(url: str, count: int, options: argparse.Namespace) -> str:
    rng = np.random.default_rng(1)
    paths = sorted(options.photos.glob("*.jpg"))[:count]
    rows, pixels = collection(rng, paths, count)
    queries = altered(pixels, options.queries, rows)
    print(
        f"\n{count:,} images, {options.vectors}, breadth {options.breadth}, peer's mapping {options.peer_mapping}",
        flush=True,
    )
    store = ElasticStore(
        url,
        index="ours",
        timeout_s=TIMEOUT_S,
        shape=Shape(vectors=options.vectors, replicas="0"),
        breadth=options.breadth,
    )
    store.prepare()
    peer = Peer(url, options.peer_mapping)
    ours, theirs = Side(), Side()
    ours.rate = rate(rows, our_records, lambda records: put(store, records), store.refresh)
    settle(peer.client)
    theirs.rate = rate(rows, peer_records, peer.put, lambda: peer.client.indices.refresh(index="peer"))
    settle(peer.client)
    if options.before_merge:
        before = Side(rate=ours.rate), Side(rate=theirs.rate)
        searches(store, peer, queries, *before)
        print("before the merge:", *lines_of_searches(*before), sep="\n", flush=True)
    forget_copies(store, peer.client, rows)
    ours.bytes_an_image = merged_bytes(peer.client, "ours") / count
    theirs.bytes_an_image = merged_bytes(peer.client, "peer") / count
    searches(store, peer, queries, ours, theirs)
    report(ours, theirs, queries, listing(store, peer, count))
    sweep(store, url, queries, options)
    store.close()
    heap, vectors = memory(peer.client)
    sizes = f"{ours.bytes_an_image:6.0f} {theirs.bytes_an_image:6.0f}"
    return f"{count:9,}  {ours.p(50):7.1f} {theirs.p(50):7.1f}  {sizes}  {heap:.0f}, {vectors:.0f}"


def collection(rng: np.random.Generator, paths: Sequence[Path], count: int) -> tuple[Rows, list[NDArray[np.uint8]]]:
    """Return `count` signatures, first those of the photographs, and the photographs."""
    pixels = [decode(path.read_bytes()).pixels for path in paths]
    photos = np.array([sign(one) for one in pixels])
    levels = np.array([_levels(one) for one in pixels])
    made = np.concatenate(list(synthetic(rng, photos, levels, count - len(photos))))
    some = made[:1500]
    print(f"{'':14} {'mean':>6} {'sd':>6} {'1 in 1,000':>11} {'1 in 100,000':>13}   shares of -2 … 2")
    for name, one in (("photographs", photos), ("synthetic", some)):
        apart = np.concatenate([distances(row, one[place + 1 :]) for place, row in enumerate(one[:-1])])
        near, nearest = np.quantile(apart, [1e-3, 1e-5])
        shares = " ".join(f"{(one == value).mean():.3f}" for value in range(-2, 3))
        print(f"{name:14} {apart.mean():6.3f} {apart.std():6.3f} {near:11.3f} {nearest:13.3f}   {shares}")
    return np.concatenate([photos, made]), pixels


def synthetic(rng: np.random.Generator, photos: Rows, levels: NDArray[np.float64], count: int) -> Iterator[Rows]:
    """Yield `count` signatures in blocks; the first lines of this file say how they are made."""
    kept = photos.any(axis=1)
    centred = levels[kept] - levels[kept].mean(axis=1, keepdims=True)
    even = (photos[kept] == 0).mean(axis=1)
    contrasts = centred / centred.std(axis=1, keepdims=True)
    mean = contrasts.mean(axis=0)
    patterns = np.linalg.svd(contrasts - mean, full_matrices=False)[2]
    amounts = (contrasts - mean) @ patterns.T
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        mixed = np.stack([rng.choice(column, size) for column in amounts.T], axis=1)
        mixed[:, :TOGETHER] = amounts[rng.integers(0, len(amounts), size), :TOGETHER]
        grey = mean + mixed @ patterns
        yield ranked(grey[:, FIRST] - grey[:, SECOND], rng.choice(even, size)[:, np.newaxis])


def ranked(differences: NDArray[np.float64], even: NDArray[np.float64]) -> Rows:
    """Return 0 for the smallest differences, a share `even` of each row; of the others the greater half is 2."""
    places = np.abs(differences).argsort(axis=1).argsort(axis=1) / differences.shape[1]
    sizes = (places >= even).astype(np.int8) + (places >= (1 + even) / 2)
    return (sizes * np.sign(differences)).astype(np.int8)


def altered(pixels: Sequence[NDArray[np.uint8]], count: int, rows: Rows) -> Queries:
    """Return seven alterations of photographs from all over the collection."""
    places = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int).tolist()
    made = [(place, sign(np.array(one))) for place in places for one in alterations(Image.fromarray(pixels[place]))]
    signatures = np.array([signature for _, signature in made])
    near: list[set[int]] = [set() for _ in made]
    for start in range(0, len(rows), BLOCK):
        below = nearer(signatures, rows[start : start + BLOCK], CUTOFF)
        for query, row in zip(*(axis.tolist() for axis in below.nonzero()), strict=True):
            near[query].add(start + row)
    return Queries(signatures, [place for place, _ in made], near)


def nearer(queries: Rows, rows: Rows, cutoff: float) -> NDArray[np.bool_]:
    """Say of each query and row whether they are nearer than the cutoff: one product for all."""
    one, many = queries.astype(np.float32), rows.astype(np.float32)
    squared = [np.einsum("ij,ij->i", side, side).astype(np.float64) for side in (one, many)]
    apart = squared[0][:, np.newaxis] + squared[1] - 2 * (one @ many.T).astype(np.float64)
    norms = np.sqrt(squared[0])[:, np.newaxis] + np.sqrt(squared[1])
    near: NDArray[np.bool_] = np.sqrt(apart) < cutoff * norms
    return near


def alterations(picture: Image.Image) -> Iterator[Image.Image]:
    wide, high = picture.size
    yield picture.resize((max(1, wide // 2), max(1, high // 2)), Image.Resampling.BICUBIC)
    for percent in (3, 5):
        right, down = wide * percent // 100, high * percent // 100
        yield picture.crop((right, down, wide - right, high - down))
    captioned = picture.copy()
    draw = ImageDraw.Draw(captioned)
    draw.rectangle((0, high * 9 // 10, wide, high), fill="white")
    draw.text((wide // 20, high * 92 // 100), "when you see it at last", fill="black", font_size=max(8, high // 18))
    yield captioned
    yield ImageOps.expand(picture, border=max(wide, high) * 3 // 100, fill="black")
    yield picture.rotate(2, Image.Resampling.BICUBIC)
    file = BytesIO()
    picture.save(file, "JPEG", quality=30)
    yield Image.open(file).convert("RGB")


def filepath(row: int) -> str:
    return f"albums/{row % 997:03}/picture-{row:08}.jpg"


def metadata(row: int) -> dict[str, Any]:
    """Return 200 bytes of JSON, of which the row's own numbers compress badly and the rest well."""
    rng = random.Random(row)
    told = {
        "album": {"name": f"album {row % 997}", "owner": f"user-{rng.randrange(5_000)}"},
        "tags": [f"tag-{rng.randrange(300)}" for _ in range(4)],
        "sha1": rng.randbytes(20).hex(),
        "year": rng.randrange(1990, 2026),
        "note": "",
    }
    return told | {"note": ("a picture like many others " * 5)[: METADATA_BYTES - len(json.dumps(told))]}


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
    return int(client.indices.stats(index=index, metric="store")["_all"]["primaries"]["store"]["size_in_bytes"])


def forget_copies(store: ElasticStore, client: Elasticsearch, rows: Rows) -> None:
    """Have the next merge drop the copies of what `_source` leaves out, kept for replicas that might ask for them.

    A single segment would not be merged, so a few pictures are written again; twice, because a commit counts only once
    the next one knows that all before it has arrived.
    """
    await_leases(client, store.index)
    for _ in range(2):
        put(store, our_records(0, rows[:FEW]))
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


def searches(store: ElasticStore, peer: Peer, queries: Queries, ours: Side, theirs: Side) -> None:
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
    some = queries.signatures[:: max(1, len(queries.signatures) // TURNED)]
    for place, signature in enumerate(some):
        answers = in_turns(
            place, lambda s=signature: search(s, store, all_orientations=True), lambda s=signature: sixteen(s)
        )
        # The first few warm up.
        if place >= len(some) // 10:
            ours.all_s.append(answers[0][0])
            theirs.all_s.append(answers[1][0])


def note(side: Side, found: Sequence[str], queries: Queries, place: int) -> None:
    """Count what was to be found."""
    near, original = queries.near[place], queries.originals[place]
    side.found_of_all += len({filepath(row) for row in near}.intersection(found))
    if original in near:
        side.found.append(filepath(original) in found)


def listing(store: ElasticStore, peer: Peer, count: int) -> tuple[float, bool]:
    """Return the milliseconds of a page far down the list, and whether the peer refuses that offset."""
    offset = count * 5 // 6
    assert store.filepaths(offset=offset, limit=20) == [filepath(row) for row in range(offset, offset + 20)]
    spent = median(timed(lambda: store.filepaths(offset=offset, limit=20))[0] for _ in range(LISTS))
    try:
        peer.client.search(index="peer", from_=offset, size=20, source=["path"])
    except BadRequestError:
        return spent * 1000, True
    return spent * 1000, False


def lines_of_searches(ours: Side, theirs: Side) -> list[Line]:
    share, peers = float(np.mean(ours.found)), float(np.mean(theirs.found))
    every, every_peer = median(ours.all_s) * 1000, median(theirs.all_s) * 1000
    return [
        Line("share of pairs found", ">=", 0.995, share, f"{len(ours.found)} pairs, peer {peers:.3f}"),
        Line(
            "p50 of a search, against the peer", "<=", 0.65, ours.p(50) / theirs.p(50), in_ms(ours.p(50), theirs.p(50))
        ),
        Line("p95", "<=", 0.65, ours.p(95) / theirs.p(95), in_ms(ours.p(95), theirs.p(95))),
        Line("16 orientations, against 16 searches", "<=", 0.35, every / every_peer, in_ms(every, every_peer)),
    ]


def in_ms(ours: float, theirs: float) -> str:
    return f"{ours:.1f} ms, peer {theirs:.1f} ms"


def report(ours: Side, theirs: Side, queries: Queries, listed: tuple[float, bool]) -> None:
    listed_ms, refused = listed
    sizes = f"{ours.bytes_an_image:,.0f}, peer {theirs.bytes_an_image:,.0f}"
    rates = f"{ours.rate:,.0f}, peer {theirs.rate:,.0f}"
    lines = [
        *lines_of_searches(ours, theirs),
        Line("bytes an image, against the peer", "<=", 0.2, ours.bytes_an_image / theirs.bytes_an_image, sizes),
        Line("bulk images/s, against the peer", ">=", 1.2, ours.rate / theirs.rate, rates),
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
            share = f"share {np.mean(side.found):.4f}, of all {side.found_of_all:,}"
            print(
                f"breadth {breadth}, limit {limit}: {share}, p50 {side.p(50):.1f} ms, p95 {side.p(95):.1f} ms",
                flush=True,
            )
        other.close()


def alone(store: ElasticStore, limit: int, queries: Queries) -> Side:
    side = Side()
    for place, signature in enumerate(queries.signatures):
        spent, found = timed(lambda s=signature: search(s, store, all_orientations=False, limit=limit))
        side.one_s.append(spent)
        note(side, [match.filepath for match in found], queries, place)
    return side


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[300_000])
    parser.add_argument("--vectors", choices=("hnsw", "flat"), default="hnsw")
    parser.add_argument("--breadth", type=int, default=500)
    parser.add_argument("--peer-mapping", choices=("lean", "dynamic"), default="lean")
    parser.add_argument("--queries", type=int, default=100, help="originals, each altered in seven ways")
    parser.add_argument("--sweep", type=int, nargs="*", default=[], help="other breadths, ours alone")
    parser.add_argument("--before-merge", action="store_true")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
