"""The cost of decoding and signing in a decoder process, against the same in this process and Pillow's decoder.

    PYTHONPATH=.:tests python benchmarks/decoders.py [folder of photographs]

Cost is the CPU time of both processes. The sides take turns with the same images in one run; a ratio compares medians.
Each part of the work is in the side below it. "No image" sends as many bytes as an image has, which the decoder process
rejects: it is the cost of the socket. Linux only.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from statistics import median
from time import process_time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in decoder processes; numpy reads it when it is imported

import simplejpeg
from parts.pipelines import ROOT
from PIL import Image

from common.decoding.child import signed
from common.decoding.pool import DecoderPool
from common.errors import ImageError
from common.images.decode import decode
from common.images.signature import sign
from support.decoders import decoder_limits, decoding
from support.waiting import wait_until

ROUNDS = 9
NS = 1e9


def main() -> None:
    shared = ROOT.parent / "shared" / "data" / "photos"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else shared if shared.is_dir() else ROOT / "examples" / "images"
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    print(f"{len(images)} photographs from {folder}, {sum(map(len, images)) / len(images) / 1000:.0f} KB each")
    with decoding(decoder_limits()) as pool:
        wait_until(lambda: len(pool._idle) == 2, "both processes are ready")  # noqa: SLF001 - all CPU is to be counted
        sides = {
            "Pillow's decoder": decode_only,
            "simplejpeg": simplejpeg.decode_jpeg,
            "... and header, limits": decode,
            "... and signature": decode_and_sign,
            "... and second signature": lambda data: signed(decode(data)),
            "decoder process, no image": lambda data: send_no_image(pool, data),
            "decoder process": pool.decode,
        }
        costs: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, work in sides.items():
                costs[side].append(cost_ms(pool, work, images))
    medians = {side: median(each) for side, each in costs.items()}
    pillow = medians["Pillow's decoder"]
    for side, ms in medians.items():
        print(f"{side:<28} {ms:.3f} ms of CPU an image, {ms / pillow:.3f} of Pillow's")
    report("decoder process / in this process", medians["decoder process"] / medians["... and second signature"], 1.2)
    report("decoder process / Pillow's decoder", medians["decoder process"] / pillow, 1.0)


def decode_and_sign(data: bytes) -> object:
    return sign(decode(data).pixels)


def send_no_image(pool: DecoderPool, data: bytes) -> None:
    with suppress(ImageError):
        pool.decode(b"-" + data[1:])


def decode_only(data: bytes) -> object:
    return Image.open(BytesIO(data)).convert("RGB")


def cost_ms(pool: DecoderPool, work: Callable[[bytes], object], images: Sequence[bytes]) -> float:
    """Return the CPU milliseconds of an image, in this process and in the decoder processes."""
    before = process_time() + decoders_s(pool)
    for data in images:
        work(data)
    return (process_time() + decoders_s(pool) - before) * 1000 / len(images)


def decoders_s(pool: DecoderPool) -> float:
    pids = [process.pid for process in pool._idle]  # noqa: SLF001 - the same
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / NS


def report(name: str, measured: float, target: float) -> None:
    print(f"{name:<40} <= {target:>4g}  {measured:>6.3f}  {'ok' if measured <= target else 'MISSED'}")


if __name__ == "__main__":
    main()
