"""The scripts in ``benchmarks`` that ask what few patients, another study, or a smaller network give."""

from __future__ import annotations

import importlib
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import UsageError
from edgefusion.evaluation.run import read_run
from edgefusion.models.blocks import SegmentationOutput

ROOT = Path(__file__).parents[2]
BASE = """validation_patients: judged
without_patients: final
train: {epochs: 10}
"""
SIZES = {"judged": 3, "final": 3, "large": 64, "middle": 32, "other": 48, "small": 2}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a script of ``benchmarks`` as it is when it is run: beside the others."""

    def load(name: str) -> ModuleType:
        if not (ROOT / "benchmarks" / f"{name}.py").is_file():
            pytest.skip("not a source tree")
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Patients with few and with many frames: bright squares, a vessel in the top left and a nerve elsewhere."""
    folder = tmp_path_factory.mktemp("squares") / "study"
    rng, rows = np.random.default_rng(0), []
    for patient, frames in SIZES.items():
        for frame in range(frames):
            mask = np.zeros((48, 64), np.uint8)
            mask[4:12, 4:12], mask[20:40, 20:40] = 2, 1
            image = np.where(mask == 1, 220, rng.integers(0, 60, mask.shape)).astype(np.uint8)
            rows.append(store_frame(folder, f"{patient}_{frame}", patient, image, mask))
    made = Study(folder, "squares", ["nerve", "vessel"], "simulated", "none", frames_table(rows))
    made.save()
    return Study.load(folder)


