from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe, TrainConfig
from edgefusion.data.splits import Split
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.memory import COMPANION, IDENTICAL, KINDS, find_overlap
from edgefusion.inference.predictor import Predictor
from edgefusion.training.checkpoints import BEFORE, LAST
from edgefusion.training.epoch_log import EpochLog
from edgefusion.training.task import SegmentationTask
from edgefusion.training.train import train

_RECIPE = ChannelRecipe(("raw",), height=32, width=48)
_CONFIG = TrainConfig(epochs=3, batch_size=6, learning_rate=3e-3, precision="32")
_SPLIT = Split("holdout", ("0", "1", "2", "3"), ("4", "5"))


def _train(study: Study, output: Path, config: TrainConfig = _CONFIG, resume: bool = False) -> Bundle:
    return train(study, "unet", output, config, _RECIPE, _SPLIT, resume)


def _weights(bundle: Bundle) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in bundle.model.state_dict().values()])


def test_it_learns_and_leaves_a_whole_bundle(discs: Study, tmp_path: Path) -> None:
    _train(discs, tmp_path, replace(_CONFIG, epochs=12, batch_size=3, learning_rate=1e-2, affine=False))
    log = pd.read_csv(tmp_path / "log.csv")
    assert list(log["epoch"]) == list(range(1, 13))
    assert log["val_dice"].iloc[-1] > 0.8
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "before.ckpt",
        "best.ckpt",
        "last.ckpt",
    }
    bundle = Bundle.load(tmp_path)
    assert bundle.trained_on == ["0", "1", "2", "3"]
    noise = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    assert Predictor(bundle).predict(noise).unlike_training
    found = Predictor(bundle).predict(discs.image("4_0")).mask > 0
    truth = discs.mask("4_0")
    assert truth is not None
    assert 2 * (found & (truth > 0)).sum() / (found.sum() + truth.sum()) > 0.6


def test_one_seed_gives_one_result(discs: Study, tmp_path: Path) -> None:
    first, second = (_train(discs, tmp_path / name) for name in "ab")
    other = _train(discs, tmp_path / "c", replace(_CONFIG, seed=1))
    assert torch.equal(_weights(first), _weights(second))
    assert not torch.equal(_weights(first), _weights(other))


