"""Predictions as DICOM objects that belong to the study of the file that the frames came from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
    """Write predictions for all frames of a DICOM file: ``dicom_writer`` for those that are there already.

    Args:
        formats: See ``dicom_writer``, as for all that follow.
        source_path: The file.
        predictions: Of its frames, in their order; taken one by one, so that they need not be in memory together.
        images: The frames, H×W or H×W×3, uint8, uint16, or float in [0, 1].
        bundle: What made the predictions.
        folder: Where to write.
        name: How the files begin.
        spacing: Height and width of a pixel in mm.
        region: Where the ultrasound image lies.
        rate: Frames a second of a clip.

    Raises:
        UsageError: As ``dicom_writer``.
        DataError: As ``dicom_writer``.
    """
    with dicom_writer(formats, source_path, bundle, folder, name, spacing=spacing, region=region, rate=rate) as add:
        for prediction, image in zip(predictions, images, strict=True):
            add(prediction, image)


@contextmanager
def dicom_writer(
    formats: Iterable[str],
    source_path: Path,
    bundle: Bundle,
    folder: Path,
    name: str,
    *,
    spacing: Spacing | None = None,
    region: Region | None = None,
    rate: float | None = None,
) -> Iterator[Callable[[Prediction, NDArray[Any]], None]]:
    """Take the predictions of all frames of a DICOM file, one by one, then write each object, atomically.

    - ``dicom-seg``: Segmentation, BINARY, without a frame of reference, as the source has none.
    - ``dicom-seg-probability``: the same, FRACTIONAL: how probable each label is.
    - ``dicom-seg-placed``: BINARY, in a frame of reference made for it, for 3D Slicer and other readers of volumes.
    - ``dicom-sc``: Secondary Capture, the frames with the outlines drawn on them.
    - ``dicom-sr``: Structured Report with the measures, which refers to the ``dicom-seg`` of the same predictions.

    The same source, predictions and bundle give the same bytes, UIDs and dates included: see ``docs/decisions/0011``.

    Args:
        formats: Of ``DICOM_FORMATS``.
        source_path: The file.
        bundle: What made the predictions.
        folder: Where to write, each format to its ``writers.output_path``; made when absent.
        name: How the files begin.
        spacing: Height and width of a pixel in mm, where known.
        region: Where the ultrasound image lies in the frames, None for all of them.
        rate: Frames a second of a clip, where known.

    Yields:
        What takes a prediction and its frame.

    Raises:
        UsageError: If there is no such format, or predictions do not fit the file's frames.
        DataError: If the file is no DICOM image, or lacks what is needed to refer to it.
    """
    formats = tuple(formats)
    for format_ in formats:
        if format_ not in DICOM_FORMATS:
            raise UsageError(f"There is no DICOM format '{format_}'.", f"Choose from {', '.join(DICOM_FORMATS)}.")
    source = read_source(source_path)
    found = _Found(formats, source, source_path, bundle, spacing, region)
    yield found.add
    if found.count < source.frames:
        missing = f"Only {found.count} of the {source.frames} frames of {source_path} were predicted."
        raise DataError(missing, "Predict all of them.")
    try:
        with warnings.catch_warnings():
            # highdicom and pydicom warn with the values of elements, and those name patients.
            warnings.simplefilter("ignore")
            made = _make(formats, source, found, bundle, spacing, rate)
    except (ValueError, TypeError, AttributeError) as error:
        # Not the error's own words either.
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

    def __init__(
        self,
        formats: tuple[str, ...],
        source: Source,
        path: Path,
        bundle: Bundle,
        spacing: Spacing | None,
        region: Region | None,
    ) -> None:
        self.masks = np.zeros((source.frames, int(source.header.Rows), int(source.header.Columns)), np.uint8)
        self.probability: list[NDArray[np.uint8]] = []
        self.overlays: list[bytes] = []
        self.measures: list[list[NerveMeasures]] = []
        self.count = 0
        self._path = path
        self._formats, self._labels, self._spacing, self._region = formats, len(bundle.labels), spacing, region

    def add(self, prediction: Prediction, image: NDArray[Any]) -> None:
        """Keep the next frame."""
        if self.count == len(self.masks) or prediction.mask.shape != self.masks.shape[1:]:
            shape = "×".join(map(str, self.masks.shape))
            raise UsageError(f"These predictions are not those of the {shape} frames of {self._path}.")
        self.masks[self.count] = prediction.mask
        if "dicom-seg-probability" in self._formats:
            self.probability.append(np.rint(prediction.probability * 255).astype(np.uint8))
        if "dicom-sc" in self._formats:
            self.overlays.append(encode_overlay(draw_overlay(image, prediction)))
        if "dicom-sr" in self._formats:
            labels = range(self._labels)
            self.measures.append([measure(prediction, image, self._spacing, k, self._region) for k in labels])
        self.count += 1
