"""The embedded store: CPU of a search, recall, 16 orientations against one, memory of a row, and writes.

    PYTHONPATH=. python benchmarks/embedded_search.py [ROWS]

The baseline is the simplest fast search: the same rows as float32 in memory, and one matrix-vector product. One process
measures the CPU time of both alternately, some calls at a time. numpy uses one thread: with several its product costs
more CPU, and the idle threads spin during the next measurement.

The signatures are synthetic. Each of the 272 values is drawn from the values that real photographs have at the same
index. Without `../shared/data/photos` it is drawn from their average distribution. So the distribution of each value is
realistic, and the correlation of neighbours is not. Duplicates are copies with a share of the values changed. The
photographs are among the rows.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it when it is imported

import numpy as np
from numpy.typing import NDArray

from common.images.decode import decode
from common.images.signature import LENGTH, distances, sign
from common.store.base import Record
from common.store.sqlite import SqliteStore

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
# Shares of -2 … 2 in the signatures of 400 photographs.
SHARES = [0.224, 0.228, 0.085, 0.23, 0.233]
BATCH = 200
NEAREST = 50
QUERIES = 100
ROUNDS = 15
CALLS = 10

Rows = NDArray[np.int8]


def main(count: int) -> None:
    rng = np.random.default_rng(1)
    photos = np.array([sign(decode(path.read_bytes()).pixels) for path in sorted(PHOTOS.glob("*.jpg"))], np.int8)
    rows = synthetic(rng, photos, count)
    print(f"{count:,} signatures, {len(photos)} of which are photographs")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "match.db"
        store = SqliteStore(path)
        store.prepare()
        fill(store, rows)
        print(f"file: {path.stat().st_size / count:.0f} bytes per row, with a filepath of 14 bytes and no metadata")
        measure(store, rows)
        check_recall(store, rows, rng)
        store.close()


def synthetic(rng: np.random.Generator, photos: Rows, count: int) -> Rows:
    if not len(photos):
        return rng.choice(np.arange(-2, 3, dtype=np.int8), (count, LENGTH), p=SHARES)
    rows = np.stack([rng.choice(values, count) for values in photos.T], axis=1)
    rows[: len(photos)] = photos
    return np.ascontiguousarray(rows)


def fill(store: SqliteStore, rows: Rows) -> None:
    records = [
        Record(filepath=f"photos/{seq:07}", seq=seq, signatures=(row,), added=0, width=500, height=375)
        for seq, row in enumerate(rows, 1)
    ]
    started = time.perf_counter()
    for start in range(0, len(records), BATCH):
        store.put(records[start : start + BATCH])
    print(f"put: {len(records) / (time.perf_counter() - started):,.0f} rows/s, {BATCH} per transaction, each synced")
    started = time.perf_counter()
    store.candidates(rows[:1], limit=1)
    print(f"first search, which reads all rows: {time.perf_counter() - started:.2f} s")
    print(f"memory: {store._mirror.current().nbytes / len(rows):.0f} bytes per row")  # noqa: SLF001 - only this benchmark needs it


def measure(store: SqliteStore, rows: Rows) -> None:
    floats = rows.astype(np.float32)
    query = floats[0]
    orientations = np.concatenate([rows[:8], -rows[:8]])
    product, one, sixteen = median_cpu_s(
        lambda: floats @ query,
        lambda: store.candidates(rows[:1], limit=NEAREST),
        lambda: store.candidates(orientations, limit=NEAREST),
    )
    print(f"CPU of a call, median of {ROUNDS} rounds of {CALLS} calls, {NEAREST} nearest:")
    print(f"  float32 matrix-vector product  {product * 1e3:6.2f} ms")
    print(f"  search                         {one * 1e3:6.2f} ms   {one / product:.2f}x the product   (target: 0.5x)")
    print(f"  search, 16 orientations        {sixteen * 1e3:6.2f} ms   {sixteen / one:.2f}x one search   (target: 9x)")


def median_cpu_s(*calls: Callable[[], object]) -> list[float]:
    """Return the median CPU seconds of each call.

    The calls alternate, so that other work on the machine affects all of them.
    """
    spent: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, times in zip(calls, spent, strict=True):
            started = time.process_time()
            for _ in range(CALLS):
                call()
            times.append((time.process_time() - started) / CALLS)
    return [statistics.median(times) for times in spent]


def check_recall(store: SqliteStore, rows: Rows, rng: np.random.Generator) -> None:
    """Compare with brute force: half of the queries are altered copies, half are unrelated signatures."""
    copies = rows[rng.choice(len(rows), QUERIES // 2, replace=False)].copy()
    noise = rng.random(copies.shape) < rng.uniform(0, 0.4, (len(copies), 1))
    copies[noise] = rng.choice(np.arange(-2, 3, dtype=np.int8), int(noise.sum()))
    unrelated = rng.choice(np.arange(-2, 3, dtype=np.int8), copies.shape, p=SHARES)
    queries = np.concatenate([copies, unrelated])
    recalls = [recall(rows, query, store) for query in queries]
    print(
        f"recall of the {NEAREST} nearest, {len(queries)} queries against brute force: {statistics.mean(recalls):.4f}"
    )


def recall(rows: Rows, query: NDArray[np.int8], store: SqliteStore) -> float:
    nearest = np.sort(distances(query, rows))[:NEAREST]
    (candidates,) = store.candidates(query[np.newaxis], limit=NEAREST)
    returned = distances(query, np.array([candidate.signatures[0] for candidate in candidates]))
    return float((returned <= nearest[-1]).sum() / len(nearest))


def arguments() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=100_000, metavar="ROWS")
    return int(parser.parse_args().rows)


if __name__ == "__main__":
    main(arguments())
