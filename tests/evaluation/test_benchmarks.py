"""The scripts in ``benchmarks`` that make the published tables."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from edgefusion.data.study import Study
from edgefusion.evaluation.report import write_report
from edgefusion.evaluation.run import read_run

FOLDER = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    file = FOLDER / f"{name}.py"
    if not file.is_file():
        pytest.skip("not a source tree")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_kept_names_no_folder_of_this_machine(make_finished_run: Callable[..., Study], tmp_path: Path) -> None:
    before = str(tmp_path / "pretraining")
    study = make_finished_run(tmp_path, ["edgefusion-unet", "unet"], folds=1, seeds=(0, 1), pretrained=before)
    write_report(tmp_path / "run", study)
    run, kept = read_run(tmp_path / "run"), tmp_path / "kept"
    script("comparison_table").keep(run, kept)
    assert {file.name for file in kept.iterdir()} == {
        *("config.yaml", "env.json", "splits.json", "costs.json", "frames.csv", "summary.json"),
        *("log-edgefusion-unet.csv", "log-unet.csv"),
    }
    for file in kept.iterdir():
        assert not re.search(r"(?<![\w.<])/\w", file.read_text()), file.name
    settings = yaml.safe_load((kept / "config.yaml").read_text())
    assert settings == {
        **{key: value for key, value in run.config.items() if key != "study"},
        "pretrained": "pretraining",
    }


def test_missed_frames_are_a_mean_of_seeds(make_finished_run: Callable[..., Study], tmp_path: Path) -> None:
    make_finished_run(tmp_path, ["unet"], folds=1, seeds=(0, 1))
    run = read_run(tmp_path / "run")
    judged = (run.frames["true_area"] > 0) & (run.frames["fold"] == "holdout_seed_1")
    run.frames.loc[run.frames.index[judged][0], "predicted_area"] = 0
    assert script("comparison_table").measures(run, "nerve").endswith(" | 0.5 |")


def test_the_ablation_asks_for_its_reference(
    finished_run: tuple[Path, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation = script("ablation")
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "full.yaml").write_text("# all\n")
    (configs / "less.yaml").write_text("# something less\n")
    for name in ("full", "less"):
        shutil.copytree(finished_run[0], tmp_path / name)
        frames = read_run(tmp_path / name).frames
        frames[frames["model"] == "unet"].to_csv(tmp_path / name / "frames.csv", index=False)
    (tmp_path / "less" / "report.html").touch()
    assert ablation.table(tmp_path, configs) == "full is not trained yet: no table."
    (tmp_path / "full" / "report.html").touch()
    assert "| something less |" in ablation.table(tmp_path, configs)
    # A complete run is not taken for the one that was asked for: `compare` judges that.
    calls: list[list[str]] = []
    monkeypatch.setattr(ablation.subprocess, "run", lambda command, **_: calls.append(command))
    ablation.train("less", SimpleNamespace(study=tmp_path, output=tmp_path, configs=configs, jobs=1, seeds="0"))
    assert str(configs / "less.yaml") in calls[0]
