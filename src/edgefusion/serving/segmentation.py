"""A DICOM Segmentation as an answer: of all frames of a DICOM file, frame by frame."""

from __future__ import annotations

import io
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Clip
from edgefusion.inference.predictor import Predictor
from edgefusion.serving.intake import in_words
from edgefusion.serving.limits import MIB
from edgefusion.serving.problems import Problem
from edgefusion.serving.service import Service

MAX_BYTES = 320 * MIB
"""Pixels of all segments of all frames, a byte each; beyond: 413."""


async def segment(
    service: Service, next_frame: Callable[[], NDArray[Any] | None], clip: Clip, model: str, predictor: Predictor
) -> bytes:
    """Segment the frames of a DICOM file.

    Args:
        service: Whose engine computes, a frame at a time.
        next_frame: Gives one frame after the other, then None; called in the engine.
        clip: Of the DICOM file.
        model: Name of the network.
        predictor: The network.

    Raises:
        Problem: 413 too many pixels for one object, 422 where nothing can refer to the file.
    """
    masks: list[NDArray[np.uint8]] = []
    labels = len(predictor.bundle.labels)

    def piece() -> bool:
        frame = next_frame()
        if frame is None:
            return False
        if labels * frame.size * (len(masks) + 1) > MAX_BYTES:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The segmentation of more than {len(masks)} such frames does not fit in one object. Cut the clip.",
            )
        masks.append(predictor.predict(frame, clip.spacing, clip.region).mask)
        return True

    while await service.engine.run(piece):
        service.metrics.frames.labels(model).inc()
    return await service.engine.run(_make, clip.path, predictor, masks)


def _make(path: Path, predictor: Predictor, masks: list[NDArray[np.uint8]]) -> bytes:
    from edgefusion.inference.dicom_seg import make_segmentation
    from edgefusion.inference.dicom_source import read_source

    labels = len(predictor.bundle.labels)
    planes = np.stack([np.stack([mask == number for number in range(1, labels + 1)]) for mask in masks])
    with in_words(path):
        made = make_segmentation(read_source(path), predictor.bundle, planes.view(np.uint8))
        buffer = io.BytesIO()
        made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
