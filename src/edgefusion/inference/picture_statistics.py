"""A few dozen numbers that stand for a picture: how grey it is, where, and what its texture is like.

One compiled pass: as array operations they would cost four times as much beside a network, which empties the caches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.channels.compiling import compiled

_QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
_BLACK, _WHITE = 2, 253
_STRIPS, _COLUMNS = 8, 3
"""Equal parts from the transducer down, and across, of which the mean grey level is taken."""

_SCALES = 4
"""Of texture: pixels, pairs, fours and eights of them."""

_BLOCK = 8
"""Side of the squares in which contrast is local, in pixels of the network."""

_GREY_LEVEL = 1 / 255
_DARK = 0.02
_RARE = 0.01
"""Added before logarithms: without contrast, black, or without a single black pixel is far, but not infinitely."""

STATISTICS = len(_QUANTILES) + 4 + _STRIPS + _COLUMNS + 4 * _SCALES + 4
"""How many there are."""

_STRIP = len(_QUANTILES) + 4
_COLUMN = _STRIP + _STRIPS
_TEXTURE = _COLUMN + _COLUMNS
_CONTRAST = _TEXTURE + 4 * _SCALES


def statistics(plane: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """What stands for a picture.

    In order: quantiles of the grey level, its mean, the logarithm of its standard deviation and of the shares of black
    and of white pixels; mean grey level of strips from the top down and from left to right; at each scale of a Haar
    wavelet transform (Mallat 1989) the logarithms of the root mean square of its vertical, lateral and diagonal
    details, which are the spectrum's slope and direction and the size of speckle, and of how sparse the vertical ones
    are; at last mean and standard deviation, over small squares, of the logarithm of the local standard deviation and
    of that over the local mean, the speckle contrast.

    Args:
        plane: h×w in [0, 1], both sides multiples of 16.

    Returns:
        ``STATISTICS`` values.
    """
    values = np.zeros(STATISTICS)
    _measure(np.ascontiguousarray(plane, dtype=np.float32), values)
    return values


@compiled
def _levels(x: NDArray[np.float32], values: NDArray[np.float64]) -> None:
    counts = np.zeros(256, np.int64)
    total, squares = 0.0, 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = np.float64(x[i, j])
            # Compiled code does not check bounds: a value that is none must not write elsewhere.
            counts[min(max(int(value * 255 + 0.5), 0), 255)] += 1
            total += value
            squares += value * value
    mean = total / x.size
    below, place = np.empty(256), 0
    seen = 0
    for level in range(256):
        seen += counts[level]
        below[level] = seen / x.size
        while place < len(_QUANTILES) and below[level] >= _QUANTILES[place]:
            values[place] = level / 255
            place += 1
    values[place] = mean
    values[place + 1] = np.log(np.sqrt(max(squares / x.size - mean * mean, 0.0)) + _GREY_LEVEL)
    values[place + 2] = np.log(below[_BLACK] + _RARE)
    values[place + 3] = np.log(1 - below[_WHITE - 1] + _RARE)


@compiled
def _layout(x: NDArray[np.float32], values: NDArray[np.float64]) -> None:
    height, width = x.shape
    columns = np.zeros(width)
    for i in range(height):
        row = 0.0
        for j in range(width):
            row += x[i, j]
            columns[j] += x[i, j]
        values[_STRIP + i * _STRIPS // height] += row * _STRIPS / x.size
    part = width / _COLUMNS
    for j in range(width):
        for k in range(_COLUMNS):
            # A pixel column that lies on a border counts for both sides.
            share = max(min(j + 1.0, (k + 1) * part) - max(float(j), k * part), 0.0)
            values[_COLUMN + k] += columns[j] / height * share / part


@compiled
def _texture(level: NDArray[np.float32], values: NDArray[np.float64]) -> None:
    for scale in range(_SCALES):
        height, width = level.shape[0] // 2, level.shape[1] // 2
        half = np.empty((height, width), np.float32)
        vertical, lateral, diagonal, size = 0.0, 0.0, 0.0, 0.0
        for i in range(height):
            for j in range(width):
                a, b = level[2 * i, 2 * j], level[2 * i, 2 * j + 1]
                c, d = level[2 * i + 1, 2 * j], level[2 * i + 1, 2 * j + 1]
                down = (a + b) - (c + d)
                across = (a - b) + (c - d)
                both = (a - b) - (c - d)
                vertical += down * down
                lateral += across * across
                diagonal += both * both
                size += abs(down)
                half[i, j] = np.float32(0.25) * ((a + b) + (c + d))
        place, pixels = _TEXTURE + 4 * scale, height * width
        # Half of a sum over four pixels is the orthonormal transform.
        values[place] = np.log(0.5 * np.sqrt(vertical / pixels) + _GREY_LEVEL)
        values[place + 1] = np.log(0.5 * np.sqrt(lateral / pixels) + _GREY_LEVEL)
        values[place + 2] = np.log(0.5 * np.sqrt(diagonal / pixels) + _GREY_LEVEL)
        values[place + 3] = np.log(0.5 * size / pixels + _GREY_LEVEL) - values[place]
        level = half


@compiled
def _local_contrast(x: NDArray[np.float32], values: NDArray[np.float64]) -> None:
    rows, columns = x.shape[0] // _BLOCK, x.shape[1] // _BLOCK
    sums = np.zeros(4)
    for block in range(rows * columns):
        top, left = block // columns * _BLOCK, block % columns * _BLOCK
        total, squares = 0.0, 0.0
        for i in range(top, top + _BLOCK):
            for j in range(left, left + _BLOCK):
                total += x[i, j]
                squares += np.float64(x[i, j]) * x[i, j]
        mean = total / _BLOCK**2
        contrast = np.log(np.sqrt(max(squares / _BLOCK**2 - mean * mean, 0.0)) + _GREY_LEVEL)
        relative = contrast - np.log(mean + _DARK)
        sums[0] += contrast
        sums[1] += contrast * contrast
        sums[2] += relative
        sums[3] += relative * relative
    for pair in range(2):
        mean, square = sums[2 * pair] / (rows * columns), sums[2 * pair + 1] / (rows * columns)
        values[_CONTRAST + 2 * pair] = mean
        values[_CONTRAST + 2 * pair + 1] = np.sqrt(max(square - mean * mean, 0.0))


@compiled
def _measure(x: NDArray[np.float32], values: NDArray[np.float64]) -> None:
    """Fill in ``values`` for a picture h×w."""
    _levels(x, values)
    _layout(x, values)
    _texture(x, values)
    _local_contrast(x, values)
