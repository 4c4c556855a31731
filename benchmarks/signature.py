"""The cost of decoding and signing an image, against image-match and against Pillow's decoder, as ratios of one run.

    python benchmarks/signature.py [folder of photographs]

Cost is CPU time. Both sides of a ratio process the same images, alternating after each block of images. A ratio
compares the sums of the blocks' medians. Memory is the increase of the peak of a separate process, which has processed
a tiny image before.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in decoder processes; numpy reads it when it is imported

import numpy as np
from image_match.goldberg import ImageSignature
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.images.decode import decode  # noqa: E402 - a script has to add the checkout to the path first
from common.images.signature import expand, sign  # noqa: E402 - the same

T = TypeVar("T")

BLOCK = 20
ROUNDS = 5
BIG_PX = (4000, 3000)

image_match = ImageSignature()


@dataclass(frozen=True)
class Line:
    """One line of the table: a measured ratio and its target, a lower or an upper bound."""

    name: str
    bound: str
    target: float
    measured: float

    def __str__(self) -> str:
        is_met = self.measured >= self.target if self.bound == ">=" else self.measured <= self.target
        verdict = "ok" if is_met else "MISSED"
        return f"{self.name:<58} {self.bound} {self.target:>6g}  {self.measured:>8.3f}  {verdict}"


def match_signature(data: bytes) -> object:
    return sign(decode(data).pixels)


def peer_signature(data: bytes) -> object:
    return image_match.generate_signature(data, bytestream=True)


def decode_only(data: bytes) -> object:
    image = Image.open(BytesIO(data)).convert("RGB")
    image.load()
    return image


def cpu_s(work: Callable[[T], object], items: Sequence[T]) -> float:
    before = time.process_time()
    for item in items:
        work(item)
    return time.process_time() - before


def cost_ratio(one: Callable[[T], object], other: Callable[[T], object], items: Sequence[T]) -> float:
    """Return the CPU of `one` divided by the CPU of `other`."""
    costs = []
    for start in range(0, len(items), BLOCK):
        block = items[start : start + BLOCK]
        rounds = [(cpu_s(one, block), cpu_s(other, block)) for _ in range(ROUNDS)]
        costs.append([statistics.median(side) for side in zip(*rounds, strict=True)])
    # Sums, not a mean of ratios: large images count by their cost.
    first, second = (sum(side) for side in zip(*costs, strict=True))
    return first / second


def peak_mib(side: str, data: bytes) -> float:
    """Return the increase of a new process's peak memory while it signs `data`."""
    command = [sys.executable, __file__, "--peak", side]
    return float(subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603 - this script


def print_peak(side: str) -> None:
    work = {"match": match_signature, "peer": peer_signature}[side]
    data = sys.stdin.buffer.read()
    work(jpeg(Image.new("RGB", (64, 64))))
    before = own_peak_kib()
    work(data)
    print((own_peak_kib() - before) / 1024)


def own_peak_kib() -> int:
    # Linux only. The maximum of getrusage includes the peak of the parent process.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def jpeg(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def photographs() -> list[bytes]:
    shared = ROOT.parent / "shared/data/photos"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else shared if shared.is_dir() else ROOT / "examples/images"
    photos = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in {".jpg", ".jpeg"}]
    print(f"{len(photos)} photographs from {folder}")
    return photos


def table(photos: Sequence[bytes]) -> list[Line]:
    pixels = [np.asarray(decode_only(data)) for data in photos]
    assert all(np.array_equal(expand(sign(each)), image_match.generate_signature(each)) for each in pixels)
    big = jpeg(Image.open(BytesIO(photos[0])).convert("RGB").resize(BIG_PX, Image.Resampling.BICUBIC))
    return [
        Line(
            "signature of the same pixels: image-match's CPU / Match's",
            ">=",
            25,
            cost_ratio(image_match.generate_signature, sign, pixels),
        ),
        Line(
            "decode + signature: Match's CPU / Pillow's for decode",
            "<=",
            0.95,
            cost_ratio(match_signature, decode_only, photos),
        ),
        Line(
            "12-megapixel JPEG: Match's CPU / image-match's",
            "<=",
            0.12,
            cost_ratio(match_signature, peer_signature, [big]),
        ),
        Line(
            "12-megapixel JPEG: Match's memory / image-match's",
            "<=",
            0.2,
            peak_mib("match", big) / peak_mib("peer", big),
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(sys.argv[2])
    else:
        print(f"{'':<58}    {'target':>6}  {'measured':>8}")
        for line in table(photographs()):
            print(line)
