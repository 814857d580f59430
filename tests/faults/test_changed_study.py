"""Images that are deleted or damaged after ingest."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefusion.channels.recipe import cached_stacks
from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study
from edgefusion.errors import DataError
from edgefusion.training.epoch_log import EpochLog

from .conftest import TRAINING

_RECIPE = ChannelRecipe(("raw",), height=16, width=24)


@pytest.fixture
def study(phantoms: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantoms, tmp_path / "study", ignore=shutil.ignore_patterns("cache")))


def _harm(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    if damage == "deleted":
        file.unlink()
    elif damage == "cut off":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "one bit":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    else:
        cv2.imwrite(str(file), 255 - cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("damage", ["deleted", "cut off", "one bit", "another picture"])
def test_a_training_names_the_image_that_changed(study, damage, run, tmp_path):
    _harm(study / "images" / "p01_f01.png", damage)
    status, said = run("train", study, *TRAINING, "-o", tmp_path / "out")
    assert status == 1
    assert str(study / "images" / "p01_f01.png") in said.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_missing_mask_is_named(study, verb, run, tmp_path):
    # Its frame cannot be left out: the others' scores would no longer be those of the study.
    (study / "masks" / "p01_f01.png").unlink()
    words = {"train": ["train", study, *TRAINING], "evaluate": ["evaluate", "brachial-plexus", study]}[verb]
    status, said = run(*words, "-o", tmp_path / "out")
    assert status == 1
    assert str(study / "masks" / "p01_f01.png") in said.splitlines()[-1]


def test_prediction_reports_and_leaves_out(study, run, tmp_path):
    (study / "images" / "p01_f01.png").unlink()
    status, said = run("predict", study, "-o", tmp_path / "out", "--format", "png")
    assert status == 0
    assert str(study / "images" / "p01_f01.png") in said
    assert "7 frames predicted, 0 kept, 1 failed" in said
    assert len(list((tmp_path / "out").glob("*.png"))) == 7
    assert run("predict", study, "-o", tmp_path / "out", "--format", "png", "--strict")[0] == 1


def test_frames_may_go_once_training_has_begun(study, phantoms, run, tmp_path, contents, monkeypatch):
    assert run("train", phantoms, *TRAINING, "-o", tmp_path / "whole")[0] == 0
    start = EpochLog.on_train_epoch_start

    def gone(*arguments):
        shutil.rmtree(study / "images", ignore_errors=True)
        shutil.rmtree(study / "masks", ignore_errors=True)
        start(*arguments)

    monkeypatch.setattr(EpochLog, "on_train_epoch_start", gone)
    assert run("train", study, *TRAINING, "-o", tmp_path / "out")[0] == 0
    assert not (study / "images").exists()
    assert contents(tmp_path / "out", "model.safetensors") == contents(tmp_path / "whole", "model.safetensors")


def test_another_picture_never_comes_into_the_cache(study, tmp_path):
    _harm(study / "images" / "p00_f00.png", "another picture")
    with pytest.raises(DataError, match="is not the picture that was ingested"):
        cached_stacks(Study.load(study), ["p00_f00"], _RECIPE, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*"))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_bit_of_a_cache_entry_may_flip(phantoms, tmp_path_factory, data):
    cache, study = tmp_path_factory.mktemp("cache"), Study.load(phantoms)
    expected = cached_stacks(study, ["p00_f00"], _RECIPE, cache)
    entry = next(path for path in cache.rglob("*") if path.is_file())
    whole = entry.read_bytes()
    # As many examples in the head, of 85 bytes, as in the rest.
    place = data.draw(st.integers(0, 84) | st.integers(85, len(whole) - 1))
    content = bytearray(whole)
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    entry.write_bytes(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(cached_stacks(study, ["p00_f00"], _RECIPE, cache), expected)
    assert entry.read_bytes() == whole, "it was not written again"
    # A flipped bit can make the version an older one's, which is built again without a word.
    assert any("is damaged" in str(one.message) for one in said) or content.startswith(b"edgefusion stack 0\n")
