"""The compiled core of the edge maps. Inputs carry a border, so that no loop asks where it is; all float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefusion.channels.compiling import compiled

Plane = NDArray[np.float32]

_EIGHTH = np.float32(0.125)
_HALF, _ONE = np.float32(0.5), np.float32(1)
_TINY = np.float32(1e-12)


@compiled
def sobel_rows(bordered: Plane, first: int, last: int, out: Plane) -> None:
    """Gradient magnitude by Sobel's 3×3 kernels, per pixel.

    Args:
        bordered: H+2×W+2.
        first: First row of the band.
        last: One past the last row of the band.
        out: H×W; receives rows ``first`` to ``last - 1``.
    """
    two = np.float32(2)
    for r in range(first, last):
        for j in range(out.shape[1]):
            a, b, c = bordered[r, j], bordered[r, j + 1], bordered[r, j + 2]
            d, f = bordered[r + 1, j], bordered[r + 1, j + 2]
            g, h, i = bordered[r + 2, j], bordered[r + 2, j + 1], bordered[r + 2, j + 2]
            across = (c - a) + two * (f - d) + (i - g)
            down = (g - a) + two * (h - b) + (i - c)
            out[r, j] = _EIGHTH * np.sqrt(across * across + down * down)


@compiled
def variation_rows(bordered: Plane, first: int, last: int, out: Plane) -> None:
    """Instantaneous coefficient of variation: the q of SRAD.

    Args:
        bordered: Intensities, H+2×W+2.
        first: First row of the band.
        last: One past the last row of the band.
        out: H×W; receives rows ``first`` to ``last - 1``.
    """
    for r in range(first, last):
        for j in range(out.shape[1]):
            x = bordered[r + 1, j + 1]
            north, south = bordered[r, j + 1] - x, bordered[r + 2, j + 1] - x
            west, east = bordered[r + 1, j] - x, bordered[r + 1, j + 2] - x
            s1 = north + south + west + east
            s2 = north * north + south * south + west * west + east * east
            mean = x + np.float32(0.25) * s1
            out[r, j] = np.sqrt((_HALF * s2 - np.float32(0.0625) * s1 * s1) / (mean * mean + _TINY))


@compiled
def exponential_down(u: Plane, decay: np.float32, out: Plane) -> None:
    """Exponentially weighted mean of a row and those above it; before the first row it repeats.

    Args:
        u: H×W.
        decay: Weight of a row against the one below it, in (0, 1).
        out: H×W; may be ``u``.
    """
    for j in range(u.shape[1]):
        out[0, j] = u[0, j]
    for r in range(1, u.shape[0]):
        for j in range(u.shape[1]):
            out[r, j] = decay * out[r - 1, j] + (_ONE - decay) * u[r, j]


@compiled
def exponential_up(u: Plane, decay: np.float32, out: Plane) -> None:
    """``exponential_down`` from the last row to the first."""
    last = u.shape[0] - 1
    for j in range(u.shape[1]):
        out[last, j] = u[last, j]
    for i in range(1, u.shape[0]):
        for j in range(u.shape[1]):
            out[last - i, j] = decay * out[last - i + 1, j] + (_ONE - decay) * u[last - i, j]


@compiled
def scaled_mean_rows(a: Plane, scale_a: np.float32, b: Plane, scale_b: np.float32, first: int, last: int) -> None:
    """``a`` becomes (min(1, ``scale_a`` a) + min(1, ``scale_b`` b)) / 2 in rows ``first`` to ``last - 1``."""
    for r in range(first, last):
        for j in range(a.shape[1]):
            x, y = scale_a * a[r, j], scale_b * b[r, j]
            a[r, j] = _HALF * ((x if x < _ONE else _ONE) + (y if y < _ONE else _ONE))
