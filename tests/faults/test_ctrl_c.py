from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import edgefusion.channels.recipe
import edgefusion.data.intake
from edgefusion.data.readers import read_frame
from edgefusion.data.video_writer import VideoWriter
from edgefusion.inference.predictor import Predictor
from edgefusion.training.task import SegmentationTask

from .conftest import TRAINING

_LIMIT_S = 2.0


def _slowly(patch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float) -> None:
    """As if every frame took longer: whoever then waits for all of them is too late."""
    function = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return function(*args, **kwargs)

    patch.setattr(owner, name, slow)


def _ended(result: tuple[int, str], interruption: Any, go_on: str) -> None:
    assert interruption.seconds < _LIMIT_S
    status, said = result
    assert status == 130
    assert said.splitlines()[-1].startswith("edgefusion: Interrupted. ")
    assert go_on in said.splitlines()[-1]


@pytest.fixture
def clip(phantoms: Path, tmp_path: Path) -> Path:
    file = tmp_path / "clip.mp4"
    with VideoWriter(file, 10.0) as video:
        for path in sorted((phantoms / "images").iterdir()):
            video.write(read_frame(path))
    return file


@pytest.mark.parametrize(
    ("verb", "owner", "name"),
    [
        ("ingest", edgefusion.data.intake, "store_frame"),
        ("predict", Predictor, "prepare"),
        ("predict a clip", Predictor, "prepare"),
    ],
)
def test_a_verb_ends_at_once_and_goes_on(
    verb, owner, name, phantoms, clip, run, contents, tmp_path, monkeypatch, interruption
):
    words, go_on = {
        "ingest": (["ingest", phantoms / "images"], "starts anew"),
        "predict": (["predict", phantoms / "images"], "does the rest"),
        "predict a clip": (["predict", clip, "--format", "png,json"], "does the rest"),
    }[verb]
    whole, out = tmp_path / "whole" / "out", tmp_path / "out"
    assert run(*words, "-o", whole)[0] == 0
    with monkeypatch.context() as patch:
        _slowly(patch, owner, name, 0.5)
        interruption.at(patch, owner, name, call=5)  # when every thread has begun
        _ended(run(*words, "-o", out), interruption, go_on)
    assert contents(out).items() <= contents(whole).items()
    assert run(*words, "-o", out)[0] == 0
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("moment", ["filters", "an epoch", "validation"])
def test_a_training_ends_at_once_and_goes_on(
    moment, phantoms, run, contents, tmp_path, monkeypatch, interruption, trained
):
    owner, name, call, epochs = {
        "filters": (edgefusion.channels.recipe, "build_stack", 3, 3),
        "an epoch": (SegmentationTask, "training_step", 3, 1),
        "validation": (SegmentationTask, "validation_step", 3, 1),
    }[moment]
    out, recipe = tmp_path / "out", ["--recipe.channels", "[raw]"]
    if moment == "filters":
        recipe += ["--recipe.time", f"{time.time()}"]  # which is in no cache yet
    with monkeypatch.context() as patch:
        if moment == "filters":
            _slowly(patch, owner, name, 0.5)
        interruption.at(patch, owner, name, call)
        _ended(run("train", phantoms, *TRAINING, *recipe, "-o", out), interruption, "--resume")
    status, said = run("train", phantoms, *TRAINING, *recipe, "-o", out, "--resume")
    assert (status, said.count(": epoch ")) == (0, epochs)
    assert contents(out, "model.safetensors") == contents(trained, "model.safetensors")


@pytest.fixture(scope="module")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgefusion.cli import main

    torch.set_num_threads(1)  # this comes before what each test sets
    out = tmp_path_factory.mktemp("trained")
    assert main(["train", str(phantoms), *TRAINING, "--recipe.channels", "[raw]", "-o", str(out)]) == 0
    return out


_STUCK = """
import hashlib, os, signal, sys, threading
from edgefusion import cli, interruption
from edgefusion.data import duplicates
interruption.PATIENCE_S = 0.2

def stuck(*_):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes, in which Python cannot be interrupted

duplicates.similar_pairs = stuck
sys.exit(cli.main())
"""


def test_a_program_ends_also_where_python_cannot_be_interrupted(phantoms, run, contents, tmp_path):
    words = ["ingest", phantoms / "images", "-o"]
    command = [sys.executable, "-c", _STUCK, *words, tmp_path / "out"]
    program = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = program.stderr
    assert program.returncode == 130
    assert said.splitlines()[-1].startswith("edgefusion: Interrupted. ")
    assert run(*words, tmp_path / "out")[0] == 0
    assert run(*words, tmp_path / "whole" / "out")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole" / "out")


_WITH_MUCH_TO_TAKE_DOWN = """
import atexit, sys
from edgefusion import cli

def interrupted(_):
    print("half a table")
    raise KeyboardInterrupt

atexit.register(print, "taken down")
cli.VERBS["info"] = interrupted
sys.exit(cli.main())
"""


def test_a_program_does_not_wait_until_its_libraries_are_taken_down():
    command = [sys.executable, "-c", _WITH_MUCH_TO_TAKE_DOWN, "info"]
    program = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert program.returncode == 130
    assert program.stderr.startswith("edgefusion: Interrupted. ")
    assert program.stdout == "half a table\n"


def test_a_comparison_takes_its_workers_along(phantoms, run, tmp_path, interruption):
    out = tmp_path / "out"

    def press() -> None:
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.001)
        # In a terminal Ctrl-C reaches them too, maybe before they know what to make of it: it is not for them.
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGINT)
        while not list(out.glob("unet/*/checkpoints/last.ckpt")):
            time.sleep(0.02)
        interruption.send()

    threading.Thread(target=press, daemon=True).start()
    words = ["--models", "unet", *TRAINING[2:], "--train.epochs", 500, "--folds", 2, "--jobs", 2]
    _ended(run("compare", phantoms, *words, "-o", out), interruption, "goes on from there")
    assert not multiprocessing.active_children()
