from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.presence_frames import CUT, POSITIVE
from edgefusion.evaluation.presence_table import as_markdown, score_presence, summarise_presence
from edgefusion.models.zoo import build_model


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    torch.set_num_threads(1)
    return make_phantom_study(tmp_path_factory.mktemp("table") / "phantoms", 5, 4, size=(96, 132))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    made = Bundle(build_model("unet", 1, 1).eval(), "unet", ChannelRecipe(("raw",), 32, 48), ["nerve"])
    made.trained_on = ["p00"]
    return made


@pytest.fixture(scope="module")
def frames(study: Study, bundle: Bundle) -> pd.DataFrame:
    return score_presence(bundle, study, [study], "nerve")


def test_positives_are_of_new_patients_and_of_those_asked_for(
    study: Study, bundle: Bundle, frames: pd.DataFrame
) -> None:
    shown = set(study.frames.loc[study.frames["area_px"] > 0, "patient_id"])
    assert set(frames.loc[frames["kind"] == POSITIVE, "patient_id"]) == shown - {"p00"}
    assert set(frames["kind"]) == {POSITIVE, CUT, study.name}
    some = score_presence(bundle, study, [], "nerve", ["p00", "p02"])
    assert set(some["patient_id"]) == {"p02"}
    with pytest.raises(UsageError, match="new to the bundle"):
        score_presence(bundle, study, [], "nerve", ["p00"])


def test_the_table_has_a_row_a_kind_and_rule_and_says_what_it_counts(frames: pd.DataFrame, tmp_path: Path) -> None:
    summary = summarise_presence(frames)
    *table, blank, remark = as_markdown(summary)
    assert blank == ""
    assert len(table) == 2 + 2 * 3
    assert {len(line.split(" | ")) for line in (table[0], *table[2:])} == {8}
    assert f"Positives: {(frames['kind'] == POSITIVE).sum()} frames of {summary['patients']} patients" in remark
    used = table[2]
    assert used.startswith(f"| {CUT} | ")
    # A rule without a score has no AUROC.
    assert "| as used | – |" in used
