"""The measurements of collections of several sizes: in a JSON file, and as a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Size:
    """The measurements of one size, in milliseconds and bytes; 0 is not measured. CPU is the node's for a search."""

    images: int
    p50: float
    p95: float
    flat_p50: float
    peer_p50: float
    recall: float
    bytes_per_image: float
    peer_bytes: float
    heap_mib: float
    vectors_mib: float
    overwritten_p50: float = 0.0
    overwritten_recall: float = 0.0
    merged_p50: float = 0.0
    merged_recall: float = 0.0
    all_p50: float = 0.0
    one_cpu_ms: float = 0.0
    all_cpu_ms: float = 0.0
    segments: int = 0
    images_per_s: float = 0.0


def save(file: Path, size: Size) -> None:
    """Write the measurements to the file; earlier ones of the same size are replaced."""
    sizes = [one for one in load(file) if one.images != size.images]
    file.write_text(json.dumps([asdict(one) for one in sorted([*sizes, size], key=lambda one: one.images)], indent=1))


def load(file: Path) -> list[Size]:
    return [Size(**one) for one in json.loads(file.read_text())] if file.exists() else []


def growth(sizes: Sequence[Size]) -> list[str]:
    names = (
        f"{'p50 ms':>7} {'p95':>7} {'all 16':>7} {'flat':>7} {'peer':>7}  {'CPU':>7} {'of 16':>7}  {'recall':>6}  "
        f"{'segments':>8} {'images/s':>8}  {'bytes':>6} {'peer':>6}  "
        f"{'vectors':>8} {'heap':>6} MiB"
    )
    lines = [f"\n{'images':>9}  {names}"]
    for one in sizes:
        times = f"{one.p50:7.1f} {one.p95:7.1f} {one.all_p50:7.1f} {one.flat_p50:7.1f} {one.peer_p50:7.1f}"
        cpu = f"{one.one_cpu_ms:7.1f} {one.all_cpu_ms:7.1f}"
        written = f"{one.segments:8} {one.images_per_s:8,.0f}"
        sizes_text = f"{one.bytes_per_image:6.0f} {one.peer_bytes:6.0f}  {one.vectors_mib:8.0f} {one.heap_mib:6.0f}"
        lines.append(f"{one.images:9,}  {times}  {cpu}  {one.recall:6.4f}  {written}  {sizes_text}")
    return lines
