"""An image under diffusion: its planes, the threads that work on it, and its grey levels again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.arrays import as_unit
from edgefusion.channels import kernels
from edgefusion.channels.bands import count_bands, run_bands
from edgefusion.channels.fed import GRADING, STABLE_STEP, Cycle, check_time, schedule
from edgefusion.channels.ranks import nth_smallest
from edgefusion.errors import UsageError

Plane = NDArray[np.float32]

NOISE_OVER_MEDIAN = 2.0
"""DPAD takes the noise q0² as this multiple of the median of q²: the median of that skewed law is below its mean."""
STAGES_TOGETHER = 16
"""Coefficients and steps that share one walk down the frame: more would have bands compute too many rows twice, fewer
would have them wait for each other too often."""
_MOST_DECIBELS = 120.0


class Evolution:
    """The image u, as it is diffused.

    Attributes:
        rows: Height of the frame.
        columns: Width of the frame.
        cycles: What is still to be done to it.
        w: The workspace of all planes, see ``kernels``.
        u: First workspace row of the image.
        spare: First workspace row of the plane that receives its successor.
    """

    def __init__(
        self,
        image: NDArray[Any],
        planes: int,
        time: float,
        cycles: int,
        explicit_step: float | None,
        dynamic_range: float | None,
        threads: int | None,
        limit: float = STABLE_STEP,
        grading: float = GRADING,
    ) -> None:
        """Take a frame in.

        Args:
            image: H×W or H×W×3, uint8, uint16, or float in [0, 1].
            planes: Planes wanted: u, its successor, and what a coefficient needs.
            time: Diffusion time, px².
            cycles: FED cycles.
            explicit_step: Largest explicit step, px²; None for FED.
            dynamic_range: Decibels undone by log decompression, or None.
            threads: Threads for this frame; None for all cores.
            limit: Largest stable explicit step, px².
            grading: See ``fed.schedule``.

        Raises:
            UsageError: If an option is outside its range.
        """
        _check(time, cycles, explicit_step, dynamic_range, limit)
        grey = as_unit(image)
        self.rows: int = grey.shape[0]
        self.columns: int = grey.shape[1]
        self.cycles = schedule(time, cycles, explicit_step, limit, grading)
        self._least, self._most = grey.min(), grey.max()
        self._rate = np.float32(0 if dynamic_range is None else dynamic_range * math.log(10) / 20)
        self._bands = count_bands(self.rows, self.columns, threads)
        most = max(len(cycle.taus) for cycle in self.cycles)
        self._together = max(1, STAGES_TOGETHER // (most + 1))
        self._in_flight = kernels.rows_in_flight(most, self._together)
        self.w = kernels.new_workspace(planes * self.rows + self._bands * self._in_flight, self.columns)
        self.u, self.spare = self.plane(0), self.plane(1)
        self.over_bands(lambda _, first, last: self._decompress(grey, first, last))

    def _decompress(self, grey: Plane, first: int, last: int) -> None:
        inside, end = self.view(self.u)[first:last], kernels.MARGIN + self.columns
        if self._rate:
            np.multiply(grey[first:last], self._rate, out=inside)
            np.exp(inside, out=inside)
        else:
            inside[...] = grey[first:last]
        rows = self.w[self.u + first : self.u + last]
        rows[:, kernels.MARGIN - 1] = rows[:, kernels.MARGIN]
        rows[:, end:] = rows[:, end - 1 : end]

    def plane(self, index: int) -> int:
        """First workspace row of a plane."""
        return index * self.rows

    def view(self, plane: int) -> Plane:
        """The frame in the plane that starts at workspace row ``plane``, H×W."""
        return self.w[plane : plane + self.rows, kernels.MARGIN : kernels.MARGIN + self.columns]

    def grey(self) -> Plane:
        """Grey levels of u, H×W; a FED cycle may leave a few just outside [0, 1]."""
        inside = self.view(self.u)
        if not self._rate:
            return inside
        return np.asarray(np.log(np.maximum(inside, np.float32(0.5))) / self._rate, dtype=np.float32)

    def over_bands(self, work: Callable[[int, int, int], None]) -> None:
        """Call ``work(first_row_in_flight, first, last)`` for every band of rows, in threads."""
        own = self.w.shape[0] - self._bands * self._in_flight
        run_bands(lambda band, first, last: work(own + band * self._in_flight, first, last), self.rows, self._bands)

    def swap(self) -> None:
        """Make the successor the image."""
        self.u, self.spare = self.spare, self.u

    def run_srad(self, q0_squared: Sequence[float]) -> None:
        """Run all cycles with SRAD's coefficient; ``q0_squared`` has a value for each."""
        for first in range(0, len(self.cycles), self._together):
            group = slice(first, first + self._together)
            self._run(self.cycles[group], np.array(q0_squared[group], dtype=np.float32), 0, np.float32(0))

    def run_field(self, cycle: Cycle, field: int, gain: np.float32) -> None:
        """Run one cycle with the coefficient min(1, ``gain`` (1 + field))."""
        self._run([cycle], np.empty(0, dtype=np.float32), field, gain)

    def _run(self, cycles: list[Cycle], q0_squared: NDArray[np.float32], field: int, gain: np.float32) -> None:
        taus, counts = np.concatenate([cycle.taus for cycle in cycles]), np.array([len(cycle.taus) for cycle in cycles])
        u, spare, rows, columns = self.u, self.spare, self.rows, self.columns
        self.over_bands(
            lambda flight, first, last: kernels.diffuse_rows(
                self.w, u, spare, field, flight, rows, columns, first, last, taus, counts, q0_squared, gain
            )
        )
        self.swap()

    def precision(self, field: int) -> np.float32:
        """Fill a plane with DPAD's local mean²/variance, and find its noise.

        Args:
            field: First workspace row of the plane.

        Returns:
            The gain g for which DPAD's coefficient is min(1, g (1 + field)).
        """
        self.over_bands(
            lambda flight, first, last: kernels.dpad_rows(
                self.w, self.u, field, flight, self.rows, self.columns, first, last
            )
        )
        # This rank of the precision is the lower median of its inverse, q².
        rank = self.rows * self.columns // 2
        shape = (self.rows, self.columns)
        precision = nth_smallest(self.w, rank, top=field, left=kernels.MARGIN, shape=shape, bands=self._bands)
        q0_squared = NOISE_OVER_MEDIAN / precision
        return np.float32(q0_squared / (1 + q0_squared))

    def result(self) -> Plane:
        """Grey levels of u, H×W float32 within the range of the frame that came in."""
        out = np.empty((self.rows, self.columns), dtype=np.float32)
        self.over_bands(lambda _, first, last: self._compress(out[first:last], first, last))
        return out

    def _compress(self, out: Plane, first: int, last: int) -> None:
        inside = self.view(self.u)[first:last]
        if self._rate:
            # A FED cycle may leave a value just outside the range: clip before the logarithm too.
            np.maximum(inside, np.exp(self._least * self._rate), out=out)
            np.log(out, out=out)
            np.multiply(out, 1 / self._rate, out=out)
            inside = out
        np.clip(inside, self._least, self._most, out=out)


def _check(time: float, cycles: int, explicit_step: float | None, dynamic_range: float | None, limit: float) -> None:
    check_time(time)
    if cycles < 1:
        raise UsageError(f"A filter needs at least one cycle, not {cycles}.")
    if explicit_step is not None and not 0 < explicit_step <= limit:
        raise UsageError(f"An explicit step must lie in (0, {limit}] to be stable, not {explicit_step}.")
    if dynamic_range is not None and not 0 < dynamic_range <= _MOST_DECIBELS:
        raise UsageError(
            f"The dynamic range must lie in (0, {_MOST_DECIBELS:g}] dB, not {dynamic_range}.",
            "None leaves the grey levels as they are.",
        )
