from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest

from edgefusion.evaluation.pictures import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    channel_picture,
    choose_frames,
    overlay,
)


def decoded(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def is_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(image.astype(int) - colour) < 12).all(axis=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_contours_not_fills(dtype: type):
    frame = np.full((100, 130), np.iinfo(dtype).max // 2, dtype)
    truth, prediction = np.zeros((100, 130), bool), np.zeros((100, 130), bool)
    truth[20:60, 20:60] = True
    prediction[30:80, 70:110] = True
    picture = decoded(overlay(frame, truth, prediction))
    assert picture.shape == (400, 520, 3)
    green, magenta = is_colour(picture, TRUTH_COLOUR), is_colour(picture, PREDICTION_COLOUR)
    # A frame of about 4 × 40 × 4 pixels, two pixels thick, and nothing inside.
    assert 600 < green.sum() < 2200
    assert not green[100:220, 100:220].any()
    assert not magenta[140:300, 300:420].any()
    rows, columns = np.nonzero(green)
    assert rows.min() == pytest.approx(4 * 20, abs=4)
    assert columns.max() == pytest.approx(4 * 60, abs=4)
    assert not is_colour(decoded(overlay(frame, truth, None)), PREDICTION_COLOUR).any()


def test_empty_masks_leave_the_frame_grey():
    picture = decoded(overlay(np.zeros((60, 80), np.uint8), np.zeros((60, 80), bool), np.zeros((60, 80), bool)))
    assert not picture.any()


def test_a_faint_channel_is_stretched_and_a_flat_one_is_black():
    ramp = np.linspace(0.2, 0.3, 200, dtype=np.float32)[None].repeat(100, axis=0)
    shown = decoded(channel_picture(ramp))
    assert (shown.min(), shown.max()) == (0, 255)
    assert not decoded(channel_picture(np.full((10, 10), 0.5, np.float32))).any()


def test_best_median_and_worst_by_all_models_together(make_frames):
    dice = {"a": (0.9, 0.9), "b": (1.0, 0.2), "c": (0.5, 0.5), "d": (0.0, 0.0), "e": (0.0, 0.0), "f": (0.7, 0.8)}
    rows = [
        {"model": model, "fold": "fold_0", "frame_id": frame, "patient_id": "p", "true_area": 9, "dice": values[place]}
        for frame, values in dice.items()
        for place, model in enumerate(("one", "two"))
    ]
    rows.append({**rows[0], "frame_id": "empty", "true_area": 0, "dice": 1.0})
    chosen = choose_frames(pd.DataFrame(rows))
    assert [(frame.why, frame.frame_id) for frame in chosen] == [("Best", "a"), ("Median", "c"), ("Worst", "d")]
    assert chosen[1].dice == {"one": 0.5, "two": 0.5}
    assert choose_frames(pd.DataFrame(rows[-1:])) == []


def test_several_seeds_rank_together_and_the_first_is_shown(repeat):
    dice = {"a": (0.9, 0.1), "b": (0.6, 0.9), "c": (0.6, 0.6)}
    first = [
        {"model": "one", "fold": "holdout", "frame_id": name, "patient_id": "p", "true_area": 9, "dice": values[0]}
        for name, values in dice.items()
    ]
    chosen = choose_frames(repeat(pd.DataFrame(first), {"dice": [values[1] for values in dice.values()]}))
    assert [(frame.why, frame.frame_id) for frame in chosen] == [("Best", "b"), ("Median", "c"), ("Worst", "a")]
    assert [frame.dice for frame in chosen] == [{"one": 0.6}, {"one": 0.6}, {"one": 0.9}]
    assert {frame.fold for frame in chosen} == {"holdout_seed_0"}
