"""DICOM is told from pictures, films and anything else by the first bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgefusion.data.signature import holds_dicom, is_dicom

Write = Callable[..., Path]
FRAME = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)


@pytest.mark.parametrize(
    "head",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"\0\0\0\x18ftypmp42",
        b"\0\0\0\x01\x67\x64\0\x28",
        b"\0\0\x01\xba\x44\0\x04\0",
        b"\x47\x40\0\x10\0\0\xb0\x0d",
        b"RIFF\x24\0\0\0AVI ",
        b"\x5c\x01\0\0\0\0\0\0",
        b"PK\x03\x04\x14\0\0\0",
        b"image,patient\n",
        b"\x08\0",
        b"",
    ],
)
def test_other_files_are_not(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "x").write_bytes(head + b"\0" * 200 * bool(head[2:]))
    assert not is_dicom(tmp_path / "x")
    # A file that claims to be DICOM is refused by the reader that says why.
    assert is_dicom((tmp_path / "x").rename(tmp_path / "x.DCM"))


def test_a_missing_file_is_not(tmp_path: Path) -> None:
    assert not is_dicom(tmp_path / "x.dcm")
    assert not holds_dicom(tmp_path / "x.dcm")


def test_folders(tmp_path: Path, write_ultrasound: Write, save_picture: Callable[..., Path]) -> None:
    assert not holds_dicom(tmp_path)
    write_ultrasound(tmp_path / "deep" / "er" / "IM1", FRAME)
    assert holds_dicom(tmp_path)
    save_picture(tmp_path / "icons" / "x.png", FRAME[0])
    assert not holds_dicom(tmp_path)
    (tmp_path / "DICOMDIR").write_bytes(b"")
    assert holds_dicom(tmp_path)
    (tmp_path / "study.yaml").write_text("")
    assert not holds_dicom(tmp_path)
