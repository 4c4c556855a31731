"""Pairs of features with a common word, of a query and of many stored images, and which of them agree.

Each pair proposes a similarity (shift, rotation, scale, perhaps a mirror image), as a vote in the sense of Lowe (2004).
The proposals of all stored images are compared at once, because an image has only a few pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.images.local_features.features import Keypoints

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

MIN_AGREEING = 3
"""With fewer agreeing features, a map explains nothing."""
TOLERANCE = 0.02
"""How far a feature may lie from its mapped position, as a share of the stored image's longer side."""

# Tolerances of a proposal from one pair: its scale and rotation are known roughly, so that errors grow with distance.
_PROPOSAL_DRIFT = 0.2
_PROPOSAL_APART = 0.6
# Proposals of each image and mirror form that are refined.
_REFINED = 2
# Comparisons of two pairs that are in memory at once: some megabytes.
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class PairLabels:
    """The stored image and the features that each pair (m,) comes from.

    `group` is the number of the stored image times two, plus one for mirror images, and `side` its longer side.
    """

    group: Rows
    query_feature: Rows
    word: NDArray[np.uint32]
    side: Floats

    def take(self, rows: Rows) -> Self:
        """Return the labels at these indices."""
        return type(self)(self.group[rows], self.query_feature[rows], self.word[rows], self.side[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs (m,) of a feature of the query and one of a stored image, in the order of their group.

    `scale` is the logarithm of the quotient of their sizes.
    """

    labels: PairLabels
    query: Keypoints
    target: Keypoints
    scale: Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.log(self.query.size / self.target.size))


@dataclass(frozen=True, slots=True)
class Proposal:
    """The similarity of one pair: `first` to `end` are the pairs of its group, of which those in `agreeing` agree."""

    group: int
    first: int
    end: int
    agreeing: Rows


def proposals(pairs: Pairs, *, least: Rows) -> Iterator[Proposal]:
    """Yield the proposals with most agreement of each group, by group, those with most first.

    `least` (groups,) is the number of agreeing pairs below which a proposal is of no use.
    """
    groups = pairs.labels.group
    first = np.searchsorted(groups, np.arange(len(least) + 1))
    sizes = np.diff(first)
    proposing = np.flatnonzero(sizes[groups] >= least[groups])
    if not len(proposing):
        return
    of, agreeing = _agreements(pairs, proposing, first[groups[proposing]], sizes[groups[proposing]])
    votes = np.bincount(of, minlength=len(groups))
    ends = np.cumsum(votes)
    useful = np.flatnonzero(votes >= np.maximum(1, least[groups]))
    order = useful[np.lexsort((-votes[useful], groups[useful]))]
    latest, rank = -1, 0
    for row in order.tolist():
        group = int(groups[row])
        latest, rank = group, rank + 1 if group == latest else 0
        if rank < _REFINED:
            yield Proposal(
                group, int(first[group]), int(first[group + 1]), agreeing[ends[row] - votes[row] : ends[row]]
            )


def _agreements(pairs: Pairs, proposing: Rows, first: Rows, sizes: Rows) -> tuple[Rows, Rows]:
    """Return (n,) twice, by rows: a row of `proposing`, and a row of the same group that agrees with its similarity.

    `first` and `sizes` are the first row, and the number of rows, of the group of each.
    """
    ends = np.cumsum(sizes)
    blocks = np.flatnonzero(np.diff(ends // _BLOCK, prepend=-1))
    results = []
    for begin, end in zip(blocks, np.append(blocks[1:], len(proposing)), strict=True):
        each = sizes[begin:end]
        starts = np.cumsum(each) - each
        one = np.repeat(proposing[begin:end], each)
        other = np.arange(len(one)) + np.repeat(first[begin:end] - starts, each)
        results.append(_agreeing(pairs, one, other))
    return np.concatenate([one for one, _ in results]), np.concatenate([other for _, other in results])


def _agreeing(pairs: Pairs, one: Rows, other: Rows) -> tuple[Rows, Rows]:
    """Return those of `one` with whose similarity the pair beside it in `other` agrees, and these pairs."""
    mirrored = pairs.labels.group & 1
    turn = (pairs.query.angle - np.where(mirrored, -pairs.target.angle, pairs.target.angle)) % (2 * np.pi)
    apart = np.abs(turn[one] - turn[other])
    apart = np.minimum(apart, 2 * np.pi - apart)
    alike = (pairs.scale[one] - pairs.scale[other]) ** 2 + apart**2 < _PROPOSAL_APART**2
    one, other = one[alike], other[alike]
    y = np.where(mirrored, -pairs.target.y, pairs.target.y)
    factor = np.exp(pairs.scale)
    along, across = (factor * np.cos(turn))[one], (factor * np.sin(turn))[one]
    far_x, far_y = pairs.target.x[other] - pairs.target.x[one], y[other] - y[one]
    missed_x = along * far_x - across * far_y - (pairs.query.x[other] - pairs.query.x[one])
    missed_y = across * far_x + along * far_y - (pairs.query.y[other] - pairs.query.y[one])
    limit = factor[one] * (_PROPOSAL_DRIFT * np.hypot(far_x, far_y) + TOLERANCE * pairs.labels.side[one])
    near = np.hypot(missed_x, missed_y) < limit
    return one[near], other[near]
