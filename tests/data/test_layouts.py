from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgefusion.data.layouts import IGNORED, SKIPPED, Layout, recognise
from edgefusion.errors import DataError, UsageError


@pytest.fixture
def touch(tmp_path: Path):
    """Make empty files: a layout only looks at names."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def pairs(layout: Layout, source: Path) -> dict[str, str | None]:
    masks = {entry.frame_id: entry.mask for entry in layout.entries}
    return {frame: mask.relative_to(source).as_posix() if mask else None for frame, mask in masks.items()}


def problems(layout: Layout) -> dict[str, tuple[str, str]]:
    return {problem.file: (problem.reason, problem.action) for problem in layout.problems}


class TestKaggle:
    def test_names_give_frames_masks_and_patients(self, touch) -> None:
        source = touch("1_2.tif", "1_10.tif", "12_1.tif", "1_2_mask.tif", "1_10_mask.tif", "12_1_mask.tif")
        layout = recognise(source)
        assert layout.kind == "kaggle"
        assert pairs(layout, source) == {"1_2": "1_2_mask.tif", "1_10": "1_10_mask.tif", "12_1": "12_1_mask.tif"}
        assert [entry.patient for entry in layout.entries] == ["1", "1", "12"]
        assert layout.problems == []

    @pytest.mark.parametrize("where", ["train_masks.csv", "../train_masks.csv"])
    def test_masks_come_from_the_table_where_files_are_missing(self, touch, where: str) -> None:
        source = touch("train/1_1.png", "train/1_2.png", "train/1_3.png", "train/1_3_mask.png") / "train"
        (source / where).write_text("subject,img,pixels\n1,1,5 2\n1,2,\n1,3,7 7\n")
        assert [entry.runs for entry in recognise(source).entries] == ["5 2", "", None]

    def test_a_stray_name_is_left_out_with_a_reason(self, touch) -> None:
        layout = recognise(touch("1_1.png", "1_2.png", "cover.png"))
        assert [entry.frame_id for entry in layout.entries] == ["1_1", "1_2"]
        assert problems(layout)["cover.png"][1] == SKIPPED

    def test_a_test_folder_has_frames_only(self, touch) -> None:
        layout = recognise(touch("1.tif", "2.tif", "10.tif"))
        assert [entry.frame_id for entry in layout.entries] == ["1", "2", "10"]
        assert not layout.has_masks


class TestPairs:
    def test_mask_beside_the_frame(self, touch) -> None:
        source = touch("a.png", "a_mask.tif", "b.JPG", "c_mask.png")
        layout = recognise(source)
        assert layout.kind == "pairs"
        assert pairs(layout, source) == {"a": "a_mask.tif", "b": None}
        assert problems(layout) == {"c_mask.png": ("mask without a frame", IGNORED)}

    @pytest.mark.parametrize("folder", ["masks", "labels"])
    def test_masks_in_a_folder(self, touch, folder: str) -> None:
        source = touch(
            "images/p1/a.png", "images/b.png", f"{folder}/p1/a.png", f"{folder}/b_mask.png", f"{folder}/c.png"
        )
        layout = recognise(source)
        assert layout.kind == "folders"
        assert pairs(layout, source) == {"b": f"{folder}/b_mask.png", "p1_a": f"{folder}/p1/a.png"}
        assert problems(layout) == {f"{folder}/c.png": ("mask without a frame", IGNORED)}

    def test_frames_whose_ids_would_clash(self, touch) -> None:
        layout = recognise(touch("images/a_b.png", "images/a/b.png", "images/A_B.png"))
        assert len(layout.entries) == 1
        assert {action for _, action in problems(layout).values()} == {SKIPPED}
        assert len(layout.problems) == 2

    def test_other_files_are_listed_and_hidden_ones_are_not(self, touch) -> None:
        layout = recognise(touch("a.png", "a.tif", "scan.dcm", ".DS_Store", "._a.png", "README.md"))
        assert [entry.image.name for entry in layout.entries] == ["a.png"]
        assert problems(layout) == {
            "a.tif": ("same name as a.png", SKIPPED),
            "scan.dcm": ("not a PNG, TIFF, JPEG, NIfTI or video file", IGNORED),
        }


class TestNnunet:
    FILES = ("imagesTr/case_1_0000.png", "imagesTr/case_2_0000.png", "labelsTr/case_1.png")

    @pytest.mark.parametrize(
        "labels", [{"background": 0, "vessel": 2, "nerve": 1}, {"0": "background", "1": "nerve", "2": "vessel"}]
    )
    def test_cases_and_label_names_of_both_versions(self, touch, labels: dict) -> None:
        source = touch(*self.FILES)
        (source / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".png"}))
        layout = recognise(source)
        assert layout.kind == "nnunet"
        assert layout.labels == ["nerve", "vessel"]
        assert pairs(layout, source) == {"case_1": "labelsTr/case_1.png", "case_2": None}

    def test_what_is_not_read_is_listed(self, touch) -> None:
        layout = recognise(touch(*self.FILES, "imagesTr/case_1_0001.png", "imagesTr/x.png", "labelsTr/case_9.png"))
        assert {file: action for file, (_, action) in problems(layout).items()} == {
            "imagesTr/case_1_0001.png": IGNORED,
            "imagesTr/x.png": SKIPPED,
            "labelsTr/case_9.png": IGNORED,
        }

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "{}",
            '{"labels": {"a": [1, 2]}}',
            '{"labels": {"background": 0, "a": 1, "b": 3}}',
            '{"labels": {"a": "b"}}',
        ],
    )
    def test_labels_that_cannot_be_used(self, touch, text: str) -> None:
        source = touch(*self.FILES)
        (source / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json"):
            recognise(source)


def test_a_single_picture(touch) -> None:
    (entry,) = recognise(touch("scan.tif") / "scan.tif").entries
    assert (entry.frame_id, entry.mask, entry.patient) == ("scan", None, None)


def test_missing_empty_and_outer_folders(touch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file or folder"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="has no PNG, TIFF, JPEG, NIfTI or video file"):
        recognise(touch("README.md"))
    with pytest.raises(UsageError, match="Did you mean a folder inside it: test, train"):
        recognise(touch("train/1_1.tif", "test/1.tif"))


def test_a_study_is_not_a_source(touch) -> None:
    with pytest.raises(UsageError, match="is a study already"):
        recognise(touch("study.yaml", "images/a.png"))


def test_frames_are_in_the_order_people_count(touch) -> None:
    numbers = np.random.default_rng(0).permutation(np.arange(1, 30))
    layout = recognise(touch(*(f"1_{number}.png" for number in numbers)))
    assert [entry.frame_id for entry in layout.entries] == [f"1_{number}" for number in range(1, 30)]
