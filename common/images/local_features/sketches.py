"""Sketches: the grey and colour of a drawn image in each cell of a coarse grid, to compare it with a query by cells.

Text pages, forms, icons, charts and screens are mostly of one grey. Their signatures and local features describe the
frame that all images of their kind share. A sketch also distinguishes images that differ in a few words or colours.
"""

import math
import struct
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_CELLS = 1024
"""Cells of the grid over the content of an image."""
MAX_STEPS = 255
"""The content begins and ends at one of so many steps along a side."""
LEVELS = 16
"""Greys of a sketch."""
COLOUR_STEP = 16
WHITE = 255
NEUTRAL = np.array((0, 128, 128), dtype=np.float32)
"""Black: luma, and its differences from red and blue. Those of all greys are equal."""

_HEADER = struct.Struct(">8B")
# Cells of grey along each side of a cell of colour.
_COLOUR_CELL = 4
# Points along each side of a cell, whose mean is that of the cell. In upright images, more take hardly longer.
_SAMPLES = 6
_UPRIGHT_SAMPLES = 12

# The grey of a copy's cell differs by less than the sum of these shares: of the sketch's contrast, and of the contrast
# between the cell and those around it. In small letters, a fraction of a pixel matters.
_OF_CONTRAST = 0.1
_OF_EDGES = 0.17
# Single cells may differ in a copy, but another word differs in several beside each other. So the root of the mean
# square of so many cells by so many counts, and its largest value in a copy is this one.
_WINDOW = 3
_WINDOW_LIMIT = 0.56
# The largest difference of colour in a copy, in levels.
_COLOUR_LIMIT = 16
_LEAST_CONTRAST = 8
_MOST_GAIN = 2.0
# Colours within this many levels of grey count as grey.
_GREY = 8
# Of an image with little colour, this share of the cells has some.
_LITTLE_COLOUR = 0.2
# At least this share of the cells, and of the contrast, must be shown.
_LEAST_SHOWN = 0.4
# Means of nothing but ones are above this.
_ALL = 0.99

Matrix: TypeAlias = NDArray[np.float64]


