"""The way of DICOM files into a study: cropped to the ultrasound image, and under pseudonyms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefusion.data import duplicates
from edgefusion.data.dicom.file import opened, sound_header
from edgefusion.data.dicom.objects import DicomObject, DicomSource
from edgefusion.data.dicom.pixels import check_image
from edgefusion.data.dicom.reader import iter_grey
from edgefusion.data.dicom.regions import region_and_spacing
from edgefusion.data.intake import Stored
from edgefusion.data.layouts import SKIPPED, Problem
from edgefusion.data.study import store_frame
from edgefusion.errors import DataError

_WHOLE = "kept whole: whatever is written into the picture is in the study"


@dataclass(frozen=True)
class DicomIntake:
    """Reads DICOM files into a study's folder. Nothing that is stored, reported or raised names a patient or a file.

    Attributes:
        source: Where the files are.
    """

    source: DicomSource

    def store_all(self, folder: Path) -> tuple[list[Stored], list[Problem]]:
        """Store every usable frame in ``folder``; returns them, and what is odd about the files.

        Raises:
            DataError: If no frame can be used, or with ``strict`` a file cannot.
        """
        objects, problems = self.source.objects()
        stored, odd = self.source.each(lambda item: _store(item, folder), objects, "Reading frames")
        problems += odd
        if not stored:
            reason = f" First: {problems[0].file}: {problems[0].reason}." if problems else ""
            raise DataError(f"None of the DICOM files holds a usable ultrasound image.{reason}")
        return stored, problems


def _store(item: DicomObject, folder: Path) -> Iterator[Stored | Problem]:
    with opened(item.path) as file, sound_header(item.path):
        count = check_image(file)
        region, spacing = region_and_spacing(file.header)
        if region is None:
            yield Problem(item.name, "states no believable region of the ultrasound image", _WHOLE)
        for number, grey in enumerate(iter_grey(file, count), start=1):
            image = np.ascontiguousarray(region.crop(grey) if region else grey)
            if image.min() == image.max():
                yield Problem(f"{item.name}, frame {number}", "blank: every pixel is the same", SKIPPED)
                continue
            frame_id = f"{item.label}_{number:0{len(str(count))}}"
            source = f"{item.label}, frame {number} of {count}"
            row = store_frame(folder, frame_id, item.patient, image, None, spacing=spacing, source=source)
            yield Stored(row, duplicates.describe(image), 0, None)
