from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefusion.data.phantom import simulate_frame
from edgefusion.errors import UsageError
from edgefusion.inference.measure import NerveMeasures, measure
from edgefusion.inference.measure_clip import Jump, Stretch, measure_clip, measure_plot, measure_table


def seen(area: float, x: float = 50.0) -> NerveMeasures:
    return NerveMeasures("mm", 1, area, area, centroid=(x, 20.0))


ABSENT = NerveMeasures("mm", 0, 0.0, 0.0)


def test_profile_and_variability() -> None:
    clip = measure_clip([seen(10), seen(12), ABSENT, seen(9)], [0, 0.1, 0.2, 0.3])
    assert clip.areas == (10, 12, 0, 9)
    assert (clip.seen, clip.area_min, clip.area_max) == (3, 9, 12)
    assert clip.area_mean == pytest.approx(31 / 3)
    assert clip.variability == pytest.approx(12 / 9)
    assert clip.lost == (Stretch(2, 2, 0.2, 0.2),)
    assert clip.jumps == ()


def test_lost_is_what_lies_between_sightings() -> None:
    frames = [ABSENT, seen(5), ABSENT, ABSENT, seen(5), ABSENT]
    assert measure_clip(frames, range(6)).lost == (Stretch(2, 3, 2.0, 3.0),)


def test_jumps_of_area_and_of_place() -> None:
    # A disc of 4π mm² has a radius of 2 mm.
    area = 4 * math.pi
    frames = [seen(area), seen(area, 51.9), seen(area, 54), seen(1.5 * area, 54), ABSENT, seen(9 * area, 90)]
    clip = measure_clip(frames, range(6))
    assert [(jump.frame, jump.area_ratio, jump.shift) for jump in clip.jumps] == [
        (2, 1.0, pytest.approx(2.1)),
        (3, pytest.approx(1.5), 0.0),
    ]
    assert clip.jumps[0] == Jump(2, 2.0, 1.0, pytest.approx(2.1))


def test_nothing_seen() -> None:
    clip = measure_clip([ABSENT, ABSENT], [0, 1])
    assert (clip.seen, clip.area_mean, clip.variability, clip.lost, clip.jumps) == (0, None, None, (), ())
    assert measure_plot(clip).lstrip().startswith(b"<?xml")


@given(st.lists(st.one_of(st.just(0.0), st.floats(0.1, 1e4)), min_size=1, max_size=40))
def test_what_always_holds(areas: list[float]) -> None:
    clip = measure_clip([seen(area) if area else ABSENT for area in areas], range(len(areas)))
    assert clip.seen == sum(area > 0 for area in areas)
    if clip.seen:
        assert clip.variability is not None
        assert clip.variability >= 1
        first, last = np.flatnonzero(areas)[[0, -1]]
        assert sum(s.last - s.first + 1 for s in clip.lost) == (last - first + 1) - clip.seen
    assert json.loads(json.dumps(clip.as_dict(), allow_nan=False))["frames"] == len(areas)


def test_a_sweep_over_a_phantom_has_its_true_areas() -> None:
    shots = [simulate_frame(5, 1, frame, (210, 290)) for frame in range(8)]
    side = shots[0].spacing_mm
    found = [measure(shot.mask, shot.image, (side, side)) for shot in shots]
    clip = measure_clip(found, range(8))
    assert clip.areas == pytest.approx([np.count_nonzero(shot.mask) * side**2 for shot in shots])
    table = measure_table(found, clip.times)
    assert list(table["frame"]) == list(range(8))
    assert table["area_total_mm2"].tolist() == pytest.approx(clip.areas, abs=1e-4)
    assert {"centroid_x_mm", "feret_min_mm", "depth_nearest_mm"} <= set(table.columns)


def test_the_plot_shows_profile_loss_and_jump() -> None:
    clip = measure_clip([seen(10), ABSENT, seen(10), seen(30)], [0, 0.1, 0.2, 0.3])
    picture = measure_plot(clip)
    assert picture == measure_plot(clip)
    for words in (b"not found", b"jump", "area (mm²)".encode()):
        assert words in picture
    assert b"jump" not in measure_plot(measure_clip([seen(10), seen(10)], [0, 1]))


@pytest.mark.parametrize(
    ("frames", "times", "words"),
    [
        ([], [], "0 frames"),
        ([ABSENT], [0, 1], "1 frames came with 2"),
        ([ABSENT, ABSENT], [1, 1], "do not rise"),
        ([ABSENT], [math.nan], "do not rise"),
        ([ABSENT, NerveMeasures("px", 0, 0, 0)], [0, 1], "others in px"),
    ],
)
def test_what_does_not_fit_together(frames: list[NerveMeasures], times: list[float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        measure_clip(frames, times)
