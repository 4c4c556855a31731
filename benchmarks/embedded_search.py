"""The embedded store: CPU of a scan and of a search, recall, memory, the first search after a start, and writes.

    PYTHONPATH=. python benchmarks/embedded_search.py [ROWS]

The baseline of a scan is numkong's Hamming distance of one query to as many bytes as the scan reads, in numkong's own
packed copy of them. The baseline of a search is the simplest exact one: the same rows as float32 in memory, and one
matrix-vector product. One process measures the CPU time of all calls alternately. numpy uses one thread: with several
its product costs more CPU, and the idle threads spin during the next measurement.

`parts/collection.py` describes the signatures: those of real photographs, and others with the same distribution of
distances. The queries are altered photographs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it when it is imported

import numkong
import numpy as np
from numpy.typing import NDArray
from parts.collection import altered, collection

from common.images.orientations import turn
from common.images.signature import LENGTH, distances
from common.search import CUTOFF, search
from common.store.base import Record
from common.store.sqlite import SqliteStore
from common.store.sqlite.blocks import SIGNS_BYTES

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
BATCH = 200
NEAREST = 50
ROUNDS = 9
CALLS = 3
# The number of images in the last measurement: that of a small collection.
FEW = 10_000
QUERIES = 20
# Bytes that hold all signs of a signature.
ALL_SIGNS_BYTES = LENGTH // 4
STARTED = """
import sys, time
from pathlib import Path
import numpy as np
from common.store.sqlite import SqliteStore
started, cpu = time.perf_counter(), time.process_time()
store = SqliteStore(Path(sys.argv[1]))
query = np.frombuffer(bytes.fromhex(sys.argv[2]), np.int8)[None]
store.candidates(query, limit=50, max_distance=0.45)
spent = time.perf_counter() - started, time.process_time() - cpu
# From here on the kernel marks the pages that are read.
Path("/proc/self/clear_refs").write_text("1")
store.candidates(query, limit=50, max_distance=0.45)
touched, is_segment = 0, False
for line in Path("/proc/self/smaps").read_text().splitlines():
    if "-" in line.split(" ")[0]:
        is_segment = line.endswith(".segment")
    elif is_segment and line.startswith("Referenced:"):
        touched += 1024 * int(line.split()[1])
