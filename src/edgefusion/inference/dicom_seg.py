"""Predictions as a DICOM Segmentation, whose frames lie pixel by pixel on those of the source."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.pixels import pack_bits
from pydicom.sr.codedict import codes
from pydicom.uid import UltrasoundImageStorage
from pydicom.valuerep import format_number_as_ds

from edgefusion.bundle import Bundle
from edgefusion.data.clip import Spacing
from edgefusion.inference.dicom_source import (
    Source,
    algorithm,
    anatomy,
    derived_uid,
    equipment,
    series_attributes,
    stamp,
)
from edgefusion.inference.writers import COLOURS, NOTICE

_FULL = 255
"""Stored value of probability 1."""


def make_segmentation(
    source: Source, bundle: Bundle, planes: NDArray[np.uint8], kind: str = "dicom-seg", spacing: Spacing | None = None
) -> Dataset:
    """Make a Segmentation with one segment a label.

    A segment has a frame for every frame of the source in which it has pixels, or a single empty one, of the source's
    first frame, if it has none anywhere: the label was looked for and not found. ``dicom-seg-placed`` has a frame for
    every frame of the source, since readers of volumes expect them to be evenly spaced.

    Args:
        source: What the frames came from.
        bundle: What made the predictions.
        planes: N×L×H×W for the source's N frames and L labels: 1 inside and 0 outside, never 1 for two labels; or
            for ``dicom-seg-probability`` probabilities from 0 to 255.
        kind: ``dicom-seg`` is BINARY and ``dicom-seg-probability`` FRACTIONAL, both without a frame of reference;
            ``dicom-seg-placed`` is BINARY, in a frame of reference of its own: see ``docs/decisions/0010``.
        spacing: Height and width of a pixel in mm; only ``dicom-seg-placed`` needs it, and takes 1 if it is not known.
    """
    probability, placed = kind == "dicom-seg-probability", kind == "dicom-seg-placed"
    found_by = algorithm(bundle)
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label[:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=anatomy(label, bundle),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=found_by,
            tracking_uid=tracking_uid(source, bundle, label),
            tracking_id=label[:64],
            display_color=CIELabColor.from_rgb(*COLOURS[(number - 1) % len(COLOURS)]),
        )
        for number, label in enumerate(bundle.labels, start=1)
    ]
    # highdicom takes several frames only within a frame of reference, which clips have not (its issue 284). So it makes
    # the Segmentation of the first frame, and the functional groups of all frames are put in its place.
    first = deepcopy(source.header)
    first.pop("NumberOfFrames", None)
    first.SOPClassUID = UltrasoundImageStorage
    made = Segmentation(
        source_images=[first],
        pixel_array=np.ones((1, *planes.shape[2:], planes.shape[1]), np.uint8),
        segmentation_type=SegmentationTypeValues.FRACTIONAL if probability else SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        max_fractional_value=_FULL,
        content_label="EDGEFUSION",
        content_description=NOTICE.capitalize(),
        **series_attributes(source, bundle, kind, [planes.tobytes(), str(spacing if placed else "").encode()]),
        **equipment(),
    )
    frames = [
        (label, frame)
        for label in range(planes.shape[1])
        for frame in (np.flatnonzero(planes[:, label].any(axis=(1, 2)) | placed).tolist() or [0])
    ]
    _replace_frames(made, source, frames)
    if placed:
        _place(made, source, frames, spacing or (1.0, 1.0))
    pixels = np.stack([planes[frame, label] for label, frame in frames])
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2) if probability else pack_bits(pixels)
    made.SegmentsOverlap = "UNDEFINED" if probability else "NO"
    made.PatientOrientation = made.ContentCreatorName = ""
    stamp(made, source, "Nerve segmentation" + (", probability" if probability else ""))
    return made


def tracking_uid(source: Source, bundle: Bundle, label: str) -> str:
    """What makes a label the same thing in all objects made of a source by a bundle."""
    return str(derived_uid(source.header.SOPInstanceUID, "tracking", label, *bundle.labels))


def _replace_frames(made: Segmentation, source: Source, frames: Sequence[tuple[int, int]]) -> None:
    """Describe each frame: which segment it is of, and which frame of the source it lies on."""
    organisation = derived_uid(made.SOPInstanceUID, "dimensions")
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    made.DimensionIndexSequence = [_index("ReferencedSegmentNumber", "SegmentIdentificationSequence", organisation)]
    if source.frames > 1:
        made.DimensionIndexSequence.append(_index("TemporalPositionIndex", "FrameContentSequence", organisation))
    for element in made.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = source.header.SOPClassUID
    derivation = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    groups = []
    for label, frame in frames:
        group = Dataset()
        group.DerivationImageSequence = deepcopy(derivation)
        content, segment = Dataset(), Dataset()
        content.DimensionIndexValues = [label + 1]
        if source.frames > 1:
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = frame + 1
            content.DimensionIndexValues = [label + 1, frame + 1]
            content.TemporalPositionIndex = frame + 1
        segment.ReferencedSegmentNumber = label + 1
        group.FrameContentSequence = [content]
        group.SegmentIdentificationSequence = [segment]
        groups.append(group)
    made.SharedFunctionalGroupsSequence = [Dataset()]
    made.PerFrameFunctionalGroupsSequence = groups
    made.NumberOfFrames = len(groups)


def _place(made: Segmentation, source: Source, frames: Sequence[tuple[int, int]], spacing: Spacing) -> None:
    """Lay the frames where ITK lays a file without a frame of reference: along the axes, one behind the other."""
    made.FrameOfReferenceUID = derived_uid(source.header.SOPInstanceUID, "frame of reference")
    made.PositionReferenceIndicator = ""
    shared = made.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [format_number_as_ds(side) for side in spacing]
    shared.PixelMeasuresSequence[0].SliceThickness = shared.PixelMeasuresSequence[0].SpacingBetweenSlices = 1
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for group, (_, frame) in zip(made.PerFrameFunctionalGroupsSequence, frames, strict=True):
        group.PlanePositionSequence = [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, frame]


def _index(pointer: str, group: str, organisation: str) -> Dataset:
    item = Dataset()
    item.DimensionIndexPointer = tag_for_keyword(pointer)
    item.FunctionalGroupPointer = tag_for_keyword(group)
    item.DimensionOrganizationUID = organisation
    item.DimensionDescriptionLabel = pointer
    return item
