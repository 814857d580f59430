"""The ultrasound objects of a source and their pseudonyms, in words that name neither a patient nor a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydicom import Dataset

from edgefusion.data.dicom.file import read_header, sop_class, sound_header
from edgefusion.data.dicom.folder import dicom_files, is_ultrasound
from edgefusion.data.dicom.pseudonyms import Pseudonyms
from edgefusion.data.layouts import IGNORED, SKIPPED, Problem
from edgefusion.errors import DataError
from edgefusion.progress import track

_WORKERS = 4
_CUT = "frames before it kept"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class DicomObject:
    """An ultrasound object.

    Attributes:
        path: Its file.
        name: What the file is called in messages.
        instance: Its SOP Instance UID, which must not get out.
        patient: The pseudonym of its patient.
        label: The pseudonyms of patient and object, fit to be a file's name.
    """

    path: Path
    name: str
    instance: str
    patient: str
    label: str


@dataclass(frozen=True)
class DicomSource:
    """A DICOM file, a folder or a DICOMDIR.

    Names of files often are names of patients. Therefore a file is called by its place among the files of the source,
    in the order of their paths, and what pydicom or a decoder says of it, which may be the value of an element, is not
    repeated.

    Attributes:
        path: The source.
        pseudonyms: What patients and objects are called by.
        strict: Whether the first file that cannot be used is an error.
    """

    path: Path
    pseudonyms: Pseudonyms
    strict: bool

    @property
    def origin(self) -> str:
        """The same text for the same source, without naming it."""
        return f"DICOM {self.pseudonyms.name('source', str(self.path.resolve()))}"

    def objects(self) -> tuple[list[DicomObject], list[Problem]]:
        """The ultrasound objects of the source, each once, and what is odd about its other files.

        Raises:
            DataError: With ``strict``, if a file cannot be read.
        """
        files = [(path, f"file {number}") for number, path in enumerate(dicom_files(self.path), start=1)]
        found, problems = _parted(self._map(lambda file: list(self._identify(*file)), files, "Looking into files"))
        first: dict[str, DicomObject] = {}
        for item in found:
            other = first.setdefault(item.instance, item)
            if other is not item:
                problems.append(Problem(item.name, f"a copy of {other.name}: same SOP Instance UID", IGNORED))
        return list(first.values()), problems

    def each(
        self,
        action: Callable[[DicomObject], Iterator[Result | Problem]],
        objects: Sequence[DicomObject],
        description: str,
    ) -> tuple[list[Result], list[Problem]]:
        """What an action yields of every object, in their order; several are worked on at once.

        Raises:
            DataError: With ``strict``, if the action fails, else its failure is a problem.
        """

        def run(item: DicomObject) -> list[Result | Problem]:
            results: list[Result | Problem] = []
            try:
                results.extend(action(item))
            except DataError as error:
                cut = any(not isinstance(result, Problem) for result in results)
                results.append(self._problem(item.path, item.name, error, _CUT if cut else SKIPPED))
            return results

        return _parted(self._map(run, objects, description))

    def _map(
        self, action: Callable[[Item], list[Result | Problem]], items: Sequence[Item], description: str
    ) -> Iterator[Result | Problem]:
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                for results in track(pool.map(action, items), description, len(items)):
                    yield from results
            except BaseException:
                # Otherwise Ctrl-C would wait until all files were read.
                pool.shutdown(cancel_futures=True)
                raise

    def _identify(self, path: Path, name: str) -> Iterator[DicomObject | Problem]:
        try:
            header = read_header(path)
            with sound_header(path):
                if is_ultrasound(header):
                    yield self._named(path, name, header)
                else:
                    kind = sop_class(header).name or "of unknown kind"
                    yield Problem(name, f"no ultrasound image ({kind})", IGNORED)
        except DataError as error:
            yield self._problem(path, name, error, SKIPPED)

    def _named(self, path: Path, name: str, header: Dataset) -> DicomObject:
        instance = str(header.get("SOPInstanceUID") or "")
        number = str(header.get("PatientID") or "").strip()
        study = str(header.get("StudyInstanceUID") or "")
        if not instance or not (number or study):
            raise DataError(f"{path} names no object, or neither patient nor study.", "Export it again.")
        # Without a number nobody knows whether two studies are of one person.
        patient = self.pseudonyms.name("patient", number) if number else self.pseudonyms.name("study", study)
        label = f"{patient}_{self.pseudonyms.name('instance', instance)}"
        return DicomObject(path, name, instance, patient, label)

    def _problem(self, path: Path, name: str, error: DataError, action: str) -> Problem:
        reason = str(error).replace(str(path), name)
        if error.__cause__ is not None:
            reason = f"{name} is damaged or cannot be read ({type(error.__cause__).__name__})."
        if self.strict:
            raise DataError(reason) from None
        return Problem(name, reason, action)


def _parted(results: Iterator[Result | Problem]) -> tuple[list[Result], list[Problem]]:
    wanted: list[Result] = []
    problems: list[Problem] = []
    for result in results:
        if isinstance(result, Problem):
            problems.append(result)
        else:
            wanted.append(result)
    return wanted, problems
