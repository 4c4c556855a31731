"""The decoder's pixels equal those of an independent one, except for the differences that docs/formats.md explains."""

from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from support.image_files import chunk, packed, png, tiff
from support.images import encode
from support.independent import difference

# Mean difference per colour: decoders round the steps of JPEG, WebP and AVIF differently.
ROUNDING = 1.5
# Files of ../shared/data/odd with the reason. The suffix of the list in docs/formats.md is the same.
EXPLAINED = {
    "16_bit_noise.tif": "white is 4,095 by the pixels",
    "16bit.cropped.tif": "white is 16,383 by the pixels",
    "hopper.heif": "HEVC, which the independent decoder lacks",
    "mmap_error.bmp": "palette index beyond the palette",
    "mode_palette_alpha.png": "animation whose first frame is blank",
    "old-style-jpeg-compression.tif": "JPEG of TIFF 6, which the independent decoder lacks",
    "pil_sample_cmyk.jpg": "CMYK by a profile of inks",
    "truncated_jpeg.jpg": "complete without its end marker",
}


def scene(mode: str, size: tuple[int, int] = (97, 61)) -> Image.Image:
    random = np.random.default_rng(8).integers(0, 256, (7, 9, 4), dtype=np.uint8)
    random[..., 3] |= 0x30
    image = Image.fromarray(random).resize(size, Image.Resampling.BICUBIC)
    return (image if mode in {"RGBA", "LA"} else image.convert("RGB")).convert(mode)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_photographs_have_the_independent_pixels(real_photos: list[Path]) -> None:
    differences = {path.name: difference(path.read_bytes()) for path in real_photos[::4]}

    assert {name: value for name, value in differences.items() if not is_equal(value)} == {}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_odd_files_have_the_independent_pixels(odd_files: list[Path]) -> None:
    files = [path for path in odd_files if not path.name.startswith("crash-") and path.suffix in SUFFIXES]

    differences = {path.name: difference(path.read_bytes()) for path in files}

    unequal = {name for name, value in differences.items() if not is_equal(value)}
    assert unequal == EXPLAINED.keys() | {"tiff_overflow_rows_per_strip.tif"}


SUFFIXES = {".png", ".jpg", ".gif", ".webp", ".avif", ".heif", ".tif", ".tiff", ".bmp", ".ppm", ".mpo"}
WRITTEN: list[tuple[str, str, dict[str, Any]]] = [
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(("JPEG", mode, {"quality": 90}) for mode in ("L", "RGB")),
    *(("JPEG", "RGB", {"quality": 90, "subsampling": how, "progressive": True}) for how in (0, 1, 2)),
    *(("GIF", mode, {}) for mode in ("L", "P", "RGBA")),
    *(("WEBP", mode, {"lossless": True}) for mode in ("RGB", "RGBA")),
    *(("WEBP", mode, {"quality": 80}) for mode in ("RGB", "RGBA")),
    *(("AVIF", mode, {"subsampling": "4:4:4"}) for mode in ("RGB", "RGBA")),
    *(("TIFF", mode, {"compression": how}) for mode in ("1", "L", "P", "RGB", "RGBA") for how in ("raw", "tiff_lzw")),
    *(("TIFF", "1", {"compression": how}) for how in ("group3", "group4")),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("PPM", mode, {}) for mode in ("1", "L", "RGB")),
]


@pytest.mark.parametrize(("kind", "mode", "options"), WRITTEN)
def test_written_files_have_the_independent_pixels(kind: str, mode: str, options: dict[str, Any]) -> None:
    pillow_heif.register_heif_opener()

    assert is_equal(difference(encode(scene(mode), kind, **options)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_orientations_have_the_independent_pixels(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation

    assert is_equal(difference(encode(scene("RGB"), kind, exif=exif)))


@pytest.mark.parametrize("key", [None, 0, 1])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_pngs_have_the_independent_pixels(depth: int, key: int | None) -> None:
    levels = np.random.default_rng(depth).integers(0, 1 << min(depth, 8), (20, 16), dtype=np.uint64)
    levels = levels * np.uint64(257 if depth == 16 else 1)
    extra = b"" if key is None else chunk(b"tRNS", int(levels.max() if key else levels.min()).to_bytes(2))

    data = png(packed(levels, depth), size=(16, 20), depth=depth, colour_type=0, extra=extra)

    assert is_equal(difference(data))


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_colour_pngs_have_the_independent_pixels(depth: int, *, keyed: bool) -> None:
    colours = np.random.default_rng(depth).integers(0, 1 << depth, (20, 16 * 3), dtype=np.uint64)
    colours[3:9, :24] = colours[3, 0]
    extra = chunk(b"tRNS", int(colours[3, 0]).to_bytes(2) * 3) if keyed else b""

    data = png(packed(colours, depth), size=(16, 20), depth=depth, colour_type=2, extra=extra)

    assert is_equal(difference(data))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_tiffs_have_the_independent_pixels(depth: int, photometric: int, order: str) -> None:
    levels = np.random.default_rng(depth).integers(0, 1 << depth, (20, 16), dtype=np.uint64)

    assert is_equal(difference(tiff(levels, depth=depth, photometric=photometric, order=order)))


def is_equal(value: float | str) -> bool:
    return value == "both reject it" or (isinstance(value, float) and value <= ROUNDING)
