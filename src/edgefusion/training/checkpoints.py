"""Checkpoints that a kill or a damaged disk cannot take away: written whole, with the one before kept beside."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from edgefusion.files import atomic_path
from edgefusion.progress import say

LAST = "last.ckpt"
"""The checkpoint of the last epoch."""

BEFORE = "before.ckpt"
"""The checkpoint of the epoch before."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then renames it; what was ``last.ckpt`` becomes ``before.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write one checkpoint; whenever the process is killed, a whole one stays."""
        path = Path(path)
        with atomic_path(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)
            if path.name == LAST and path.is_file():
                os.replace(path, path.with_name(BEFORE))


def latest_whole(folder: Path) -> Path | None:
    """The newest checkpoint in a folder whose content agrees with its checksums; says so when one does not.

    A checkpoint is a zip archive, in which torch keeps a CRC-32 of every tensor.
    """
    for path in (folder / LAST, folder / BEFORE):
        if not path.is_file():
            continue
        if _is_whole(path):
            return path
        say(f"{path} is damaged; training goes on from the checkpoint before it, or anew where there is none.")
    return None


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    # A flipped bit in a header can say anything: another compression, an offset beyond the end.
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False
