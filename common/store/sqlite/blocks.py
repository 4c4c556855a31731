"""Signatures as bits: their form in memory and in segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.images.signature import LENGTH

Rows: TypeAlias = NDArray[np.int8]
Bits: TypeAlias = NDArray[np.uint8]
Keys: TypeAlias = NDArray[np.int64]
Positions: TypeAlias = NDArray[np.intp]

# A signature has three planes of 272 bits: the positive values, the negative ones, and those of magnitude 2. A scan
# reads only the signs of the first 256 values: 64 bytes, a cache line. numkong takes 60 % longer for 65 bytes.
PLANE_BYTES = LENGTH // 8
SCANNED_PLANE_BYTES = 32
SIGNS_BYTES = 2 * SCANNED_PLANE_BYTES
REST_BYTES = 3 * PLANE_BYTES - SIGNS_BYTES
SCANNED_BITS = 8 * SIGNS_BYTES
# A key is the number of a collection, above the 38 bits of an image's id. So the signatures of a collection are
# adjacent in a block, and a search of one reads no others. 275 billion ids and 33 million numbers can be used.
_ID_BITS = 38
COLLECTIONS_MAX = 2 ** (63 - _ID_BITS) - 2


def key(collection: int, image: int) -> int:
    """Return the key of an image, by the number of its collection and its id."""
    return collection << _ID_BITS | image


def image_of(key: int) -> int:
    """Return the image's id in a key."""
    return key & (1 << _ID_BITS) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Signatures by the key of their image; an image may have several, in adjacent rows."""

    keys: Keys
    signs: Bits
    rest: Bits

    def __len__(self) -> int:
        """Return the number of signatures."""
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""
        return int(self.keys.nbytes + self.signs.nbytes + self.rest.nbytes)

    def part(self, first: int, end: int) -> "Block":
        """Return a view of the signatures from `first` to before `end`."""
        return Block(self.keys[first:end], self.signs[first:end], self.rest[first:end])

    def take(self, positions: Positions) -> "Block":
        """Return the signatures at these positions, in their order."""
        return Block(self.keys[positions], self.signs[positions], self.rest[positions])

    def positions(self, keys: Keys) -> Positions:
        """Return the ascending positions of all signatures of these images; `keys` is ascending."""
        if not len(self):
            return np.zeros(0, np.intp)
        # Most often few keys are in the range of the block.
        keys = keys[np.searchsorted(keys, self.keys[0]) : np.searchsorted(keys, self.keys[-1], side="right")]
        first = np.searchsorted(self.keys, keys, side="left")
        counts = np.searchsorted(self.keys, keys, side="right") - first
        offsets = np.cumsum(counts) - counts
        positions: Positions = np.arange(counts.sum()) + np.repeat(first - offsets, counts)
        return positions


def pack(keys: Keys, rows: Rows) -> Block:
    """Return the signatures `rows` (n, 272) as a block; `keys` is ascending."""
    positive, negative, two = (np.packbits(plane, axis=1) for plane in (rows > 0, rows < 0, np.abs(rows) > 1))
    cut = SCANNED_PLANE_BYTES
    signs = np.concatenate([positive[:, :cut], negative[:, :cut]], axis=1)
    rest = np.concatenate([positive[:, cut:], negative[:, cut:], two], axis=1)
    return Block(keys, signs, rest)


def unpack(block: Block) -> Rows:
    """Return the signatures (n, 272): the reverse of `pack`."""
    cut, tail = SCANNED_PLANE_BYTES, PLANE_BYTES - SCANNED_PLANE_BYTES
    positive = np.concatenate([block.signs[:, :cut], block.rest[:, :tail]], axis=1)
    negative = np.concatenate([block.signs[:, cut:], block.rest[:, tail : 2 * tail]], axis=1)
    planes = (positive, negative, block.rest[:, 2 * tail :])
    more, less, two = (np.unpackbits(plane, axis=1).view(np.int8) for plane in planes)
    rows: Rows = (more - less) * (1 + two)
    return rows


def join(blocks: Sequence[Block]) -> Block:
    """Return all signatures as one block, by key; no image is in two of the blocks."""
    keys = np.concatenate([EMPTY.keys, *(block.keys for block in blocks)])
    is_sorted = (keys[1:] >= keys[:-1]).all()
    order = slice(None) if is_sorted else np.argsort(keys, kind="stable")
    # One column after the other, so that only one is in memory twice.
    return Block(
        keys[order],
        np.concatenate([EMPTY.signs, *(block.signs for block in blocks)])[order],
        np.concatenate([EMPTY.rest, *(block.rest for block in blocks)])[order],
    )


EMPTY = Block(
    np.zeros(0, np.int64),
    np.zeros((0, SIGNS_BYTES), np.uint8),
    np.zeros((0, REST_BYTES), np.uint8),
)
