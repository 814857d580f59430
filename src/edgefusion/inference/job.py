"""What all inputs of one call of ``predict`` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgefusion.data.signature import is_dicom
from edgefusion.inference.fingerprint import fingerprint
from edgefusion.inference.inputs import FrameFile
from edgefusion.inference.predict_clip import Crop
from edgefusion.inference.predictor import Predictor
from edgefusion.inference.record import Record
from edgefusion.inference.writers import DICOM_FORMATS
from edgefusion.progress import say
from edgefusion.remote import Place


@dataclass(frozen=True)
class Job:
    """The network and the settings of a call, and its record."""

    predictor: Predictor
    """The network."""
    record: Record
    """Of the output folder."""
    names: dict[str, str]
    """How the files of each input begin, by its path."""
    formats: tuple[str, ...]
    """Of ``writers.FORMATS``."""
    crop: Crop
    """Where to look."""
    smoothing: float
    """Of clips."""
    talks: bool
    """Whether failures are said as they occur."""

    def formats_of(self, path: Place, possible: Sequence[str]) -> tuple[str, ...]:
        """Those of the formats wanted that an input can have: of ``possible``, and of DICOM's only a DICOM file."""
        dicom = is_dicom(path)
        return tuple(name for name in self.formats if name in possible and (dicom or name not in DICOM_FORMATS))

    def facts(self, frame: FrameFile, made_by: str) -> dict[str, Any]:
        """The row of the record that an input gets if all goes well, so far as it is known beforehand."""
        return {
            "input": str(frame.path),
            "name": self.names.get(str(frame.path), ""),
            "status": "done",
            "reason": "",
            "spacing_mm": "×".join(map(str, frame.spacing or ())),
            "input_sha256": "",
            "made_by": made_by,
        }

    def tell(self, summary: dict[str, Any]) -> None:
        """Say why an input failed; one that is alone becomes an error, which says it."""
        if summary["status"] == "failed" and self.talks:
            say(summary["reason"])

    def fingerprint(self, *more: object) -> str:
        """A short hash of everything that decides what a prediction is, and ``more`` that does."""
        return fingerprint(self.predictor.bundle, self.predictor.flip_averaging, *more)
