"""Measures of a nerve along a clip or a sweep: how its area runs, where it jumps, and where the nerve is lost."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from math import hypot, isfinite, pi, sqrt
from typing import Any, Literal

import pandas as pd

from edgefusion.errors import UsageError
from edgefusion.inference.measure import NerveMeasures

JUMP_RATIO = 1.5
"""An area that changes by this factor or more from one frame to the next has jumped."""


@dataclass(frozen=True)
class Jump:
    """The nerve differs more between two frames that follow each other than a steady probe would show."""

    frame: int
    """The later frame, from 0."""
    time: float
    """Its time."""
    area_ratio: float
    """Larger over smaller of the two areas, at least 1."""
    shift: float
    """Distance between the two centres of mass, mm or px."""


@dataclass(frozen=True)
class Stretch:
    """Frames that follow each other without the nerve, with frames that show it before and after."""

    first: int
    """First frame without it, from 0."""
    last: int
    """Last frame without it."""
    start: float
    """Time of the first frame."""
    end: float
    """Time of the last frame."""


@dataclass(frozen=True)
class ClipMeasures:
    """Measures of one label along the frames of a clip."""

    unit: Literal["mm", "px"]
    """Unit of all lengths; areas have its square."""
    times: tuple[float, ...]
    """Time of each frame in seconds, or whatever else the caller counted along the sweep."""
    areas: tuple[float, ...]
    """The profile: area of all regions together in each frame, mm² or px; 0 where the nerve is not seen."""
    seen: int
    """Number of frames that show the nerve."""
    area_mean: float | None
    """Mean area over the frames that show it, mm² or px; this and what follows is None where no frame does."""
    area_min: float | None
    """Smallest area."""
    area_max: float | None
    """Largest area."""
    variability: float | None
    """Largest over smallest area, at least 1."""
    jumps: tuple[Jump, ...]
    """Frames at which the area changes by ``JUMP_RATIO`` or more, or the centre of mass moves by more than the radius
    of a disc of the earlier frame's area."""
    lost: tuple[Stretch, ...]
    """Where the nerve is lost, and found again later."""

    def as_dict(self) -> dict[str, Any]:
        """The measures as JSON can hold them; names of areas and lengths end in their unit."""
        length, area = self.unit, "mm2" if self.unit == "mm" else "px"
        jumps = [asdict(jump) for jump in self.jumps]
        for jump in jumps:
            jump[f"shift_{length}"] = jump.pop("shift")
        return {
            "frames": len(self.times),
            "seen": self.seen,
            f"area_mean_{area}": self.area_mean,
            f"area_min_{area}": self.area_min,
            f"area_max_{area}": self.area_max,
            "variability": self.variability,
            "jumps": jumps,
            "lost": [asdict(stretch) for stretch in self.lost],
            "times": list(self.times),
            f"areas_{area}": list(self.areas),
        }


def measure_clip(measures: Iterable[NerveMeasures], times: Iterable[float]) -> ClipMeasures:
    """Sum up one label's measures along a clip.

    Args:
        measures: Of each frame, in their order.
        times: Of each frame in seconds, or another position that rises along the sweep.

    Raises:
        UsageError: If there are no frames, another number of times, times that do not rise, or mixed units.
    """
    frames, moments = tuple(measures), tuple(float(time) for time in times)
    if not frames or len(frames) != len(moments):
        raise UsageError(f"{len(frames)} frames came with {len(moments)} times.", "Give one time a frame.")
    if not all(map(isfinite, moments)) or any(later <= earlier for earlier, later in pairwise(moments)):
        raise UsageError("The times of the frames do not rise.", "Give each frame's time in seconds, in order.")
    if len({frame.unit for frame in frames}) > 1:
        raise UsageError("Some frames are measured in mm, others in px.", "Measure all with the same spacing.")
    areas = tuple(frame.area_total for frame in frames)
    seen = [area for area in areas if area > 0]
    return ClipMeasures(
        unit=frames[0].unit,
        times=moments,
        areas=areas,
        seen=len(seen),
        area_mean=sum(seen) / len(seen) if seen else None,
        area_min=min(seen, default=None),
        area_max=max(seen, default=None),
        variability=max(seen) / min(seen) if seen else None,
        jumps=tuple(_jumps(frames, moments)),
        lost=tuple(_lost(areas, moments)),
    )


def measure_table(measures: Iterable[NerveMeasures], times: Iterable[float]) -> pd.DataFrame:
    """One row a frame: ``frame``, ``time``, and the measures under the names of ``NerveMeasures.as_dict``.

    The centre of mass has two columns, ``centroid_x`` and ``centroid_y`` with the unit.
    """
    rows = []
    for frame, (found, time) in enumerate(zip(measures, times, strict=True)):
        values = found.as_dict()
        x, y = values.pop(f"centroid_{found.unit}") or (None, None)
        rows.append(
            {"frame": frame, "time": time, **values, f"centroid_x_{found.unit}": x, f"centroid_y_{found.unit}": y}
        )
    return pd.DataFrame(rows)


def measure_plot(clip: ClipMeasures, label: str = "nerve") -> bytes:
    """The area's profile as SVG: a line where the nerve is seen, a grey band where it is lost, a triangle at jumps."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, stretch in enumerate(clip.lost):
        # To the frames on both sides: the loss lies somewhere between them.
        ends = clip.times[stretch.first - 1], clip.times[stretch.last + 1]
        axes.axvspan(*ends, color="0.85", lw=0, label=None if number else "not found")
    profile = [area or float("nan") for area in clip.areas]
    axes.plot(clip.times, profile, color="#0072b2", marker="o", markersize=2.5, linewidth=1.4, label=label)
    if clip.jumps:
        at = [jump.frame for jump in clip.jumps]
        jumped = [clip.times[frame] for frame in at], [clip.areas[frame] for frame in at]
        axes.plot(*jumped, "v", color="#d55e00", markersize=6, label="jump")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time (s)")
    axes.set_ylabel(f"area ({'mm²' if clip.unit == 'mm' else 'px'})")
    axes.grid(color="0.9")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "edgefusion", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _jumps(frames: tuple[NerveMeasures, ...], times: tuple[float, ...]) -> Iterable[Jump]:
    for index, (before, after) in enumerate(pairwise(frames), start=1):
        if before.centroid is None or after.centroid is None:
            continue
        small, large = sorted((before.area_total, after.area_total))
        shift = hypot(after.centroid[0] - before.centroid[0], after.centroid[1] - before.centroid[1])
        if large / small >= JUMP_RATIO or shift > sqrt(before.area / pi):
            yield Jump(index, times[index], large / small, shift)


def _lost(areas: tuple[float, ...], times: tuple[float, ...]) -> Iterable[Stretch]:
    runs = [(seen, list(run)) for seen, run in groupby(range(len(areas)), key=lambda frame: areas[frame] > 0)]
    for seen, run in runs[1:-1]:
        if not seen:
            yield Stretch(run[0], run[-1], times[run[0]], times[run[-1]])
