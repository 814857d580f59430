from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgefusion.channels.recipe import cached_stacks
from edgefusion.config import ChannelRecipe
from edgefusion.data.readers import read_frame
from edgefusion.data.study import Study, is_study
from edgefusion.data.video_writer import VideoWriter
from edgefusion.errors import StorageError
from edgefusion.files import atomic_path
from edgefusion.training.checkpoints import BEFORE, LAST, latest_whole

from .conftest import TRAINING

_RECIPE = ChannelRecipe(("raw",), height=32, width=48)


@pytest.fixture
def clip(phantoms: Path, tmp_path: Path) -> Path:
    file = tmp_path / "clip.mp4"
    with VideoWriter(file, 10.0) as video:
        for path in sorted((phantoms / "images").iterdir()):
            video.write(read_frame(path))
    return file


@pytest.mark.parametrize(
    ("verb", "kilobytes"),
    [("ingest", 60), ("predict", 80), ("predict a clip", 40), ("predict into a video", 12), ("phantom", 60)],
)
def test_a_full_disk_is_named_and_nothing_half_written_stays(
    verb, kilobytes, phantoms, clip, make_disk, run, contents, tmp_path
):
    words = {
        "ingest": ["ingest", phantoms / "images"],
        "predict": ["predict", phantoms / "images"],
        "predict a clip": ["predict", clip, "--format", "png,overlay,json,measures"],
        "predict into a video": ["predict", clip, "--format", "video"],
        "phantom": ["phantom", "--patients", 3, "--frames", 3, "--size", "105x145"],
    }[verb]
    whole, disk = tmp_path / "whole" / "out", make_disk(kilobytes)
    out = disk.folder / "out"
    assert run(*words, "-o", whole)[0] == 0
    status, said = run(*words, "-o", out)
    assert status == 1
    assert said.splitlines()[-1].startswith(f"edgefusion: The disk that holds {disk.folder}")
    assert "is full. Make room there" in said
    left = contents(out)
    assert verb == "predict" or not left, "a study or a clip is there whole or not at all"
    assert left.items() <= contents(whole).items()
    disk.resize(4096)
    assert run(*words, "-o", out)[0] == 0
    # H.264 comes out the same only almost every time, also undisturbed.
    assert {**contents(out), "clip_overlay.mp4": ""} == {**contents(whole), "clip_overlay.mp4": ""}


def test_a_library_with_errors_of_its_own_is_understood(make_disk):
    disk = make_disk(64)
    with pytest.raises(StorageError, match="is full"), atomic_path(disk.folder / "weights.pt") as temporary:
        torch.save(torch.zeros(2**20), temporary)
    assert not list(disk.folder.iterdir())


def test_a_study_that_is_replaced_stays_until_the_new_one_is_whole(phantoms, make_disk, run, contents):
    disk = make_disk(400)
    source, out = disk.folder / "source", disk.folder / "study"
    shutil.copytree(phantoms / "images", source)
    assert run("ingest", source, "-o", out)[0] == 0
    before = contents(out)
    disk.fill(but=16 * 1024)
    assert run("ingest", source, "-o", out)[0] == 1
    assert contents(out) == before


def test_the_checkpoint_before_stays_whole(phantoms, make_disk, run, contents, tmp_path):
    whole = tmp_path / "whole"
    assert run("train", phantoms, *TRAINING, "-o", whole)[0] == 0
    # The best checkpoint, the last and the one before have room; a fourth, that would become the last, has not.
    disk = make_disk(3500 * (whole / "checkpoints" / LAST).stat().st_size // 2**20)
    out = disk.folder / "out"
    status, said = run("train", phantoms, *TRAINING, "-o", out)
    assert status == 1
    assert said.splitlines()[-1].startswith(f"edgefusion: The disk that holds {disk.folder}")
    assert "with --resume" in said
    assert set(contents(out / "checkpoints")) == {LAST, BEFORE, "best.ckpt"}
    assert latest_whole(out / "checkpoints") == out / "checkpoints" / LAST
    disk.resize(64 * 1024)
    status, said = run("train", phantoms, *TRAINING, "-o", out, "--resume")
    assert status == 0
    assert said.count(": epoch ") == 1
    assert contents(out, "model.safetensors") == contents(whole, "model.safetensors")


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_channels_that_cannot_be_kept_do_not_stop_a_run(fault, phantoms, make_disk, run, contents, tmp_path, capsys):
    disk = make_disk(400)
    study = disk.folder / "study"
    shutil.copytree(phantoms, study, ignore=shutil.ignore_patterns("cache"))
    disk.fill()
    if fault == "read-only":
        disk.make_read_only()
    ids = list(Study.load(study).frames["frame_id"])
    expected = cached_stacks(Study.load(phantoms), ids, _RECIPE, tmp_path / "cache")
    found = cached_stacks(Study.load(study), ids, _RECIPE, study / "cache")
    np.testing.assert_array_equal(found, expected)
    said = capsys.readouterr().err
    assert said.count("This run goes on") == 1
    assert ("is full" in said) == (fault == "full")
    if fault == "read-only":
        assert run("train", study, *TRAINING, "-o", tmp_path / "out")[0] == 0
        assert run("train", phantoms, *TRAINING, "-o", tmp_path / "whole")[0] == 0
        assert contents(tmp_path / "out", "model.safetensors") == contents(tmp_path / "whole", "model.safetensors")


def test_a_study_cut_short_while_it_was_moved_can_be_made_again(phantoms, run, tmp_path, contents, monkeypatch):
    real = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target.name == "study.yaml":  # the last
            raise OSError(5, "Input/output error")
        return real(self, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        status, said = run("ingest", phantoms / "images", "-o", out)
    assert (status, "Input/output error" in said) == (1, True)
    assert not is_study(out)
    assert run("ingest", phantoms / "images", "-o", out)[0] == 0
    assert run("ingest", phantoms / "images", "-o", tmp_path / "whole" / "out")[0] == 0
    assert contents(out) == contents(tmp_path / "whole" / "out")
