from __future__ import annotations

import math

import numpy as np
import pytest

from edgefusion.evaluation.calibration import BINS, Calibration, Reliability, border_band, draw_reliability


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


def test_surely_empty_pixels_flatter_the_whole_frame_and_not_the_band() -> None:
    truth = np.zeros((100, 140), dtype=bool)
    truth[40:60, 50:90] = True
    probability = np.where(truth, 0.5, 0.0).astype(np.float32)
    calibration = Calibration()
    calibration.add(probability, truth, truth)
    summary = calibration.summary()
    assert summary["all pixels"]["ece"] < 0.1 < summary["border band"]["ece"]
    assert summary["all pixels"]["pixels"] == truth.size


def test_the_diagram_shows_every_label_and_region() -> None:
    calibration = Calibration()
    generator = np.random.default_rng(0)
    truth = generator.random((60, 80)) < 0.5
    calibration.add(generator.random((60, 80), dtype=np.float32), truth, truth)
    picture = draw_reliability({"nerve": calibration.summary(), "vessel": calibration.summary()}).decode()
    for word in ("nerve", "vessel", "all pixels", "border band", "<svg"):
        assert word in picture
