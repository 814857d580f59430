"""Reading, checking and storing the frames of a recognised source, file by file, in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.data import duplicates
from edgefusion.data.clip import Clip
from edgefusion.data.kaggle import FRAME_SHAPE, decode_rle
from edgefusion.data.layouts import SKIPPED, Entry, Layout, Problem
from edgefusion.data.nifti import is_nifti, open_nifti_mask
from edgefusion.data.readers import read_frame, read_mask
from edgefusion.data.sources import is_clip, open_clip
from edgefusion.data.study import store_frame
from edgefusion.errors import DataError
from edgefusion.progress import track
from edgefusion.threads import thread_pool

_UNLABELLED = "kept without label"
_CUT = "frames before it kept"
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
            for results_of_file in track(results, "Reading frames", len(entries)):
                for result in results_of_file:
                    if isinstance(result, Problem):
                        problems.append(result)
                        continue
                    stored.append(result)
                    if result.problem is not None:
                        problems.append(result.problem)
        if not stored:
            first = next(problem for problem in problems if problem.action == SKIPPED)
            raise DataError(f"None of the {len(entries)} files in {self.source} can be used. First: {first.reason}")
        return stored, problems

    def _try(self, entry: Entry, folder: Path) -> list[Stored | Problem]:
        results: list[Stored | Problem] = []
        try:
            results.extend(self._store(entry, folder))
        except DataError as error:
            if self.strict:
                raise
            action = _CUT if any(isinstance(result, Stored) for result in results) else SKIPPED
            results.append(Problem(entry.name_in(self.source), str(error), action))
        return results

    def _store(self, entry: Entry, folder: Path) -> Iterator[Stored | Problem]:
        """Store the frames of a file: one of a picture, any number of a clip."""
        if is_clip(entry.image):
            clip = open_clip(entry.image)
        else:
            image = read_frame(entry.image)
            clip = Clip(entry.image, lambda: iter([image]), count=1)
        masks = self._masks(entry, clip)
        for number, image in enumerate(clip.read(), start=1):
            frame_id, name = entry.frame_id, entry.name_in(self.source)
            if clip.count != 1:
                frame_id, name = f"{frame_id}_f{number:05}", f"{name}, frame {number}"
            mask, reason = next(masks)
            if image.min() == image.max():
                blank = f"{entry.image} is blank: every pixel is {image.flat[0]}."
                if clip.count == 1 or self.strict:
                    raise DataError(blank)
                yield Problem(name, blank, SKIPPED)
                continue
            if mask is not None and mask.shape != image.shape:
                raise DataError(f"The mask {entry.mask} is {_size(mask.shape)}, but its frame is {_size(image.shape)}.")
            highest = 0 if mask is None else int(mask.max())
            if self.labels is not None and highest > len(self.labels):
                raise DataError(
                    f"The mask of {entry.image} has the value {highest}, but there are {len(self.labels)} labels."
                )
            patient = self.patients[entry.frame_id]
            row = store_frame(folder, frame_id, patient, image, mask, spacing=clip.spacing, source=name)
            problem = Problem(name, reason, _UNLABELLED) if reason else None
            yield Stored(row, duplicates.describe(image), highest, problem)

    def _masks(self, entry: Entry, clip: Clip) -> Iterator[tuple[NDArray[np.uint8] | None, str]]:
        """For each frame its mask, or why it ought to have one and has none; neither in a source without any masks."""
        if entry.mask is not None:
            masks = open_nifti_mask(entry.mask) if is_nifti(entry.mask) else None
            if (masks.count if masks else 1) != clip.count:
                raise DataError(f"The mask {entry.mask} has not as many frames as {entry.image}.", "Export both again.")
            yield from ((mask, "") for mask in (masks.read() if masks else [read_mask(entry.mask)]))
        elif entry.runs is not None:
            yield self._decoded(entry, next(clip.read()).shape)
        while True:
            yield None, "no mask found" if self.layout.has_masks else ""

    def _decoded(self, entry: Entry, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8] | None, str]:
        if shape != FRAME_SHAPE:
            return None, f"the run-length mask is for {_size(FRAME_SHAPE)}, but the frame is {_size(shape)}"
        try:
            return decode_rle(str(entry.runs), FRAME_SHAPE), ""
        except DataError as error:
            raise DataError(f"The run-length mask of {entry.image} is wrong: {error}") from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"
