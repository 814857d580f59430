"""Place and spacing of the image come from the ultrasound regions, and only from those that can be believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from edgefusion.data.clip import Clip, Region
from edgefusion.data.dicom import open_dicom
from edgefusion.data.dicom.reader import frame_rate
from edgefusion.data.dicom.regions import tissue_regions

Write = Callable[..., Path]
TISSUE = {"left": 10, "top": 5, "right": 49, "bottom": 34}


@pytest.fixture
def opened(tmp_path: Path, write_ultrasound: Write) -> Callable[..., Clip]:
    def build(regions: list[dict[str, Any]], **attributes: Any) -> Clip:
        frames = np.zeros((1, 60, 80), np.uint8)
        return open_dicom(write_ultrasound(tmp_path / "x.dcm", frames, regions=regions, **attributes))

    return build


def test_place_and_spacing(opened: Callable[..., Clip]) -> None:
    clip = opened([TISSUE | {"cm": 0.013}])
    assert clip.region == Region(top=5, left=10, height=30, width=40)
    assert clip.spacing == pytest.approx((0.26, 0.13))


def test_the_largest_tissue_wins(opened: Callable[..., Clip]) -> None:
    whole = {"left": 0, "top": 0, "right": 79, "bottom": 59}
    clip = opened(
        [
            whole | {"kind": 2},  # colour flow
            whole | {"form": 3, "kind": 10},  # a spectrum
            {"left": 0, "top": 0, "right": 9, "bottom": 9, "cm": 0.5},
            TISSUE | {"cm": 0.02},
        ]
    )
    assert clip.region == Region(5, 10, 30, 40)
    assert clip.spacing == pytest.approx((0.4, 0.2))


@pytest.mark.parametrize("regions", [[], [TISSUE | {"kind": 2}], [TISSUE | {"form": 2}]])
def test_no_tissue_no_place(opened: Callable[..., Clip], regions: list[dict[str, Any]]) -> None:
    clip = opened(regions)
    assert (clip.region, clip.spacing) == (None, None)


@pytest.mark.parametrize("change", [{"unit": 4}, {"cm": 0.0}, {"cm": float("nan")}])
def test_unknown_spacing_is_none(opened: Callable[..., Clip], change: dict[str, Any]) -> None:
    clip = opened([TISSUE | change])
    assert clip.region == Region(5, 10, 30, 40)
    assert clip.spacing is None


def test_a_mirrored_axis_has_the_same_spacing(opened: Callable[..., Clip]) -> None:
    assert opened([TISSUE | {"cm": -0.01}]).spacing == pytest.approx((0.2, 0.1))


@pytest.mark.parametrize("right", [79, 80])
def test_the_last_column_may_be_counted_either_way(opened: Callable[..., Clip], right: int) -> None:
    assert opened([TISSUE | {"right": right}]).region == Region(5, 10, 30, 70)


def test_a_region_beyond_the_frame_is_not_believed(opened: Callable[..., Clip]) -> None:
    clip = opened([TISSUE | {"right": 81}], PixelSpacing=[0.1, 0.1])
    assert (clip.region, clip.spacing) == (None, None)


def test_without_regions_the_frames_own_spacing_counts(opened: Callable[..., Clip]) -> None:
    assert opened([], PixelSpacing=[0.2, 0.1]).spacing == (0.2, 0.1)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1) | st.integers(0, 90)] * 4), max_size=4))
def test_every_region_lies_in_the_frame(corners: list[tuple[int, int, int, int]]) -> None:
    header = Dataset()
    header.Rows, header.Columns = 60, 80
    header.SequenceOfUltrasoundRegions = []
    for left, top, right, bottom in corners:
        item = Dataset()
        item.RegionSpatialFormat = item.RegionDataType = 1
        item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
        header.SequenceOfUltrasoundRegions.append(item)
    regions = [region for region, _ in tissue_regions(header)]
    areas = [region.crop(np.zeros((60, 80))).size for region in regions]
    assert areas == sorted(areas, reverse=True)
    assert all(areas)


@pytest.mark.parametrize(
    ("attributes", "rate"),
    [
        ({}, None),
        ({"FrameTime": "40"}, 25.0),
        ({"FrameTime": "0", "CineRate": "20"}, 20.0),
        ({"FrameTimeVector": ["0", "30", "50"]}, 25.0),
        ({"FrameTimeVector": ["0", "30", "50"], "FrameTime": "10"}, 100.0),
        ({"FrameTimeVector": ["0", "30", "50"], "FrameTime": "10", "FrameIncrementPointer": 0x00181065}, 25.0),
        ({"CineRate": "0", "RecommendedDisplayFrameRate": "15"}, 15.0),
    ],
)
def test_frames_a_second(attributes: dict[str, Any], rate: float | None) -> None:
    header = Dataset()
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    assert frame_rate(header) == (None if rate is None else pytest.approx(rate))
