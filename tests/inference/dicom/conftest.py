"""Ultrasound files, and predictions for their frames, that are known in advance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)
from torch import nn

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.inference.predictor import Prediction

SIZE = (61, 83)  # frames whose bits do not fill whole bytes


@pytest.fixture
def bundle() -> Bundle:
    return Bundle(nn.Conv2d(1, 2, 1), "unet", ChannelRecipe(), ["nerve", "vessel"], study_name="arms")


@pytest.fixture
def write_source() -> Callable[..., Path]:
    """An ultrasound file as scanners write them: clips without a frame of reference."""

    def write(path: Path, frames: int = 1, **elements: object) -> Path:
        made = Dataset()
        made.SOPClassUID = UltrasoundMultiFrameImageStorage if frames > 1 else UltrasoundImageStorage
        made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
        made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Doe^Jane", "4711", "19700101", "F"
        made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20240102", "101112", "7", "A1"
        made.ReferringPhysicianName, made.Manufacturer, made.Modality = "", "Maker", "US"
        made.SeriesNumber, made.InstanceNumber, made.ContentDate, made.ContentTime = 3, 5, "20240102", "111213"
        made.ImageType, made.PatientOrientation = ["ORIGINAL", "PRIMARY"], ""
        made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = *SIZE, 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
        if frames > 1:
            made.NumberOfFrames, made.FrameTime, made.FrameIncrementPointer = frames, 40, 0x00181063
        pixels = np.random.default_rng(0).integers(0, 255, (frames, *SIZE), np.uint8).tobytes()
        made.PixelData = pixels + b"\0" * (len(pixels) % 2)
        for name, value in elements.items():
            setattr(made, name, value)
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def make_predictions() -> Callable[..., list[Prediction]]:
    """Predictions with a disc of nerve that grows, and a vessel in some frames."""

    def make(frames: int = 1, empty: bool = False, seed: int = 0) -> list[Prediction]:
        rng = np.random.default_rng(seed)
        rows, columns = np.indices(SIZE)
        made = []
        for frame in range(frames):
            mask = np.zeros(SIZE, np.uint8)
            if not empty and frame % 4 != 2:
                mask[(rows - 30) ** 2 + (columns - 40) ** 2 <= (8 + frame) ** 2] = 1
            if not empty and frame % 3 == 1:
                mask[2:9, 60:70] = 2
            made.append(prediction(mask, rng.random((2, *SIZE), np.float32)))
        return made

    return make


def prediction(mask: NDArray[np.uint8], probability: NDArray[np.float32]) -> Prediction:
    areas = tuple(int((mask == label).sum()) for label in (1, 2))
    outlines = [
        [c.reshape(-1, 2).astype(np.float32) for c in cv2.findContours((mask == k).astype(np.uint8), 0, 2)[0]]
        for k in (1, 2)
    ]
    return Prediction(mask, probability, probability, (0.9, 0.8), areas, None, outlines, ["nerve", "vessel"])
