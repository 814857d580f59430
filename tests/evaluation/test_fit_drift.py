"""Fitting the drift of a bundle to its training frames."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import UsageError
from edgefusion.evaluation.fit_drift import fit, fit_drift, main
from edgefusion.inference.drift import COMPANION
from edgefusion.inference.picture_statistics import STATISTICS
from edgefusion.models.zoo import build_model


def patients(count: int, frames: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Statistics that vary five times as much between patients as within."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(STATISTICS, STATISTICS))
    of_patient = np.repeat(rng.normal(size=(count, STATISTICS)), frames, axis=0)
    return (of_patient + 0.2 * rng.normal(size=of_patient.shape)) @ mix, np.repeat(np.arange(count), frames)


def test_the_limit_holds_for_patients_who_were_left_out() -> None:
    rows, patient = patients(120, 10, 0)
    fitted = fit(rows[:600], patient[:600])
    assert fitted is not None
    new = fitted.distances(rows[600:]) > fitted.limit
    assert new.mean() < 0.05
    # Had frames been left out instead of patients, each would have had its patient's other frames as neighbours.
    by_frame = fit(rows[:600], np.arange(600))
    assert by_frame is not None
    assert by_frame.limit < 0.95 * fitted.limit


def test_what_varies_otherwise_is_far() -> None:
    rows, patient = patients(60, 10, 0)
    fitted = fit(rows, patient)
    assert fitted is not None
    scattered = np.random.default_rng(1).normal(size=(50, STATISTICS)) * rows.std(0)
    assert (fitted.distances(scattered) > fitted.limit).mean() > 0.8


def test_a_statistic_that_never_varies_does_not_decide_alone() -> None:
    rows, patient = patients(60, 10, 0)
    rows[:, 3] = 0.5
    fitted = fit(rows, patient)
    assert fitted is not None
    moved = rows[:1].copy()
    moved[0, 3] += 0.01
    assert fitted.distances(moved)[0] == pytest.approx(fitted.distances(rows[:1])[0], rel=0.05)
    assert fitted.whitening[3, 3] == pytest.approx(1 / 0.02)


def test_few_patients_say_nothing_of_another_one() -> None:
    rows, patient = patients(3, 10, 0)
    assert fit(rows, patient) is None
    assert fit(rows[:0], patient[:0]) is None


TRAINED_ON = [str(patient) for patient in range(5)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Seven patients with three frames each, of whom the last two are brighter."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(7):
        for frame in range(3):
            grey = 60 + 5 * patient + (80 if patient > 4 else 0)
            image = np.clip(rng.normal(grey, 20, (40, 60)), 0, 255).astype(np.uint8)
            rows.append(store_frame(tmp_path / "study", f"{patient}_{frame}", f"{patient}", image, image > 250))
    made = Study(tmp_path / "study", "noise", ["nerve"], "simulated", "none", frames_table(rows))
    made.save()
    return Study.load(made.path)


def trained(study: Study) -> Bundle:
    network = build_model("unet", 1, 1).eval()
    recipe = ChannelRecipe(("raw",), 32, 48)
    return Bundle(network, "unet", recipe, ["nerve"], study_sha256=study.sha256(), trained_on=TRAINED_ON)


def test_only_frames_that_were_trained_on_are_looked_at(study: Study) -> None:
    bundle = trained(study)
    assert fit_drift(bundle, study)
    dark = bundle.companions[COMPANION]["mean"][6]
    assert dark == pytest.approx(70 / 255, abs=0.01)
    # All frames of the first patient nearly repeat one of a patient who was not trained on.
    groups = study.frames["group"].where(study.frames["patient_id"] != "0", study.frames["group"].iloc[-1])
    tied = replace(study, frames=study.frames.assign(group=groups))
    tied.save()
    bundle = trained(tied)
    assert fit_drift(bundle, tied)
    assert bundle.companions[COMPANION]["mean"][6] == pytest.approx(72.5 / 255, abs=0.01)


def test_another_study_is_refused(study: Study) -> None:
    with pytest.raises(UsageError, match="was not trained on"):
        fit_drift(replace(trained(study), study_sha256="0" * 64), study)


def test_with_few_patients_a_bundle_has_none(study: Study) -> None:
    bundle = replace(trained(study), trained_on=TRAINED_ON[:3])
    assert not fit_drift(bundle, study)
    assert bundle.companions == {}


def test_the_command_adds_it_and_leaves_the_rest(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    trained(study).save(folder)
    (folder / "model.onnx").write_bytes(b"exported")
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "bundle.yaml"}
    monkeypatch.setattr(sys, "argv", ["fit_drift", str(folder), str(study.path)])
    assert main() == 0
    loaded = Bundle.load(folder)
    assert fit_drift(expected := trained(study), study)
    for key, value in loaded.companions[COMPANION].items():
        assert torch.equal(value, expected.companions[COMPANION][key])
    assert {name: (folder / name).read_bytes() for name in before} == before
    monkeypatch.setattr(sys, "argv", ["fit_drift", str(folder), str(tmp_path / "none")])
    assert main() == 2
    assert "fit_drift:" in capsys.readouterr().err
