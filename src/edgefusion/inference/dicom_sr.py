"""Measures of the nerve as a DICOM Structured Report (template TID 1500), which refers to the Segmentation."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import edgefusion
from edgefusion.bundle import Bundle
from edgefusion.inference.dicom_seg import tracking_uid
from edgefusion.inference.dicom_source import (
    MANUFACTURER,
    Source,
    algorithm_parameters,
    anatomy,
    derived_uid,
    series_attributes,
    stamp,
)
from edgefusion.inference.measure import NerveMeasures
from edgefusion.inference.measure_clip import measure_clip
from edgefusion.inference.writers import NOTICE

SCHEME = "99EDGEFUSION"
"""Coding scheme of measures that no standard scheme has; their meanings are those of docs/method.md."""

_ONE = codes.UCUM.NoUnits
_OWN = {
    "regions": "Number of regions",
    "feret_max": "Maximum caliper diameter of largest region",
    "feret_min": "Minimum caliper diameter of largest region",
    "perimeter": "Perimeter of largest region",
    "circularity": "Circularity of largest region",
    "depth_nearest": "Depth of nearest point under the skin",
    "depth_centroid": "Depth of centre of mass under the skin",
    "echo_mean": "Mean echo, share of full scale",
    "echo_around": "Median echo around, share of full scale",
    "hypoechoic_fraction": "Hypoechoic fraction",
    "border_sharpness": "Mean slope of echo across the border",
}


def make_report(
    source: Source,
    bundle: Bundle,
    segmentation: Dataset,
    measures: Sequence[Sequence[NerveMeasures]],
    frame_time: float = 1.0,
) -> Dataset:
    """Make a Comprehensive SR with one measurement group a label and frame, in mm where the spacing is known.

    A label that no frame shows has one group, with an area of 0. Where there are several frames, a further group of
    each label sums up the clip.

    Args:
        source: What the frames came from.
        bundle: What made the predictions.
        segmentation: Of these predictions, BINARY, by ``make_segmentation``.
        measures: For each frame of the source those of each label.
        frame_time: Seconds from one frame to the next.
    """
    places = {
        (
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            group.DerivationImageSequence[0].SourceImageSequence[0].get("ReferencedFrameNumber", 1),
        ): number
        for number, group in enumerate(segmentation.PerFrameFunctionalGroupsSequence, start=1)
    }
    groups = []
    for label, name in enumerate(bundle.labels):
        seen = [frame for frame, of_frame in enumerate(measures) if of_frame[label].regions]
        for frame in seen or [0]:
            groups.append(
                sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                    tracking_identifier=sr.TrackingIdentifier(tracking_uid(source, bundle, name), name),
                    referenced_segment=_reference(source, segmentation, places[label + 1, frame + 1], label, frame),
                    finding_type=anatomy(name, bundle),
                    algorithm_id=_algorithm(bundle),
                    measurements=_of_frame(measures[frame][label]),
                )
            )
        if source.frames > 1:
            groups.append(_of_clip(source, bundle, name, [of_frame[label] for of_frame in measures], frame_time))
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", edgefusion.__version__),
        name=f"EdgeFusion {bundle.model_name}, {NOTICE}",
        manufacturer_name=MANUFACTURER,
        model_name=f"EdgeFusion {edgefusion.__version__}",
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=Code("16310003", "SCT", "Diagnostic ultrasonography"),
        imaging_measurements=groups,
    )
    made = sr.ComprehensiveSR(
        evidence=[source.header, segmentation],
        content=report[0],
        manufacturer=MANUFACTURER,
        is_complete=True,
        **series_attributes(
            source, bundle, "dicom-sr", [segmentation.SOPInstanceUID.encode(), repr(measures).encode()]
        ),
    )
    stamp(made, source, "Nerve measures")
    return made


def _reference(
    source: Source, segmentation: Dataset, place: int, label: int, frame: int
) -> sr.ReferencedSegmentationFrame:
    # Not highdicom's from_segmentation: it takes the segmentation's frame for that of a source with a single frame.
    numbers = [frame + 1] if source.frames > 1 else None
    image = sr.SourceImageForSegmentation(source.header.SOPClassUID, source.header.SOPInstanceUID, numbers)
    reference = sr.ReferencedSegmentationFrame(
        segmentation.SOPClassUID, segmentation.SOPInstanceUID, place, label + 1, image
    )
    # The frame says which segment it is of, and then the number of the segment must not be there (PS3.3, 10.3).
    reference[0].ReferencedSOPSequence[0].pop("ReferencedSegmentNumber", None)
    return reference


def _algorithm(bundle: Bundle) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=f"EdgeFusion {bundle.model_name}",
        version=edgefusion.__version__,
        parameters=[f"{name}: {value}" for name, value in algorithm_parameters(bundle).items()],
    )


def _of_frame(found: NerveMeasures) -> list[sr.Measurement]:
    length = _length(found.unit)
    units = dict.fromkeys(("feret_max", "feret_min", "perimeter", "depth_nearest", "depth_centroid"), length)
    units["border_sharpness"] = Code(f"/{length.value}", "UCUM", f"per {length.meaning}")
    measurements = [sr.Measurement(codes.SCT.Area, _rounded(found.area_total), _area(found.unit))]
    if not found.regions:
        return measurements
    for name, meaning in _OWN.items():
        value = getattr(found, name)
        if value is not None:
            code = Code(name.upper(), SCHEME, meaning)
            measurements.append(sr.Measurement(code, _rounded(value), units.get(name, _ONE)))
    return measurements


def _of_clip(
    source: Source, bundle: Bundle, label: str, measures: Sequence[NerveMeasures], frame_time: float
) -> sr.MeasurementsAndQualitativeEvaluations:
    clip = measure_clip(measures, [frame * frame_time for frame in range(len(measures))])
    values: list[tuple[str, str, float | None, Code]] = [
        ("FRAMES_SEEN", "Number of frames that show it", clip.seen, _ONE),
        ("AREA_MEAN", "Mean area over frames that show it", clip.area_mean, _area(clip.unit)),
        ("AREA_MIN", "Minimum area over frames that show it", clip.area_min, _area(clip.unit)),
        ("AREA_MAX", "Maximum area over frames that show it", clip.area_max, _area(clip.unit)),
        ("AREA_VARIABILITY", "Maximum over minimum area", clip.variability, _ONE),
        ("JUMPS", "Number of jumps between frames", len(clip.jumps), _ONE),
        ("LOST", "Number of stretches where it is lost", len(clip.lost), _ONE),
    ]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            derived_uid(tracking_uid(source, bundle, label), "clip"), f"{label} clip"
        ),
        finding_type=anatomy(label, bundle),
        algorithm_id=_algorithm(bundle),
        measurements=[
            sr.Measurement(Code(code, SCHEME, meaning), _rounded(value), unit)
            for code, meaning, value, unit in values
            if value is not None
        ],
        source_images=[sr.SourceImageForMeasurementGroup(source.header.SOPClassUID, source.header.SOPInstanceUID)],
    )


def _length(unit: str) -> Code:
    return codes.UCUM.Millimeter if unit == "mm" else Code("{pixel}", "UCUM", "pixel")


def _area(unit: str) -> Code:
    return codes.UCUM.SquareMillimeter if unit == "mm" else Code("{pixel}", "UCUM", "pixel")


def _rounded(value: float) -> float:
    """Six digits, which a decimal string can hold and a picture never has."""
    return float(f"{value:.6g}")