class InvalidSketch(ValueError):
    """The bytes are not an encoded sketch."""


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """The content of a drawn image, from `left`, `top` to `right`, `bottom` in steps of 1/255 of its sides.

    `levels` (rows, columns) are its greys from 0 to 15: from `darkest` to `lightest`. `colours` (n, m, 2) are the
    differences of red and blue from grey, from 0 to 15: one for each four by four cells.
    """

    left: int
    top: int
    right: int
    bottom: int
    darkest: int
    lightest: int
    levels: NDArray[np.uint8]
    colours: NDArray[np.uint8]

    def encode(self) -> bytes:
        """Return the stored form: 8 bytes, a half for each cell, and one for each colour."""
        rows, columns = self.levels.shape
        header = (rows, columns, self.left, self.top, self.right, self.bottom, self.darkest, self.lightest)
        pairs = np.append(self.levels.ravel(), np.zeros(self.levels.size % 2, np.uint8)).reshape(-1, 2)
        packed = pairs[:, 0] << 4 | pairs[:, 1]
        tints = self.colours[..., 0] << 4 | self.colours[..., 1]
        return _HEADER.pack(*header) + packed.tobytes() + tints.tobytes()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the sketch in `data`. Raises InvalidSketch for bytes that `encode` does not return."""
        if len(data) < _HEADER.size:
            raise InvalidSketch(f"a sketch has at least {_HEADER.size} bytes, not {len(data)}")
        rows, columns, left, top, right, bottom, darkest, lightest = _HEADER.unpack_from(data)
        cells, tints = rows * columns, math.ceil(rows / _COLOUR_CELL) * math.ceil(columns / _COLOUR_CELL)
        packed = math.ceil(cells / 2)
        if not 0 < cells <= MAX_CELLS or len(data) != _HEADER.size + packed + tints:
            raise InvalidSketch(f"{len(data)} bytes for a sketch of {rows} by {columns} cells")
        if darkest > lightest or left >= right or top >= bottom:
            raise InvalidSketch("a sketch ends before it begins")
        body = np.frombuffer(data, np.uint8, offset=_HEADER.size)
        halves = np.stack([body >> 4, body & (LEVELS - 1)], axis=-1)
        levels, rest = np.split(halves[:packed].ravel(), [cells])
        if rest.any():
            raise InvalidSketch("the last half byte of a sketch is not zero")
        colours = halves[packed:].reshape(math.ceil(rows / _COLOUR_CELL), -1, 2)
        return cls(left, top, right, bottom, darkest, lightest, levels.reshape(rows, columns), colours)

    def greys(self) -> NDArray[np.float32]:
        """Return the grey of each cell, from 0 to 255."""
        step = (self.lightest - self.darkest) / (LEVELS - 1)
        greys: NDArray[np.float32] = self.darkest + self.levels.astype(np.float32) * np.float32(step)
        return greys


@dataclass(frozen=True, slots=True, eq=False)
class SmallCopy:
    """An image in few pixels: (rows, columns, 3) of luma and its differences from red and blue.

    `x`, `y` and `step_x`, `step_y` are the position of the first pixel and the size of a pixel, in pixels of the full
    image of `width` by `height`. Beyond the pixels the image is of one grey.
    """

    pixels: NDArray[np.uint8]
    x: float
    y: float
    step_x: float
    step_y: float
    width: int
    height: int

    def inverted(self) -> Self:
        """Return the small copy of the negative."""
        return replace(self, pixels=WHITE - self.pixels)

    def difference(self, sketch: Sketch, size: tuple[int, int], matrix: Matrix) -> float:
        """Return by how much this image differs from an image of `size` (width, height): up to 1 for copies of it.

        `matrix` (2, 3) maps a pixel of that image to one of this image. Where too little of that image is in this one,
        the difference is infinite. A cell counts where the whole of it is.
        """
        values, is_shown = self.shown(sketch, size, matrix)
        greys, expected = values[..., 0][is_shown], sketch.greys()[is_shown]
        contrast = max(_LEAST_CONTRAST, sketch.lightest - sketch.darkest)
        if is_shown.mean() < _LEAST_SHOWN or np.ptp(expected) < _LEAST_SHOWN * contrast:
            return math.inf
        allowed = _OF_CONTRAST * contrast + _OF_EDGES * _edges(sketch.greys())[is_shown]
        apart = np.zeros(is_shown.shape, np.float32)
        apart[is_shown] = (_fitted(greys, expected) - expected) / allowed
        grey = _largest_of_windows(apart) / _WINDOW_LIMIT
        colour = _colour_difference(values[..., 1:], sketch.colours, is_shown) / _COLOUR_LIMIT
        return max(grey, colour) / float(is_shown.mean())

    def shown(
        self, sketch: Sketch, size: tuple[int, int], matrix: Matrix
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the values of this image in each cell (rows, columns, 3), and whether all of the cell is in it."""
        rows, columns = sketch.levels.shape
        is_upright = matrix[0, 1] == matrix[1, 0] == 0
        samples = _UPRIGHT_SAMPLES if is_upright else _SAMPLES
        across = _points(sketch.left, sketch.right, columns * samples, size[0])
        down = _points(sketch.top, sketch.bottom, rows * samples, size[1])[:, np.newaxis]
        if is_upright:
            return self._upright(matrix[0, 0] * across + matrix[0, 2], (matrix[1, 1] * down + matrix[1, 2])[:, 0])
        x, y = (each[0] * across + (each[1] * down + each[2]) for each in matrix)
        is_inside = (x >= -1) & (x <= self.width + 1) & (y >= -1) & (y <= self.height + 1)
        return _cells(self._values(x, y)), _cells(is_inside[..., np.newaxis])[..., 0] > _ALL

    def _upright(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the same for points in rows and columns: two products of matrices, in a tenth of the time."""
        rows, columns, _ = self.pixels.shape
        across, down = _weights((x - self.x) / self.step_x, columns), _weights((y - self.y) / self.step_y, rows)
        values = np.tensordot(across, np.tensordot(down, self.pixels.astype(np.float32), axes=(1, 0)), axes=(1, 1))
        inside_x = ((x >= -1) & (x <= self.width + 1)).reshape(-1, _UPRIGHT_SAMPLES).all(axis=1)
        inside_y = ((y >= -1) & (y <= self.height + 1)).reshape(-1, _UPRIGHT_SAMPLES).all(axis=1)
        return values.swapaxes(0, 1), np.outer(inside_y, inside_x)

    def _values(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the values (n, m, 3) at pixels of the full image, interpolated between pixels."""
        rows, columns, _ = self.pixels.shape
        x = np.clip((x - self.x) / self.step_x - 0.5, 0, columns - 1)
        y = np.clip((y - self.y) / self.step_y - 0.5, 0, rows - 1)
        left, top = x.astype(np.intp), y.astype(np.intp)
        right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
        across, down = ((each % 1).astype(np.float32)[..., np.newaxis] for each in (x, y))
        upper, lower = (
            self.pixels[row, left] * (1 - across) + self.pixels[row, right] * across for row in (top, bottom)
        )
        values: NDArray[np.float32] = upper * (1 - down) + lower * down
        return values


def _points(first: int, last: int, count: int, side: int) -> NDArray[np.float64]:
    """Return `count` points from step `first` to `last` of a side, in pixels."""
    points: NDArray[np.float64] = (first + (np.arange(count) + 0.5) / count * (last - first)) / MAX_STEPS * side
    return points


def _weights(points: NDArray[np.float64], length: int) -> NDArray[np.float32]:
    """Return (cells, length): the shares of the pixels of a line in the mean of each cell's points."""
    points = np.clip(points - 0.5, 0, length - 1)
    first = points.astype(np.intp)
    weights = np.zeros((len(points), length), dtype=np.float32)
    each = np.arange(len(points))
    weights[each, first] = 1 - points % 1
    weights[each, np.minimum(first + 1, length - 1)] += points % 1
    means: NDArray[np.float32] = weights.reshape(-1, _UPRIGHT_SAMPLES, length).mean(axis=1)
    return means


def _cells(values: NDArray[np.float32] | NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the mean of each cell's points."""
    rows, columns, depth = values.shape
    points = values.reshape(rows // _SAMPLES, _SAMPLES, columns // _SAMPLES, _SAMPLES, depth)
    means: NDArray[np.float32] = points.mean(axis=(1, 3), dtype=np.float32)
    return means


def blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of each cell of colour (n, m, depth)."""
    rows, columns, _ = values.shape
    down, right = np.arange(0, rows, _COLOUR_CELL), np.arange(0, columns, _COLOUR_CELL)
    sums = np.add.reduceat(np.add.reduceat(values, down, axis=0), right, axis=1)
    counts = np.outer(np.diff(down, append=rows), np.diff(right, append=columns))
    means: NDArray[np.float32] = (sums / counts[..., np.newaxis]).astype(np.float32)
    return means


def _edges(greys: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return, for each cell, the contrast of the cells in the three by three around it."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(greys, 1, mode="edge"), (3, 3))
    edges: NDArray[np.float32] = around.max(axis=(2, 3)) - around.min(axis=(2, 3))
    return edges


def _largest_of_windows(apart: NDArray[np.float32]) -> float:
    """Return the largest root mean square of neighbouring cells (rows, columns)."""
    rows, columns = (min(_WINDOW, length) for length in apart.shape)
    windows = np.lib.stride_tricks.sliding_window_view(apart * apart, (rows, columns))
    return math.sqrt(float(windows.mean(axis=(2, 3)).max()))


def _fitted(greys: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the greys with the contrast and the brightness at which they are nearest to the expected ones."""
    mean, required = greys.mean(), expected.mean()
    deviations = greys - mean
    squares = float(deviations @ deviations)
    gain = float(deviations @ (expected - required)) / squares if squares else 1.0
    fitted: NDArray[np.float32] = deviations * np.float32(min(_MOST_GAIN, max(1 / _MOST_GAIN, gain))) + required
    return fitted


def _colour_difference(values: NDArray[np.float32], colours: NDArray[np.uint8], is_shown: NDArray[np.bool_]) -> float:
    """Return the largest difference of colour, beyond that which rounding explains.

    A grey image may be a copy of one with little colour, like a page with a logo.
    """
    greyest = NEUTRAL[1] / COLOUR_STEP
    is_coloured = (np.abs(colours + 0.5 - greyest) > 1).any(axis=-1)
    if is_coloured.mean() < _LITTLE_COLOUR and np.abs(values - NEUTRAL[1:]).max() < _GREY:
        return 0.0
    apart = np.abs(blocks(values) - (colours + 0.5) * COLOUR_STEP).max(axis=-1) - COLOUR_STEP / 2
    apart = apart[blocks(is_shown[..., np.newaxis].astype(np.float32))[..., 0] > _ALL]
    return max(0.0, float(apart.max(initial=0.0)))
