"""Frames with the outlines drawn on them as a DICOM Secondary Capture, for viewers that do not show Segmentations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, RLELossless, SecondaryCaptureImageStorage

from edgefusion.bundle import Bundle
from edgefusion.inference.dicom_source import Source, equipment, series_attributes, stamp

_COPIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "SpecificCharacterSet"),
    *(
        "StudyInstanceUID",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "StudyDescription",
        "ReferringPhysicianName",
        "Laterality",
    ),
    *("FrameTime", "FrameTimeVector", "FrameIncrementPointer", "CineRate", "RecommendedDisplayFrameRate"),
)


def make_secondary_capture(source: Source, bundle: Bundle, overlays: Sequence[bytes]) -> Dataset:
    """Make a Secondary Capture of overlays, multi-frame where the source is.

    Args:
        source: What the frames came from.
        bundle: What made the predictions.
        overlays: Of each frame of the source, in order, as ``encode_overlay`` gives them.
    """
    header, several = source.header, source.frames > 1
    made = Dataset()
    for name in _COPIED:
        if name in header and (several or not name.startswith(("Frame", "Cine", "Recommended"))):
            made[name] = header[name]
    if several and "FrameIncrementPointer" not in made:
        made.FrameTime = 1000 / float(header.get("CineRate") or header.get("RecommendedDisplayFrameRate") or 25)
        made.FrameIncrementPointer = 0x00181063
    identity = series_attributes(source, bundle, "dicom-sc", overlays)
    for keyword, value in {
        "SOPClassUID": MultiFrameTrueColorSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage,
        "SOPInstanceUID": identity["sop_instance_uid"],
        "SeriesInstanceUID": identity["series_instance_uid"],
        "SeriesNumber": identity["series_number"],
        "InstanceNumber": identity["instance_number"],
        "Modality": "OT",
        "ConversionType": "WSD",
        "Manufacturer": equipment()["manufacturer"],
        "ManufacturerModelName": equipment()["manufacturer_model_name"],
        "SoftwareVersions": equipment()["software_versions"],
        "ImageType": ["DERIVED", "SECONDARY"],
        "DerivationDescription": "Outlines of a segmentation drawn on the frames",
        "PatientOrientation": "",
        "Laterality": header.get("Laterality") or "",
        # What was burned into the frames of the source is in these too; if it does not say, something may be.
        "BurnedInAnnotation": header.get("BurnedInAnnotation") or "YES",
        "Rows": header.Rows,
        "Columns": header.Columns,
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "PhotometricInterpretation": "RGB",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": encapsulate(list(overlays)),
    }.items():
        setattr(made, keyword, value)
    if several:
        made.NumberOfFrames = len(overlays)
    made["PixelData"].is_undefined_length = True
    if header.get("LossyImageCompression") == "01":
        made.LossyImageCompression = "01"
        for name in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if name in header:
                made[name] = header[name]
    made.SourceImageSequence = [source.instance]
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = RLELossless
    stamp(made, source, "Nerve outlines")
    return made


def encode_overlay(overlay: NDArray[np.uint8]) -> bytes:
    """Compress an overlay, H×W×3 uint8, without loss, so that a clip of them fits into memory."""
    height, width, _ = overlay.shape
    encoded: bytes = RLELosslessEncoder.encode(
        overlay.tobytes(),
        rows=height,
        columns=width,
        samples_per_pixel=3,
        number_of_frames=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="RGB",
        planar_configuration=0,
    )
    return encoded
