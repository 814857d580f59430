from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edgefusion.errors import DataError
from edgefusion.evaluation.aggregate import check_frames, read_frames, summarise
from edgefusion.evaluation.bootstrap import interval, patient_counts
from edgefusion.evaluation.metrics import presence_measures

SMALL = """model,fold,label,frame_id,patient_id,presence,has_nerve,dice,precision,recall,tp,fp,fn,\
boundary_f1,hd95,surface_distance,predicted_area,true_area
unet,holdout,nerve,a1,007,0.9,True,0.8,0.8,0.8,80,20,20,0.5,4,1,100,100
unet,holdout,nerve,a2,007,0.8,True,0.6,0.6,0.6,60,40,40,0.3,8,3,100,100
unet,holdout,nerve,a3,007,0.3,False,1,1,1,0,0,0,1,,,0,0
unet,holdout,nerve,b1,NA,0.1,True,0,,0,0,0,100,0,,,0,100
unet,holdout,nerve,b2,NA,0.6,False,0,0,,0,50,0,0,,,50,0
"""


@pytest.fixture
def small(tmp_path: Path) -> pd.DataFrame:
    (tmp_path / "frames.csv").write_text(SMALL)
    return read_frames(tmp_path / "frames.csv")


def value(summary: pd.DataFrame, measure: str, column: str = "value") -> float:
    (row,) = summary[summary["measure"] == measure].to_dict("records")
    return row[column]


@pytest.mark.parametrize(
    ("measure", "expected", "frames"),
    [
        ("dice_masked", (0.8 + 0.6 + 0) / 3, 3),
        ("dice_all", (0.8 + 0.6 + 1 + 0 + 0) / 5, 5),
        ("dice_patients", (0.7 + 0) / 2, 3),
        ("precision", 0.7, 2),
        ("recall", 1.4 / 3, 3),
        ("pooled_precision", 140 / 250, 4 - 1),
        ("pooled_recall", 140 / 300, 3),
        ("pooled_f1", 2 * 140 / (2 * 140 + 110 + 160), 4),
        ("boundary_f1", 0.8 / 3, 3),
        ("hd95", 6, 2),
        ("surface_distance", 2, 2),
        ("sensitivity", 2 / 3, 3),
        ("specificity", 1 / 2, 2),
        ("auroc", 4 / 6, 5),
        ("n_missed", 1, 3),
    ],
)
def test_by_hand(small: pd.DataFrame, measure: str, expected: float, frames: int):
    summary = summarise(small, resamples=200)
    assert value(summary, measure) == pytest.approx(expected)
    assert value(summary, measure, "n_frames") == frames


def test_patients_keep_their_names(small: pd.DataFrame):
    assert set(small["patient_id"]) == {"007", "NA"}


def test_values_lie_in_their_intervals_and_measures_agree(two_models: pd.DataFrame):
    summary = summarise(two_models, resamples=2000)
    bounded = summary.dropna(subset=["low"])
    assert (bounded["low"] <= bounded["value"]).all()
    assert (bounded["value"] <= bounded["high"]).all()
    for model, rows in two_models.groupby("model"):
        by_sklearn = presence_measures(rows["presence"], rows["has_nerve"])
        of_model = summary[summary["model"] == model]
        for key, expected in by_sklearn.items():
            assert value(of_model, key) == pytest.approx(expected)


def test_auroc_resampled_by_pairs_of_patients_equals_auroc_of_the_repeated_frames(make_frames):
    frames = make_frames("unet", patients=8, empty_share=0.5)
    names, patient = np.unique(frames["patient_id"], return_inverse=True)
    presence, has_nerve = frames["presence"].to_numpy(), frames["has_nerve"].to_numpy()
    draws = []
    for row in patient_counts(8, 190, seed=9).astype(int):
        drawn = np.repeat(np.arange(len(frames)), row[patient])
        draws.append(presence_measures(presence[drawn], has_nerve[drawn])["auroc"])
    summary = summarise(frames, resamples=190, seed=9)
    expected = interval(np.array(draws), len(names))
    assert (value(summary, "auroc", "low"), value(summary, "auroc", "high")) == pytest.approx(expected)


def test_neither_the_order_of_rows_nor_repetition_matters(two_models: pd.DataFrame):
    shuffled = two_models.sample(frac=1, random_state=1)
    key = ["model", "label", "measure"]
    once = summarise(two_models, resamples=300).sort_values(key, ignore_index=True)
    again = summarise(shuffled, resamples=300).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(once, again)


