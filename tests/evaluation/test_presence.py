from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.study import Study
from edgefusion.evaluation.presence import AS_USED, MIX, judge_presence, presence_threshold, score
from edgefusion.evaluation.presence_frames import POSITIVE, negatives, positives
from edgefusion.models.zoo import build_model

SMALL: dict[str, Any] = {"widths": (8,) * 4, "stem_widths": (4,) * 3}


def make_bundle(name: str = "unet", trained_on: tuple[str, ...] = ("p00",), **arguments: Any) -> Bundle:
    torch.manual_seed(0)
    model = build_model(name, 1, 1, **arguments).eval()
    bundle = Bundle(model, name, ChannelRecipe(("raw",), 64, 96), ["nerve"], arguments)
    bundle.trained_on = list(trained_on)
    return bundle


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    torch.set_num_threads(1)
    return make_phantom_study(tmp_path_factory.mktemp("presence") / "phantoms", 4, 6, size=(96, 132))


def frames(kind: str, patients: int, each: int, scores: Any, dice: float) -> pd.DataFrame:
    count = patients * each
    values = np.broadcast_to(scores, count)
    columns = {"head": values, "maximum": values, "area": values / 10}
    facts = {"kind": kind, "patient_id": [f"{kind[0]}{n // each}" for n in range(count)], "trained_on": False}
    return pd.DataFrame({**facts, **columns, "dice": dice, "used": values >= 0.5, "used_dice": dice})


def test_every_candidate_score_is_noted(study: Study) -> None:
    bundle = make_bundle()
    shots = [*positives(study, bundle, "nerve"), *negatives(study, bundle, "nerve", (96, 132))]
    without = score(shots, bundle, "nerve")
    assert without["head"].isna().all()
    assert without["maximum"].between(0, 1).all()
    headed = score(shots, make_bundle("edgefusion-unet", **SMALL), "nerve")
    assert headed["head"].between(0, 1).all()
    assert set(judge_presence(without)["rule"]) == {AS_USED, "maximum", "area"}
    assert set(judge_presence(headed)["rule"]) == {AS_USED, "head", "maximum", "area"}
    # Far from any threshold, this network finds nothing: right on negatives alone.
    assert judge_presence(without).iloc[0]["kaggle"] == pytest.approx(1 - MIX)


def test_a_score_that_separates_is_perfect_and_kinds_are_judged_apart() -> None:
    shown = frames(POSITIVE, 5, 20, np.linspace(0.6, 1, 100), 0.8)
    easy, hard = frames("easy", 5, 8, 0.1, 1.0), frames("hard", 2, 8, 0.9, 0.0)
    easy["trained_on"] = True
    judged = judge_presence(pd.concat([shown, easy, hard], ignore_index=True)).set_index(["kind", "rule"])
    used = judged.loc[("easy", AS_USED)]
    assert (used["sensitivity"], used["specificity"]) == (1, 1)
    assert used["kaggle"] == pytest.approx(MIX * 0.8 + 1 - MIX)
    assert used["kaggle_low"] <= used["kaggle"] <= used["kaggle_high"]
    assert np.isnan(used["auroc"])
    assert (used["negatives"], used["negative_patients"], used["negatives_trained_on"]) == (40, 5, 40)
    for rule in ("head", "maximum", "area"):
        row = judged.loc[("easy", rule)]
        assert row["auroc"] == 1
        # The threshold keeps 95 % of the positives and empties the others' masks.
        assert row["sensitivity"] == pytest.approx(0.95, abs=0.02)
        assert row["kaggle"] == pytest.approx(MIX * 0.8 * row["sensitivity"] + 1 - MIX)
        assert judged.loc[("hard", rule), "specificity"] == 0
        assert judged.loc[("hard", rule), "auroc"] == pytest.approx(0.25, abs=0.02)
    # Two patients are too few for an interval.
    assert np.isnan(judged.loc[("hard", "head"), "auroc_low"])
    assert np.isnan(judged.loc[("hard", AS_USED), "kaggle_low"])


def test_a_frame_without_any_found_pixel_is_empty_whatever_its_score() -> None:
    shown = frames(POSITIVE, 5, 20, 0.4, 0.0)
    silent = frames("silent", 5, 4, 0.45, 1.0)
    row = judge_presence(pd.concat([shown, silent])).set_index("rule").loc["maximum"]
    assert row["specificity"] == 0
    assert row["kaggle"] == pytest.approx(1 - MIX)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), st.floats(0, 1))
def test_a_threshold_keeps_its_share_of_the_positives_and_no_higher_score_would(
    scores: list[float], sensitivity: float
) -> None:
    values = np.array(scores)
    threshold = presence_threshold(values, sensitivity)
    assert threshold in values
    assert (values >= threshold).mean() >= sensitivity
    for higher in values[values > threshold]:
        # One frame of slack: a share that falls between two frames is rounded to the safe side.
        assert (values >= higher).sum() - 1 < sensitivity * len(values)
