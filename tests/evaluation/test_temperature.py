from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.evaluation.calibration import REGIONS
from edgefusion.evaluation.temperature import LogitCounts, _fit, calibrate
from edgefusion.models.zoo import build_model


def pixels(temperature: float, seed: int, number: int = 100_000) -> LogitCounts:
    """Of a network whose logits are ``temperature`` times too great."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, number)
    counts = LogitCounts()
    counts.add(expit(temperature * logits), rng.random(number) < expit(logits))
    return counts


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_wrong_is_found(temperature: float) -> None:
    counts = pixels(temperature, seed=0)
    assert counts.fit() == pytest.approx(temperature, rel=0.04)
    assert counts.loss(counts.fit()) <= counts.loss(1.0)


def test_pixels_may_be_certain_and_there_may_be_none() -> None:
    counts = LogitCounts()
    assert counts.fit() == 1.0
    counts.add(np.array([0.0, 1.0, 0.5], dtype=np.float32), np.array([False, True, True]))
    assert counts.counts.sum() == 3
    assert np.isfinite(counts.loss(1.0))


def test_a_patient_is_measured_with_the_temperature_of_the_others() -> None:
    patients = [{region: pixels(2.0, seed) for region in REGIONS} for seed in (0, 1)]
    strange = {region: pixels(0.8, 2) for region in REGIONS}
    fitted = _fit([*patients, strange])
    low, high = fitted["span"]
    assert low < fitted["temperature"] < high == pytest.approx(2.0, rel=0.04)
    alone = {region: pixels(2.0, 5) for region in REGIONS}
    before, after = (fitted[stage]["all pixels"] for stage in ("before", "after"))
    assert after["ece"] < before["ece"]
    # With a stranger it cannot do as well as for those who are alike.
    assert after["ece"] > _fit([*patients, alone])["after"]["all pixels"]["ece"]
    assert _fit([alone])["temperature"] == 1.0


def test_a_bundle_is_calibrated_whatever_its_temperatures_were(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    study = make_phantom_study(tmp_path / "necks", 3, 2, size=(64, 96))
    bundle = Bundle(build_model("unet", 1, 1), "unet", ChannelRecipe(("raw",), 32, 48), ["nerve"])
    frames = [str(frame) for frame in study.frames["frame_id"]]
    fitted = calibrate(bundle, study, frames)["nerve"]
    bundle.temperatures = {"nerve": 3.0}
    assert calibrate(bundle, study, frames)["nerve"] == fitted
    assert bundle.temperatures == {"nerve": 3.0}
    assert fitted["patients"] == 3
    assert fitted["before"]["all pixels"]["pixels"] == 6 * 64 * 96
    assert fitted["after"]["all pixels"]["loss"] < fitted["before"]["all pixels"]["loss"]
