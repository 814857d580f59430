"""One run a folder: a second one is refused instead of mixing its files with the first's."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgefusion.errors import UsageError
from edgefusion.files import remove_leftovers, writing


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder`` while the block runs.

    The operating system holds the lock, on the folder itself, and lets go of it when the process ends, however it
    ends. What a killed run was writing is removed. Where there are no such locks (Windows, and network file systems
    that want a file to lock) runs are not kept apart.

    Args:
        folder: An output folder; made when absent, and gone again if nothing came into it.

    Raises:
        UsageError: If another run is at work in it.
        StorageError: If it cannot be made or written: better now than after an hour.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another run is at work in {folder}.", "Wait until it ends, or choose another output folder."
            ) from None
        except OSError:
            pass  # the file system has no such locks
        remove_leftovers(folder)
        yield
    finally:
        if is_new:
            with suppress(OSError):  # refused where it holds anything
                folder.rmdir()
        os.close(handle)
