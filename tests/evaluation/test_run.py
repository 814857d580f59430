from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgefusion.errors import DataError, UsageError
from edgefusion.evaluation.run import read_run


def test_reads_what_a_comparison_leaves(finished_run):
    path, study = finished_run
    run = read_run(path)
    assert run.models == ["edgefusion-unet", "unet"]
    assert run.reference == "edgefusion-unet"
    assert run.judged_apart
    assert len(run.splits) == 2
    assert run.channels["edgefusion-unet"] == ["raw", "dpad", "edges"]
    assert len(run.log) == 2 * 2 * 2
    judged = run.splits[0].validation_frames(study)[0]
    prediction = run.prediction("unet", "fold_0", judged)
    assert prediction is not None
    assert prediction.shape == (60, 80)
    assert set(np.unique(prediction)) <= {0, 1}
    assert run.prediction("unet", "fold_1", judged) is None


def test_models_come_in_the_order_of_the_settings(finished_run, tmp_path: Path):
    path = shutil.copytree(finished_run[0], tmp_path / "run")
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(config.replace("- edgefusion-unet\n- unet\n", "- unet\n"))
    run = read_run(path)
    assert run.models == ["unet", "edgefusion-unet"]
    assert run.reference == "edgefusion-unet"


def test_a_patient_on_both_sides_is_noticed(finished_run, tmp_path: Path):
    path = shutil.copytree(finished_run[0], tmp_path / "run")
    frames = (path / "frames.csv").read_text()
    (path / "frames.csv").write_text(frames.replace(",fold_0,", ",fold_1,"))
    assert not read_run(path).judged_apart


@pytest.mark.parametrize("name", ["frames.csv", "config.yaml", "env.json", "costs.json"])
def test_a_missing_or_broken_file_is_named(finished_run, tmp_path: Path, name: str):
    path = shutil.copytree(finished_run[0], tmp_path / "run")
    (path / name).write_text("[1, 2")
    with pytest.raises(DataError):
        read_run(path)
    (path / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing.*edgefusion compare"):
        read_run(path)


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(UsageError, match="no folder"):
        read_run(tmp_path / "nothing")
