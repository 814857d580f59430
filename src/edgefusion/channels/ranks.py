"""Exact order statistics of a frame, several times faster than sorting it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.channels.bands import run_bands
from edgefusion.channels.compiling import compiled

Plane = NDArray[np.float32]
Bits = NDArray[np.int32]

_SHIFT = 16
_BINS = 1 << 15
_BLOCK = 256
_GROUP = 32


@compiled
def _count(bits: Bits, top: int, left: int, columns: int, first: int, last: int, counts: NDArray[np.int32]) -> None:
    # Two histograms in turn: neighbours often fall into one bin, and the second would wait for the first's store.
    for r in range(first, last):
        for i in range(columns // 2):
            counts[0, (bits[top + r, left + 2 * i] >> _SHIFT) & (_BINS - 1)] += 1
            counts[1, (bits[top + r, left + 2 * i + 1] >> _SHIFT) & (_BINS - 1)] += 1
        if columns % 2:
            counts[0, (bits[top + r, left + columns - 1] >> _SHIFT) & (_BINS - 1)] += 1


@compiled
def _bin_of_rank(counts: NDArray[np.int32], rank: int) -> tuple[int, int, int]:
    """The bin that holds a rank, how many values lie below the bin, and how many in it."""
    below = 0
    for block in range(0, _BINS, _BLOCK):
        inside = 0
        for part in range(counts.shape[0]):
            for index in range(_BLOCK):
                inside += counts[part, block + index]
        if below + inside > rank:
            for index in range(block, block + _BLOCK):
                here = 0
                for part in range(counts.shape[0]):
                    here += counts[part, index]
                if below + here > rank:
                    return index, below, here
                below += here
        below += inside
    return _BINS - 1, below, 0


@compiled
def _gather(bits: Bits, top: int, left: int, rows: int, columns: int, wanted: int, found: Bits) -> None:
    # Few pixels are wanted: whole groups are tested at once, and searched only where one is.
    n = 0
    for r in range(top, top + rows):
        row = bits[r, left : left + columns]
        for group in range(-(-columns // _GROUP)):
            start = group * _GROUP
            length = min(_GROUP, columns - start)
            hits = 0
            for i in range(length):
                hits += int((row[start + i] >> _SHIFT) & (_BINS - 1) == wanted)
            if hits > 0:
                for i in range(length):
                    if (row[start + i] >> _SHIFT) & (_BINS - 1) == wanted:
                        found[n] = row[start + i]
                        n += 1


def nth_smallest(
    values: Plane, rank: int, *, top: int = 0, left: int = 0, shape: tuple[int, int] | None = None, bands: int = 1
) -> float:
    """The value that would stand at index ``rank`` if the pixels of a block were sorted.

    The bits of non-negative floats sort as the floats do: a histogram of the upper half of the bits finds the bin
    that holds the rank, and only that bin's values are compared.

    Args:
        values: C-contiguous float32, at least 0, without NaN.
        rank: Index, from 0.
        top: First row of the block.
        left: First column of the block.
        shape: Rows and columns of the block; None: all of ``values``.
        bands: Number of threads.

    Returns:
        The value, exactly.
    """
    rows, columns = values.shape if shape is None else shape
    bits = values.view(np.int32)
    counts = np.zeros((bands, 2, _BINS), dtype=np.int32)
    run_bands(lambda band, first, last: _count(bits, top, left, columns, first, last, counts[band]), rows, bands)
    wanted, below, inside = _bin_of_rank(counts.reshape(2 * bands, _BINS), rank)
    found = np.empty(inside, dtype=np.int32)
    _gather(bits, top, left, rows, columns, wanted, found)
    found.partition(rank - below)
    return float(found[rank - below : rank - below + 1].view(np.float32)[0])


def quantile(values: NDArray[Any], share: float, bands: int = 1) -> float:
    """The pixel below which a ``share`` of all pixels lies; ``values`` is float32, at least 0, H×W."""
    return nth_smallest(np.ascontiguousarray(values), round(share * (values.size - 1)), bands=bands)
