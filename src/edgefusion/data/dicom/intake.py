"""The way of DICOM files into a study: cropped to the ultrasound image, and under pseudonyms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydicom import Dataset

from edgefusion.data import duplicates
from edgefusion.data.dicom.file import opened, read_header, sop_class, sound_header
from edgefusion.data.dicom.folder import dicom_files, is_ultrasound
from edgefusion.data.dicom.pixels import check_image
from edgefusion.data.dicom.pseudonyms import Pseudonyms
from edgefusion.data.dicom.reader import iter_grey
from edgefusion.data.dicom.regions import region_and_spacing
from edgefusion.data.intake import Stored
from edgefusion.data.layouts import IGNORED, SKIPPED, Problem
from edgefusion.data.study import store_frame
from edgefusion.errors import DataError
from edgefusion.progress import track

_WORKERS = 4
_WHOLE = "kept whole: whatever is written into the picture is in the study"
_CUT = "frames before it kept"

T = TypeVar("T")


@dataclass(frozen=True)
class _Object:
    """An ultrasound object that can be stored: its file, what the file is called in messages, and its pseudonyms."""

    path: Path
    name: str
    instance: str
    patient: str
    frames: str


@dataclass(frozen=True)
class DicomIntake:
    """Reads DICOM files into a study's folder. Nothing that is stored, reported or raised names a patient or a file.

    Names of files often are names of patients, so a file is called by its place among the files of the source in the
    order of their paths, and a frame by the keyed hashes of its patient and of its object.

    Attributes:
        source: A file, a folder or a DICOMDIR.
        pseudonyms: What patients are called by.
        strict: Whether the first file that cannot be used is an error.
    """

    source: Path
    pseudonyms: Pseudonyms
    strict: bool

    @property
    def origin(self) -> str:
        """Where the frames come from: the same for the same source, without naming it."""
        return f"DICOM {self.pseudonyms.name('source', str(self.source.resolve()))}"

    def store_all(self, folder: Path) -> tuple[list[Stored], list[Problem]]:
        """Store every usable frame in ``folder``; returns them, and what is odd about the files.

        Raises:
            DataError: If no frame can be used, or with ``strict`` a file cannot.
        """
        files = [(path, f"file {number}") for number, path in enumerate(dicom_files(self.source), start=1)]
        objects, problems = _parted(self._map(lambda file: self._identify(*file), files, "Looking into files"))
        first: dict[str, _Object] = {}
        for found in objects:
            other = first.setdefault(found.instance, found)
            if other is not found:
                problems.append(Problem(found.name, f"a copy of {other.name}: same SOP Instance UID", IGNORED))
        stored, odd = _parted(
            self._map(lambda found: self._store(found, folder), list(first.values()), "Reading frames")
        )
        problems += odd
        if not stored:
            reason = f" First: {problems[0].file}: {problems[0].reason}." if problems else ""
            raise DataError(f"None of the {len(files)} DICOM files holds a usable ultrasound image.{reason}")
        return stored, problems

    def _map(self, action: Callable[[Any], Iterator[T]], items: Sequence[Any], description: str) -> Iterator[T]:
        """What the actions yield, in the order of the items; several items are worked on at once."""
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                results = pool.map(lambda item: list(action(item)), items)
                for result in track(results, description, len(items)):
                    yield from result
            except BaseException:
                # Otherwise Ctrl-C would wait until all files were read.
                pool.shutdown(cancel_futures=True)
                raise

    def _identify(self, path: Path, name: str) -> Iterator[_Object | Problem]:
        try:
            header = read_header(path)
            with sound_header(path):
                if is_ultrasound(header):
                    yield self._named(path, name, header)
                else:
                    kind = sop_class(header).name or "of unknown kind"
                    yield Problem(name, f"no ultrasound image ({kind})", IGNORED)
        except (DataError, OSError) as error:
            yield self._problem(path, name, error, SKIPPED)

    def _named(self, path: Path, name: str, header: Dataset) -> _Object:
        instance = str(header.get("SOPInstanceUID") or "")
        number = str(header.get("PatientID") or "").strip()
        study = str(header.get("StudyInstanceUID") or "")
        if not instance or not (number or study):
            raise DataError(f"{path} names no object, or neither patient nor study.", "Export it again.")
        # Without a number nobody knows whether two studies are of one person.
        patient = self.pseudonyms.name("patient", number) if number else self.pseudonyms.name("study", study)
        return _Object(path, name, instance, patient, f"{patient}_{self.pseudonyms.name('instance', instance)}")

    def _store(self, found: _Object, folder: Path) -> Iterator[Stored | Problem]:
        done = 0
        try:
            with opened(found.path) as file, sound_header(found.path):
                count = check_image(file)
                region, spacing = region_and_spacing(file.header)
                if region is None:
                    yield Problem(found.name, "states no believable region of the ultrasound image", _WHOLE)
                for number, grey in enumerate(iter_grey(file, count), start=1):
                    image = np.ascontiguousarray(region.crop(grey) if region else grey)
                    if image.min() == image.max():
                        yield Problem(f"{found.name}, frame {number}", "blank: every pixel is the same", SKIPPED)
                        continue
                    frame_id = f"{found.frames}_{number:0{len(str(count))}}"
                    source = f"{found.frames}, frame {number} of {count}"
                    row = store_frame(folder, frame_id, found.patient, image, None, spacing=spacing, source=source)
                    done += 1
                    yield Stored(row, duplicates.describe(image), 0, None)
        except DataError as error:
            yield self._problem(found.path, found.name, error, _CUT if done else SKIPPED)

    def _problem(self, path: Path, name: str, error: Exception, action: str) -> Problem:
        """What went wrong, without what others put into their messages: it may be the value of an element."""
        reason = str(error).replace(str(path), name)
        if isinstance(error, OSError) or error.__cause__ is not None:
            reason = f"{name} is damaged or cannot be read ({type(error.__cause__ or error).__name__})"
        if self.strict:
            raise DataError(f"{reason.removesuffix('.')}.") from None
        return Problem(name, reason, action)


def _parted(results: Iterator[T | Problem]) -> tuple[list[T], list[Problem]]:
    wanted: list[T] = []
    problems: list[Problem] = []
    for result in results:
        if isinstance(result, Problem):
            problems.append(result)
        else:
            wanted.append(result)
    return wanted, problems
