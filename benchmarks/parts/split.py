"""The split of images: those that trained centres, those that cutoffs were chosen on, and those that are measured.

Wallpapers trained the centres: `common/images/local_features/trained.txt` lists their SHA-256. Of any other sorted
list, the cutoffs were chosen on the first, third, fifth … item. The measurement uses the others.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

_ROOT = Path(__file__).resolve().parents[2]
_TRAINED = _ROOT / "common" / "images" / "local_features" / "trained.txt"

T = TypeVar("T")


def tuned(items: Sequence[T]) -> Sequence[T]:
    """Return the items on which cutoffs were chosen."""
    return items[::2]


def measured(items: Sequence[T]) -> Sequence[T]:
    """Return the items that are measured."""
    return items[1::2]


def photographs(folder: Path) -> list[Path]:
    """Return the JPEGs of a folder by name. Raises ValueError if one of them trained the centres."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    trained = set(_TRAINED.read_text(encoding="ascii").split())
    if any(hashlib.sha256(path.read_bytes()).hexdigest() in trained for path in paths):
        message = f"{folder}: an image trained the centres of the visual words"
        raise ValueError(message)
    return paths
