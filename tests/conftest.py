"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell that runs its jobs in the background lets them, and their children, inherit a SIGINT that is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets, or a skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("EDGEFUSION_DATA", default))
    if not root.is_dir():
        pytest.skip(f"real data not present at {root}; set EDGEFUSION_DATA to its folder")
    return root


@pytest.fixture(scope="session")
def write_ultrasound() -> Callable[..., Path]:
    """Writes an ultrasound file: ``write(path, frames, syntax, regions, **attributes)``, see ``ultrasound_dataset``."""

    def write(path: Path, frames: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **settings: Any) -> Path:
        dataset = ultrasound_dataset(frames, **settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        if UID(syntax).is_encapsulated:
            dataset.compress(syntax, encoding_plugin="pyjpegls" if "JPEG-LS" in UID(syntax).name else "")
            dataset.save_as(path, enforce_file_format=True)
            return path
        if syntax == ExplicitVRBigEndian and frames.dtype == np.uint16:
            dataset.PixelData = frames.astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
        dataset.save_as(path, little_endian=little, implicit_vr=implicit, enforce_file_format=True)
        return path

    return write


def ultrasound_dataset(
    frames: NDArray[Any], regions: Sequence[dict[str, Any]] = (), rate: float | None = 25.0, **attributes: Any
) -> Dataset:
    """An ultrasound object as a scanner sends it, of frames N×H×W or N×H×W×3; ``attributes`` are set last."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    clip = len(frames) > 1
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage if clip else UltrasoundImageStorage
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, generate_uid())
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality = "US"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "MRN-00471"
    dataset.PatientBirthDate, dataset.PatientSex = "19700131", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20240229", "101112", "S1", "A-77"
    dataset.ReferringPhysicianName, dataset.Manufacturer = "Smith^John", "Scanner Inc."
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.PatientOrientation = 1, 1, ""
    dataset.Laterality = ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    if clip:
        dataset.NumberOfFrames = len(frames)
    if clip and rate is not None:
        dataset.FrameTime, dataset.FrameIncrementPointer = 1000 / rate, 0x00181063
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    colour = frames.ndim == 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    bits = frames.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset["PixelData"] = DataElement("PixelData", "OB" if bits == 8 else "OW", frames.tobytes())
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    if regions:
        dataset.SequenceOfUltrasoundRegions = [_region(**region) for region in regions]
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _region(
    left: int, top: int, right: int, bottom: int, *, kind: int = 1, form: int = 1, unit: int = 3, cm: float = 0.01
) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = form, kind, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = cm, 2 * cm
    return item
