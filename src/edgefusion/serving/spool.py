"""A folder in which DICOM objects wait: complete or not there at all, and still there after a crash."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from pathlib import Path

from pydicom import Dataset

from edgefusion.files import atomic_path

_KEPT_FAILURES = 100
"""Of the objects that could not be used, so many of the newest are kept for a person to look at."""


RESERVE_BYTES = 1024**3
"""So much of a disk stays free: a full one would stop more than this service."""


def has_room(folder: Path, size: int = 0) -> bool:
    """Whether a file of a size leaves ``RESERVE_BYTES`` of the folder's disk free."""
    return shutil.disk_usage(folder).free - size >= RESERVE_BYTES


class Spool:
    """Objects that were received and wait for an answer, and answers that wait to be sent on.

    The files have names of our own. The folder is closed to others than its owner, since the files name patients.

    Args:
        folder: Where the objects lie; made where it is missing. What an earlier run left in it is taken up again.
        capacity: So many objects, received and outgoing together, may wait.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self._folders = {name: folder / name for name in ("received", "outgoing", "failed")}
        self._capacity = capacity
        self._lock = threading.Lock()
        self._arriving = 0
        self._last = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in self._folders.values():
            part.mkdir(exist_ok=True, mode=0o700)
            # What was half written when an earlier run ended starts with a dot, and was never acknowledged.
            for half in part.glob(".*"):
                half.unlink()

    @property
    def received(self) -> list[Path]:
        """Objects that wait for an answer, in the order of their arrival."""
        return sorted(self._folders["received"].glob("[!.]*.dcm"))

    @property
    def outgoing(self) -> list[Path]:
        """Answers that wait to be sent on, the oldest first."""
        return sorted(self._folders["outgoing"].glob("[!.]*.dcm"))

    @property
    def failed(self) -> list[Path]:
        """Objects that could not be used or sent, the oldest first."""
        return sorted(self._folders["failed"].glob("[!.]*.dcm"))

    def receive(self, source: Path) -> bool:
        """Take in a copy of a file, on disk before this returns; False if too many objects wait, or the disk is full.

        Raises:
            OSError: If it cannot be written.
        """
        with self._lock:
            if len(self.received) + len(self.outgoing) + self._arriving >= self._capacity:
                return False
            if not has_room(self._folders["received"], source.stat().st_size):
                return False
            self._arriving += 1
        try:
            name = f"{self._arrival():020d}-{secrets.token_hex(8)}.dcm"
            with atomic_path(self._folders["received"] / name) as temporary:
                shutil.copyfile(source, temporary)
                temporary.chmod(0o600)
            _sync(self._folders["received"])
        finally:
            with self._lock:
                self._arriving -= 1
        return True

    def _arrival(self) -> int:
        """Nanoseconds since 1970, or one more than what came last, where the clock was set back since."""
        with self._lock:
            there = [path.name[:20] for folder in self._folders.values() for path in folder.glob("[!.]*.dcm")]
            before = max((int(number) for number in there if number.isdecimal()), default=0)
            self._last = max(time.time_ns(), self._last + 1, before + 1)
            return self._last

    def answer(self, received: Path, answers: list[Dataset]) -> None:
        """Put the answers to a received object among the outgoing, and drop the object.

        If a crash comes between, the object is answered anew, under the same file names.

        Raises:
            Exception: Of pydicom's kinds, if an answer is no complete DICOM object.
        """
        for number, answer in enumerate(answers, start=1):
            path = self._folders["outgoing"] / f"{received.stem}-{number:03d}.dcm"
            with atomic_path(path) as temporary:
                answer.save_as(temporary, enforce_file_format=True)
                temporary.chmod(0o600)
        _sync(self._folders["outgoing"])
        received.unlink()

    def fail(self, path: Path) -> None:
        """Put an object aside that cannot be used or sent, so that it does not hold up the others."""
        path.replace(self._folders["failed"] / path.name)
        for old in self.failed[:-_KEPT_FAILURES]:
            old.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Put the names in a folder on disk, too."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
