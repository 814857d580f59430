"""Frames with a label, and stand-ins for frames without it, where a study has none of the latter."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.data.ingest import CONTRADICTIONS
from edgefusion.data.study import Study
from edgefusion.errors import UsageError

POSITIVE = "positive"
"""The kind of the frames that show the label; every other kind is one of negatives."""

CUT = "cut beside it"
"""The kind of negatives that are cut from positives."""

_MARGIN = 0.05
_SMALLEST = 1 / 3


@dataclass(frozen=True)
class Shot:
    """A frame to judge presence on."""

    kind: str
    """``POSITIVE``, or which kind of negative."""
    patient_id: str
    """Whose it is."""
    trained_on: bool
    """Whether the network was trained on frames of that patient."""
    image: NDArray[Any]
    """H×W, uint8 or uint16."""
    truth: NDArray[np.bool_]
    """H×W, where the label is."""


def positives(study: Study, bundle: Bundle, label: str, patients: Collection[str] | None = None) -> list[Shot]:
    """The frames that show a label, of patients whom a bundle was not trained on.

    Args:
        study: The study.
        bundle: Tells which patients are new.
        label: What is there.
        patients: Take none but these.

    Raises:
        UsageError: If there are none, or the study does not have the label.
    """
    labelled = study.labelled()
    new = labelled[~labelled["patient_id"].isin(bundle.seen(study.sha256()))]
    if patients is not None:
        new = new[new["patient_id"].isin(patients)]
    shots = [shot for _, shot in _shots(study, new, bundle, label) if shot.truth.any()]
    if not shots:
        raise UsageError(f"{study.path} has no frame with a {label} of a patient that is new to the bundle.")
    return shots


def negatives(study: Study, bundle: Bundle, label: str, size: tuple[int, int]) -> list[Shot]:
    """The labelled frames of a study that do not show a label, of whatever patient.

    Frames that nearly equal one with the label (the study's ``contradictions.csv``) are a kind of their own: there it
    is the annotation that is in doubt.

    Args:
        study: The study, which names the kind.
        bundle: Tells which patients were trained on.
        label: What is not there.
        size: Height and width that the frames are brought to, so that the filters meet the pixels that they know.

    Raises:
        UsageError: If the study does not have the label.
    """
    file = study.path / CONTRADICTIONS
    doubtful = set(pd.read_csv(io.BytesIO(file.read_bytes()), dtype=str)["empty_frame"]) if file.is_file() else set()
    return [
        Shot(
            f"{study.name}, contradicted" if frame_id in doubtful else study.name,
            shot.patient_id,
            shot.trained_on,
            _resized(shot.image, size),
            np.zeros(size, dtype=bool),
        )
        for frame_id, shot in _shots(study, study.labelled(), bundle, label)
        if not shot.truth.any()
    ]


def cuts(shots: Iterable[Shot]) -> list[Shot]:
    """A negative of each positive: a part beside the label, see ``cut_beside``, brought back to the frame's size."""
    found = []
    for shot in shots:
        part = cut_beside(shot.image, shot.truth)
        if part is not None:
            image = _resized(part, shot.truth.shape)
            found.append(Shot(CUT, shot.patient_id, shot.trained_on, image, np.zeros_like(shot.truth)))
    return found


def cut_beside(image: NDArray[Any], truth: NDArray[np.bool_]) -> NDArray[Any] | None:
    """The largest part of a frame, of the frame's proportions, beside all of a mask.

    It stays clear of the mask's bounding box by 5 % of the frame's height, because outlines are uncertain, and lies in
    the middle of what is left on that side.

    Args:
        image: H×W.
        truth: H×W, not empty.

    Returns:
        A view of ``image``, or None where every part is smaller than a third of the frame's sides: enlarged further,
        it would not look like a frame.
    """
    height, width = truth.shape
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    margin = round(_MARGIN * height)
    sides = (
        (0, rows[0] - margin, 0, width),
        (rows[-1] + 1 + margin, height, 0, width),
        (0, height, 0, columns[0] - margin),
        (0, height, columns[-1] + 1 + margin, width),
    )
    scales = [min((bottom - top) / height, (right - left) / width) for top, bottom, left, right in sides]
    scale = max(scales)
    if scale < _SMALLEST:
        return None
    top, bottom, left, right = sides[scales.index(scale)]
    tall, wide = int(scale * height), int(scale * width)
    row, column = top + (bottom - top - tall) // 2, left + (right - left - wide) // 2
    return image[row : row + tall, column : column + wide]


def _shots(study: Study, frames: pd.DataFrame, bundle: Bundle, label: str) -> Iterator[tuple[str, Shot]]:
    if label not in study.labels:
        raise UsageError(f"{study.path} is labelled {', '.join(study.labels)}, so it cannot tell where a {label} is.")
    value = study.labels.index(label) + 1
    for frame_id, patient_id in zip(frames["frame_id"], frames["patient_id"], strict=True):
        truth = np.asarray(study.mask(frame_id)) == value
        trained_on = patient_id in bundle.trained_on
        yield frame_id, Shot(POSITIVE, patient_id, trained_on, study.image(frame_id), truth)


def _resized(image: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    smaller = image.shape[0] > size[0]
    return np.asarray(cv2.resize(image, size[1::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR))
