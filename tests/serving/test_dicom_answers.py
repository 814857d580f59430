"""What the DICOM service answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from edgefusion.data.phantom.study import simulate_frame
from edgefusion.errors import DataError, UsageError
from edgefusion.inference.predictor import load
from edgefusion.serving.dicom_answers import answer, serve_dicom


def test_a_cine_is_answered_by_what_the_network_finds(write_ultrasound: Callable[..., Path], tmp_path: Path) -> None:
    frames = np.stack([simulate_frame(seed=0, patient=k, frame=0, size=(140, 193)).image for k in range(3)])
    source, model = write_ultrasound(tmp_path / "cine", frames), load()
    segmentation, report = answer(source, model, ["dicom-seg", "dicom-sr"])
    assert (segmentation.Modality, report.Modality) == ("SEG", "SR")
    assert segmentation.file_meta.MediaStorageSOPInstanceUID == segmentation.SOPInstanceUID
    found = np.atleast_3d(segmentation.pixel_array)
    masks = [model.predict(frame).mask for frame in frames]
    assert np.count_nonzero(found) == sum(map(np.count_nonzero, masks)) > 0
    referred = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
    assert referred == dcmread(source).SOPInstanceUID
    assert [path.name for path in tmp_path.iterdir()] == ["cine"]


def test_what_cannot_be_answered_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(DataError):
        answer(tmp_path / "x", load(), ["dicom-seg"])
    with pytest.raises(UsageError, match="no DICOM format 'png'"):
        serve_dicom(None, ["png"], "US", "127.0.0.1", 0, "A@127.0.0.1:1", tmp_path)
