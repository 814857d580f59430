from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import edgefusion.channels.recipe
import edgefusion.inference.predictor
from edgefusion.errors import StorageError
from edgefusion.files import write_text
from edgefusion.locking import sole_use

from .conftest import TRAINING

TOO_LATE = "it was noticed only when there was something to write"


@pytest.mark.parametrize("verb", ["phantom", "ingest", "train", "compare", "predict", "evaluate"])
def test_a_read_only_disk_is_named(verb, phantoms, make_disk, run, monkeypatch):
    # Without its stack no frame can be predicted or trained on.
    for owner in (edgefusion.channels.recipe, edgefusion.inference.predictor):
        monkeypatch.setattr(owner, "build_stack", lambda *_, **__: pytest.fail(TOO_LATE))
    disk = make_disk(64)
    out = disk.folder / "out"
    out.mkdir()
    disk.make_read_only()
    words = {
        "phantom": ["phantom", "--patients", 1, "--frames", 1, "--size", "105x145"],
        "ingest": ["ingest", phantoms / "images"],
        "train": ["train", phantoms, *TRAINING],
        "compare": ["compare", phantoms, "--models", "unet", *TRAINING[2:], "--folds", 2],
        "predict": ["predict", phantoms / "images"],
        "evaluate": ["evaluate", "brachial-plexus", phantoms],
    }[verb]
    status, said = run(*words, "-o", out)
    assert status == 1
    assert said.splitlines()[-1].startswith(f"edgefusion: {out} cannot be written (read-only file system). Choose")
    assert "epoch" not in said, TOO_LATE
    assert not list(out.iterdir())


@contextmanager
def _as_nobody() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("here root is the only user, as under unshare -r")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def somebody_elses() -> Iterator[Path]:
    # Not tmp_path, into which only its owner may look.
    folder = Path(tempfile.mkdtemp())
    (folder / "out").mkdir()
    folder.chmod(0o755)
    (folder / "out").chmod(0o555)
    yield folder / "out"
    (folder / "out").chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_of_somebody_else_is_named(somebody_elses: Path) -> None:
    with _as_nobody():
        for folder in (somebody_elses, somebody_elses / "new"):
            with pytest.raises(StorageError, match=r"cannot be written \(permission denied\)"), sole_use(folder):
                pass
            with pytest.raises(StorageError, match=r"cannot be written \(permission denied\)"):
                write_text(folder / "file", "x")
    assert not list(somebody_elses.iterdir())
