from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.presence_frames import CUT, POSITIVE, cut_beside, cuts, negatives, positives


def make_bundle(trained_on: tuple[str, ...] = ("p00",)) -> Bundle:
    return Bundle(nn.Identity(), "unet", ChannelRecipe(), ["nerve"], trained_on=list(trained_on))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_phantom_study(tmp_path_factory.mktemp("presence") / "phantoms", 4, 6, size=(96, 132))


@given(top=st.integers(0, 90), left=st.integers(0, 120), tall=st.integers(1, 60), wide=st.integers(1, 80))
def test_a_cut_stays_clear_of_the_label_and_keeps_the_proportions(top: int, left: int, tall: int, wide: int) -> None:
    truth = np.zeros((100, 140), dtype=bool)
    truth[top : top + tall, left : left + wide] = True
    near = np.zeros_like(truth)
    near[max(0, top - 5) : top + tall + 5, max(0, left - 5) : left + wide + 5] = True
    part = cut_beside(near, truth)
    if part is None:
        # Wherever a third of the frame would fit, there is a cut.
        free = max(top - 5, 100 - top - tall - 5) < 34 and max(left - 5, 140 - left - wide - 5) < 47
        assert free
        return
    assert not part.any()
    assert part.shape[1] / part.shape[0] == pytest.approx(1.4, abs=0.05)
    assert part.shape[0] >= 33


def test_positives_are_new_patients_and_cuts_are_made_of_them(study: Study) -> None:
    bundle = make_bundle()
    shown = positives(study, bundle, "nerve")
    assert {shot.patient_id for shot in shown} <= {"p01", "p02", "p03"}
    assert all(shot.truth.any() and shot.kind == POSITIVE and not shot.trained_on for shot in shown)
    for shot in cuts(shown):
        assert shot.kind == CUT
        assert shot.image.shape == shot.truth.shape == (96, 132)
        assert not shot.truth.any()
    with pytest.raises(UsageError, match="new to the bundle"):
        positives(study, make_bundle(trained_on=("p00", "p01", "p02", "p03")), "nerve")


def test_negatives_come_at_one_size_and_doubtful_ones_apart(study: Study) -> None:
    shots = negatives(study, make_bundle(), "nerve", (48, 66))
    assert len(shots) == int((study.frames["area_px"] == 0).sum())
    assert {(shot.kind, shot.image.shape) for shot in shots} == {("phantoms", (48, 66))}
    assert all(shot.trained_on == (shot.patient_id == "p00") for shot in shots)
    empty = str(study.frames["frame_id"][study.frames["area_px"] == 0].iloc[0])
    file = study.path / "contradictions.csv"
    file.write_text(f"empty_frame,masked_frame,similarity,action\n{empty},x,1.0,kept\n")
    try:
        kinds = [shot.kind for shot in negatives(study, make_bundle(), "nerve", (48, 66))]
    finally:
        file.unlink()
    assert kinds.count("phantoms, contradicted") == 1
    assert kinds.count("phantoms") == len(shots) - 1


def test_a_study_without_the_label_cannot_tell_where_it_is(study: Study) -> None:
    with pytest.raises(UsageError, match="labelled nerve"):
        negatives(study, make_bundle(), "vessel", (48, 66))
