"""The compiled core of SRAD, DPAD and Perona-Malik: one coefficient kernel a family, one linear step.

Every kernel works on a band of rows and releases Python's lock, so that bands, or whole frames, run in threads.

All planes of a frame lie in one tall float32 array, the *workspace*: a plane is a range of its rows, and each band
has further rows of its own for values in flight. Kernels take row numbers, not views: a view of a row costs two
atomic counter updates, together a quarter of the time of a row of 580 pixels, and all threads share the counter.
Grey values start at column ``MARGIN``, on a cache line. The columns beside the frame repeat its border, which is all
that a border without flux needs; loops run to a multiple of eight columns, over values that nothing reads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefusion.channels.compiling import compiled

Workspace = NDArray[np.float32]

MARGIN = 16
"""Columns before the first grey value: 64 bytes of float32, one cache line."""
WINDOW = 7
"""Side of the square in which DPAD takes its local statistics."""
LEAST_PRECISION = 2.0**-7
"""Least value of DPAD's mean²/variance; for non-negative intensities the window cannot give less than 1/48."""
FLATTEST = np.float32(1e-5)
"""Least variance of a window over its squared mean: a hundred times what float32 rounding leaves of a flat one."""
TINY = np.float32(1e-12)
"""Added to a squared mean, so that black without decompression does not divide 0 by 0."""
_SHARE = np.float32(1 / WINDOW**2)
_ONE = np.float32(1)


