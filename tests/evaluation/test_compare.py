from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefusion.errors import DataError, UsageError
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.compare import COMPARED, best_size, compare_models, holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(p_values)
def test_holm_is_monotone_and_never_lowers_a_p_value(p: list[float]):
    corrected = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, corrected, strict=True))
    in_order = [corrected[index] for index in np.argsort(p, kind="stable")]
    assert in_order == sorted(in_order)
    # The smallest pays Bonferroni's price.
    assert min(corrected) == pytest.approx(min(1, len(p) * min(p)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, math.nan]) == pytest.approx([0.02, math.nan], nan_ok=True)
    assert holm([]) == []


def test_identical_models_do_not_differ(make_frames):
    first = make_frames("unet")
    table = compare_models(pd.concat([first, first.assign(model="resunet")]), "unet", resamples=500)
    assert set(table["measure"]) == set(COMPARED)
    assert (table["difference"] == 0).all()
    assert (table["p"] == 1).all()
    assert (table["p_holm"] == 1).all()
    assert ((table["low"] <= 0) & (table["high"] >= 0)).all()
    assert (table["better"] == "").all()


def test_a_known_shift_is_found_and_its_interval_holds_it(two_models: pd.DataFrame):
    table = compare_models(two_models, "edgefusion-unet").set_index("measure")
    dice = table.loc["dice_masked"]
    assert dice["low"] < 0.05 < dice["high"]
    assert dice["low"] > 0
    assert dice["p_holm"] < 0.01
    assert dice["better"] == "edgefusion-unet"
    assert dice["difference"] == pytest.approx(dice["reference_value"] - dice["other_value"])
    # A smaller distance is better: the difference is negative and the winner the same.
    assert table.loc["hd95", "difference"] < 0
    assert table.loc["hd95", "better"] == "edgefusion-unet"


def test_swapping_the_models_flips_the_sign(two_models: pd.DataFrame):
    forth = compare_models(two_models, "edgefusion-unet", resamples=999)
    back = compare_models(two_models, "unet", resamples=999)
    np.testing.assert_allclose(forth["difference"], -back["difference"])
    np.testing.assert_allclose(forth["low"], -back["high"])
    np.testing.assert_allclose(forth["p"], back["p"])
    assert (forth["better"] == back["better"]).all()


def test_pairing_sees_what_the_two_intervals_alone_would_not(two_models: pd.DataFrame):
    intervals = summarise(two_models).query("measure == 'dice_masked'").set_index("model")
    assert intervals.loc["unet", "high"] > intervals.loc["edgefusion-unet", "low"]
    assert compare_models(two_models, "edgefusion-unet")["better"].iloc[0] == "edgefusion-unet"


def test_frames_that_only_one_model_found_do_not_count_for_distances(two_models: pd.DataFrame):
    missed = (two_models["model"] == "unet") & (two_models["frame_id"].isin(["p0_0", "p0_1"])) & two_models["has_nerve"]
    assert missed.any()
    two_models.loc[missed, ["hd95", "precision"]] = np.nan
    table = compare_models(two_models, "edgefusion-unet", resamples=99).set_index("measure")
    masked = int(two_models["has_nerve"].sum() / 2)
    assert table.loc["hd95", "n_frames"] == table.loc["precision", "n_frames"] == masked - missed.sum()
    assert table.loc["dice_masked", "n_frames"] == masked


def test_false_alarms_count_in_the_pooled_f1(two_models: pd.DataFrame):
    alarm = (two_models["model"] == "unet") & ~two_models["has_nerve"]
    before = compare_models(two_models, "edgefusion-unet", resamples=99).set_index("measure")
    two_models.loc[alarm, "fp"] = 5000
    after = compare_models(two_models, "edgefusion-unet", resamples=99).set_index("measure")
    assert after.loc["pooled_f1", "other_value"] < before.loc["pooled_f1", "other_value"] - 0.1
    assert after.loc["dice_masked", "other_value"] == before.loc["dice_masked", "other_value"]


def test_seeds_are_compared_together_and_frames_counted_once(two_models: pd.DataFrame, repeat):
    once = compare_models(two_models, "edgefusion-unet", resamples=200)
    pd.testing.assert_frame_equal(compare_models(repeat(two_models, {}), "edgefusion-unet", resamples=200), once)
    # With the second seed, both models are alike: half of the difference is left.
    both = compare_models(repeat(two_models, {"dice": 0.5}), "edgefusion-unet", resamples=200)
    primary = both["measure"] == "dice_masked"
    assert both.loc[primary, "difference"].item() == pytest.approx(once.loc[primary, "difference"].item() / 2)
    assert (both["n_frames"] == once["n_frames"]).all()
    with pytest.raises(DataError, match="not judged on the same frames"):
        compare_models(repeat(two_models, {})[: -len(two_models) // 2], "edgefusion-unet")


def test_models_must_share_their_frames(two_models: pd.DataFrame):
    unshared = two_models.drop(two_models.index[two_models["model"] == "unet"][3])
    with pytest.raises(DataError, match=r"not judged on the same frames.*1 frames have only one.*p0_3"):
        compare_models(unshared, "edgefusion-unet")
    two_models.loc[two_models["model"] == "unet", "true_area"] += 1
    with pytest.raises(DataError, match="disagree on true_area"):
        compare_models(two_models, "edgefusion-unet")
    with pytest.raises(UsageError, match="There are: edgefusion-unet, unet"):
        compare_models(two_models, "resunet")


def test_the_better_of_two_sizes_counts(make_frames):
    sizes = {"edgefusion-unet": 0.0, "unet": -0.1, "unet-matched": -0.05, "resunet": 0.02, "resunet-matched": -0.1}
    frames = pd.concat([make_frames(model, shift=shift) for model, shift in sizes.items()])
    summary = summarise(frames, resamples=20)
    assert best_size(summary, "nerve") == ["edgefusion-unet", "unet-matched", "resunet"]
