"""Filling a study's folder so that the old content stays until the new is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

from edgefusion.data.study import Study, is_study
from edgefusion.errors import DataError, UsageError
from edgefusion.files import writing
from edgefusion.locking import sole_use

_INCOMING = ".incoming"

_FACTS = "study.yaml"


@contextmanager
def staged(output: Path, origin: str) -> Iterator[Path]:
    """Yield a folder inside ``output`` to fill; it is gone when the block ends, whatever happened.

    Args:
        output: A study's folder to be: new, empty, left over from an interrupted run, or a study of the same origin.
        origin: Where the new study comes from.

    Raises:
        UsageError: If ``output`` is a file, or holds anything else, or another process is filling it.
    """
    _check_free(output, origin)
    incoming = output / _INCOMING
    with sole_use(output):
        shutil.rmtree(incoming, ignore_errors=True)
        with writing(output):
            incoming.mkdir()
        try:
            yield incoming
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
            if not is_study(output) and any(output.iterdir()):
                # Cut short while it was moved to its place.
                with suppress(OSError):
                    incoming.mkdir()


def publish(study: Study, output: Path) -> Study:
    """Save a study that was staged and move it to ``output``, ``study.yaml`` last: it says that the rest is there.

    Args:
        study: Its ``path`` is the folder that ``staged`` gave.
        output: Its place.

    Returns:
        The study at its place.
    """
    study.save()
    with writing(output):
        (output / _FACTS).unlink(missing_ok=True)
        for part in sorted(cast(Path, study.path).iterdir(), key=lambda part: part.name == _FACTS):
            target = output / part.name
            if target.is_dir():
                shutil.rmtree(target)
            part.replace(target)
    return replace(study, path=output)


def _check_free(output: Path, origin: str) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"{output} is a file.", "Name a folder for the study.")
    if is_study(output):
        try:
            other = Study.load(output).origin
        except DataError:
            return  # A damaged study is of no use to anybody.
        if other != origin:
            raise UsageError(
                f"{output} holds a study of {other}.", "Choose another folder, or delete that study first."
            )
    # An interrupted run leaves its staging folder, which says that the rest is ours too.
    elif any(output.iterdir()) and not (output / _INCOMING).exists():
        raise UsageError(f"{output} is not empty, and is not a study.", "Choose a new or empty folder.")