def test_an_interrupted_run_goes_on_to_the_same_weights(
    discs: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(discs, tmp_path / "whole")

    def stop_in_the_third_epoch(log: EpochLog, trainer: Trainer, _: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochLog, "on_train_epoch_start", stop_in_the_third_epoch)
        with pytest.raises(KeyboardInterrupt):
            _train(discs, tmp_path / "cut")
    assert not (tmp_path / "cut" / "bundle.yaml").exists()
    resumed = _train(discs, tmp_path / "cut", resume=True)
    assert torch.equal(_weights(whole), _weights(resumed))
    logs = [pd.read_csv(tmp_path / name / "log.csv").drop(columns="seconds") for name in ("whole", "cut")]
    assert logs[0].equals(logs[1])


def test_averaged_weights_are_what_is_judged_and_kept_and_survive_an_interruption(
    discs: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(_CONFIG, average_decay=0.9)
    undisturbed = _train(discs, tmp_path / "undisturbed", config)
    assert not torch.equal(_weights(undisturbed), _weights(_train(discs, tmp_path / "last", _CONFIG)))
    write = EpochLog.on_train_epoch_end

    def stop_in_the_third_epoch(log: EpochLog, trainer: Trainer, task: LightningModule) -> None:
        write(log, trainer, task)
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochLog, "on_train_epoch_end", stop_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        _train(discs, tmp_path / "run", config)
    monkeypatch.undo()
    assert torch.equal(_weights(_train(discs, tmp_path / "run", config, resume=True)), _weights(undisturbed))


@pytest.mark.parametrize("reshuffle", [True, False])
def test_every_epoch_has_batches_of_its_own_if_wanted(
    reshuffle: bool, discs: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    step = SegmentationTask.training_step

    def note(task: SegmentationTask, batch: Any, index: int) -> torch.Tensor:
        seen.append(batch[0].numpy().tobytes())
        return step(task, batch, index)

    monkeypatch.setattr(SegmentationTask, "training_step", note)
    _train(discs, tmp_path, replace(_CONFIG, epochs=2, reshuffle=reshuffle))
    half = len(seen) // 2
    assert half > 1
    assert (seen[:half] == seen[half:]) != reshuffle


def test_patience_keeps_the_best_epoch(discs: Study, tmp_path: Path) -> None:
    config = replace(_CONFIG, epochs=30, patience=1, learning_rate=1e-6)
    _train(discs, tmp_path, config)
    log = pd.read_csv(tmp_path / "log.csv")
    assert len(log) < 30
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    kept = Bundle.load(tmp_path).model.state_dict()
    assert all(torch.equal(best[f"model.{name}"], value) for name, value in kept.items())


def test_a_finished_bundle_is_not_overwritten(discs: Study, tmp_path: Path) -> None:
    made = _train(discs, tmp_path)
    with pytest.raises(UsageError, match="already holds a bundle"):
        _train(discs, tmp_path)
    assert torch.equal(_weights(_train(discs, tmp_path, resume=True)), _weights(made))


def test_an_unknown_network_gets_a_suggestion(discs: Study, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'unet'"):
        train(discs, "unett", tmp_path)


def test_edgefusion_is_told_where_the_edges_are(discs: Study, tmp_path: Path) -> None:
    recipe = ChannelRecipe(("edges", "raw"), height=32, width=48)
    bundle = train(discs, "edgefusion-unet", tmp_path, replace(_CONFIG, epochs=1), recipe, _SPLIT)
    assert bundle.model_args == {"edge_channel": 0}
    assert np.isfinite(Predictor(Bundle.load(tmp_path)).predict(discs.image("4_0")).probability).all()


def test_a_presence_head_needs_frames_without_the_label(discs: Study, tmp_path: Path) -> None:
    still = replace(_CONFIG, epochs=1, learning_rate=0.0)

    def trained(study: Study, name: str, start: str | None = None, negatives: float = 0.0) -> Bundle:
        from_, config = tmp_path / start if start else None, replace(still, negatives=negatives)
        return train(study, "edgefusion-unet", tmp_path / name, config, _RECIPE, _SPLIT, start=from_)

    full = discs.frames[~discs.frames["frame_id"].str.endswith("_5")]
    always = Study(discs.path, "always", discs.labels, "", "", full)
    both, only = trained(discs, "both"), trained(always, "only")
    assert "presence_head" not in both.model_args
    assert only.model_args["presence_head"] is False
    # With negatives it gets one afterwards, and is the same network otherwise.
    made = trained(always, "made", negatives=0.25)
    assert "presence_head" not in made.model_args
    weights = made.model.state_dict()
    assert all(value.equal(weights[name]) for name, value in only.model.state_dict().items())
    assert Bundle.load(tmp_path / "made").model_args == made.model_args
    # A head that only one of the two has is left alone; all else is taken over.
    for start, there, after in (
        ("both", both, trained(always, "less", "both")),
        ("only", only, trained(discs, "more", "only")),
    ):
        weights = dict(there.model.named_parameters())
        shared = {name: value for name, value in after.model.named_parameters() if name in weights}
        assert len(shared) >= len(weights) - 2, start
        assert all(value.equal(weights[name]) for name, value in shared.items()), start
    # The frames of both trainings are remembered, in the order of the trainings: all, and those with the label.
    for bundle, stages in ((both, [0] * 24), (Bundle.load(tmp_path / "less"), [0] * 24 + [1] * 20)):
        assert bundle.companions[COMPANION]["stage"].tolist() == stages
        assert not find_overlap(bundle, discs, _SPLIT.validation_frames(discs)).patients(*KINDS)
    assert find_overlap(both, discs, ["3_0"]).patients(IDENTICAL) == ["3"]


def test_a_run_that_is_killed_goes_on_to_the_same_weights(discs: Study, tmp_path: Path) -> None:
    whole = _train(discs, tmp_path / "whole")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_train import _train\n"
        "from edgefusion.data.study import Study; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "_train(Study.load(sys.argv[2]), Path(sys.argv[3]))"
    )
    cut = tmp_path / "cut"
    arguments = [sys.executable, "-c", program, str(Path(__file__).parent), str(discs.path), str(cut)]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as training:
        deadline = time.monotonic() + 60
        while not (cut / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
            time.sleep(0.005)
        # Another run may not enter meanwhile; held still, so that it cannot end before that is asked.
        training.send_signal(signal.SIGSTOP)
        if not (cut / "bundle.yaml").is_file():
            with pytest.raises(UsageError, match="Another run is at work"):
                _train(discs, cut, resume=True)
        training.kill()
    assert torch.equal(_weights(_train(discs, cut, resume=True)), _weights(whole))


@pytest.mark.parametrize("damage", ["truncated", "one bit", "not written yet"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    discs: Study, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _train(discs, tmp_path)
    (tmp_path / "bundle.yaml").unlink()
    last = tmp_path / "checkpoints" / LAST
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "not written yet":
        last.unlink()
    else:
        last.write_bytes(content if damage == "one bit" else content[: len(content) // 2])
    capsys.readouterr()
    resumed = _train(discs, tmp_path, resume=True)
    said = capsys.readouterr().err
    assert ("last.ckpt is damaged" in said) == (damage != "not written yet")
    assert said.count(": epoch ") == 1
    assert torch.equal(_weights(resumed), _weights(whole))


def test_with_no_checkpoint_whole_training_starts_anew(
    discs: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _train(discs, tmp_path)
    (tmp_path / "bundle.yaml").unlink()
    for name in (LAST, BEFORE):
        (tmp_path / "checkpoints" / name).write_bytes(b"PK")
    assert torch.equal(_weights(_train(discs, tmp_path, resume=True)), _weights(whole))
    assert capsys.readouterr().err.count("is damaged") == 2
