"""Real faults for real runs of the verbs, in this process: a full disk, a read-only one, Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgefusion.cli import main
from edgefusion.data.phantom import make_phantom_study
from edgefusion.files import TEMPORARY, sha256_of_file

TRAINING = [
    *("--model", "unet", "--train.epochs", "3", "--train.batch_size", "4"),
    *("--train.precision", "32", "--recipe.height", "32", "--recipe.width", "48"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four patients with two frames each; copy it before you harm it."""
    return make_phantom_study(tmp_path_factory.mktemp("phantoms") / "study", 4, 2, 0, (105, 145)).path


class Disk:
    """A file system in memory of a few kilobytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, kilobytes: int) -> None:
        self._mount(f"remount,size={kilobytes}k")

    def make_read_only(self) -> None:
        self._mount("remount,ro")

    def fill(self, but: int = 0) -> None:
        """Leave ``but`` bytes, a whole number of pages of 4 KiB."""
        (self.folder / "filler").write_bytes(bytes(shutil.disk_usage(self.folder).free - but))

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.folder], check=True, capture_output=True)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    disks: list[Disk] = []

    def make(kilobytes: int) -> Disk:
        disk = Disk(tmp_path / f"disk{len(disks)}")
        disk.folder.mkdir()
        try:
            disk._mount(f"size={kilobytes}k")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only root may mount a small disk: unshare -rm python -m pytest tests/faults")
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        subprocess.run(["umount", "--lazy", disk.folder], check=True)


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a verb; gives its exit status and what it said on stderr."""

    def call(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return status, said

    return call


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file in a folder; fails if one is not complete."""

    def read(folder: Path, *suffixes: str) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in folder.rglob(f"{TEMPORARY}*")]
        return {
            path.relative_to(folder).as_posix(): sha256_of_file(path)
            for path in files
            if not suffixes or path.name in suffixes
        }

    return read


class Interruption:
    """Ctrl-C at the n-th call of a function, from whatever thread it is called in."""

    def __init__(self) -> None:
        self.sent = 0.0

    @property
    def seconds(self) -> float:
        """Since the signal was sent."""
        assert self.sent, "it was never sent"
        return time.monotonic() - self.sent

    def at(self, patch: pytest.MonkeyPatch, owner: Any, name: str, call: int = 1) -> None:
        function, calls = getattr(owner, name), 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                self.send()
            return function(*args, **kwargs)

        patch.setattr(owner, name, counted)

    def send(self) -> None:
        self.sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def interruption() -> Interruption:
    return Interruption()
