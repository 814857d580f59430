from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.evaluate import predict_frames
from edgefusion.evaluation.presence_choice import choose_threshold
from edgefusion.models.zoo import build_model


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    torch.set_num_threads(1)
    return make_phantom_study(tmp_path_factory.mktemp("choice") / "phantoms", 4, 6, size=(64, 96))


def bundle(study: Study, trained_on: str, seed: int, name: str = "unet") -> Bundle:
    torch.manual_seed(seed)
    made = Bundle(build_model(name, 1, 1).eval(), name, ChannelRecipe(("raw",), 32, 48), ["nerve"])
    made.trained_on, made.study_sha256 = trained_on.split(), study.sha256()
    return made


def test_the_understudy_chooses_on_patients_that_are_new_to_it_alone(study: Study) -> None:
    star, understudy = bundle(study, "p00 p01 p02", 0), bundle(study, "p00", 1)
    chosen = choose_threshold(star, understudy, study, 0.8)
    frames = study.frames[study.frames["patient_id"].isin(["p01", "p02"])]
    shown = frames[frames["area_px"] > 0]
    assert (chosen["patients"], chosen["frames"], chosen["sensitivity"]) == (["p01", "p02"], len(shown), 0.8)
    found = predict_frames(study, understudy, list(shown["frame_id"]))
    scores = np.array([prediction.presence[0] for prediction in found])
    assert (scores >= chosen["threshold"]).mean() >= 0.8
    assert (scores > chosen["threshold"]).mean() < 0.8
    assert choose_threshold(star, understudy, study, 1.0)["threshold"] == scores.min()


def test_nobody_chooses_who_was_trained_on_or_is_another_kind_of_network(study: Study) -> None:
    star = bundle(study, "p00 p01", 0)
    with pytest.raises(UsageError, match="new to the other network"):
        choose_threshold(star, bundle(study, "p00 p01 p02", 1), study, 0.9)
    with pytest.raises(UsageError, match="another kind of network"):
        choose_threshold(star, bundle(study, "p00", 1, "resunet"), study, 0.9)
    other = bundle(study, "p00", 1)
    with pytest.raises(UsageError, match="finds vessel"):
        choose_threshold(star, replace(other, labels=["vessel"]), study, 0.9)
