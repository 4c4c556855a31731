"""Prints the peak memory of decoding an image of each format and mode, a line of JSON for each; Linux only.

Each image is decoded in a process of its own, whose idle size does not count.
"""

import io
import json
import math
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.images import cost as estimation
from common.images.decode import Limits, decode
from common.images.signature import sign

# An image that is reduced, and a thin one, which is not.
SIZE, THIN = (2048, 2048), (4096, 1024)
LIMITS = Limits(memory_bytes=2**40)
TURNED = 6
# EXIF of one tag: the orientation.
EXIF = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0" + bytes([TURNED]) + bytes(7)

CASES: list[tuple[str, str, tuple[int, int], dict[str, Any]]] = [
    ("JPEG", "L", THIN, {}),
    ("JPEG", "RGB", SIZE, {}),
    ("JPEG", "RGB", THIN, {"exif": EXIF}),
    ("JPEG", "RGB", SIZE, {"progressive": True, "subsampling": 0}),
    ("JPEG", "RGB", THIN, {"progressive": True, "subsampling": 0}),
    ("JPEG", "CMYK", SIZE, {"progressive": True}),
    ("PNG", "1", SIZE, {}),
    ("PNG", "L", SIZE, {}),
    ("PNG", "P", SIZE, {}),
    ("PNG", "LA", SIZE, {}),
    ("PNG", "RGB", SIZE, {}),
    ("PNG", "RGB", SIZE, {"transparency": (1, 2, 3)}),
    ("PNG", "RGB;16", SIZE, {}),
    ("PNG", "RGBA", SIZE, {}),
    ("PNG", "RGBA", THIN, {"exif": EXIF}),
    ("PNG", "I;16", SIZE, {}),
    ("GIF", "P", SIZE, {}),
    ("GIF", "RGB", THIN, {"save_all": True, "frames": 3}),
    ("PNG", "RGBA", THIN, {"save_all": True, "frames": 3}),
    ("WEBP", "RGB", SIZE, {"method": 0}),
    ("WEBP", "RGBA", SIZE, {"lossless": True, "method": 0, "quality": 0, "exif": EXIF}),
    ("WEBP", "RGBA", THIN, {"lossless": True, "method": 0, "quality": 0}),
    ("AVIF", "RGB", SIZE, {"speed": 10, "subsampling": "4:4:4"}),
    ("AVIF", "RGBA", SIZE, {"speed": 10}),
    ("HEIF", "RGB", SIZE, {"quality": 10}),
    ("HEIF", "RGBA", SIZE, {"quality": 10, "chroma": 444}),
    ("TIFF", "1", SIZE, {}),
    ("TIFF", "RGB", SIZE, {"compression": "tiff_lzw", "strip_size": 2**31 - 1}),
    ("TIFF", "RGBA", SIZE, {"compression": "tiff_adobe_deflate", "strip_size": 2**31 - 1}),
    ("TIFF", "CMYK", SIZE, {}),
    ("TIFF", "I;16", SIZE, {}),
    ("TIFF", "I", SIZE, {}),
    ("TIFF", "F", SIZE, {}),
    ("TIFF", "F", THIN, {}),
    ("BMP", "RGB", SIZE, {}),
    ("PPM", "RGB", SIZE, {}),
]


def image_of(mode: str, size: tuple[int, int], shift: int = 0) -> Image.Image:
    """Return a coarse pattern, which encodes fast, with some transparency."""
    columns, rows = size
    pattern = np.add.outer(np.arange(rows) // 64 * 7 + shift, np.arange(columns) // 64 * 11)
    if mode in {"I;16", "I", "F"}:
        return Image.fromarray((pattern % 60_000).astype({"I;16": "<u2", "I": "<i4", "F": "<f4"}[mode]))
    grey = Image.fromarray((pattern % 256).astype(np.uint8))
    if mode in {"RGBA", "LA"}:
        image = grey.convert("RGB" if mode == "RGBA" else "L")
        image.putalpha(grey)
        return image
    return grey.convert(mode) if mode in {"1", "L"} else grey.convert("RGB").convert(mode)


def deep_png(size: tuple[int, int]) -> bytes:
    """Return a PNG with 16 bits a channel and a transparent colour, which Pillow does not write."""
    columns, rows = size
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", columns, rows, 16, 2, 0, 0, 0),
        b"tRNS": bytes(6),
        b"IDAT": zlib.compress(b"".join(bytes(1) + bytes([row % 256]) * (6 * columns) for row in range(rows)), 1),
        b"IEND": b"",
    }
    written = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def encoded(kind: str, mode: str, size: tuple[int, int], options: dict[str, Any]) -> bytes:
    """Return the image's file."""
    if mode == "RGB;16":
        return deep_png(size)
    out = io.BytesIO()
    options = dict(options)
    frames = options.pop("frames", 1)
    if frames > 1:
        # Frames without features, except the last one.
        options["append_images"] = [image_of(mode, size, 9 * frame) for frame in range(1, frames)]
    image_of(mode, size).save(out, kind, **options)
    return out.getvalue()


def peak_and_estimate(data: bytes) -> tuple[int, int]:
    """Decode the image; return the growth of this process at its peak, and the decoder's estimate."""
    estimates: list[int] = []
    original = estimation.check_estimate

    def check(name: str, size: tuple[int, int], cost: int, limits: Limits) -> None:
        estimates.append(cost)
        original(name, size, cost, limits)

    estimation.check_estimate = check
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    idle = status_bytes("VmRSS")
    sign(decode(data, LIMITS).pixels)
    return status_bytes("VmHWM") - idle, estimates[-1]


def status_bytes(name: str) -> int:
    """Return a size of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def in_child(work: Callable[[], bytes]) -> bytes:
    """Return the bytes that `work` returns in a copy of this process, which stays small."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writer, "wb") as file:
            file.write(work())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result = file.read()
    os.waitpid(child, 0)
    return result


def measure(path: Path, kind: str, mode: str, size: tuple[int, int], options: dict[str, Any]) -> bytes:
    """Decode the image in the file; return the line to print."""
    data = path.read_bytes()
    peak, estimate = peak_and_estimate(data)
    variant = " ".join(f"{name}={value}" for name, value in options.items())
    row = {"image": f"{kind} {mode} {variant}", "pixels": math.prod(size), "file": len(data)}
    return json.dumps({**row, "peak": peak, "estimate": estimate - estimation.FIXED_BYTES}).encode()


def main(folder: Path) -> None:
    """Encode, decode and print each case; `folder` is for their files."""
    for case in CASES:
        path = folder / "image"
        # A process that encoded an image would decode the next one in the memory that it has already.
        in_child(lambda: str(path.write_bytes(encoded(*case))).encode())  # noqa: B023 - called at once
        sys.stdout.write(in_child(lambda: measure(path, *case)).decode() + "\n")  # noqa: B023 - called at once


if __name__ == "__main__":
    # The libraries load parts of themselves at the first image: once, before the copies of this process.
    for small in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"):
        sign(decode(encoded(small, "RGB", (64, 64), {})).pixels)
    main(Path(sys.argv[1]))
