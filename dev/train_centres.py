"""Train the centres of the visual words, on the photographs of Debian's wallpaper packages.

    python -m dev.train_centres [FOLDER of unpacked packages]

Without a folder, apt-get downloads the packages, and dpkg-deb unpacks them into `.cache/wallpapers`. The result is
`common/images/local_features/centres.npy`; `trained.txt` beside it lists the SHA-256 of each image. New centres make
all stored words incomparable: they need another `VERSION` in `common/images/local_features/features.py`.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common.images.local_features import words
from common.images.local_features.extraction import STORED, describe

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "gnome-backgrounds",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "ukui-wallpapers",
    "xfdesktop4-data",
)
OUTPUT = ROOT / "common" / "images" / "local_features" / "centres.npy"

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
# Smaller files are icons and previews.
_SMALLEST_BYTES = 80_000
# Wallpapers are large: besides the whole image, tiles of it show its textures at the scale of ordinary photographs.
_SIDE_PX = 1600
_TILES = (2, 3)
_DESCRIPTORS = 100_000
_ROUNDS = 15
_SEED = 3
_BATCH = 4096


def main() -> None:
    """Train, and write the centres and the list of images."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else _download(ROOT / ".cache" / "wallpapers")
    descriptors, digests = _descriptors(folder)
    random = np.random.default_rng(_SEED)
    if len(descriptors) > _DESCRIPTORS:
        descriptors = descriptors[random.choice(len(descriptors), _DESCRIPTORS, replace=False)]
    forms = words.canonical(words.root(descriptors)).astype(np.float32)
    halves = [_k_means(forms[:, start : start + words.HALF], random) for start in (0, words.HALF)]
    np.save(OUTPUT, np.rint(np.stack(halves)).astype(np.uint8))
    OUTPUT.with_name("trained.txt").write_text("".join(f"{digest}\n" for digest in digests), encoding="ascii")
    print(f"{len(descriptors):,} descriptors of {len(digests)} images: {OUTPUT.stat().st_size:,} bytes of centres")


def _download(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)  # noqa: S607 - Debian's own client
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)  # noqa: S607 - the same
    return folder


def _descriptors(folder: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the descriptors (n, 128) of all different images in `folder`, and the sorted SHA-256 of their files."""
    descriptors, digests, thumbnails = [], set(), set()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or path.stat().st_size < _SMALLEST_BYTES:
            continue
        image = _read(path)
        if image is None:
            continue
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        # Packages contain one image in several sizes.
        thumbnail = image.resize((8, 8)).tobytes()
        if thumbnail not in thumbnails:
            thumbnails.add(thumbnail)
            descriptors += [describe(part, STORED, width=1, height=1).descriptors for part in _parts(image)]
    return np.concatenate(descriptors), sorted(digests)


def _read(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.thumbnail((_SIDE_PX, _SIDE_PX))
            return image.convert("RGB")
    except UnidentifiedImageError:
        return None


def _parts(image: Image.Image) -> Iterator[NDArray[np.uint8]]:
    """Yield the image at half its size, and tiles of it."""
    yield np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))
    pixels = np.asarray(image)
    for row in np.array_split(pixels, _TILES[0], axis=0):
        yield from np.array_split(row, _TILES[1], axis=1)


def _k_means(points: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Return (1024, 64): the centres of Lloyd's algorithm; a centre without points starts again at one of them."""
    centres = points[random.choice(len(points), words.CENTRES, replace=False)]
    for _ in range(_ROUNDS):
        squares = (centres * centres).sum(axis=1)
        batches = np.array_split(points, -(-len(points) // _BATCH))
        nearest = np.concatenate([(squares - 2 * (batch @ centres.T)).argmin(axis=1) for batch in batches])
        order = np.argsort(nearest, kind="stable")
        counts = np.bincount(nearest, minlength=words.CENTRES)
        occupied = np.flatnonzero(counts)
        begins = np.searchsorted(nearest[order], occupied)
        centres = points[random.choice(len(points), words.CENTRES)]
        centres[occupied] = np.add.reduceat(points[order], begins) / counts[occupied, np.newaxis]
    return centres


if __name__ == "__main__":
    main()
