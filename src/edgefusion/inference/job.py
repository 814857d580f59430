"""What all inputs of one call of ``predict`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefusion.inference.fingerprint import fingerprint
from edgefusion.inference.inputs import FrameFile
from edgefusion.inference.predict_clip import Crop
from edgefusion.inference.predictor import Predictor
from edgefusion.inference.record import Record
from edgefusion.progress import say


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
