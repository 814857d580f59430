"""When a diffusion renews its coefficient, and the steps it takes in between: fast explicit diffusion (FED)."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefusion.errors import UsageError

STABLE_STEP = 0.25
"""Largest stable explicit step in px², for coefficients up to 1 and four neighbours."""
GRADING = 1.5
"""Cycle k of K ends at T (k/K)^1.5: an image changes fastest at first, so cycles there are shorter. Against cycles of
one length this cuts the error against tiny steps by a quarter (DPAD, T = 10) to two fifths (T = 20) at no cost."""


class Cycle(NamedTuple):
    """A coefficient's time, and the linear steps taken with it."""

    start: float
    """Diffusion time at which it begins, px²."""
    span: float
    """Diffusion time, px², over which the coefficient is meant to hold: all of a FED cycle, but 0 for an explicit step,
    whose coefficient is that of its start, as the textbook has it."""
    taus: NDArray[np.float32]
    """Step sizes, px²."""


def check_time(time: float) -> None:
    """Raise a UsageError for a diffusion time that is none."""
    if not 0 < time < math.inf:
        raise UsageError(f"The diffusion time must be positive, not {time}.", "It is in px²; the default is 10.")


def schedule(
    time: float, cycles: int, explicit_step: float | None, limit: float = STABLE_STEP, grading: float = GRADING
) -> list[Cycle]:
    """All cycles of a diffusion.

    Args:
        time: Diffusion time T, px².
        cycles: Number of FED cycles; not used by the explicit scheme.
        explicit_step: None for FED; else the explicit scheme, in equal steps of at most this many px².
        limit: Largest stable explicit step, px².
        grading: FED cycle k of K ends at T (k/K)^grading.

    Returns:
        The cycles, in order; their steps sum to ``time``.
    """
    if explicit_step is not None:
        count = math.ceil(time / explicit_step - 1e-9)
        step = np.array([time / count], dtype=np.float32)
        return [Cycle(index * time / count, 0.0, step) for index in range(count)]
    ends = [time * (index / cycles) ** grading for index in range(cycles + 1)]
    return [
        Cycle(start, end - start, np.array(fed_steps(end - start, limit), dtype=np.float32))
        for start, end in pairwise(ends)
    ]


def fed_steps(time: float, limit: float = STABLE_STEP) -> list[float]:
    """Steps of one FED cycle, in an order that keeps rounding errors small.

    The steps are tau_i = limit / (2 cos²(pi (2i + 1) / (4n + 2))) with the smallest n whose sum limit (n² + n) / 3
    reaches ``time``, scaled so that they sum to it. Some are far above ``limit``: only the whole cycle is stable, so
    the coefficient must not change within it.

    Source: Grewenig, Weickert, Bruhn, "From box filtering to fast explicit diffusion", DAGM 2010.

    Args:
        time: Diffusion time of the cycle, px².
        limit: Largest stable explicit step, px².

    Returns:
        n step sizes, px².
    """
    n = max(1, math.ceil(math.sqrt(0.25 + 3 * time / limit) - 0.5 - 1e-9))
    steps = [limit / (2 * math.cos(math.pi * (2 * i + 1) / (4 * n + 2)) ** 2) for i in range(n)]
    scale = time / sum(steps)
    return [scale * steps[i] for i in _order(n)]


@cache
def _order(n: int) -> list[int]:
    """The order of n steps, of those that visit them in equal strides, in which a wave grows least on the way.

    It is judged from both ends: what a wave may grow by before a step bounds overflow, what it may grow by after one
    bounds rounding errors.
    """
    size = 1 / np.cos(np.pi * (2 * np.arange(n) + 1) / (4 * n + 2)) ** 2
    growth = np.abs(1 - np.outer(size, np.linspace(0, 1, 4 * n + 1)))

    def most(order: list[int]) -> float:
        return float(max(growth[way].cumprod(axis=0).max() for way in (order, order[::-1])))

    return min((_strides(n, kappa) for kappa in range(1, n + 1)), key=most)


def _strides(n: int, kappa: int) -> list[int]:
    """Visit 0..n-1 in strides of kappa modulo the next prime."""
    prime = n + 1
    while any(prime % divisor == 0 for divisor in range(2, math.isqrt(prime) + 1)):
        prime += 1
    return [index - 1 for index in (k * kappa % prime for k in range(1, prime)) if index <= n]
