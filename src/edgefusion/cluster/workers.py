"""What a worker of the cluster does before it takes part in a run: nothing it finds may change the run's numbers."""

from __future__ import annotations

import hashlib
import io
import platform
import secrets
import shutil
import socket
import tarfile
import time
from functools import cache
from pathlib import Path

import torch

import edgefusion
from edgefusion.data.study import Study
from edgefusion.errors import DataError, EdgeFusionError, UsageError
from edgefusion.files import write_text
from edgefusion.locking import sole_use
from edgefusion.remote import Place

_MARK = ".cluster"
_FORMER_RUN_S = 60.0


@cache
def installation() -> dict[str, str]:
    """What has to be the same on every machine of a run: versions, and a hash of this package's source."""
    source = hashlib.sha256()
    root = Path(edgefusion.__file__).parent
    for file in sorted(root.rglob("*.py")):
        source.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "edgefusion": edgefusion.__version__,
        "edgefusion's source": source.hexdigest()[:12],
    }


def check_installation(driver: dict[str, str]) -> None:
    """Raise a UsageError on a worker that has not what the driver has."""
    mine = installation()
    other = [f"{name} {mine[name]} and not {driver[name]}" for name in driver if mine[name] != driver[name]]
    if other:
        raise UsageError(
            f"The worker on {socket.gethostname()} has {', '.join(other)}, which the driver has.",
            "Install the same on every machine of the cluster.",
        )


def load_study(folder: Place, sha256: str) -> Study:
    """The study as a worker sees it, which has to be the driver's.

    Raises:
        DataError: If it is not there or is another one.
    """
    try:
        study = Study.load(folder)
    except EdgeFusionError as error:
        raise DataError(
            f"The worker on {socket.gethostname()} cannot read the study: {error}",
            "Put it on a file system that every machine sees at the same path.",
        ) from error
    if study.sha256() != sha256:
        raise DataError(
            f"{folder} on {socket.gethostname()} is another study than the driver's.",
            "Copy it again, or share it over the network.",
        )
    return study


def mark(output: Path) -> str:
    """Leave a word in ``output`` by which workers know whether they see this very folder."""
    word = secrets.token_hex(16)
    write_text(output / _MARK, word)
    return word


def sees(output: Path, word: str) -> bool:
    """Whether ``output`` on this machine is the folder in which ``mark`` left ``word``."""
    try:
        return (output / _MARK).read_text(encoding="utf-8") == word
    except OSError:
        return False


def wait_for_former_run(folder: Path) -> None:
    """Give a worker of a driver that was killed a minute to notice and let go of ``folder``.

    Raises:
        UsageError: If somebody is still at work there.
    """
    end = time.monotonic() + _FORMER_RUN_S
    while True:
        try:
            with sole_use(folder):
                return
        except UsageError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def pack(folder: Path) -> bytes:
    """A trained folder as an uncompressed tar, without its checkpoints."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and inside.parts[0] != "checkpoints":
                archive.add(path, inside.as_posix())
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Put what ``pack`` made in the place of ``folder``, all at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f".{folder.name}.*"):  # of a driver that was killed right here
        shutil.rmtree(left_over)
    arriving = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(arriving, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        arriving.rename(folder)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
