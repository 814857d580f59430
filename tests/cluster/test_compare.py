from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from edgefusion.cluster import compare as module
from edgefusion.cluster.compare import compare_on_ray, faster_formats, train_and_judge
from edgefusion.cluster.connection import connected
from edgefusion.cluster.workers import installation
from edgefusion.config import ChannelRecipe, CompareConfig, SplitConfig, TrainConfig
from edgefusion.data.splits import make_splits, read_splits
from edgefusion.data.study import Study
from edgefusion.errors import DataError, UsageError
from edgefusion.files import sha256_of_file
from edgefusion.training.crossval import compare

_CONFIG = CompareConfig(
    models=("unet",),
    recipe=ChannelRecipe(("raw",), height=32, width=48),
    train=TrainConfig(epochs=8, batch_size=4, precision="32"),
    split=SplitConfig(folds=2),
)
_ARGUMENTS = (
    "--models unet --folds 2 --train.epochs 8 --train.batch_size 4 --train.precision 32 "
    "--recipe.height 32 --recipe.width 48"
)


@pytest.fixture(scope="module")
def local_run(few_discs: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare(few_discs, tmp_path_factory.mktemp("local") / "run", _CONFIG).parent


@pytest.fixture(scope="module")
def driver(cluster_address: str) -> Iterator[str]:
    """Connected for the whole module, so that its tests share warm workers."""
    with connected(cluster_address):
        yield cluster_address


def _results(folder: Path) -> dict[str, str]:
    """SHA-256 of whatever of a run, or of one of its trainings, must not depend on where it ran."""
    kept = ("frames.csv", "splits.json", "metrics.csv", "bundle.yaml", "model.safetensors")
    files = [path for path in folder.rglob("*") if path.name in kept or path.suffix == ".png"]
    assert len(files) > 8
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}


def _at_work(folder: Path) -> list[int]:
    """The processes that hold a training's folder."""
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    inode = folder.stat().st_ino
    return [int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[5].endswith(f":{inode}")]


def _kill_when_saved(run: Path, killed: list[int]) -> None:
    """SIGKILL the first worker that has saved an epoch since this was called."""
    started, end = time.time(), time.monotonic() + 300
    while time.monotonic() < end:
        for checkpoint in run.glob("unet/*/checkpoints/last.ckpt"):
            with suppress(FileNotFoundError):  # between two renames
                if checkpoint.stat().st_mtime > started:
                    for process in _at_work(checkpoint.parent.parent):
                        os.kill(process, signal.SIGKILL)
                        killed.append(process)
                        return
        time.sleep(0.001)


@pytest.mark.timeout(400)  # a driver and three workers start one after the other, each importing torch
@pytest.mark.skipif(not Path("/proc/locks").is_file(), reason="finds the worker by the lock that it holds, on Linux")
def test_a_killed_driver_and_a_killed_worker_change_nothing(
    few_discs: Study, local_run: Path, driver: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = f"compare {few_discs.path} -o {run} --ray {driver} {_ARGUMENTS}"
    with subprocess.Popen(
        [sys.executable, "-m", "edgefusion", *command.split()], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = ""
        while "epoch 2/8" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.kill()
    assert not (run / "report.html").exists()
    begun = [checkpoint.parent.parent for checkpoint in run.glob("unet/*/checkpoints/last.ckpt")]
    assert begun
    while any(_at_work(folder) for folder in begun):  # the killed driver's workers, who have to notice
        time.sleep(0.05)

    killed: list[int] = []
    killer = Thread(target=_kill_when_saved, args=(run, killed))
    killer.start()
    assert compare_on_ray(few_discs, run, _CONFIG, address=driver) == run / "report.html"
    killer.join()
    assert killed
    assert _results(run) == _results(local_run)


def test_workers_that_do_not_see_the_folder_send_their_results(
    few_discs: Study, local_run: Path, driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "mark", lambda output: "a word that no worker finds")
    splits = read_splits(local_run / "splits.json")[:1]
    config = replace(_CONFIG, split=SplitConfig(folds=1))
    compare_on_ray(few_discs, tmp_path / "run", config, splits, address=driver)
    unit = Path("unet") / "fold_0"
    assert _results(tmp_path / "run" / unit) == _results(local_run / unit)
    assert not (tmp_path / "run" / unit / "checkpoints").exists()


def test_a_worker_with_another_installation_is_refused(
    few_discs: Study, driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "installation", lambda: {**installation(), "edgefusion": "9.9"})
    with pytest.raises(UsageError, match=r"has edgefusion .* and not 9\.9"):
        compare_on_ray(few_discs, tmp_path / "run", _CONFIG, address=driver)
    assert not list((tmp_path / "run").glob("unet/*/*"))


def test_every_task_checks_its_installation_and_the_study_first(few_discs: Study, tmp_path: Path) -> None:
    """Called here, as workers are."""
    other, fold = {**installation(), "torch": "0.1"}, ("unet", make_splits(few_discs, _CONFIG.split)[0], 0)
    for driver, sha256, error, message in (
        (other, few_discs.sha256(), UsageError, r"torch .* and not 0\.1"),
        (installation(), "0" * 64, DataError, "another study"),
    ):
        with pytest.raises(error, match=message):
            train_and_judge(few_discs.path, sha256, tmp_path, "word", _CONFIG, fold, 1, driver)
        with pytest.raises(error, match=message):
            faster_formats(few_discs.path, sha256, _CONFIG, 1, driver)


def test_the_number_format_is_chosen_once_for_all_workers(
    few_discs: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(_CONFIG, train=replace(_CONFIG.train, precision="auto"))
    timed: list[str] = []

    def run_here(function: object, cpus: int, arguments: tuple[object, ...], where: type) -> dict[str, str]:
        assert function is faster_formats
        assert faster_formats(*arguments).keys() == {"unet"}  # type: ignore[arg-type]
        timed.append("once")
        return {"unet": "bf16"}

    monkeypatch.setattr(module, "run_one", run_here)
    choose = (few_discs.path, few_discs.sha256(), tmp_path, config, 1)
    assert module.chosen_formats(*choose) == module.chosen_formats(*choose) == {"unet": "bf16"}
    assert timed == ["once"]
    assert module.chosen_formats(*choose[:3], _CONFIG, 1) == {"unet": "32"}
