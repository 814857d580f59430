"""Videos as sources of a study: every frame unlabelled, a file a patient unless something else is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefusion.data.ingest import REPORT, ingest
from edgefusion.data.video_writer import VideoWriter
from edgefusion.errors import DataError


@pytest.fixture
def write_video(make_tissue: Callable[..., Any]) -> Callable[..., Path]:
    def write(path: Path, first: int, blank: int | None = None, count: int = 4) -> Path:
        path.parent.mkdir(exist_ok=True)
        with VideoWriter(path, 25) as video:
            for number in range(count):
                frame = make_tissue(first + number)
                video.write(np.full_like(frame, 90) if number == blank else frame)
        return path

    return write


def test_a_folder_of_videos(tmp_path: Path, write_video: Callable[..., Path], make_tissue: Callable[..., Any]) -> None:
    write_video(tmp_path / "in" / "ann-1.mp4", 0)
    write_video(tmp_path / "in" / "ann-2.mp4", 10, blank=1)
    study = ingest(tmp_path / "in", tmp_path / "study")
    assert study.frames["frame_id"].tolist() == [
        *(f"ann-1_f0000{number}" for number in (1, 2, 3, 4)),
        *(f"ann-2_f0000{number}" for number in (1, 3, 4)),
    ]
    assert study.frames["patient_id"].tolist() == ["ann-1"] * 4 + ["ann-2"] * 3
    assert not study.frames["mask"].any()
    assert study.frames["source"].tolist()[-1] == "ann-2.mp4, frame 4"
    assert np.corrcoef(study.image("ann-1_f00003").ravel(), make_tissue(2).ravel())[0, 1] > 0.95
    assert "ann-2.mp4, frame 2" in (study.path / REPORT).read_text()
    by_pattern = ingest(tmp_path / "in", tmp_path / "named", patient_regex="([a-z]+)-")
    assert set(by_pattern.frames["patient_id"]) == {"ann"}


def test_a_single_video_beside_what_is_none(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    study = ingest(write_video(tmp_path / "in" / "x.mp4", 0), tmp_path / "study")
    assert len(study.frames) == 4
    (tmp_path / "in" / "y.mp4").write_bytes(b"no video")
    study = ingest(tmp_path / "in", tmp_path / "study-2")
    assert len(study.frames) == 4
    assert "y.mp4" in (study.path / REPORT).read_text()
    with pytest.raises(DataError, match="y"):
        ingest(tmp_path / "in", tmp_path / "study-3", strict=True)
