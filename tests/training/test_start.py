"""What a training may start from; see also test_train.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.splits import Split
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import UsageError
from edgefusion.evaluation.memory import hash_frames, remember
from edgefusion.models.zoo import build_model
from edgefusion.training.start import load_start

RECIPE = ChannelRecipe(("raw",), 32, 48)


@pytest.fixture
def start(discs: Study, tmp_path: Path) -> Path:
    """A bundle of patient 0."""
    torch.manual_seed(0)
    bundle = Bundle(
        model=build_model("unet", 1, 1),
        model_name="unet",
        recipe=RECIPE,
        labels=["nerve"],
        study_name=discs.name,
        study_sha256=discs.sha256(),
        trained_on=["0"],
    )
    remember(bundle, hash_frames(discs, [f"0_{frame}" for frame in range(6)]))
    bundle.save(tmp_path / "start")
    return tmp_path / "start"


def renamed(discs: Study, folder: Path, noise: float) -> Study:
    rng = np.random.default_rng(1)
    rows = []
    for patient in (0, 1, 2):
        for frame in range(6):
            image = discs.image(f"{patient}_{frame}").astype(float)
            image = np.clip(image + noise * rng.normal(size=image.shape), 0, 255).astype(np.uint8)
            rows.append(
                store_frame(folder, f"{patient}_{frame}", f"n{patient}", image, discs.mask(f"{patient}_{frame}"))
            )
    study = Study(folder, "renamed", ["nerve"], "simulated", "none", frames_table(rows))
    study.save()
    return Study.load(folder)


def test_a_start_that_saw_the_pixels_of_those_to_be_judged_is_refused(
    discs: Study, start: Path, tmp_path: Path
) -> None:
    study = renamed(discs, tmp_path / "renamed", noise=0)
    with pytest.raises(UsageError, match="trained on patients who are to be judged: n0"):
        load_start(start, "unet", RECIPE, study, Split("holdout", ("n1",), ("n0", "n2")))
    load_start(start, "unet", RECIPE, study, Split("holdout", ("n0", "n1"), ("n2",)))


def test_a_start_that_saw_nearly_the_same_frames_is_warned_of(
    discs: Study, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = renamed(discs, tmp_path / "renamed", noise=2)
    load_start(start, "unet", RECIPE, study, Split("holdout", ("n1",), ("n0", "n2")))
    assert "trained on frames nearly like those of patients to be judged: n0." in capsys.readouterr().err
