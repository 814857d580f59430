"""One run a folder: a second one is refused instead of mixing its files with the first's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edgefusion.errors import UsageError

LOCK = ".lock"
"""Name of the lock's file in a folder. It stays behind, and means nothing by being there."""


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder`` while the block runs.

    The operating system holds the lock and lets go of it when the process ends, however it ends: a killed run leaves
    nothing to clean up. Within one process the lock may be taken again.

    Args:
        folder: An output folder; made when absent.

    Raises:
        UsageError: If another process is at work in it.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            f"Another run is at work in {folder}.", "Wait until it ends, or choose another output folder."
        ) from None
    try:
        yield
    finally:
        lock.release()
