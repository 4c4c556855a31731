"""Conformance sets of images: the decoder's pixels equal those of an independent one, or docs/formats.md explains why.

`make acceptance` downloads the sets: source distributions of Pillow and of pypng, in MATCH_CONFORMANCE.
"""

import os
import runpy
import tarfile
from pathlib import Path

import pytest

from support.independent import difference

ROUNDING = 1.5
SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".avifs", ".heif", ".tif", ".tiff", ".bmp"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".mpo"}
# Files that cannot be compared, by reason; each reason is in docs/formats.md.
EXPLAINED = {
    "white by the pixels": {
        "12in16bit.tif", "16_bit_binary_pgm.tiff", "16_bit_noise.tif", "16bit.MM.cropped.tif", "16bit.MM.deflate.tif",
        "16bit.cropped.tif", "16bit.deflate.tif", "16bit.r.tif", "cmx3g8_wv_1998.260_0745_mcidas.tiff",
        "ifd_tag_type.tiff", "uint16_1_4660.tif",
    },
    "animation whose first frame is blank or hidden": {
        "blend_op_over.png", "blend_op_over_near_transparent.png", "delay.png", "delay_round.png",
        "delay_short_max.png", "delay_zero_denom.png", "delay_zero_numer.png", "different_transparency.gif",
        "dispose_op_previous.png", "dispose_op_previous_region.png", "mode_16bit.png", "mode_grayscale.png",
        "mode_grayscale_alpha.png", "mode_palette_alpha.png", "num_plays.png", "num_plays_1.png",
        "single_frame_default.png", "split_fdat.png", "split_fdat_zero_chunk.png", "decompression_bomb_extents.gif",
        "test_extents_transparency.gif",
    },
    "CMYK by a profile of inks": {
        "pil_sample_cmyk.jpg", "tiff_strip_cmyk_16l_jpeg.tif", "tiff_strip_cmyk_jpeg.tif", "tiff_tiled_cmyk_jpeg.tif",
    },
    "variant that only this decoder reads": {
        "10ct_32bit_128.tiff", "12bit.cropped.tif", "badrle.bmp", "hopper.Lab.tif", "hopper.heif",
        "hopper_lzma.tif", "hopper_rle8_row_overflow.bmp", "lab-green.tif", "lab-red.tif", "lab.tif",
        "old-style-jpeg-compression-no-samplesperpixel.tif", "old-style-jpeg-compression.tif", "star.avifs",
        "tiff_tiled_planar_16bit_RGB.tiff", "tiff_tiled_planar_16bit_RGBa.tiff", "tiff_tiled_planar_lzw.tiff",
        "tiff_tiled_planar_raw.tif", "truncated_jpeg.jpg",
    },
    "variant that this decoder does not read": {
        "hopper_unknown_pixel_mode.tif", "hopper_webp.tif", "rgb32-111110.bmp", "rgb32bf.bmp",
    },
    "damage that the independent decoder overlooks": {
        "badheadersize.bmp", "tiff_overflow_rows_per_strip.tif", "tiff_tiled_jpeg_oob_read.tif",
        "truncated_end_chunk.png",
    },
    "variant that the independent decoder misreads": {
        "8bit.s.tif", "mmap_error.bmp", "rgb16-565.bmp", "rgb16-565pal.bmp", "rgb16.bmp", "rgb32bf-rgba.bmp",
        "rgb32h52.bmp", "rgba32.bmp", "rgba32h56.bmp", "separate_planar_extra_samples.tiff",
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distributions."""
    folder = os.environ.get("MATCH_CONFORMANCE")
    if folder is None:
        pytest.fail("MATCH_CONFORMANCE is not set: run `make acceptance`")
    unpacked = tmp_path_factory.mktemp("sets")
    for archive in sorted(Path(folder).glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
    return unpacked


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_images_of_pillow_have_the_independent_pixels(sets: Path) -> None:
    folder = next(sets.glob("pillow-*/Tests/images"))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]

    unequal = {path.name for path in files if not is_equal(path.read_bytes())}

    assert len(files) > 600
    assert unequal == set().union(*EXPLAINED.values())


@pytest.mark.filterwarnings("ignore")
def test_pngsuite_has_the_independent_pixels(sets: Path) -> None:
    images = runpy.run_path(str(next(sets.glob("pypng-*/code/pngsuite.py"))))["png"]

    unequal = [name for name, data in images.items() if not is_equal(data)]

    assert len(images) > 25
    assert unequal == []


def is_equal(data: bytes) -> bool:
    value = difference(data)
    return value == "both reject it" or (isinstance(value, float) and value <= ROUNDING)
