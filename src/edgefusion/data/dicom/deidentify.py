"""De-identified copies of DICOM files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from edgefusion.data.dicom.blanking import write_blanked
from edgefusion.data.dicom.cleaning import clean_attributes
from edgefusion.data.dicom.file import opened, sound_header
from edgefusion.data.dicom.objects import DicomObject, DicomSource
from edgefusion.data.dicom.pixels import check_image
from edgefusion.data.dicom.pseudonyms import load_pseudonyms
from edgefusion.data.dicom.regions import tissue_regions
from edgefusion.errors import DataError, UsageError
from edgefusion.files import write_text
from edgefusion.progress import say

REPORT = "deidentify-report.csv"
"""Which files have no copy, and why: ``file,reason,action``."""


def deidentify(
    source: Path | str, output: Path | str, *, key: Path | str | None = None, strict: bool = False
) -> list[Path]:
    """Write copies of ultrasound files from which what identifies a person was removed.

    Attributes are treated by the Basic Application Level Confidentiality Profile of DICOM PS3.15 (table E.1-1), with
    its Clean Pixel Data Option: everything outside the 2D images of tissue is blanked. A file that does not state where
    these lie, or of which they are the whole frame, is not copied, because nobody can tell where a name is written in
    it. What is written inside the image stays, so look at the copies before you give them away.

    Args:
        source: A DICOM file, a folder of them, or a DICOMDIR.
        output: Folder of the copies, one file an object, named by keyed hashes. Copies of earlier calls stay.
        key: File of the key, as for ``edgefusion.ingest``, whose pseudonyms the copies share.
        strict: Stop at the first file that cannot be copied.

    Returns:
        The copies.

    Raises:
        UsageError: If the source is missing, or the output is a file or lies in the source.
        DataError: If no file can be copied, or with ``strict`` one cannot.
    """
    source, output = Path(source), Path(output)
    if not source.exists():
        raise UsageError(f"There is no file or folder {source}.", "Give the folder that holds the DICOM files.")
    if output.is_file() or output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{output} is a file, or lies in the source.", "Name a folder elsewhere for the copies.")
    origin = DicomSource(source, load_pseudonyms(Path(key) if key else None, output), strict)
    objects, problems = origin.objects()
    copies, failed = origin.each(lambda item: _copy(item, output, origin), objects, "De-identifying")
    problems += failed
    report = pd.DataFrame(problems, columns=["file", "reason", "action"])
    write_text(output / REPORT, report.to_csv(index=False, lineterminator="\n"))
    for action, count in Counter(problem.action for problem in problems).items():
        say(f"{count} files {action}; see {output / REPORT}.")
    if not copies:
        raise DataError("No de-identified copy was written.", f"{output / REPORT} says why.")
    say(f"{len(copies)} de-identified copies are in {output}. Look at them before you give them away.")
    return copies


def _copy(item: DicomObject, output: Path, origin: DicomSource) -> Iterator[Path]:
    path = output / f"{item.label}.dcm"
    with opened(item.path) as file, sound_header(item.path):
        count = check_image(file)
        regions = [region for region, _ in tissue_regions(file.header)]
        whole = (0, 0, file.header.Rows, file.header.Columns)
        if not regions or any((part.top, part.left, part.height, part.width) == whole for part in regions):
            raise DataError(
                f"{item.path} does not state which part of the frame is the ultrasound image, so that nobody can tell "
                "where names are written in it.",
                "Blank them yourself.",
            )
        write_blanked(file, count, regions, clean_attributes(file.header, item.patient, origin.pseudonyms), path)
    yield path
