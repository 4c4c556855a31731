"""A collection of signatures for benchmarks of the index, and altered photographs that ask for their originals.

Signatures other than the photographs' are synthetic. A photograph's grey levels, at a contrast of one, are a mix of the
patterns that photographs have in common (principal components): a synthetic one takes the 15 strongest patterns from
one photograph and how much there is of each of the others from a photograph of its own. How much of it is even, where
values are 0, it takes from yet another. So neighbours go together as in photographs, values have the same shares, and
unrelated pairs are as far apart (both are printed). What that can mislead about: there are no near copies, series or
drawings, even regions do not hang together, and what is alike in the 15 patterns is so in all of them. A few hundred
photographs know few themes: a graph over millions of real pictures may be walked better or worse, and words that in
real life come again and again (skies, frames, white grounds) make image-match's searches longer than here.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from common.images.decode import decode
from common.images.signature import FIRST, SECOND, _levels, distances, sign
from common.search import CUTOFF

BLOCK = 10_000
# Patterns that a synthetic signature has from one photograph: with 15, pairs as near as .47 are as rare as in reality.
TOGETHER = 15
METADATA_BYTES = 200

Rows = NDArray[np.int8]


@dataclass(frozen=True)
class Queries:
    """Altered photographs, the row of each one's original, and all rows below the cutoff."""

    signatures: Rows
    originals: list[int]
    near: list[set[int]]


def collection(rng: np.random.Generator, paths: Sequence[Path], count: int) -> tuple[Rows, list[NDArray[np.uint8]]]:
    """Return `count` signatures, first those of the photographs, and the photographs."""
    pixels = [decode(path.read_bytes()).pixels for path in paths]
    photos = np.array([sign(one) for one in pixels])
    levels = np.array([_levels(one) for one in pixels])
    made = np.concatenate(list(synthetic(rng, photos, levels, count - len(photos))))
    some = made[:1500]
    print(f"{'':14} {'mean':>6} {'sd':>6} {'1 in 1,000':>11} {'1 in 100,000':>13}   shares of -2 … 2")
    for name, one in (("photographs", photos), ("synthetic", some)):
        apart = np.concatenate([distances(row, one[place + 1 :]) for place, row in enumerate(one[:-1])])
        near, nearest = np.quantile(apart, [1e-3, 1e-5])
        shares = " ".join(f"{(one == value).mean():.3f}" for value in range(-2, 3))
        print(f"{name:14} {apart.mean():6.3f} {apart.std():6.3f} {near:11.3f} {nearest:13.3f}   {shares}")
    return np.concatenate([photos, made]), pixels


def synthetic(rng: np.random.Generator, photos: Rows, levels: NDArray[np.float64], count: int) -> Iterator[Rows]:
    """Yield `count` signatures in blocks; the first lines of this file say how they are made."""
    kept = photos.any(axis=1)
    centred = levels[kept] - levels[kept].mean(axis=1, keepdims=True)
    even = (photos[kept] == 0).mean(axis=1)
    contrasts = centred / centred.std(axis=1, keepdims=True)
    mean = contrasts.mean(axis=0)
    patterns = np.linalg.svd(contrasts - mean, full_matrices=False)[2]
    amounts = (contrasts - mean) @ patterns.T
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        mixed = np.stack([rng.choice(column, size) for column in amounts.T], axis=1)
        mixed[:, :TOGETHER] = amounts[rng.integers(0, len(amounts), size), :TOGETHER]
        grey = mean + mixed @ patterns
        yield ranked(grey[:, FIRST] - grey[:, SECOND], rng.choice(even, size)[:, np.newaxis])


def ranked(differences: NDArray[np.float64], even: NDArray[np.float64]) -> Rows:
    """Return 0 for the smallest differences, a share `even` of each row; of the others the greater half is 2."""
    places = np.abs(differences).argsort(axis=1).argsort(axis=1) / differences.shape[1]
    sizes = (places >= even).astype(np.int8) + (places >= (1 + even) / 2)
    return (sizes * np.sign(differences)).astype(np.int8)


def altered(pixels: Sequence[NDArray[np.uint8]], count: int, rows: Rows) -> Queries:
    """Return seven alterations of photographs from all over the collection."""
    places = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int).tolist()
    made = [(place, sign(np.array(one))) for place in places for one in alterations(Image.fromarray(pixels[place]))]
    signatures = np.array([signature for _, signature in made])
    near: list[set[int]] = [set() for _ in made]
    for start in range(0, len(rows), BLOCK):
        below = nearer(signatures, rows[start : start + BLOCK], CUTOFF)
        for query, row in zip(*(axis.tolist() for axis in below.nonzero()), strict=True):
            near[query].add(start + row)
    return Queries(signatures, [place for place, _ in made], near)


def nearer(queries: Rows, rows: Rows, cutoff: float) -> NDArray[np.bool_]:
    """Say of each query and row whether they are nearer than the cutoff: one product for all."""
    one, many = queries.astype(np.float32), rows.astype(np.float32)
    squared = [np.einsum("ij,ij->i", side, side).astype(np.float64) for side in (one, many)]
    apart = squared[0][:, np.newaxis] + squared[1] - 2 * (one @ many.T).astype(np.float64)
    norms = np.sqrt(squared[0])[:, np.newaxis] + np.sqrt(squared[1])
    near: NDArray[np.bool_] = np.sqrt(apart) < cutoff * norms
    return near


def alterations(picture: Image.Image) -> Iterator[Image.Image]:
    wide, high = picture.size
    yield picture.resize((max(1, wide // 2), max(1, high // 2)), Image.Resampling.BICUBIC)
    for percent in (3, 5):
        right, down = wide * percent // 100, high * percent // 100
        yield picture.crop((right, down, wide - right, high - down))
    captioned = picture.copy()
    draw = ImageDraw.Draw(captioned)
    draw.rectangle((0, high * 9 // 10, wide, high), fill="white")
    draw.text((wide // 20, high * 92 // 100), "when you see it at last", fill="black", font_size=max(8, high // 18))
    yield captioned
    yield ImageOps.expand(picture, border=max(wide, high) * 3 // 100, fill="black")
    yield picture.rotate(2, Image.Resampling.BICUBIC)
    file = BytesIO()
    picture.save(file, "JPEG", quality=30)
    yield Image.open(file).convert("RGB")


def filepath(row: int) -> str:
    return f"albums/{row % 997:03}/picture-{row:08}.jpg"


def metadata(row: int) -> dict[str, Any]:
    """Return 200 bytes of JSON, of which the row's own numbers compress badly and the rest well."""
    rng = random.Random(row)
    told = {
        "album": {"name": f"album {row % 997}", "owner": f"user-{rng.randrange(5_000)}"},
        "tags": [f"tag-{rng.randrange(300)}" for _ in range(4)],
        "sha1": rng.randbytes(20).hex(),
        "year": rng.randrange(1990, 2026),
        "note": "",
    }
    return told | {"note": ("a picture like many others " * 5)[: METADATA_BYTES - len(json.dumps(told))]}
