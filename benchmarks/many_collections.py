"""Searches in one small collection among many, against the same images in a store of their own; and the cost of writes.

    PYTHONPATH=. python benchmarks/many_collections.py [IMAGES] [--collections N] [--searches N] [--server URL]

The images of all collections are written in turns, so that those of one collection are scattered over the whole store.
One process measures both stores alternately: CPU time for the embedded store, which works in this process, and elapsed
time for a server. The queries are images of the collection with some values changed, and images of others.

The writes of one batch go to the default collection, as before collections existed, to one other, and to many.

With `--server` the stores are indices of that Elasticsearch or OpenSearch, which are deleted at the end.
"""

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it when it is imported

import numpy as np
from numpy.typing import NDArray
from parts.collection import collection
from parts.timing import timed

from common.search import search
from common.store.base import DEFAULT_COLLECTION, Record, Selection, Store
from common.store.elastic import ElasticStore
from common.store.elastic.connection import Connection
from common.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
BATCH = 200
SMALL = "c7"
CHANGED_VALUES = 40
WRITE_ROUNDS = 15

Rows = NDArray[np.int8]
Clock = Callable[[], float]


def main(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(1)
    rows, _ = collection(rng, sorted(options.photos.glob("*.jpg")), options.images)
    names = [f"c{number}" for number in range(options.collections)]
    own = rows[names.index(SMALL) :: len(names)]
    print(f"{len(rows):,} images in {len(names):,} collections, {len(own):,} in the one that is searched")
    clock: Clock = time.perf_counter if options.server else time.process_time
    with opened(options.server, "many") as many, opened(options.server, "alone") as alone:
        fill(many, rows, names)
        fill(alone, own, [DEFAULT_COLLECTION])
        measure_catalogue(many)
        queries = np.concatenate([varied(rng, own, options.searches // 2), varied(rng, rows, options.searches // 2)])
        for orientations in (1, 16):
            measure_searches(many, alone, queries, clock, all_orientations=orientations > 1)
        measure_writes(many, rows, names, clock)


@contextmanager
def opened(server: str | None, name: str) -> Iterator[Store]:
    """Open an empty store."""
    if server is None:
        with tempfile.TemporaryDirectory() as folder, closing(SqliteStore(Path(folder) / "match.db")) as store:
            store.prepare()
            yield store
        return
    index = f"benchmark-{name}-{uuid.uuid4().hex[:8]}"
    with closing(ElasticStore(server, index=index, timeout_s=120)) as store:
        store.prepare()
        yield store
    with closing(Connection(server, index=index, timeout_s=60)) as connection:
        connection.cluster().delete(f"/{index}-1")


def fill(store: Store, rows: Rows, names: Sequence[str], *, first: int = 1) -> None:
    """Write the rows to the collections in turns; searches in between let the embedded store build its segments."""
    for start in range(0, len(rows), BATCH):
        store.put(records(rows[start : start + BATCH], names, first + start))
        if start % (64 * BATCH) == 0:
            store.candidates(rows[:1], limit=1, selection=Selection(collection=names[0]))
    store.refresh()


def records(rows: Rows, names: Sequence[str], first: int) -> list[Record]:
    return [
        Record(
            collection=names[(seq - 1) % len(names)],
            filepath=f"photos/{seq:07}",
            seq=seq,
            signatures=(row,),
            added=0,
            width=500,
            height=375,
        )
        for seq, row in enumerate(rows, first)
    ]


def varied(rng: np.random.Generator, rows: Rows, count: int) -> Rows:
    """Return copies of some rows, each with CHANGED_VALUES values drawn again."""
    copies = rows[rng.choice(len(rows), count)].copy()
    for copy in copies:
        copy[rng.choice(copy.size, CHANGED_VALUES, replace=False)] = rng.integers(-2, 3, CHANGED_VALUES)
    return copies


def measure_catalogue(store: Store) -> None:
    all_s, everything = timed(store.collections)
    one_s = median(timed(lambda: store.collection(SMALL))[0] for _ in range(20))
    print(f"catalogue: {len(everything):,} collections in {all_s * 1e3:.1f} ms, one in {one_s * 1e3:.2f} ms")


def measure_searches(many: Store, alone: Store, queries: Rows, clock: Clock, *, all_orientations: bool) -> None:
    """Print median and 95th percentile of both stores, and check that they return the same."""
    spent: dict[str, list[float]] = {"many": [], "alone": []}
    for number, query in enumerate(queries):
        sides = [("many", many, Selection(collection=SMALL)), ("alone", alone, Selection())]
        results = {}
        # The second of two may find a warmer cache.
        for name, store, selection in sides if number % 2 else reversed(sides):
            started = clock()
            results[name] = search([query], store, all_orientations=all_orientations, selection=selection)
            spent[name].append(clock() - started)
        scores = {name: sorted(match.score for match in matches) for name, matches in results.items()}
        assert scores["many"] == scores["alone"], (scores, number)
    for share in (50, 95):
        one, other = (np.percentile(spent[name], share) * 1e3 for name in ("many", "alone"))
        target = "   (target: 1.3)" if share > 50 else ""
        orientations = "16 orientations" if all_orientations else "1 orientation"
        print(f"search, {orientations}, p{share}: {one:.2f} ms, own store {other:.2f} ms: {one / other:.2f}{target}")


def measure_writes(store: Store, rows: Rows, names: Sequence[str], clock: Clock) -> None:
    """Print the time of a batch of new images, by its collections; the batches alternate."""
    kinds = {"default": [DEFAULT_COLLECTION], "one": [names[0]], "many": names}
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    first = 10 * len(rows)
    for _ in range(WRITE_ROUNDS):
        for kind, each in kinds.items():
            batch = records(rows[:BATCH], each, first)
            first += BATCH
            spent[kind].append(timed(lambda batch=batch: store.put(batch), clock)[0])  # type: ignore[misc]
    base = median(spent["default"])
    ratios = ", ".join(f"{kind} {median(times) / base:.2f} times" for kind, times in spent.items() if kind != "default")
    print(f"write of {BATCH} images: default {base * 1e3:.2f} ms, {ratios}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="?", default=200_000, metavar="IMAGES")
    parser.add_argument("--collections", type=int, default=200)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--server")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
