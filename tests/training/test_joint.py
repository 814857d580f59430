"""Several processes train what one trains. They are forked from this one, which has imported everything already."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe, TrainConfig
from edgefusion.data.splits import Split
from edgefusion.data.study import Study
from edgefusion.errors import DataError, EdgeFusionError, UsageError
from edgefusion.locking import sole_use
from edgefusion.training import launch as launching
from edgefusion.training.epoch_log import EpochLog
from edgefusion.training.ranks import rank
from edgefusion.training.train import train

_RECIPE = ChannelRecipe(("raw",), height=32, width=48)
# Seven frames a step are four and three for two processes.
_CONFIG = TrainConfig(epochs=2, batch_size=7, learning_rate=3e-3, precision="32")
_SPLIT = Split("holdout", ("0", "1", "2", "3"), ("4", "5"))


@pytest.fixture(autouse=True)
def _fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_START_METHOD", "fork")


@pytest.fixture
def _only_the_first_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: str, target: str, real: Callable[[str, str], None] = os.replace) -> None:
        assert rank() == 0, f"another process writes {target}"
        real(source, target)

    monkeypatch.setattr(os, "replace", rename)


def _train(study: Study, output: Path, devices: int = 2, resume: bool = False) -> Bundle:
    return train(study, "unet", output, _CONFIG, _RECIPE, _SPLIT, resume, devices=devices)


def _weights(bundle: Bundle) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in bundle.model.state_dict().values()])


@pytest.mark.usefixtures("_only_the_first_writes")
# One normalises over the batch, drops out and has three heads; the other normalises each frame.
@pytest.mark.parametrize("model", ["edgefusion-unet", "unet"])
def test_two_processes_train_what_one_trains(
    discs: Study, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In double precision, since AdamW makes whole steps of the rounding errors of gradients that are zero.
    monkeypatch.setattr("edgefusion.training.train.choose_precision", lambda *_: "64-true")

    def save(bundle: Bundle, folder: Path, real: Callable[[Bundle, Path], None] = Bundle.save) -> None:
        bundle.model.float()
        real(bundle, folder)

    monkeypatch.setattr(Bundle, "save", save)
    config = replace(_CONFIG, texture=True, border_emphasis=1.0, average_decay=0.9) if model != "unet" else _CONFIG
    one, two = (
        train(discs, model, tmp_path / name, config, _RECIPE, _SPLIT, devices=devices)
        for devices, name in ((1, "one"), (2, "two"))
    )
    difference = (_weights(one) - _weights(two)).abs()
    assert difference.max() < 1e-4
    assert difference.mean() < 1e-7
    logs = [pd.read_csv(tmp_path / name / "log.csv").drop(columns="seconds") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*logs, rtol=1e-6)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}


def test_a_run_that_loses_a_process_goes_on_to_the_weights_that_torchrun_trains(
    discs: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchrun = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        start_method="fork",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        monitor_interval=0.1,
    )
    elastic_launch(torchrun, _train)(discs, tmp_path / "whole")

    def die_in_the_second_epoch(log: EpochLog, trainer: Trainer, _: LightningModule) -> None:
        if trainer.current_epoch == 1 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLog, "on_train_epoch_start", die_in_the_second_epoch)
        with pytest.raises(EdgeFusionError, match=r"Process 2 of 2 was killed .*--resume"):
            _train(discs, tmp_path / "cut")
    assert not (tmp_path / "cut" / "bundle.yaml").exists()
    assert len(pd.read_csv(tmp_path / "cut" / "log.csv")) == 1
    resumed = _train(discs, tmp_path / "cut", resume=True)
    assert torch.equal(_weights(resumed), _weights(Bundle.load(tmp_path / "whole")))
    logs = [pd.read_csv(tmp_path / name / "log.csv").drop(columns="seconds") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*logs)


def test_more_processes_than_frames_a_step_are_refused(discs: Study, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 frames a step cannot be shared by 2 processes"):
        train(discs, "unet", tmp_path / "few", replace(_CONFIG, batch_size=1), _RECIPE, _SPLIT, devices=2)
    assert not (tmp_path / "few").exists()


def test_machines_with_different_studies_are_refused(
    discs: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "sha256", lambda _: str(rank()))
    with pytest.raises(DataError, match="is not the study that the first machine has"):
        _train(discs, tmp_path / "mixed")


def test_a_folder_at_work_is_refused_and_so_is_no_process(discs: Study, tmp_path: Path) -> None:
    with sole_use(tmp_path), pytest.raises(UsageError, match="Another run is at work"):
        _train(discs, tmp_path)
    with pytest.raises(UsageError, match="Give at least 1"):
        _train(discs, tmp_path, devices=0)


def test_validation_frames_that_do_not_suffice_for_all_processes_are_judged_once(discs: Study, tmp_path: Path) -> None:
    frames = discs.frames[discs.frames["frame_id"].isin(["4_0"]) | (discs.frames["patient_id"] < "4")]
    few, split = Study(discs.path, "few", discs.labels, "", "", frames), replace(_SPLIT, validation=("4",))
    for name, devices in (("one", 1), ("two", 2)):
        train(few, "unet", tmp_path / name, replace(_CONFIG, epochs=1), _RECIPE, split, devices=devices)
    logs = [pd.read_csv(tmp_path / name / "log.csv").drop(columns="seconds") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*logs, atol=1e-3)
