"""Reading, checking and storing the frames of a recognised source, one by one, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.data import duplicates
from edgefusion.data.kaggle import FRAME_SHAPE, decode_rle
from edgefusion.data.layouts import SKIPPED, Entry, Layout, Problem
from edgefusion.data.readers import read_frame, read_mask
from edgefusion.data.study import store_frame
from edgefusion.errors import DataError
from edgefusion.progress import track
from edgefusion.threads import thread_pool

_UNLABELLED = "kept without label"
_WORKERS = 4


@dataclass(frozen=True)
class Stored:
    """One frame that was read and stored.

    Attributes:
        row: Its row of the study's table.
        description: What near-duplicates are found by, see ``edgefusion.data.duplicates.describe``.
        highest_label: The largest value of its mask, 0 without one.
        problem: What a person should know about it although it was kept.
    """

    row: dict[str, Any]
    description: NDArray[np.float32]
    highest_label: int
    problem: Problem | None


@dataclass(frozen=True)
class Intake:
    """The way of a source's frames into a study's folder.

    Attributes:
        source: The source, for names in messages.
        layout: Its frames.
        patients: Patient of every frame, by frame id.
        labels: Names of the labels if they are known; a mask with a higher value is refused then.
        strict: Whether the first frame that cannot be used is an error.
    """

    source: Path
    layout: Layout
    patients: dict[str, str]
    labels: Sequence[str] | None
    strict: bool

    def store_all(self, folder: Path) -> tuple[list[Stored], list[Problem]]:
        """Store every usable frame in ``folder``; returns them, and the problems, those of the layout first.

        Raises:
            DataError: If no frame can be used, or with ``strict`` one cannot.
        """
        problems = list(self.layout.problems)
        for problem in problems:
            if self.strict and problem.action == SKIPPED:
                raise DataError(f"{self.source / problem.file}: {problem.reason}.")
        stored: list[Stored] = []
        entries = self.layout.entries
        with thread_pool(_WORKERS) as pool:
            results = pool.map(lambda entry: self._try(entry, folder), entries)
            for result in track(results, "Reading frames", len(entries)):
                if isinstance(result, Problem):
                    problems.append(result)
                    continue
                stored.append(result)
                if result.problem is not None:
                    problems.append(result.problem)
        if not stored:
            first = next(problem for problem in problems if problem.action == SKIPPED)
            raise DataError(f"None of the {len(entries)} frames in {self.source} can be used. First: {first.reason}")
        return stored, problems

    def _try(self, entry: Entry, folder: Path) -> Stored | Problem:
        try:
            return self._store(entry, folder)
        except DataError as error:
            if self.strict:
                raise
            return Problem(entry.name_in(self.source), str(error), SKIPPED)

    def _store(self, entry: Entry, folder: Path) -> Stored:
        image = read_frame(entry.image)
        if image.min() == image.max():
            raise DataError(f"{entry.image} is blank: every pixel is {image.flat[0]}.")
        mask, reason = self._mask(entry, image.shape)
        highest = 0 if mask is None else int(mask.max())
        if self.labels is not None and highest > len(self.labels):
            raise DataError(
                f"The mask of {entry.image} has the value {highest}, but there are {len(self.labels)} labels."
            )
        name = entry.name_in(self.source)
        row = store_frame(folder, entry.frame_id, self.patients[entry.frame_id], image, mask, source=name)
        problem = Problem(name, reason, _UNLABELLED) if reason else None
        return Stored(row, duplicates.describe(image), highest, problem)

    def _mask(self, entry: Entry, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8] | None, str]:
        """The frame's mask, or why it ought to have one and has none; neither in a source without any masks."""
        if entry.mask is not None:
            mask = read_mask(entry.mask)
            if mask.shape != shape:
                raise DataError(f"The mask {entry.mask} is {_size(mask.shape)}, but its frame is {_size(shape)}.")
            return mask, ""
        if entry.runs is not None:
            if shape != FRAME_SHAPE:
                return None, f"the run-length mask is for {_size(FRAME_SHAPE)}, but the frame is {_size(shape)}"
            try:
                return decode_rle(entry.runs, FRAME_SHAPE), ""
            except DataError as error:
                raise DataError(f"The run-length mask of {entry.image} is wrong: {error}") from error
        return None, "no mask found" if self.layout.has_masks else ""


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"
