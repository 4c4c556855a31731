"""Flat margins: how many framed photographs are found by changed copies, by the whole image and by all signatures.

    python benchmarks/margins.py [folder of photographs]

A *lost* copy does not match its original at the shipped cutoff. A *false pair* is a match of different photographs,
each with margins of other widths, in any of the sixteen orientations. The cost of trimming is CPU time beside that of
decoding and signing the same photographs.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.decoding.child import signed  # noqa: E402 - a script has to add the checkout to the path first
from common.images.decode import decode  # noqa: E402 - the same
from common.images.orientations import turn  # noqa: E402 - the same
from common.images.signature import sign  # noqa: E402 - the same
from common.images.signing import sign_all  # noqa: E402 - the same
from common.images.trimming import trimmed  # noqa: E402 - the same
from common.search import rank  # noqa: E402 - the same
from common.store.base import Candidate  # noqa: E402 - the same

Signatures: TypeAlias = Sequence[NDArray[np.int8]]
Frame: TypeAlias = Callable[[Image.Image, random.Random], Image.Image]
Change: TypeAlias = Callable[[Image.Image, random.Random], Image.Image]

BLOCK = 20
ROUNDS = 5


def letterbox(image: Image.Image, rng: random.Random) -> Image.Image:
    bar = round(image.height * rng.uniform(0.08, 0.3))
    return ImageOps.expand(image, (0, bar, 0, bar), "black")


def pillarbox(image: Image.Image, rng: random.Random) -> Image.Image:
    bar = round(image.width * rng.uniform(0.08, 0.3))
    return ImageOps.expand(image, (bar, 0, bar, 0), "black")


def page(image: Image.Image, rng: random.Random) -> Image.Image:
    left, top, right, bottom = (round(max(image.size) * rng.uniform(0.08, 0.3)) for _ in range(4))
    return ImageOps.expand(image, (left, top, right, bottom), "white")


def unchanged(image: Image.Image, _rng: random.Random) -> Image.Image:
    return image


def one_pixel(image: Image.Image, _rng: random.Random) -> Image.Image:
    """Change three pixels of a margin, just beyond the 5 % that image-match crops at each side."""
    copy = image.copy()
    shade = 12 if image.getpixel((0, 0)) == (0, 0, 0) else 243
    right, down = round(copy.width * 0.06), round(copy.height * 0.06)
    for x, y in ((copy.width // 3, down), (copy.width // 3, copy.height - down), (right, copy.height // 3)):
        copy.putpixel((x, y), (shade, shade, shade))
    return copy


def noise(image: Image.Image, rng: random.Random) -> Image.Image:
    pixels = np.asarray(image).astype(np.int16)
    pixels += np.random.default_rng(rng.randrange(2**32)).integers(-1, 2, (*pixels.shape[:2], 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, _rng: random.Random) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=80)
    return Image.open(stream).convert("RGB")


def half(image: Image.Image, _rng: random.Random) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def noisy_jpeg_half(image: Image.Image, rng: random.Random) -> Image.Image:
    return half(jpeg(noise(image, rng), rng), rng)


FRAMES: dict[str, Frame] = {"letterbox": letterbox, "pillarbox": pillarbox, "page": page}
CHANGES: dict[str, Change] = {
    "one pixel": one_pixel,
    "noise of ±1": noise,
    "JPEG 80": jpeg,
    "half size": half,
    "noise, JPEG 80, half size": noisy_jpeg_half,
}


def all_signatures(image: Image.Image) -> Signatures:
    return sign_all(np.asarray(image))


def matches(query: Signatures, stored: Sequence[Signatures], *, orientations: int) -> set[int]:
    """Return the indices of the stored images that match at the shipped cutoffs."""
    queries = np.stack([turn(each)[:orientations] for each in query if each.any()])
    candidates = [Candidate(str(index), tuple(each)) for index, each in enumerate(stored)]
    return {int(match.filepath) for match in rank(queries, candidates, min_score=None).matches}


def lost(pairs: Sequence[tuple[Signatures, Signatures]], count: int) -> float:
    """Return the share of pairs that do not match by their first `count` signatures."""
    hits = [bool(one[0].any()) and matches(one[:count], [other[:count]], orientations=1) for one, other in pairs]
    return 1 - sum(map(bool, hits)) / len(pairs)


def false_pairs(images: Sequence[Signatures], count: int, orientations: int) -> int:
    stored = [each[:count] for each in images]
    return sum(
        len(matches(each, stored[index + 1 :], orientations=orientations))
        for index, each in enumerate(stored[:-1])
        if each[0].any()
    )


def cost_ratios(photos: Sequence[bytes]) -> tuple[float, float]:
    """Return the CPU of trimming, and of trimming and the second signature, divided by that of decoding and signing."""
    base = trim = second = 0.0
    for start in range(0, len(photos), BLOCK):
        costs = [costs_s(photos[start : start + BLOCK]) for _ in range(ROUNDS)]
        medians = [statistics.median(column) for column in zip(*costs, strict=True)]
        base, trim, second = base + medians[0], trim + medians[1], second + medians[2]
    return trim / base, (trim + second) / base


def costs_s(photos: Sequence[bytes]) -> tuple[float, float, float]:
    """Return the CPU of decoding and signing, of trimming, and of the second signatures."""
    started = time.process_time()
    decoded = [decode(data).pixels for data in photos]
    for pixels in decoded:
        sign(pixels)
    signed_at = time.process_time()
    insides = [trimmed(pixels) for pixels in decoded]
    trimmed_at = time.process_time()
    for inside in insides:
        if inside is not None:
            sign(inside)
    return signed_at - started, trimmed_at - signed_at, time.process_time() - trimmed_at


def framed_copies(photos: Sequence[Image.Image], frame: Frame) -> Iterator[tuple[Image.Image, random.Random]]:
    """Yield each photograph in its frame, with the random numbers for its change."""
    for index, photo in enumerate(photos):
        rng = random.Random(index)
        yield frame(photo, rng), rng


def print_losses(photos: Sequence[Image.Image]) -> None:
    print(f"\n{'lost copies':<46} {'whole':>7} {'all':>7}")
    for frame_name, frame in FRAMES.items():
        framed = list(framed_copies(photos, frame))
        originals = [all_signatures(image) for image, _ in framed]
        for change_name, change in CHANGES.items():
            copies = [all_signatures(change(image, rng)) for image, rng in framed]
            print_line(f"{frame_name}: {change_name}", list(zip(originals, copies, strict=True)))
        others = [all_signatures(frame(photo, random.Random(-index - 1))) for index, photo in enumerate(photos)]
        print_line(f"{frame_name}: other widths", list(zip(originals, others, strict=True)))
        bare = [all_signatures(photo) for photo in photos]
        noisy = [all_signatures(noise(image, rng)) for image, rng in framed]
        print_line(f"{frame_name}: noise, against no margin", list(zip(noisy, bare, strict=True)))


def print_line(name: str, pairs: Sequence[tuple[Signatures, Signatures]]) -> None:
    print(f"{name:<46} {lost(pairs, 1):>7.1%} {lost(pairs, 2):>7.1%}", flush=True)


def print_false_pairs(photos: Sequence[Image.Image]) -> None:
    pairs = len(photos) * (len(photos) - 1) // 2
    print(f"\n{f'false pairs of {pairs:,}, 1 and 16 orientations':<46} {'whole':>7} {'all':>7}")
    sets: dict[str, list[Signatures]] = {"no margin": [all_signatures(photo) for photo in photos]}
    for name, frame in FRAMES.items():
        framed = list(framed_copies(photos, frame))
        sets[name] = [all_signatures(image) for image, _ in framed]
        sets[f"{name}, noise of ±1"] = [all_signatures(noise(image, rng)) for image, rng in framed]
    for name, images in sets.items():
        counts = [[false_pairs(images, count, turned) for turned in (1, 16)] for count in (1, 2)]
        print(f"{name:<46} {counts[0]!s:>9} {counts[1]!s:>9}", flush=True)


def main() -> None:
    shared = ROOT.parent / "shared/data/photos"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else shared if shared.is_dir() else ROOT / "examples/images"
    photos = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in {".jpg", ".jpeg"}]
    second = sum(len(signed(decode(data)).signatures) > 1 for data in photos)
    print(f"{len(photos)} photographs, {second} of them with a second signature")
    trim, both = cost_ratios(photos)
    print(f"CPU beside decoding and signing: trimming {trim:.1%}, with the second signatures {both:.1%}")
    images = [Image.fromarray(decode(data).pixels) for data in photos]
    print_losses(images)
    print_false_pairs(images)


if __name__ == "__main__":
    main()
