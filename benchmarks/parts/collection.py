"""A collection of signatures for benchmarks of the index, and altered photographs as queries for their originals.

Signatures other than the photographs' are synthetic. The grey levels of a photograph, normalized to a contrast of one,
are a sum of principal components. A synthetic signature has the weights of the 15 strongest components of one
photograph. The weight of each other component is from another random photograph, and so is its share of zeros.

So neighbouring values correlate as in photographs, values have the same distribution, and unrelated pairs have the same
distances. The script prints both. The collection differs from real ones: it has no near-duplicates, series or drawings,
and its flat regions are scattered. Signatures that are similar in 15 components are similar in all of them. A few
hundred photographs have few subjects: an HNSW graph of millions of real images may have a better or a worse recall.
Words that are frequent in real collections (skies, frames, white backgrounds) make image-match's searches slower than
here.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from common.images.decode import decode
from common.images.signature import FIRST, SECOND, _boxes, _means, distances, sign
from common.search import CUTOFF

BLOCK = 10_000
# Components from the same photograph: with 15, pairs with a distance of .47 are as rare as among photographs.
SHARED_COMPONENTS = 15
METADATA_BYTES = 200

Rows = NDArray[np.int8]


@dataclass(frozen=True)
class Queries:
    """Altered photographs, the row of the original of each, and all rows within the cutoff."""

    signatures: Rows
    originals: list[int]
    near: list[set[int]]

    def among(self, count: int) -> "Queries":
        """Return the queries with the rows within the cutoff of the first `count`."""
        return replace(self, near=[{row for row in rows if row < count} for rows in self.near])


def collection(rng: np.random.Generator, paths: Sequence[Path], count: int) -> tuple[Rows, list[NDArray[np.uint8]]]:
    """Return `count` signatures, those of the photographs first, and the pixels of the photographs."""
    pixels = [decode(path.read_bytes()).pixels for path in paths]
    photos = np.array([sign(one) for one in pixels])
    levels = np.array([_means(_boxes(one)) for one in pixels])
    made = np.concatenate(list(synthetic(rng, photos, levels, count - len(photos))))
    some = made[:1500]
    print(f"{'':14} {'mean':>6} {'sd':>6} {'1 in 1,000':>11} {'1 in 100,000':>13}   shares of -2 … 2")
    for name, one in (("photographs", photos), ("synthetic", some)):
        apart = np.concatenate([distances(row, one[index + 1 :]) for index, row in enumerate(one[:-1])])
        near, nearest = np.quantile(apart, [1e-3, 1e-5])
        shares = " ".join(f"{(one == value).mean():.3f}" for value in range(-2, 3))
        print(f"{name:14} {apart.mean():6.3f} {apart.std():6.3f} {near:11.3f} {nearest:13.3f}   {shares}")
    return np.concatenate([photos, made]), pixels


def synthetic(rng: np.random.Generator, photos: Rows, levels: NDArray[np.float64], count: int) -> Iterator[Rows]:
    """Yield `count` signatures in blocks; the docstring of this file describes their construction."""
    has_contrast = photos.any(axis=1)
    centred = levels[has_contrast] - levels[has_contrast].mean(axis=1, keepdims=True)
    zeros = (photos[has_contrast] == 0).mean(axis=1)
    contrasts = centred / centred.std(axis=1, keepdims=True)
    mean = contrasts.mean(axis=0)
    components = np.linalg.svd(contrasts - mean, full_matrices=False)[2]
    weights = (contrasts - mean) @ components.T
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        mixed = np.stack([rng.choice(column, size) for column in weights.T], axis=1)
        mixed[:, :SHARED_COMPONENTS] = weights[rng.integers(0, len(weights), size), :SHARED_COMPONENTS]
        grey = mean + mixed @ components
        yield ranked(grey[:, FIRST] - grey[:, SECOND], rng.choice(zeros, size)[:, np.newaxis])


def ranked(differences: NDArray[np.float64], zeros: NDArray[np.float64]) -> Rows:
    """Return 0 for the smallest differences, a share `zeros` of each row; the greater half of the others is 2 or -2."""
    ranks = np.abs(differences).argsort(axis=1).argsort(axis=1) / differences.shape[1]
    sizes = (ranks >= zeros).astype(np.int8) + (ranks >= (1 + zeros) / 2)
    return (sizes * np.sign(differences)).astype(np.int8)


def altered(pixels: Sequence[NDArray[np.uint8]], count: int, rows: Rows) -> Queries:
    """Return seven alterations of each of `count` photographs."""
    originals = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int).tolist()
    made = [(index, sign(np.array(one))) for index in originals for one in alterations(Image.fromarray(pixels[index]))]
    signatures = np.array([signature for _, signature in made])
    near: list[set[int]] = [set() for _ in made]
    for start in range(0, len(rows), BLOCK):
        below = is_nearer(signatures, rows[start : start + BLOCK], CUTOFF)
        for query, row in zip(*(axis.tolist() for axis in below.nonzero()), strict=True):
            near[query].add(start + row)
    return Queries(signatures, [index for index, _ in made], near)


def is_nearer(queries: Rows, rows: Rows, cutoff: float) -> NDArray[np.bool_]:
    """Return for each query and row whether their distance is below the cutoff, with one matrix product."""
    one, many = queries.astype(np.float32), rows.astype(np.float32)
    squared = [np.einsum("ij,ij->i", side, side).astype(np.float64) for side in (one, many)]
    apart = squared[0][:, np.newaxis] + squared[1] - 2 * (one @ many.T).astype(np.float64)
    norms = np.sqrt(squared[0])[:, np.newaxis] + np.sqrt(squared[1])
    near: NDArray[np.bool_] = np.sqrt(apart) < cutoff * norms
    return near


def alterations(image: Image.Image) -> Iterator[Image.Image]:
    wide, high = image.size
    yield image.resize((max(1, wide // 2), max(1, high // 2)), Image.Resampling.BICUBIC)
    for percent in (3, 5):
        right, down = wide * percent // 100, high * percent // 100
        yield image.crop((right, down, wide - right, high - down))
    captioned = image.copy()
    draw = ImageDraw.Draw(captioned)
    draw.rectangle((0, high * 9 // 10, wide, high), fill="white")
    draw.text((wide // 20, high * 92 // 100), "when you see it at last", fill="black", font_size=max(8, high // 18))
    yield captioned
    yield ImageOps.expand(image, border=max(wide, high) * 3 // 100, fill="black")
    yield image.rotate(2, Image.Resampling.BICUBIC)
    file = BytesIO()
    image.save(file, "JPEG", quality=30)
    yield Image.open(file).convert("RGB")


def filepath(row: int) -> str:
    return f"albums/{row % 997:03}/image-{row:08}.jpg"


def metadata(row: int) -> dict[str, Any]:
    """Return 200 bytes of JSON: the row's own numbers compress badly, the rest compresses well."""
    rng = random.Random(row)
    fields = {
        "album": {"name": f"album {row % 997}", "owner": f"user-{rng.randrange(5_000)}"},
        "tags": [f"tag-{rng.randrange(300)}" for _ in range(4)],
        "sha1": rng.randbytes(20).hex(),
        "year": rng.randrange(1990, 2026),
        "note": "",
    }
    return fields | {"note": ("an image like many others " * 5)[: METADATA_BYTES - len(json.dumps(fields))]}
