"""Predictions as DICOM objects that belong to the study of the file that the frames came from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from edgefusion.bundle import Bundle
from edgefusion.data.clip import Region, Spacing
from edgefusion.errors import DataError, UsageError
from edgefusion.files import atomic_path
from edgefusion.inference.dicom_sc import encode_overlay, make_secondary_capture
from edgefusion.inference.dicom_seg import make_segmentation
from edgefusion.inference.dicom_source import Source, read_source
from edgefusion.inference.dicom_sr import make_report
from edgefusion.inference.measure import NerveMeasures, measure
from edgefusion.inference.predictor import Prediction
from edgefusion.inference.writers import DICOM_FORMATS, draw_overlay, output_path


def write_dicom(
    formats: Iterable[str],
    source_path: Path,
    predictions: Iterable[Prediction],
    images: Iterable[NDArray[Any]],
    bundle: Bundle,
    folder: Path,
    name: str,
    *,
    spacing: Spacing | None = None,
    region: Region | None = None,
    rate: float | None = None,
) -> None:
    """Write predictions for all frames of a DICOM file, each object atomically.

    - ``dicom-seg``: Segmentation, BINARY, without a frame of reference, as the source has none.
    - ``dicom-seg-probability``: the same, FRACTIONAL: how probable each label is.
    - ``dicom-seg-placed``: BINARY, in a frame of reference made for it, for 3D Slicer and other readers of volumes.
    - ``dicom-sc``: Secondary Capture, the frames with the outlines drawn on them.
    - ``dicom-sr``: Structured Report with the measures, which refers to the ``dicom-seg`` of the same predictions.

    The same source, predictions and bundle give the same bytes, UIDs and dates included: see ``docs/decisions/0011``.
    Predictions and images are taken one by one, so that they need not be in memory together.

    Args:
        formats: Of ``DICOM_FORMATS``.
        source_path: The file.
        predictions: Of its frames, in their order.
        images: The frames, H×W or H×W×3, uint8, uint16, or float in [0, 1].
        bundle: What made the predictions.
        folder: Where to write, each format to its ``writers.output_path``; made when absent.
        name: How the files begin.
        spacing: Height and width of a pixel in mm, where known.
        region: Where the ultrasound image lies in the frames, None for all of them.
        rate: Frames a second of a clip, where known.

    Raises:
        UsageError: If there is no such format, or predictions do not fit the file's frames.
        DataError: If the file is no DICOM image, or lacks what is needed to refer to it.
    """
    formats = tuple(formats)
    for format_ in formats:
        if format_ not in DICOM_FORMATS:
            raise UsageError(f"There is no DICOM format '{format_}'.", f"Choose from {', '.join(DICOM_FORMATS)}.")
    source = read_source(source_path)
    found = _gather(formats, source, source_path, zip(predictions, images, strict=True), spacing, region, bundle)
    try:
        made = _make(formats, source, found, bundle, spacing, rate)
    except (ValueError, TypeError, AttributeError) as error:
        # Not the error's own words: they name the values of elements, and those name patients.
        kind = type(error).__name__
        raise DataError(f"{source_path} has a header from which no object can be made ({kind}).") from error
    for format_, dataset in made.items():
        with atomic_path(output_path(format_, folder, name)) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)


def _make(
    formats: tuple[str, ...], source: Source, found: _Found, bundle: Bundle, spacing: Spacing | None, rate: float | None
) -> dict[str, Dataset]:
    made: dict[str, Dataset] = {}
    labels = range(1, len(bundle.labels) + 1)
    for kind in ("dicom-seg", "dicom-seg-placed"):
        if kind in formats or (kind == "dicom-seg" and "dicom-sr" in formats):
            planes = np.stack([found.masks == label for label in labels], axis=1).view(np.uint8)
            made[kind] = make_segmentation(source, bundle, planes, kind, spacing)
    if "dicom-seg-probability" in formats:
        planes = np.stack(found.probability)
        made["dicom-seg-probability"] = make_segmentation(source, bundle, planes, "dicom-seg-probability")
    if "dicom-sr" in formats:
        made["dicom-sr"] = make_report(source, bundle, made["dicom-seg"], found.measures, 1 / (rate or 1.0))
    if "dicom-sc" in formats:
        made["dicom-sc"] = make_secondary_capture(source, bundle, found.overlays)
    return {kind: made[kind] for kind in formats}


class _Found:
    """What is kept of each frame: only what the formats need."""

    def __init__(self, source: Source) -> None:
        self.masks = np.zeros((source.frames, int(source.header.Rows), int(source.header.Columns)), np.uint8)
        self.probability: list[NDArray[np.uint8]] = []
        self.overlays: list[bytes] = []
        self.measures: list[list[NerveMeasures]] = []


def _gather(
    formats: tuple[str, ...],
    source: Source,
    path: Path,
    frames: Iterable[tuple[Prediction, NDArray[Any]]],
    spacing: Spacing | None,
    region: Region | None,
    bundle: Bundle,
) -> _Found:
    found = _Found(source)
    count = 0
    for prediction, image in frames:
        if count == source.frames or prediction.mask.shape != found.masks.shape[1:]:
            shape = "×".join(map(str, found.masks.shape))
            raise UsageError(f"These predictions are not those of the {shape} frames of {path}.")
        found.masks[count] = prediction.mask
        if "dicom-seg-probability" in formats:
            found.probability.append(np.rint(prediction.probability * 255).astype(np.uint8))
        if "dicom-sc" in formats:
            found.overlays.append(encode_overlay(draw_overlay(image, prediction)))
        if "dicom-sr" in formats:
            labels = range(len(bundle.labels))
            found.measures.append([measure(prediction, image, spacing, label, region) for label in labels])
        count += 1
    if count < source.frames:
        raise DataError(f"Only {count} of the {source.frames} frames of {path} were predicted.", "Predict all of them.")
    return found
