"""Writing files so that a reader never sees half of one, and hashing them."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgefusion.errors import EdgeFusionError, StorageError
from edgefusion.remote import Place

TEMPORARY = ".edgefusion-"
"""How the names of files and folders begin that are not complete yet."""

_FULL = 64 * 1024
"""A disk with fewer free bytes is full; the last block of a file may still have had room."""


@contextmanager
def atomic_path(path: Path, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` when the block succeeds.

    The suffix is kept, because image writers choose the format by it. On an error the temporary
    file is removed and an existing ``path`` stays as it was. What a killed process leaves is removed by
    ``remove_leftovers``.

    Args:
        path: The file.
        synced: Whether the content is put on disk before the name, so that the file is whole or absent after a power
            cut, too. It takes milliseconds; what is checked whenever it is read can do without.

    Raises:
        StorageError: If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _new_temporary(path)
        try:
            yield temporary
            if synced:
                with temporary.open("rb+") as written:
                    os.fsync(written.fileno())
            os.replace(temporary, path)
        except BaseException as error:
            full = isinstance(error, Exception) and _is_full(path.parent)
            temporary.unlink(missing_ok=True)
            if full and not isinstance(error, EdgeFusionError):
                # Some libraries (PyTorch's, safetensors') have errors of their own for it.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        finally:
            os.close(lock)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into ``folder`` into a ``StorageError`` that says what to do."""
    try:
        yield
    except OSError as error:
        folder = folder.absolute()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"The disk that holds {folder} is full.",
                "Make room there and start again (a training with --resume); what is finished is kept.",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(
                f"{folder} cannot be written ({os.strerror(error.errno).lower()}).",
                "Choose another folder, or change its permissions.",
            ) from error
        raise


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a path in ``folder``, or a folder on the way to it, has a name with a dot in front.

    What is being written has such a name, and so do the notes that desktops leave: neither is ever an input.
    """
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders in ``folder``, at any depth, whose process was killed."""
    for path in list(Path(folder).rglob(f"{TEMPORARY}*")):
        with suppress(OSError):  # it was renamed to its place meanwhile, or is not ours to remove
            lock = os.open(path, os.O_RDONLY)
            try:
                if _lock(lock):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(lock)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``path``, and replaces a former one, when the block succeeds."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _new_temporary(path, folder=True)
        try:
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(lock)


def _new_temporary(path: Path, folder: bool = False) -> tuple[Path, int]:
    """Make a temporary file or folder that counts as in use as long as the descriptor that is returned is open."""
    while True:
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}")
        if folder:
            temporary.mkdir()
        else:
            # Not tempfile's: its files are private, and what is kept should have the permissions any new file has.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if sys.platform == "win32":  # renames nothing that is open
            return temporary, os.open(os.devnull, os.O_RDONLY)
        with suppress(FileNotFoundError):
            descriptor = os.open(temporary, os.O_RDONLY)
            with suppress(BlockingIOError):
                _lock(descriptor)
                if temporary.exists():
                    return temporary, descriptor
            os.close(descriptor)
        # Another run took it for a killed one's in between.


def _lock(descriptor: int) -> bool:
    """Lock what a descriptor stands for until it is closed; False where there are no locks.

    Raises:
        BlockingIOError: If another process has it.
    """
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _is_full(folder: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free < _FULL
    return False


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. Numbers that JSON does not have (NaN, infinity) become null."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def is_plain_name(name: str) -> bool:
    """Whether text can stand in the name of a file on any system, and in a line of text.

    It has 1 to 100 characters, no path separator, nothing that a shell of Windows takes for more than a letter, no
    control character, and begins with no dot.
    """
    return 1 <= len(name) <= 100 and name.isprintable() and name[0] != "." and not set(name) & set('/\\:*?"<>|')


def sha256_of_bytes(content: bytes) -> str:
    """SHA-256 of ``content`` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Place) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
