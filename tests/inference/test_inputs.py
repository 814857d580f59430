from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgefusion.data.study import Study, frames_table, store_frame, write_png
from edgefusion.errors import UsageError
from edgefusion.inference.inputs import find_frames

GREY = np.full((4, 6), 9, dtype=np.uint8)


def pictures(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        write_png(path, GREY)
    return paths


def found(tmp_path: Path, *inputs: Path, output: str = "out") -> list[str]:
    frames = find_frames(inputs, tmp_path / output)
    assert all(frame.path.is_absolute() for frame in frames)
    return [frame.path.relative_to(tmp_path.resolve()).as_posix() for frame in frames]


def test_folders_are_searched_with_all_that_is_inside(tmp_path: Path) -> None:
    pictures(tmp_path / "in", "b.png", "a/deep/c.TIF", "d.jpeg")
    (tmp_path / "in" / "notes.txt").write_text("x")
    pictures(tmp_path / "in", "._b.png", ".hidden.png")
    assert found(tmp_path, tmp_path / "in") == ["in/a/deep/c.TIF", "in/b.png", "in/d.jpeg"]


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    (file,) = pictures(tmp_path, "x_mask.bin")
    assert found(tmp_path, file) == ["x_mask.bin"]


def test_masks_beside_their_frames_are_not_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "in", "1_1.tif", "1_1_mask.tif", "other_mask.png", "x.png", "x_mask.tif")
    assert found(tmp_path, tmp_path / "in") == ["in/1_1.tif", "in/other_mask.png", "in/x.png"]
    assert "2 pictures" in capsys.readouterr().err


def test_the_output_folder_is_not_an_input(tmp_path: Path) -> None:
    pictures(tmp_path / "in", "x.png", "out/x_overlay.png", "out/deep/y.png")
    assert found(tmp_path, tmp_path / "in", output="in/out") == ["in/x.png"]
    with pytest.raises(UsageError, match="both input and output"):
        find_frames([tmp_path / "in"], tmp_path / "other" / ".." / "in")
    # A frame may lie where its results go.
    assert found(tmp_path, tmp_path / "in" / "x.png", output="in") == ["in/x.png"]


def test_what_is_named_twice_is_one_frame_in_the_first_place(tmp_path: Path) -> None:
    first, second = pictures(tmp_path / "in", "a.png", "b.png")
    assert found(tmp_path, second, tmp_path / "in", first) == ["in/b.png", "in/a.png"]


@pytest.mark.parametrize("spacing", [None, (0.1, 0.2)])
def test_a_study_gives_its_frames_with_their_spacing(tmp_path: Path, spacing: tuple[float, float] | None) -> None:
    folder = tmp_path / "study"
    rows = [store_frame(folder, f"f{n}", "p", GREY, GREY * 0, spacing=spacing) for n in (2, 1)]
    Study(folder, "s", ["nerve"], "", "", frames_table(rows)).save()
    assert found(tmp_path, folder) == ["study/images/f2.png", "study/images/f1.png"]
    assert {frame.spacing for frame in find_frames([folder], tmp_path / "out")} == {spacing}


def test_what_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no file or folder"):
        find_frames([tmp_path / "none"], tmp_path / "out")
    with pytest.raises(UsageError, match="holds no picture"):
        find_frames([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(UsageError, match="no frame"):
        find_frames([], tmp_path / "out")


def test_dicom_files_are_found_by_their_content(tmp_path: Path, write_ultrasound: Callable[..., Path]) -> None:
    for name in ("IM0001", "b.dcm", "DICOMDIR"):
        write_ultrasound(tmp_path / "in" / name, GREY[None])
    assert found(tmp_path, tmp_path / "in") == ["in/IM0001", "in/b.dcm"]
