"""What decoding and signing cost, as ratios of one run: against image-match, and against Pillow's decoding alone.

    python benchmarks/signature.py [folder of photographs]

Costs are CPU time. The two sides of a ratio work through the same pictures in turns, a block of them at a time; each
block gives a median, and the medians of all blocks are compared. Memory is what the peak of a process of its own
rises by after it has handled a tiny picture.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from image_match.goldberg import ImageSignature
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.images.decode import decode  # noqa: E402 - run as a script, the checkout is not on the path yet
from common.images.signature import expand, sign  # noqa: E402 - the same

T = TypeVar("T")

BLOCK = 20
ROUNDS = 5
BIG_PX = (4000, 3000)

image_match = ImageSignature()


@dataclass(frozen=True)
class Line:
    """One line of the table; `got` is good when it is at least, or at most, what is asked."""

    what: str
    sense: str
    ask: float
    got: float

    def __str__(self) -> str:
        good = self.got >= self.ask if self.sense == ">=" else self.got <= self.ask
        return f"{self.what:<58} {self.sense} {self.ask:>5g}  {self.got:>7.3f}  {'ok' if good else 'MISSED'}"


def ours(data: bytes) -> object:
    return sign(decode(data).pixels)


def theirs(data: bytes) -> object:
    return image_match.generate_signature(data, bytestream=True)


def decoding(data: bytes) -> object:
    image = Image.open(BytesIO(data)).convert("RGB")
    image.load()
    return image


def cpu_s(work: Callable[[T], object], items: Sequence[T]) -> float:
    before = time.process_time()
    for item in items:
        work(item)
    return time.process_time() - before


def cost_ratio(one: Callable[[T], object], other: Callable[[T], object], items: Sequence[T]) -> float:
    """Return how many times as much CPU `one` takes as `other`."""
    costs = []
    for start in range(0, len(items), BLOCK):
        block = items[start : start + BLOCK]
        rounds = [(cpu_s(one, block), cpu_s(other, block)) for _ in range(ROUNDS)]
        costs.append([statistics.median(side) for side in zip(*rounds, strict=True)])
    # Summed over the blocks: what all the pictures cost, large ones by their weight.
    first, second = (sum(side) for side in zip(*costs, strict=True))
    return first / second


def peak_mib(side: str, data: bytes) -> float:
    """Return by how much the peak of a fresh process rises while it signs `data`."""
    command = [sys.executable, __file__, "--peak", side]
    return float(subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603 - this script


def print_peak(side: str) -> None:
    work = {"ours": ours, "theirs": theirs}[side]
    data = sys.stdin.buffer.read()
    work(jpeg(Image.new("RGB", (64, 64))))
    before = own_peak_kib()
    work(data)
    print((own_peak_kib() - before) / 1024)


def own_peak_kib() -> int:
    # Linux only; getrusage's maximum would start with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def jpeg(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def photographs() -> list[bytes]:
    beside = ROOT.parent / "shared/data/photos"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else beside if beside.is_dir() else ROOT / "examples/images"
    found = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in {".jpg", ".jpeg"}]
    print(f"{len(found)} photographs from {folder}")
    return found


def table(photos: Sequence[bytes]) -> list[Line]:
    pixels = [np.asarray(decoding(data)) for data in photos]
    assert all(np.array_equal(expand(sign(each)), image_match.generate_signature(each)) for each in pixels)
    big = jpeg(Image.open(BytesIO(photos[0])).convert("RGB").resize(BIG_PX, Image.Resampling.BICUBIC))
    return [
        Line(
            "image-match's CPU / ours, signature alone",
            ">=",
            15,
            cost_ratio(image_match.generate_signature, sign, pixels),
        ),
        Line("our CPU for decode + signature / Pillow's for decode", "<=", 1.35, cost_ratio(ours, decoding, photos)),
        Line("a 12-megapixel JPEG: our CPU / image-match's", "<=", 0.5, cost_ratio(ours, theirs, [big])),
        Line(
            "a 12-megapixel JPEG: our memory / image-match's",
            "<=",
            0.2,
            peak_mib("ours", big) / peak_mib("theirs", big),
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(sys.argv[2])
    else:
        print(f"{'':<58}    {'ask':>5}  {'got':>7}")
        for line in table(photographs()):
            print(line)
