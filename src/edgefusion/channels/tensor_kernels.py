"""The compiled core of oriented SRAD: diffusion along edges, with a tensor for a coefficient.

Planes and bands are those of ``kernels``. The tensor [[a, b], [b, d]] of a pixel (x along columns) keeps only the
share c of the flow across the edge and all of the flow along it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefusion.channels.compiling import compiled
from edgefusion.channels.kernels import MARGIN, Workspace

LEAST_COHERENCE, LEAST_GRADIENT_SQUARED = np.float32(1e-3), np.float32(1e-6)
"""Below this share of the structure tensor's trace, and below this squared gradient in full scales a pixel, a
direction is rounding noise: it fades out instead of being scaled up."""
_ONE = np.float32(1)


@compiled
def tensor_rows(
    w: Workspace,
    field: int,
    planes: tuple[int, int, int],
    columns: int,
    first: int,
    last: int,
    structure: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    gain: np.float32,
) -> None:
    """Diffusion tensors of a band: I - (1 - c) n nᵀ, with c = min(1, ``gain`` (1 + f)) and n across the edge.

    Where the smoothed structure tensor has no direction, n nᵀ is half the identity.

    Args:
        w: The workspace.
        field: First row of the plane f of DPAD's precision.
        planes: First rows of the planes that receive a, b and d.
        columns: Width of the frame.
        first: First row of the band.
        last: One past the last row of the band.
        structure: Smoothed squares of the gradient, xx, xy and yy, each H×W, in (full scale / px)².
        gain: See above.
    """
    half = np.float32(0.5)
    xx, xy, yy = structure
    a, b, d = planes
    for r in range(first, last):
        for i in range(columns):
            j = MARGIN + i
            c = gain * (_ONE + w[field + r, j])
            missing = half * (_ONE - (c if c < _ONE else _ONE))
            difference, twice = xx[r, i] - yy[r, i], np.float32(2) * xy[r, i]
            faint = LEAST_COHERENCE * (xx[r, i] + yy[r, i]) + LEAST_GRADIENT_SQUARED
            scale = missing / np.sqrt(difference * difference + twice * twice + faint * faint)
            w[a + r, j] = _ONE - missing - scale * difference
            w[b + r, j] = -scale * twice
            w[d + r, j] = _ONE - missing + scale * difference
        # Beyond a mirror the mixed term changes its sign: with that, nothing flows through the border.
        w[a + r, MARGIN - 1] = w[a + r, MARGIN]
        w[b + r, MARGIN - 1] = -w[b + r, MARGIN]
        w[a + r, MARGIN + columns] = w[a + r, MARGIN + columns - 1]
        w[b + r, MARGIN + columns] = -w[b + r, MARGIN + columns - 1]


@compiled
def tensor_step_rows(
    w: Workspace,
    source: int,
    target: int,
    planes: tuple[int, int, int],
    rows: int,
    columns: int,
    first: int,
    last: int,
    tau: np.float32,
) -> None:
    """One linear step u + ``tau`` div(D grad u) of a band.

    The terms with a and d take the mean of two neighbours' coefficients at the half point between them; the mixed
    terms are central differences of central differences.

    Args:
        w: The workspace.
        source: First row of the plane u.
        target: First row of the plane that receives the result.
        planes: First rows of the planes a, b and d.
        rows: Height of the frame.
        columns: Width of the frame.
        first: First row of the band.
        last: One past the last row of the band.
        tau: Step size, px².
    """
    a, b, d = planes
    straight, mixed = np.float32(0.5) * tau, np.float32(0.25) * tau
    for r in range(first, last):
        above, below = max(r - 1, 0), min(r + 1, rows - 1)
        up, row, down = source + above, source + r, source + below
        d_up, d_row, d_down = d + above, d + r, d + below
        b_up, b_row, b_down = b + above, b + r, b + below
        mirror_up = -mixed if r == 0 else mixed
        mirror_down = -mixed if r == rows - 1 else mixed
        for i in range(columns):
            j = MARGIN + i
            x = w[row, j]
            flow = (w[a + r, j] + w[a + r, j + 1]) * (w[row, j + 1] - x)
            flow += (w[a + r, j] + w[a + r, j - 1]) * (w[row, j - 1] - x)
            flow += (w[d_row, j] + w[d_down, j]) * (w[down, j] - x) + (w[d_row, j] + w[d_up, j]) * (w[up, j] - x)
            across = w[b_row, j + 1] * (w[down, j + 1] - w[up, j + 1])
            across -= w[b_row, j - 1] * (w[down, j - 1] - w[up, j - 1])
            lower = w[b_down, j] * (w[down, j + 1] - w[down, j - 1])
            upper = w[b_up, j] * (w[up, j + 1] - w[up, j - 1])
            w[target + r, j] = x + straight * flow + mixed * across + mirror_down * lower - mirror_up * upper
        w[target + r, MARGIN - 1] = w[target + r, MARGIN]
        w[target + r, MARGIN + columns] = w[target + r, MARGIN + columns - 1]