print(*spent, touched, store._index.current().tail.nbytes)
"""

Rows = NDArray[np.int8]


def main(count: int, photos: Path) -> None:
    rng = np.random.default_rng(1)
    paths = sorted(photos.glob("*.jpg"))
    rows, pixels = collection(rng, paths, count)
    queries = altered(pixels, QUERIES, rows)
    print(f"{count:,} signatures, {len(paths)} of which are photographs")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "match.db"
        with closing(SqliteStore(path)) as store:
            store.prepare()
            fill(store, rows)
            report_size(path, count)
            report_start(path, rows[0], count)
            measure_scan(store, rows)
            check_recall(store, rows, queries.signatures)
        with closing(SqliteStore(Path(folder) / "few.db")) as few:
            few.prepare()
            fill(few, rows[:FEW])
            measure_search(few, queries.signatures)


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
    print(f"first search of all, without segments: {time.perf_counter() - started:.2f} s")


def report_size(path: Path, count: int) -> None:
    segments = sum(file.stat().st_size for file in path.with_name(f"{path.name}-segments").glob("*.segment"))
    print(f"database: {path.stat().st_size / count:.0f} bytes per image, with a filepath of 14 bytes and no metadata")
    print(f"segments: {segments / count:.2f} bytes per image, mapped once for all processes")


def report_start(path: Path, row: Rows, count: int) -> None:
    """Report the first search of new processes."""
    command = [sys.executable, "-c", STARTED, str(path), row.tobytes().hex()]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout for _ in range(5)]  # noqa: S603 - our own program
    spent = sorted(tuple(float(word) for word in line.split()) for line in runs)
    wall, cpu, touched, own = spent[len(spent) // 2]
    print(f"first search after a start: {wall:.3f} s, {cpu:.3f} s CPU   (target: 1 s)")
    print(f"a search reads pages of {touched / count:.1f} bytes per image, shared by all processes   (target: 110)")
    print(f"memory of each process: {own / count:.2f} bytes per image")


def measure_scan(store: SqliteStore, rows: Rows) -> None:
    floats = rows.astype(np.float32)
    query = rows[0]
    packed = store._index.current().blocks  # noqa: SLF001 - only this benchmark needs it
    signs = np.concatenate([part.block.signs for part in packed])
    wider = np.pad(signs, ((0, 0), (0, ALL_SIGNS_BYTES - SIGNS_BYTES)))
    calls: dict[str, Callable[[], object]] = {
        "float32 product": lambda: floats @ floats[0],
        f"numkong, {SIGNS_BYTES} bytes": bare_scan(signs),
        f"numkong, {ALL_SIGNS_BYTES} bytes": bare_scan(wider),
        "search": lambda: store.candidates(query[None], limit=NEAREST, max_distance=CUTOFF),
        "search, 16": lambda: store.candidates(turn(query), limit=NEAREST, max_distance=CUTOFF),
        "search, no cutoff": lambda: store.candidates(query[None], limit=NEAREST),
    }
    product, exact, wide, one, sixteen, unlimited = median_cpu_s(list(calls.values()))
    print(f"CPU of a call, median of {ROUNDS} rounds of {CALLS} calls, {NEAREST} nearest:")
    print(f"  float32 matrix-vector product         {product * 1e3:7.2f} ms")
    print(f"  numkong, {SIGNS_BYTES} bytes a row               {exact * 1e3:7.2f} ms")
    print(f"  numkong, {ALL_SIGNS_BYTES} bytes a row               {wide * 1e3:7.2f} ms")
    print(f"  search                                {one * 1e3:7.2f} ms   {one / product:.2f}x the product")
    print(
        f"    {one / wide:.2f}x numkong's {ALL_SIGNS_BYTES} bytes (target: 1.5x), {one / exact:.2f}x its {SIGNS_BYTES}"
    )
    print(f"  search, 16 orientations               {sixteen * 1e3:7.2f} ms   {sixteen / one:.2f}x one   (target: 8x)")
    print(f"  search without a cutoff               {unlimited * 1e3:7.2f} ms")


def bare_scan(rows: NDArray[np.uint8]) -> Callable[[], object]:
    tensor = numkong.from_pointer(rows.ctypes.data, rows.shape, "uint1", owner=rows)
    first = rows[:1].copy()
    query = numkong.from_pointer(first.ctypes.data, first.shape, "uint1", owner=first)
    packed = numkong.hammings_pack(tensor)
    return lambda: numkong.hammings_packed(query, packed)


def median_cpu_s(calls: Sequence[Callable[[], object]]) -> list[float]:
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


def check_recall(store: SqliteStore, rows: Rows, queries: Rows) -> None:
    """Compare with brute force, below the cutoff and beyond it."""
    returned = below = kept = 0
    for query in queries:
        apart = distances(query, rows)
        expected = np.sort(apart)
        (near,) = store.candidates(query[None], limit=len(rows), max_distance=CUTOFF)
        returned += len(near)
        below += int((apart <= CUTOFF).sum())
        (nearest,) = store.candidates(query[None], limit=NEAREST)
        apart = distances(query, np.array([candidate.signatures[0] for candidate in nearest]))
        kept += int((apart <= expected[NEAREST - 1]).sum())
    print(f"recall below the cutoff, {len(queries)} queries: {returned / below:.4f} of {below:,}   (target: 1.000)")
    print(f"recall of the {NEAREST} nearest at any distance: {kept / len(queries) / NEAREST:.4f}")


def measure_search(store: SqliteStore, queries: Rows) -> None:
    calls = [lambda query=query: search([query], store, all_orientations=True) for query in queries]  # type: ignore[misc]
    spent = median_cpu_s(calls)
    print(f"search of all orientations among {FEW:,} images: {statistics.mean(spent) * 1e3:.2f} ms CPU")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=100_000, metavar="ROWS")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    main(options.rows, options.photos)