def test_frames_are_counted_once_however_many_seeds_judged_them(two_models: pd.DataFrame, repeat):
    once = summarise(two_models, resamples=100)
    # Judged again with the same result, nothing changes: neither values, nor intervals, nor counts.
    pd.testing.assert_frame_equal(summarise(repeat(two_models, {}, {}), resamples=100), once)
    worse = repeat(two_models, {"dice": 0.0, "predicted_area": 0})
    both = summarise(worse, resamples=100).set_index(["model", "measure"])
    once = once.set_index(["model", "measure"])
    for model, rows in two_models[two_models["has_nerve"]].groupby("model"):
        assert both.loc[(model, "dice_masked"), "value"] == pytest.approx(once.loc[(model, "dice_masked"), "value"] / 2)
        # All are missed with the second seed and none with the first.
        assert both.loc[(model, "n_missed"), "value"] == len(rows) / 2
    pd.testing.assert_series_equal(both["n_frames"], once["n_frames"])


def test_labels_are_summed_up_apart(make_frames):
    frames = pd.concat([make_frames("unet"), make_frames("unet", label="vessel", shift=-0.3)], ignore_index=True)
    dice = summarise(frames, resamples=50).query("measure == 'dice_masked'").set_index("label")["value"]
    assert dice["nerve"] > dice["vessel"] + 0.2


def test_without_empty_frames_presence_is_undefined(make_frames):
    summary = summarise(make_frames("unet", empty_share=0), resamples=50)
    assert np.isnan(value(summary, "specificity"))
    assert np.isnan(value(summary, "auroc"))
    assert value(summary, "dice_masked") == value(summary, "dice_all")


def test_a_patient_without_any_mask_is_left_out_of_the_mean_of_patients(make_frames):
    frames = make_frames("unet")
    others = frames[frames["patient_id"] != "p0"]
    bare = frames["patient_id"] == "p0"
    summary = summarise(frames.assign(true_area=frames["true_area"].where(~bare, 0)), resamples=500)
    assert value(summary, "dice_patients") == pytest.approx(value(summarise(others, resamples=50), "dice_patients"))
    assert value(summary, "dice_patients", "n_patients") == 11
    assert value(summary, "dice_patients", "low") < value(summary, "dice_patients")


def test_fast_on_a_real_size(make_frames):
    frames = make_frames("unet", patients=47, frames=120)
    start = time.process_time()
    summarise(frames)
    assert time.process_time() - start < 3


def test_what_is_refused(two_models: pd.DataFrame, tmp_path: Path):
    with pytest.raises(DataError, match="lacks the columns hd95"):
        check_frames(two_models.drop(columns="hd95"))
    with pytest.raises(DataError, match="empty"):
        check_frames(two_models.iloc[:0])
    with pytest.raises(DataError, match="more than once on nerve in frame p0_0"):
        check_frames(pd.concat([two_models, two_models.iloc[:1]]))
    again = two_models[two_models["frame_id"] == "p1_3"].assign(fold="fold_9")
    with pytest.raises(DataError, match="edgefusion-unet is scored in fewer folds on nerve in frame p0_0"):
        check_frames(pd.concat([two_models, again]))
    with pytest.raises(DataError, match="unet is scored in fewer folds"):
        check_frames(pd.concat([two_models, two_models[1:].assign(fold="fold_9")]))
    # Another model may have been trained with more seeds.
    check_frames(pd.concat([two_models, two_models[two_models["model"] == "unet"].assign(fold="fold_9")]))
    with pytest.raises(DataError, match="missing"):
        read_frames(tmp_path / "frames.csv")
    (tmp_path / "frames.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(DataError, match=r"frames\.csv"):
        read_frames(tmp_path / "frames.csv")


def test_a_table_survives_the_file(two_models: pd.DataFrame, tmp_path: Path):
    text = io.StringIO()
    two_models.to_csv(text, index=False)
    (tmp_path / "frames.csv").write_text(text.getvalue())
    pd.testing.assert_frame_equal(read_frames(tmp_path / "frames.csv"), two_models, check_dtype=False)


def test_presence_is_decided_at_the_bundles_own_threshold_where_the_table_says_it(make_frames):
    frames = make_frames("unet").assign(presence_threshold=0.7)
    shows, said = frames["true_area"] > 0, frames["presence"] >= 0.7
    summary = summarise(frames, resamples=50)
    assert value(summary, "sensitivity") == pytest.approx(said[shows].mean())
    assert value(summary, "specificity") == pytest.approx(1 - said[~shows].mean())
    assert value(summary, "sensitivity") < value(summarise(make_frames("unet"), resamples=50), "sensitivity")
