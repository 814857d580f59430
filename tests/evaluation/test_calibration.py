from __future__ import annotations

import math

import numpy as np
import pytest

from edgefusion.evaluation.calibration import BINS, REGIONS, Reliability, border_band, draw_reliability


def test_a_probability_that_comes_true_as_often_as_it_says_is_calibrated() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random(400_000)
    counted = Reliability()
    for part in np.split(probability, 4):
        counted.add(part, generator.random(part.size) < part)
    summary = counted.summary()
    assert summary["ece"] < 0.01
    assert summary["pixels"] == 400_000
    assert len(summary["bins"]) == BINS
    for place in summary["bins"]:
        assert place["share"] == pytest.approx(place["probability"], abs=0.02)


def test_the_error_is_the_distance_between_claim_and_truth() -> None:
    counted = Reliability()
    counted.add(np.full(10, 0.9), np.arange(10) < 7)
    counted.add(np.full(30, 0.1), np.arange(30) < 6)
    summary = counted.summary()
    # (10 · |.9 - .7| + 30 · |.1 - .2|) / 40
    assert summary["ece"] == pytest.approx(0.125)
    assert summary["bias"] == pytest.approx((10 * 0.2 - 30 * 0.1) / 40)
    assert [place["pixels"] for place in summary["bins"]] == [30, 10]


def test_zero_and_one_have_a_bin_and_no_pixels_have_no_error() -> None:
    counted = Reliability()
    assert math.isnan(counted.summary()["ece"])
    counted.add(np.array([0.0, 1.0], dtype=np.float32), np.array([False, True]))
    assert counted.summary()["ece"] == 0


def test_the_band_lies_on_both_sides_of_every_border() -> None:
    one, other = np.zeros((2, 100, 140), dtype=bool)
    one[30:60, 20:50] = True
    other[30:60, 90:120] = True
    band = border_band(one, other)
    # 4 % of 100 rows.
    for row, inside in ((25, False), (26, True), (33, True), (34, False)):
        assert band[row, 35] == band[row, 105] == inside
    assert not border_band(np.zeros((100, 140), bool), np.zeros((100, 140), bool)).any()


def test_the_diagram_shows_every_label_region_and_stage() -> None:
    generator = np.random.default_rng(0)
    counted = Reliability()
    counted.add(generator.random(500), generator.random(500) < 0.5, generator.integers(0, 3, 500))
    stages = {stage: dict.fromkeys(REGIONS, counted.summary()) for stage in ("before", "after")}
    picture = draw_reliability({"nerve": stages, "vessel": stages}).decode()
    for word in ("nerve, before", "vessel, after", "all pixels", "border band", "<svg"):
        assert word in picture


def test_counting_a_pixel_twice_is_counting_two() -> None:
    once, twice = Reliability(), Reliability()
    once.add(np.array([0.3, 0.9, 0.9]), np.array([False, True, True]))
    twice.add(np.array([0.3, 0.9]), np.array([False, True]), np.array([1, 2]))
    assert once.summary() == twice.summary()
