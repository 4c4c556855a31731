"""Local features in the stores: CPU and bytes of an add, and CPU of a lookup by words, beside searches by signature.

    PYTHONPATH=. python benchmarks/word_lookup.py [--photos FOLDER] [--embedded N] [--elasticsearch N]

Each store has a copy with local features and one without. Both get the same signatures, alternately in batches, so that
the ratios are of one run. CPU is that of this process and of the node together, without background merges of the node
after the writes. Then the index with features is merged to one segment.

The collection has half of the photographs and synthetic images, which `parts/collection.py` and
`parts/feature_index.py` describe. A query is a photograph of the collection, without a twentieth of it at each side,
saved again as a JPEG of quality 85. `thorough` costs the last three lines beyond `fast`.

The unit is Pillow's decode of the files of the collection that the queries are cut from, as in `quality.py`. The query
itself is smaller and has fewer chroma values: its own decode is a line of the table, and the unit of the last column.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it when it is imported

import numpy as np
from numpy.typing import NDArray
from parts.collection import Rows, collection
from parts.feature_index import Distractors
from parts.pipelines import cpu_s
from parts.segments import merged_bytes, release_copies
from parts.split import measured, photographs, tuned
from parts.timing import timed
from PIL import Image

from common.images.decode import decode
from common.images.flatness import DRAWN_CANDIDATE_SCORE
from common.images.local_features.extraction import extract, extract_query
from common.images.local_features.features import LocalFeatures
from common.images.local_features.geometry import QueryFeatures
from common.images.orientations import turn
from common.images.signature import Signature, sign
from common.search import CUTOFF
from common.store.base import Record, Store, WordCandidate
from common.store.elastic import ElasticStore
from common.store.elastic.connection import Connection
from common.store.sqlite import SqliteStore
from dev.elasticsearch_node import Node

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
BATCH = 200
CANDIDATES = 40
QUERIES = 40
ROUNDS = 5
UNIT = "Pillow's decode of the photograph"
OWN_DECODE = "Pillow's decode of the query itself"
# Searches of a node that has just started take several times the CPU, until Java has compiled its code.
WARM_UP_ROUNDS = 8


@dataclass(frozen=True)
class Query:
    """A cropped photograph, the file that it was cut from, and its place in the collection."""

    file: bytes
    jpeg: bytes
    pixels: NDArray[np.uint8]
    rows: Rows
    features: QueryFeatures
    original: str


def main(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(1)
    paths = photographs(options.photos)
    originals = list(measured(paths))
    size = max(options.embedded, options.elasticsearch)
    signatures, _ = collection(rng, originals, size)
    features = all_features(rng, originals, tuned(paths), size)
    queries = [crop(path, number) for number, path in enumerate(originals[:QUERIES])]
    lengths = [len(one) for one in features]
    print(f"encoded features: {np.mean(lengths):.0f} bytes; {median(len(one.features.words) for one in queries)} words")
    if options.embedded:
        measure_embedded(signatures, features[: options.embedded], queries)
    if options.elasticsearch:
        measure_elasticsearch(signatures, features[: options.elasticsearch], queries)


def all_features(
    rng: np.random.Generator, originals: Sequence[Path], others: Sequence[Path], count: int
) -> list[bytes]:
    """Return the encoded features of the photographs, then those of images with the words of other photographs."""
    own, like = ([extracted(path) for path in paths] for paths in (originals, others))
    made = Distractors(rng, like, count - len(own))
    return [one.encode() for one in own] + [made[row].encode() for row in range(count - len(own))]


def extracted(path: Path) -> LocalFeatures:
    image = decode(path.read_bytes())
    return extract(image.pixels, width=image.width, height=image.height)


def crop(path: Path, number: int) -> Query:
    with Image.open(path) as image:
        width, height = image.size
        part = image.convert("RGB").crop((width // 20, height // 20, width * 19 // 20, height * 19 // 20))
    file = BytesIO()
    part.save(file, "JPEG", quality=85)
    pixels = decode(file.getvalue()).pixels
    words = extract_query(pixels, width=part.width, height=part.height)
    return Query(path.read_bytes(), file.getvalue(), pixels, turn(sign(pixels)), words, filepath(number))


def filepath(row: int) -> str:
    return f"photos/{row:07}"


def measure_embedded(signatures: Rows, features: Sequence[bytes], queries: Sequence[Query]) -> None:
    print(f"\nembedded store, {len(features):,} images")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("with.db", "without.db")]
        with closing(SqliteStore(paths[0])) as rich, closing(SqliteStore(paths[1])) as plain:
            rich.prepare()
            plain.prepare()
            fill(rich, plain, signatures, features, time.process_time)
            for name, call in (("signature", nearest), ("words", by_words)):
                took = [timed(partial(call, store, queries[0]), time.process_time)[0] for store in (rich, plain)]
                print(f"first search by {name}: {took[0]:.2f} s CPU, without features {took[1]:.2f}")
            measure_searches(rich, plain, queries, time.process_time)
            sizes = [size_of(path) / len(features) for path in paths]
            print(f"bytes per image: {sizes[0]:.0f}, without features {sizes[1]:.0f}: +{sizes[0] - sizes[1]:.0f}")


def size_of(path: Path) -> int:
    segments = path.with_name(f"{path.name}-segments").glob("*.segment")
    database = [path, *path.parent.glob(f"{path.name}-wal")]
    return sum(file.stat().st_size for file in (*database, *segments))


def measure_elasticsearch(signatures: Rows, features: Sequence[bytes], queries: Sequence[Query]) -> None:
    print(f"\nElasticsearch, {len(features):,} images, merged")
    with Node(heap_mib=1024) as node:

        def clock() -> float:
            return time.process_time() + cpu_s(node._process.pid)  # type: ignore[union-attr]  # noqa: SLF001 - it runs

        rich, plain = (ElasticStore(node.url, index=name, timeout_s=300) for name in ("with", "without"))
        with closing(rich), closing(plain), closing(Connection(node.url, index="with", timeout_s=1200)) as connection:
            rich.prepare()
            plain.prepare()
            fill(rich, plain, signatures, features, clock)
            cluster = connection.cluster()
            sizes = []
            for store, records in zip((rich, plain), next(batches(signatures, features)), strict=True):
                release_copies(store, cluster, records)
                sizes.append(merged_bytes(cluster, store.index) / len(features))
            measure_searches(rich, plain, queries, clock)
            print(f"bytes per image: {sizes[0]:.0f}, without features {sizes[1]:.0f}: +{sizes[0] - sizes[1]:.0f}")


def fill(rich: Store, plain: Store, signatures: Rows, features: Sequence[bytes], clock: Callable[[], float]) -> None:
    cpu = [0.0, 0.0]
    for batch in batches(signatures, features):
        for index, (store, records) in enumerate(zip((rich, plain), batch, strict=True)):
            cpu[index] += timed(partial(store.put, records), clock)[0]
    for index, store in enumerate((rich, plain)):
        cpu[index] += timed(store.refresh, clock)[0]
    each, without = (1e3 * seconds / len(features) for seconds in cpu)
    print(f"put: {each:.3f} ms CPU per image, without features {without:.3f}: {each / without:.2f}x")


def batches(signatures: Rows, features: Sequence[bytes]) -> Iterator[tuple[list[Record], list[Record]]]:
    """Yield the records with features, and the same without."""
    for start in range(0, len(features), BATCH):
        rows = range(start, min(start + BATCH, len(features)))
        records = [record(row, signatures[row], features[row]) for row in rows]
        yield records, [replace(one, features=None) for one in records]


def record(row: int, signature: Signature, features: bytes) -> Record:
    return Record(
        filepath=filepath(row),
        seq=row + 1,
        signatures=(signature,),
        added=0,
        width=500,
        height=375,
        features=features,
    )


def measure_searches(rich: Store, plain: Store, queries: Sequence[Query], clock: Callable[[], float]) -> None:
    lost = sum(query.original not in [one.filepath for one in by_words(rich, query)] for query in queries)
    candidates = [by_words(rich, query) for query in queries]
    calls: dict[str, Callable[[int], object]] = {
        UNIT: lambda number: decoded(queries[number].file),
        OWN_DECODE: lambda number: decoded(queries[number].jpeg),
        "search by signature": lambda number: nearest(rich, queries[number]),
        "the same without features stored": lambda number: nearest(plain, queries[number]),
        "extraction of the query": lambda number: extract_again(queries[number]),
        "lookup by words": lambda number: by_words(rich, queries[number]),
        f"verification of {CANDIDATES}": lambda number: queries[number].features.verify_all(
            [LocalFeatures.decode(one.features) for one in candidates[number]], least_score=DRAWN_CANDIDATE_SCORE
        ),
    }
    if isinstance(rich, ElasticStore):
        for _ in range(WARM_UP_ROUNDS):
            for query in queries:
                by_words(rich, query)
                nearest(rich, query)
                nearest(plain, query)
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            before = clock()
            for number in range(len(queries)):
                call(number)
            rounds[name].append((clock() - before) / len(queries))
    took = {name: median(times) for name, times in rounds.items()}
    took["thorough beyond fast"] = sum(took[name] for name in list(calls)[-3:])
    print(f"CPU of a query, median of {ROUNDS} rounds of {len(queries)} queries; {lost} originals are not candidates")
    for name, seconds in took.items():
        ratios = (seconds / took[unit] for unit in (UNIT, OWN_DECODE))
        print(f"  {name:40} {1e3 * seconds:8.2f} ms" + "".join(f"{ratio:8.2f}x" for ratio in ratios))


def nearest(store: Store, query: Query) -> object:
    return store.candidates(query.rows, limit=50, max_distance=CUTOFF)


def by_words(store: Store, query: Query) -> Sequence[WordCandidate]:
    return store.candidates_by_words(query.features.words, limit=CANDIDATES)


def extract_again(query: Query) -> object:
    """Return the features of a decoded query, because `fast` decodes it too."""
    height, width, _ = query.pixels.shape
    return extract_query(query.pixels, width=width, height=height)


def decoded(jpeg: bytes) -> object:
    return np.asarray(Image.open(BytesIO(jpeg)).convert("RGB"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--embedded", type=int, default=100_000)
    parser.add_argument("--elasticsearch", type=int, default=30_000)
    main(parser.parse_args())
