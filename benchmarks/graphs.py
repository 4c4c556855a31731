"""Graphs of signatures by Lucene itself, without a node: recall and cost by parameters, merges and candidates.

    PYTHONPATH=. python benchmarks/graphs.py [--images N] [--graphs M,EF_CONSTRUCTION ...] [--flush N]
                                             [--segments N ...] [--candidates N ...] [--nearer]

The jars are Elasticsearch's, with its format of bit vectors. The collection is that of `benchmarks/index.py`. The
queries are seven alterations of every photograph, those below the cutoff. Segments of `--flush` images are written,
then merged in steps to each of the numbers in `--segments`. Each segment is searched with each number of candidates,
and at the end with the last number and early termination. `compared` is the number of vectors that a query is compared
with in all segments. CPU is that of the one thread that writes, merges and searches.

`--nearer` compares every query with all vectors, and prints how many are nearer than the original. A search with fewer
candidates than that cannot find it, in any graph.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from parts.collection import Queries, Rows, altered, collection

from common.store.elastic.dialects import bits
from dev.elasticsearch_node import Node
from dev.jars import java

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
SOURCE = ROOT / "benchmarks" / "parts" / "Graphs.java"
HEAP_MIB = 3072
BLOCK = 50_000
# Its own loader of native code looks for a library beside the server.
NO_NATIVE_CODE = "-Des.nativelibs.path="


def main(options: argparse.Namespace) -> None:
    paths = sorted(options.photos.glob("*.jpg"))
    rows, pixels = collection(np.random.default_rng(1), paths, options.images)
    queries = altered(pixels, len(pixels), rows)
    with tempfile.TemporaryDirectory() as folder:
        count = write(Path(folder), rows, queries)
        print(f"\n{options.images:,} images, {count:,} pairs below the cutoff, written {options.flush:,} at a time")
        if options.nearer:
            nearer = sorted(map(int, lines([folder])))
            shares = ", ".join(f"{share}: {nearer[int(share * (count - 1))]}" for share in (0.5, 0.99, 0.999, 1))
            print(f"vectors that are nearer than the original, quantiles: {shares}")
        head = f"{'m':>3} {'ef_construction':>15} {'segments':>8} {'candidates':>10} {'missed':>6} {'recall':>7}"
        print(f"{head} {'compared':>8} {'CPU ms':>7} {'CPU s of writing':>16}")
        for graph in options.graphs:
            m, ef_construction = graph.split(",")
            numbers = [",".join(map(str, some)) for some in (options.segments, options.candidates)]
            for line in lines([folder, str(options.flush), m, ef_construction, *numbers]):
                print(row(m, ef_construction, line.split(), count), flush=True)


def row(m: str, ef_construction: str, values: Sequence[str], pairs: int) -> str:
    segments, candidates, ends_early, missed, compared, search_ms, written_s = values
    recall = 1 - int(missed) / pairs
    results = f"{missed:>6} {recall:7.4f} {int(compared):8,} {float(search_ms):7.3f} {float(written_s):16.0f}"
    note = "  with early termination" if ends_early == "1" else ""
    return f"{m:>3} {ef_construction:>15} {segments:>8} {candidates:>10} {results}{note}"


def write(folder: Path, rows: Rows, queries: Queries) -> int:
    """Write the vectors, queries and originals; return the number of pairs below the cutoff."""
    with (folder / "vectors").open("wb") as file:
        for start in range(0, len(rows), BLOCK):
            file.write(bits(rows[start : start + BLOCK]).tobytes())
    chosen = [index for index, original in enumerate(queries.originals) if original in queries.near[index]]
    (folder / "queries").write_bytes(bits(queries.signatures[chosen]).tobytes())
    np.array([queries.originals[index] for index in chosen], dtype=">i4").tofile(folder / "originals")
    return len(chosen)


def lines(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the lines that the Java program prints."""
    options = [
        f"-Xmx{HEAP_MIB}m",
        "--add-modules=jdk.incubator.vector",
        "--enable-native-access=ALL-UNNAMED",
        NO_NATIVE_CODE,
    ]
    lib = Node.jars.folder() / "lib"
    command = [str(java()), *options, "-cp", f"{lib}/*", str(SOURCE), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        yield from (line.strip() for line in process.stdout)
    assert process.returncode == 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--graphs", nargs="+", default=["16,60", "24,144"], metavar="M,EF_CONSTRUCTION")
    parser.add_argument("--flush", type=int, default=25_000, help="images in a segment before merges")
    parser.add_argument("--segments", type=int, nargs="+", default=[1], help="after each step of merges")
    parser.add_argument("--candidates", type=int, nargs="+", default=[50, 100, 200, 300, 400])
    parser.add_argument("--nearer", action="store_true", help="also compare with all vectors")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
