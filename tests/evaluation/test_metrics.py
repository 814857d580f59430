from __future__ import annotations

import math
import time
import warnings

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from edgefusion.errors import DataError
from edgefusion.evaluation.metrics import distance_unit, frame_measures, presence_measures

masks = arrays(bool, (14, 17))


def ellipse(centre: tuple[int, int], axes: tuple[int, int], angle: float = 0, size=(420, 580)) -> np.ndarray:
    return cv2.ellipse(np.zeros(size, np.uint8), centre, axes, angle, 0, 360, 1, -1)


def test_pixels_counted_by_hand():
    truth = np.zeros((6, 6), bool)
    truth[1:4, 1:5] = True  # 12 pixels
    prediction = np.zeros((6, 6), bool)
    prediction[2:5, 1:5] = True  # 12 pixels, 8 of them right
    found = frame_measures(prediction, truth)
    assert (found["tp"], found["fp"], found["fn"]) == (8, 4, 4)
    assert found["dice"] == found["precision"] == found["recall"] == pytest.approx(2 / 3)
    assert (found["predicted_area"], found["true_area"]) == (12, 12)


def test_distances_of_two_lines_by_hand():
    truth, prediction = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    truth[2, 1:8], prediction[5, 1:8] = True, True  # 3 rows apart
    assert frame_measures(prediction, truth)["hd95"] == 3
    assert frame_measures(prediction, truth)["boundary_f1"] == 0
    with_spacing = frame_measures(prediction, truth, spacing=(0.5, 0.1))
    assert with_spacing["surface_distance"] == pytest.approx(1.5)
    # The tolerance of boundary F1 stays in pixels whatever the spacing.
    assert with_spacing["boundary_f1"] == 0


def test_boundary_tolerance_is_two_pixels_inclusive():
    truth, prediction = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    truth[2, 1:8], prediction[4, 1:8] = True, True
    assert frame_measures(prediction, truth)["boundary_f1"] == 1


def test_empty_masks_as_documented():
    none, some = np.zeros((8, 8), bool), np.eye(8, dtype=bool)
    both = frame_measures(none, none)
    assert [both[key] for key in ("dice", "precision", "recall", "boundary_f1")] == [1, 1, 1, 1]
    missed = frame_measures(none, some)
    assert [missed[key] for key in ("dice", "recall", "boundary_f1")] == [0, 0, 0]
    assert math.isnan(missed["precision"])
    alarm = frame_measures(some, none)
    assert [alarm[key] for key in ("dice", "precision", "boundary_f1")] == [0, 0, 0]
    assert math.isnan(alarm["recall"])
    for found in (both, missed, alarm):
        assert math.isnan(found["hd95"])
        assert math.isnan(found["surface_distance"])


def test_sizes_must_agree():
    with pytest.raises(DataError, match=r"\(4, 5\).*\(5, 4\).*original size"):
        frame_measures(np.zeros((4, 5)), np.zeros((5, 4)))


@given(masks, masks)
@settings(max_examples=60, deadline=None)
def test_invariants(first: np.ndarray, second: np.ndarray):
    forth, back = frame_measures(first, second), frame_measures(second, first)
    for key in ("dice", "boundary_f1", "hd95", "surface_distance"):
        assert forth[key] == pytest.approx(back[key], nan_ok=True)
    assert forth["precision"] == pytest.approx(back["recall"], nan_ok=True)
    assert 0 <= forth["dice"] <= 1
    assert forth["tp"] + forth["fn"] == forth["true_area"]
    if forth["tp"]:  # F1 of one frame is its Dice
        harmonic = 2 / (1 / forth["precision"] + 1 / forth["recall"])
        assert forth["dice"] == pytest.approx(harmonic)
    same = frame_measures(first, first)
    assert same["dice"] == same["boundary_f1"] == 1
    assert not first.any() or same["hd95"] == same["surface_distance"] == 0


def random_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(3)
    pairs = []
    for _ in range(6):
        shapes = [
            ellipse(tuple(generator.integers(20, 80, 2)), tuple(generator.integers(8, 30, 2)), 30, (96, 128))
            for _ in range(2)
        ]
        pairs.append((shapes[0], shapes[1]))
    # One in two pieces, and one cut off by the frame.
    pairs.append((ellipse((30, 30), (9, 7), 0, (96, 128)) | ellipse((90, 60), (12, 9), 0, (96, 128)), pairs[0][0]))
    pairs.append((ellipse((0, 40), (25, 12), 0, (96, 128)), ellipse((10, 44), (25, 12), 0, (96, 128))))
    return pairs


@pytest.mark.parametrize("spacing", [None, (0.08, 0.11)])
def test_distances_agree_with_monai(spacing: tuple[float, float] | None):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    for prediction, truth in random_pairs():
        found = frame_measures(prediction, truth, spacing)
        tensors = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
        shared = {"include_background": True, "spacing": list(spacing) if spacing else None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hd95 = monai.compute_hausdorff_distance(*tensors, percentile=95, **shared)
            surface = monai.compute_average_surface_distance(*tensors, symmetric=True, **shared)
        assert found["hd95"] == pytest.approx(float(hd95), rel=1e-5)
        assert found["surface_distance"] == pytest.approx(float(surface), rel=1e-5)


def test_fast_on_a_full_frame():
    prediction, truth = ellipse((250, 200), (70, 40), 20), ellipse((260, 205), (65, 45), 10)
    times = []
    for _ in range(15):
        start = time.process_time()
        frame_measures(prediction, truth)
        times.append(time.process_time() - start)
    # 2 ms on a quiet core; the bound leaves room for a busy one.
    assert min(times) < 0.005


def test_presence_by_hand():
    presence, has_nerve = np.array([0.9, 0.5, 0.2, 0.6, 0.1]), np.array([1, 1, 1, 0, 0])
    found = presence_measures(presence, has_nerve)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(1 / 2)
    assert found["auroc"] == pytest.approx(4 / 6)


@pytest.mark.parametrize(("has_nerve", "known"), [([1, 1], "sensitivity"), ([0, 0], "specificity")])
def test_presence_with_one_class_only(has_nerve: list[int], known: str):
    found = presence_measures(np.array([0.7, 0.2]), np.array(has_nerve))
    assert {key for key, value in found.items() if not math.isnan(value)} == {known}


def test_distances_are_in_mm_only_where_every_frame_has_a_spacing():
    frames = pd.DataFrame({"spacing_row_mm": [0.1, 0.1], "spacing_col_mm": [0.1, 0.2]})
    assert distance_unit(frames) == "mm"
    frames.loc[1, "spacing_col_mm"] = math.nan
    assert distance_unit(frames) == "px"
    assert distance_unit(frames.astype(str).replace("nan", "")) == "px"
