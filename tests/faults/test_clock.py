"""A clock that goes back, and files whose times are nonsense: nothing is decided by them."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgefusion.inference import clip_job
from edgefusion.inference.record import Record
from edgefusion.serving.spool import Spool
from edgefusion.training.epoch_log import EpochLog

from .conftest import TRAINING


@pytest.fixture
def clock_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock shows a time an hour before the last."""
    now = [time.time()]

    def earlier() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    monkeypatch.setattr(time, "time_ns", lambda: int(earlier() * 1e9))


def _touch(folder: Path) -> None:
    """The later in the alphabet, the older; the first are from the future."""
    paths = sorted(folder.rglob("*"))
    for number, path in enumerate(paths):
        when = 2_000_000_000 - number * 2_000_000_000 // len(paths)
        os.utime(path, (when, when))


@pytest.mark.usefixtures("clock_back")
def test_runs_go_on_as_if_nothing_were_wrong_with_the_clock(phantoms, run, contents, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("train", phantoms, *TRAINING, "-o", whole)[0] == 0
    start = EpochLog.on_train_epoch_start

    def interrupt(log, trainer, module):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt
        start(log, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLog, "on_train_epoch_start", interrupt)
        assert run("train", phantoms, *TRAINING, "-o", out)[0] == 130
    _touch(out)
    _touch(phantoms)
    status, said = run("train", phantoms, *TRAINING, "-o", out, "--resume")
    assert (status, said.count(": epoch ")) == (0, 1), "it went on from the last epoch"
    assert contents(out, "model.safetensors") == contents(whole, "model.safetensors")


@pytest.mark.usefixtures("clock_back")
def test_predictions_are_kept_and_renewed_by_content_alone(phantoms, run, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for path in (phantoms / "images").iterdir():
        (pictures / path.name).write_bytes(path.read_bytes())
    words = ["predict", pictures, "-o", out, "--format", "png"]
    assert "8 frames predicted, 0 kept" in run(*words)[1]
    _touch(tmp_path)
    assert "0 frames predicted, 8 kept" in run(*words)[1]
    # Another picture, which looks older than what was made of the one before.
    (pictures / "p00_f00.png").write_bytes((pictures / "p03_f01.png").read_bytes())
    os.utime(pictures / "p00_f00.png", (0, 0))
    assert "1 frames predicted, 7 kept" in run(*words)[1]


def test_a_recording_never_takes_the_place_of_another(tmp_path, monkeypatch):
    noon = datetime(2026, 3, 29, 12)
    monkeypatch.setattr(clip_job, "datetime", SimpleNamespace(now=lambda: noon))
    monkeypatch.setattr(clip_job, "predict_live", lambda *_, **__: {"frames": 1, "dropped": 0, "damaged": 0})
    monkeypatch.setattr(clip_job, "open_live", lambda _: nullcontext())
    job = SimpleNamespace(
        record=Record(tmp_path),
        formats_of=lambda *_: ("video",),
        fingerprint=lambda *_: "",
        facts=lambda *_: {"status": "done", "reason": "", "spacing_mm": "", "input_sha256": "", "made_by": ""},
        **dict.fromkeys(("crop", "smoothing", "predictor")),
    )
    names = [clip_job.do_live(job, "udp://127.0.0.1:1")["name"] for _ in range(3)]
    assert names == ["live-20260329-120000", "live-20260329-120001", "live-20260329-120002"]
    assert len((tmp_path / "predict-report.csv").read_text().splitlines()) == 4


@pytest.mark.usefixtures("clock_back")
def test_objects_that_are_received_at_once_keep_their_order(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "spool", 9)
    for name in "ab":
        (tmp_path / name).write_text(name)
    copy = shutil.copyfile

    def copy_slowly(source, target):
        if source.name == "a":
            spool.receive(tmp_path / "b")  # comes while the first is on its way to the disk
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_slowly)
    spool.receive(tmp_path / "a")
    assert [path.read_text() for path in spool.received] == ["a", "b"]


@pytest.mark.usefixtures("clock_back")
def test_received_objects_keep_the_order_of_their_arrival(tmp_path):
    for start in range(2):  # of the program
        spool = Spool(tmp_path / "spool", 9)
        for number in range(2):
            (tmp_path / "object").write_text(str(2 * start + number))
            assert spool.receive(tmp_path / "object")
    assert [path.read_text() for path in spool.received] == ["0", "1", "2", "3"]