def new_workspace(rows: int, columns: int) -> Workspace:
    """Uninitialised rows for frames of ``columns``, each row starting on a cache line."""
    stride = MARGIN + -(-columns // 16) * 16 + 16
    memory = np.empty(rows * stride + 16, dtype=np.float32)
    offset = (-memory.ctypes.data % 64) // 4
    return memory[offset : offset + rows * stride].reshape(rows, stride)


def rows_in_flight(steps: int, cycles: int) -> int:
    """Workspace rows that ``diffuse_rows`` needs for itself, for so many cycles of at most so many steps."""
    return cycles * (2 + 2 * _ring_size(steps) + 4 * steps)


@compiled
def _ring_size(steps: int) -> int:
    size = 4
    while size < steps + 2:
        size *= 2
    return size


# The row loops count from 0 and add MARGIN, so that the compiler sees that no index is negative: a loop that starts
# at MARGIN is not vectorised.


@compiled
def _srad_row(w: Workspace, up: int, row: int, down: int, q0_squared: np.float32, span: int, c: int) -> None:
    # c = 1 / (1 + (q² - q0²) / (q0² (1 + q0²))) with q² = variation / mean², rearranged to one division.
    q0_fourth = q0_squared * q0_squared
    gain = q0_squared + q0_fourth
    for i in range(span):
        j = MARGIN + i
        x = w[row, j]
        north, south, west, east = w[up, j] - x, w[down, j] - x, w[row, j - 1] - x, w[row, j + 1] - x
        s1 = north + south + west + east
        s2 = north * north + south * south + west * west + east * east
        # Never negative: s1² <= 4 s2.
        variation = np.float32(0.5) * s2 - np.float32(0.0625) * s1 * s1
        mean = x + np.float32(0.25) * s1
        mean_squared = mean * mean + TINY
        value = gain * mean_squared / (variation + q0_fourth * mean_squared + TINY * TINY)
        w[c, j] = value if value < _ONE else _ONE


@compiled
def _field_row(w: Workspace, field: int, gain: np.float32, span: int, c: int) -> None:
    for i in range(span):
        j = MARGIN + i
        value = gain * (_ONE + w[field, j])
        w[c, j] = value if value < _ONE else _ONE


@compiled
def _conductance_row(w: Workspace, above: int, c: int, columns: int, span: int, east: int, south_of_above: int) -> None:
    w[c, MARGIN + columns] = w[c, MARGIN + columns - 1]
    w[east, MARGIN - 1] = w[c, MARGIN]
    for i in range(span):
        j = MARGIN + i
        w[east, j] = w[c, j] + w[c, j + 1]
        w[south_of_above, j] = w[above, j] + w[c, j]


@compiled
def _step_row(
    w: Workspace,
    up: int,
    row: int,
    down: int,
    east: int,
    north: int,
    south: int,
    tau: np.float32,
    columns: int,
    span: int,
    out: int,
) -> None:
    for i in range(span):
        j = MARGIN + i
        x = w[row, j]
        flow = w[east, j] * (w[row, j + 1] - x) - w[east, j - 1] * (x - w[row, j - 1])
        flow += w[south, j] * (w[down, j] - x) - w[north, j] * (x - w[up, j])
        w[out, j] = x + tau * flow
    w[out, MARGIN - 1] = w[out, MARGIN]
    w[out, MARGIN + columns] = w[out, MARGIN + columns - 1]


@compiled
def diffuse_rows(
    w: Workspace,
    source: int,
    target: int,
    field: int,
    flight: int,
    rows: int,
    columns: int,
    first: int,
    last: int,
    taus: NDArray[np.float32],
    counts: NDArray[np.int64],
    q0_squared: NDArray[np.float32],
    gain: np.float32,
) -> None:
    """Run cycles of "coefficient, then linear steps with it"; write rows ``first`` to ``last - 1`` of the result.

    All stages go down the frame together, each one row behind the stage that feeds it, so that what a stage reads is
    still in the nearest cache. A band starts and ends as many rows outside itself as there are stages.

    Args:
        w: The workspace.
        source: First row of the plane to start from.
        target: First row of the plane that receives the result.
        field: First row of the plane f of the coefficient min(1, ``gain`` (1 + f)); not read by SRAD.
        flight: First of ``rows_in_flight`` rows that only this band uses.
        rows: Height of the frame.
        columns: Width of the frame.
        first: First row of the band.
        last: One past the last row of the band.
        taus: Step sizes of all cycles, one after the other, px².
        counts: Number of steps of each cycle.
        q0_squared: SRAD's q0² of each cycle. Empty: one cycle with the coefficient of ``field``.
        gain: See ``field``.
    """
    srad = q0_squared.size > 0
    cycles = counts.size
    behind = taus.size + cycles - 1  # rows from the first stage to the last
    span = (columns + 7) & ~7
    most = counts.max()
    ring = _ring_size(most)
    block = 2 + 2 * ring + 4 * most
    for front in range(max(first - behind, 0), min(last + behind, rows) + behind):
        done, before = 0, flight
        for cycle in range(cycles):
            c = flight + cycle * block
            east = c + 2
            south = east + ring
            stages = south + ring  # four rows each
            lag = done + cycle
            r = front - lag
            if max(first - behind + lag, 0) <= r < min(last + behind - lag, rows):
                if srad:
                    above, below = max(r - 1, 0), min(r + 1, rows - 1)
                    if cycle == 0:
                        up, here, down = source + above, source + r, source + below
                    else:
                        up, here, down = before + (above & 3), before + (r & 3), before + (below & 3)
                    _srad_row(w, up, here, down, q0_squared[cycle], span, c + (r & 1))
                else:
                    _field_row(w, field + r, gain, span, c + (r & 1))
                _conductance_row(
                    w,
                    c + ((r - 1) & 1),
                    c + (r & 1),
                    columns,
                    span,
                    east + (r & (ring - 1)),
                    south + ((r - 1) & (ring - 1)),
                )
            for step in range(counts[cycle]):
                lag += 1
                r = front - lag
                if max(first - behind + lag, 0) <= r < min(last + behind - lag, rows):
                    above, below = max(r - 1, 0), min(r + 1, rows - 1)
                    if cycle + step == 0:
                        up, here, down = source + above, source + r, source + below
                    else:
                        fed_by = stages + 4 * (step - 1) if step > 0 else before
                        up, here, down = fed_by + (above & 3), fed_by + (r & 3), fed_by + (below & 3)
                    # Across the frame's border the difference is 0, and any finite conductance will do.
                    east_row = east + (r & (ring - 1))
                    north_row = south + ((r - 1) & (ring - 1)) if r > 0 else east_row
                    south_row = south + (r & (ring - 1)) if r < rows - 1 else east_row
                    out = target + r if lag == behind else stages + 4 * step + (r & 3)
                    # A conductance is the sum, not the mean, of two coefficients: hence half of tau.
                    tau = np.float32(0.5) * taus[done + step]
                    _step_row(w, up, here, down, east_row, north_row, south_row, tau, columns, span, out)
            done += counts[cycle]
            before = stages + 4 * (counts[cycle] - 1)  # the last stage, which feeds the next cycle


@compiled
def dpad_rows(
    w: Workspace, source: int, field: int, flight: int, rows: int, columns: int, first: int, last: int
) -> None:
    """Local precision mean²/variance in a 7×7 window, between ``LEAST_PRECISION`` and 10⁵, of a band of rows.

    Args:
        w: The workspace.
        source: First row of the plane of intensities.
        field: First row of the plane that receives the precision.
        flight: First of two rows that only this band uses.
        rows: Height of the frame.
        columns: Width of the frame.
        first: First row of the band.
        last: One past the last row of the band.
    """
    sums, squares = flight, flight + 1
    for r in range(first, last):
        a, b, c = source + max(r - 3, 0), source + max(r - 2, 0), source + max(r - 1, 0)
        d = source + r
        e, f, g = source + min(r + 1, rows - 1), source + min(r + 2, rows - 1), source + min(r + 3, rows - 1)
        for i in range((columns + 7) & ~7):
            j = MARGIN + i
            va, vb, vc, vd, ve, vf, vg = w[a, j], w[b, j], w[c, j], w[d, j], w[e, j], w[f, j], w[g, j]
            w[sums, j] = va + vb + vc + vd + ve + vf + vg
            w[squares, j] = va * va + vb * vb + vc * vc + vd * vd + ve * ve + vf * vf + vg * vg
        for row in (sums, squares):
            for k in range(WINDOW // 2):
                w[row, MARGIN - 1 - k] = w[row, MARGIN]
                w[row, MARGIN + columns + k] = w[row, MARGIN + columns - 1]
        for i in range((columns + 7) & ~7):
            j = MARGIN + i
            total = w[sums, j - 3] + w[sums, j - 2] + w[sums, j - 1] + w[sums, j]
            total += w[sums, j + 1] + w[sums, j + 2] + w[sums, j + 3]
            square = w[squares, j - 3] + w[squares, j - 2] + w[squares, j - 1] + w[squares, j]
            square += w[squares, j + 1] + w[squares, j + 2] + w[squares, j + 3]
            mean = _SHARE * total
            mean_squared = mean * mean
            variance = _SHARE * square - mean_squared
            least = FLATTEST * mean_squared + TINY
            value = mean_squared / (variance if variance > least else least)
            w[field + r, j] = value if value > np.float32(LEAST_PRECISION) else np.float32(LEAST_PRECISION)