def few_labels(script: Callable[[str], ModuleType], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = script("few_labels")
    (folder / "full.yaml").write_text(BASE)
    monkeypatch.setattr(module, "BASE", folder / "full.yaml")
    return module


def test_a_lot_draws_from_those_who_judge_nothing(
    script: Callable[[str], ModuleType], study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = few_labels(script, tmp_path, monkeypatch)
    before: set[str] = set()
    for size in (1, 2, 3):
        split = module.split_of(study, size, 0)
        assert set(split.validation) == {"judged"}
        assert len(split.train) == size
        assert before < set(split.train) <= {"large", "middle", "other"}
        assert set(module.split_of(study, size, 0).train) == set(split.train)
        before = set(split.train)
    assert set(module.split_of(study, 0, 0).train) == {"large", "middle", "other", "small"}
    firsts = {module.split_of(study, 1, lot).train for lot in range(20)}
    assert len(firsts) == 3


def test_fewer_patients_are_passed_over_more_often(
    script: Callable[[str], ModuleType], study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = few_labels(script, tmp_path, monkeypatch)
    calls: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: calls.append(command))
    given = Namespace(study=study.path, output=tmp_path, jobs=1, precision="32")
    for lot in range(3):
        module.train(study, given, 1, lot, "three-channels")
    for command, lot in zip(calls, range(3), strict=True):
        (drawn,) = module.split_of(study, 1, lot).train
        epochs = int(command[command.index("--train.epochs") + 1])
        assert epochs * (SIZES[drawn] // 16) == pytest.approx(10 * (146 // 16), rel=0.05)
        left_out = set(command[command.index("--without-patients") + 1].split(","))
        assert left_out == set(SIZES) - {"judged", drawn}
        assert str(tmp_path / "three-channels.yaml") in command
        assert command[command.index("--seeds") + 1] == str(lot)
        assert command[command.index("--train.precision") + 1] == "32"


def test_the_learning_curve_is_made_of_what_is_complete(
    script: Callable[[str], ModuleType], finished_run: tuple[Path, Study], tmp_path: Path
) -> None:
    module = script("few_labels")
    run, study = finished_run
    frames = read_run(run).frames
    for unit, network in (("patients_3/lot_0", "full"), ("patients_3/lot_0", "unet-matched"), ("whole", "full")):
        folder = tmp_path / unit / network
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("edgefusion-unet", "unet"))
        model = "unet" if network == "unet-matched" else "edgefusion-unet"
        frames[frames["model"] == model].to_csv(folder / "frames.csv", index=False)
        if unit != "whole":
            (folder / "report.html").touch()
    assert len(module.complete(tmp_path, tmp_path / "whole", [0, 1])) == 0
    (runs,) = module.complete(tmp_path, tmp_path / "whole", [0])
    assert set(runs) == {"full", "unet-matched"}
    values = module.curves(study, [runs]).set_index("network")
    means = frames[frames["true_area"] > 0].groupby("model")["dice"].mean()
    assert values.loc["full", "value"] == pytest.approx(means["edgefusion-unet"])
    difference = means["unet"] - means["edgefusion-unet"]
    assert values.loc["unet-matched", "difference"] == pytest.approx(difference)
    assert f"| {difference:+.3f} (" in module.as_markdown(values.reset_index())
    assert module.draw_curves(values.reset_index()).startswith(b"\x89PNG")


class Bright(nn.Module):
    """Calls what is bright by the second of its labels."""

    def forward(self, x: Tensor) -> SegmentationOutput:
        return SegmentationOutput(torch.cat([torch.full_like(x, -9.0), 20 * (x - 1)], 1), None, None)


def test_a_label_keeps_its_name_from_study_to_study(script: Callable[[str], ModuleType], study: Study) -> None:
    module = script("cross_study")
    bundle = Bundle(Bright(), "unet", ChannelRecipe(("raw",), 48, 64), ["vessel", "nerve"], study_name="elsewhere")
    ids = list(study.labelled()["frame_id"])[:5]
    rows = module.judged_elsewhere(study, bundle, ids, "nerve", False, "unet", "fold_0")
    assert [row["frame_id"] for row in rows] == ids
    assert min(row["dice"] for row in rows) > 0.9
    assert all(row["true_area"] == 400 for row in rows)
    with pytest.raises(UsageError, match="no muscle"):
        module.judged_elsewhere(study, bundle, ids, "muscle", False, "unet", "fold_0")
    bundle.study_sha256 = study.sha256()
    with pytest.raises(UsageError, match="was trained on"):
        module.judged_elsewhere(study, bundle, ids, "nerve", False, "unet", "fold_0")


def test_near_duplicates_are_drawn_together(script: Callable[[str], ModuleType], study: Study) -> None:
    module = script("cross_study")
    bundle = Bundle(Bright(), "unet", ChannelRecipe(("raw",), 48, 64), ["vessel", "nerve"])
    tied = Study(study.path, study.name, study.labels, study.origin, study.terms, study.frames.copy())
    tied.frames.loc[tied.frames["frame_id"].isin(["large_0", "middle_0"]), "group"] = "same"
    ids = ["large_1", "middle_1", "other_0"]
    large, middle, other = module.judged_elsewhere(tied, bundle, ids, "nerve", False, "unet", "fold_0")
    assert large["patient_id"] == middle["patient_id"] != other["patient_id"]


def test_a_smaller_network_is_timed_and_compared(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: tuple[Path, Any]
) -> None:
    module = script("live_tradeoff")
    monkeypatch.setattr(module, "WARM_UP", 1)
    for name, model in (("full", "edgefusion-unet"), ("half", "unet")):
        shutil.copytree(finished_run[0], tmp_path / name, ignore=shutil.ignore_patterns("edgefusion-unet", "unet"))
        frames = read_run(finished_run[0]).frames
        frames[frames["model"] == model].to_csv(tmp_path / name / "frames.csv", index=False)
        bundle = Bundle(Bright(), model, ChannelRecipe(("raw",), 48, 64), ["vessel", "nerve"])
        monkeypatch.setattr(module.Bundle, "load", lambda _, bundle=bundle: bundle)
    values = module.measured(tmp_path, {"full": "as it is", "half": "half of it"}, rounds=2)
    assert (values["ms"] >= values["network_ms"]).all()
    assert values["ms"].is_monotonic_increasing
    half = values.set_index("name").loc["half"]
    assert half["least"] <= half["difference"] <= half["most"]
    assert "| half of it |" in module.as_markdown(values)
    assert module.draw_tradeoff(values).startswith(b"\x89PNG")


def test_only_what_nothing_beats_is_on_the_front(script: Callable[[str], ModuleType]) -> None:
    module = script("live_tradeoff")
    values = pd.DataFrame({"ms": [3.0, 4.0, 5.0, 6.0], "dice_masked": [0.70, 0.69, 0.75, 0.75]})
    assert list(module.front(values)["ms"]) == [3.0, 5.0]
