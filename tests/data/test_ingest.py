from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgefusion.data import staging
from edgefusion.data.ingest import CONTRADICTIONS, REPORT, ingest
from edgefusion.data.kaggle import encode_rle
from edgefusion.data.study import Study
from edgefusion.errors import DataError, UsageError


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class TestKaggleFolder:
    def test_becomes_a_study_that_needs_no_source(self, kaggle_folder: Path, tmp_path: Path, make_tissue) -> None:
        made = ingest(kaggle_folder, tmp_path / "study")
        shutil.rmtree(kaggle_folder)
        study = Study.load(tmp_path / "study")
        assert study.sha256() == made.sha256()
        assert (study.name, study.labels) == ("study", ["nerve"])
        assert study.frames["frame_id"].tolist() == ["1_1", "1_2", "2_1", "2_2"]
        assert study.frames["patient_id"].tolist() == ["1", "1", "2", "2"]
        assert study.frames["source"].tolist() == ["1_1.tif", "1_2.tif", "2_1.tif", "2_2.tif"]
        assert study.frames["area_px"].tolist()[1] == 0
        np.testing.assert_array_equal(study.image("2_1"), make_tissue(2))
        assert set(np.unique(study.mask("2_1"))) == {0, 1}
        assert rows(study.path / REPORT) == []

    def test_terms_of_use_stay_with_the_study(self, kaggle_folder: Path, tmp_path: Path) -> None:
        assert ingest(kaggle_folder, tmp_path / "silent").terms == "not stated by the source"
        ingest(kaggle_folder, tmp_path / "study", terms="CC-BY 4.0, by N. N.")
        assert Study.load(tmp_path / "study").terms == "CC-BY 4.0, by N. N."

    def test_masks_from_the_table(self, tmp_path: Path, make_tissue, make_disc, save_picture) -> None:
        nerve = make_disc(420, 580, 60, 1)
        for seed, name in enumerate(("1_1", "1_2", "1_3")):
            save_picture(tmp_path / "train" / f"{name}.tif", make_tissue(seed, 420, 580))
        save_picture(tmp_path / "train" / "1_4.tif", make_tissue(3, 210, 290))
        table = f"subject,img,pixels\n1,1,{encode_rle(nerve)}\n1,2,\n1,4,{encode_rle(nerve)}\n"
        (tmp_path / "train_masks.csv").write_text(table)
        study = ingest(tmp_path / "train", tmp_path / "study")
        np.testing.assert_array_equal(study.mask("1_1"), nerve)
        assert study.frames["mask"].tolist() == ["masks/1_1.png", "masks/1_2.png", "", ""]
        assert [(row["file"], row["action"]) for row in rows(study.path / REPORT)] == [
            ("1_3.tif", "kept without label"),
            ("1_4.tif", "kept without label"),
        ]

    def test_wrong_run_lengths_are_reported(self, tmp_path: Path, make_tissue, save_picture) -> None:
        for seed, name in enumerate(("1_1", "1_2")):
            save_picture(tmp_path / "train" / f"{name}.tif", make_tissue(seed, 420, 580))
        (tmp_path / "train_masks.csv").write_text("subject,img,pixels\n1,1,1 2 3\n1,2,\n")
        study = ingest(tmp_path / "train", tmp_path / "study")
        assert study.frames["frame_id"].tolist() == ["1_2"]
        assert "1_1.tif is wrong" in rows(study.path / REPORT)[0]["reason"]

    def test_a_test_folder_without_masks_is_unlabelled(
        self, tmp_path: Path, make_tissue, save_picture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(1, 4):
            save_picture(tmp_path / "test" / f"{number}.tif", make_tissue(number))
        study = ingest(tmp_path / "test", tmp_path / "study")
        assert study.labelled().empty
        assert study.labels == ["nerve"]
        assert rows(study.path / REPORT) == []
        assert "3 unlabelled" in capsys.readouterr().err


class TestPairs:
    @pytest.fixture
    def folders(self, tmp_path: Path, make_tissue, make_disc, save_picture) -> Path:
        """Frames of different sizes, with two labels, and the patient in the name."""
        source = tmp_path / "source"
        for seed, (name, height) in enumerate((("anna-1", 60), ("anna-2", 90), ("bert-1", 120))):
            save_picture(source / "images" / f"{name}.png", make_tissue(seed, height, 100))
            mask = make_disc(height, 100, 8, 1)
            mask[:5, :5] = seed
            Image.fromarray(mask).convert("P").save(save_picture(source / "masks" / f"{name}.png", mask))
        return source

    def test_sizes_and_labels_are_kept(self, folders: Path, tmp_path: Path) -> None:
        study = ingest(folders, tmp_path / "study")
        assert study.labels == ["nerve", "vessel"]
        assert study.frames["height"].tolist() == [60, 90, 120]
        assert set(np.unique(study.mask("bert-1"))) == {0, 1, 2}

    def test_without_patients_it_says_so_loudly(
        self, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        study = ingest(folders, tmp_path / "study")
        assert study.frames["patient_id"].tolist() == study.frames["frame_id"].tolist()
        assert "EACH FILE COUNTS AS ITS OWN PATIENT" in capsys.readouterr().err

    def test_patients_by_pattern(self, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        study = ingest(folders, tmp_path / "study", patient_regex=r"images/(\w+)-")
        assert study.frames["patient_id"].tolist() == ["anna", "anna", "bert"]
        assert "OWN PATIENT" not in capsys.readouterr().err

    @pytest.mark.parametrize("names", [("anna-1", "anna-2", "bert-1"), ("anna-1.png", "images/anna-2.png", "bert-1")])
    def test_patients_by_table(self, folders: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
        lines = ["image,patient", *(f"{name},{patient}" for name, patient in zip(names, "007", strict=True))]
        (tmp_path / "patients.csv").write_text("\n".join(lines))
        study = ingest(folders, tmp_path / "study", patients_csv=tmp_path / "patients.csv")
        assert study.frames["patient_id"].tolist() == ["0", "0", "7"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"patient_regex": "anna-("}, "is not valid"),
            ({"patient_regex": "anna"}, "has no group"),
            ({"patient_regex": "(anna)"}, "1 of 3 frames have no patient"),
            ({"patients_csv": "nowhere.csv"}, "no table of patients"),
            ({"patients_csv": "nowhere.csv", "patient_regex": "(a)"}, "not from both"),
            ({"contradictions": "guess"}, "contradictions is 'guess'"),
            ({"labels": ["nerve", "nerve"]}, "different names"),
        ],
    )
    def test_wrong_options_are_explained(self, folders: Path, tmp_path: Path, options: dict, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            ingest(folders, tmp_path / "study", **options)
        assert not (tmp_path / "study").exists()

    @pytest.mark.parametrize("text", ["image,patient\nanna-1,\n", "name,who\nx,y\n", "image,patient\na,1\na,2\n"])
    def test_a_wrong_table_of_patients_is_explained(self, folders: Path, tmp_path: Path, text: str) -> None:
        (tmp_path / "patients.csv").write_text(text)
        with pytest.raises(DataError, match=r"patients\.csv, line"):
            ingest(folders, tmp_path / "study", patients_csv=tmp_path / "patients.csv")

    def test_label_names_can_be_given(self, folders: Path, tmp_path: Path) -> None:
        assert ingest(folders, tmp_path / "study", labels=["ulnar", "artery"]).labels == ["ulnar", "artery"]

    def test_a_value_without_a_name_is_refused(self, folders: Path, tmp_path: Path) -> None:
        study = ingest(folders, tmp_path / "study", labels=["ulnar"])
        assert study.frames["frame_id"].tolist() == ["anna-1", "anna-2"]
        assert "has the value 2, but there are 1 labels" in rows(study.path / REPORT)[0]["reason"]

    def test_nnunet(self, tmp_path: Path, make_tissue, make_disc, save_picture) -> None:
        source = tmp_path / "Dataset001"
        save_picture(source / "imagesTr" / "a_0000.png", make_tissue(0))
        save_picture(source / "labelsTr" / "a.png", make_disc(value=1))
        (source / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "median": 1, "ulnar": 2}}))
        study = ingest(source, tmp_path / "study", patient_regex=r"/(\w)_")
        assert study.labels == ["median", "ulnar"]
        assert study.frames["patient_id"].tolist() == ["a"]

    def test_a_single_picture(self, tmp_path: Path, make_tissue, save_picture) -> None:
        study = ingest(save_picture(tmp_path / "scan.jpg", make_tissue(0)), tmp_path / "study", name="one")
        assert study.name == "one"
        assert study.frames[["frame_id", "source", "mask"]].to_numpy().tolist() == [["scan", "scan.jpg", ""]]


class TestProblems:
    @pytest.fixture
    def faulty(self, kaggle_folder: Path, make_tissue, make_disc, save_picture) -> Path:
        """Two usable patients, and one frame for every fault."""
        for number in range(1, 7):
            save_picture(kaggle_folder / f"3_{number}.tif", make_tissue(10 + number))
            save_picture(kaggle_folder / f"3_{number}_mask.tif", make_disc())
        (kaggle_folder / "3_1.tif").write_bytes(b"")
        (kaggle_folder / "3_2.tif").write_text("text")
        save_picture(kaggle_folder / "3_3_mask.tif", make_disc(61, 80))
        save_picture(kaggle_folder / "3_4.tif", np.full((60, 80), 7, np.uint8))
        (kaggle_folder / "3_5_mask.tif").write_bytes((kaggle_folder / "3_5_mask.tif").read_bytes()[:100])
        (kaggle_folder / "3_6.tif").unlink()
        shutil.copy(kaggle_folder / "1_1.tif", kaggle_folder / "3_7.tif")
        return kaggle_folder

    def test_everything_is_listed_with_its_reason(
        self, faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        study = ingest(faulty, tmp_path / "study")
        assert study.frames["frame_id"].tolist() == ["1_1", "1_2", "2_1", "2_2", "3_7"]
        report = {row["file"]: (row["reason"], row["action"]) for row in rows(study.path / REPORT)}
        assert len(rows(study.path / REPORT)) == 8
        assert report["3_6_mask.tif"] == ("mask without a frame", "ignored")
        for name, words in {
            "3_1.tif": "is empty (0 bytes)",
            "3_2.tif": "is not a PNG, TIFF or JPEG picture",
            "3_3.tif": "is 80×61, but its frame is 80×60",
            "3_4.tif": "is blank: every pixel is 7",
            "3_5.tif": "3_5_mask.tif is",
        }.items():
            assert words in report[name][0]
            assert report[name][1] == "skipped"
        reasons = [row["reason"] for row in rows(study.path / REPORT) if row["file"] == "3_7.tif"]
        assert reasons == ["no mask found", "same pixels as 1_1.tif"]
        assert "5 files skipped; see ingest-report.csv" in capsys.readouterr().err

    def test_copies_share_a_group_and_tie_their_patients(
        self, faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        study = ingest(faulty, tmp_path / "study")
        groups = study.frames.set_index("frame_id")["group"]
        assert groups.to_dict() == {"1_1": "1_1", "1_2": "1_2", "2_1": "2_1", "2_2": "2_2", "3_7": "1_1"}
        assert "shared by patients 1 and 3" in capsys.readouterr().err

    def test_strict_stops_at_the_first_and_leaves_nothing(self, faulty: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"3_1\.tif is empty"):
            ingest(faulty, tmp_path / "study", strict=True)
        assert not (tmp_path / "study").exists()

    def test_strict_counts_names_too(self, kaggle_folder: Path, tmp_path: Path) -> None:
        shutil.copy(kaggle_folder / "1_1.tif", kaggle_folder / "stray.tif")
        with pytest.raises(DataError, match=r"stray\.tif: name is not"):
            ingest(kaggle_folder, tmp_path / "study", strict=True)

    def test_nothing_usable(self, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "1_1.png").write_text("text")
        with pytest.raises(DataError, match=r"None of the 1 files .* First: .*1_1\.png is not a PNG"):
            ingest(tmp_path / "source", tmp_path / "study")


class TestContradictions:
    @pytest.fixture
    def contradictory(self, kaggle_folder: Path, make_tissue, save_picture) -> Path:
        """1_3 is 1_1 once more, a little brighter, but is said to have no nerve."""
        save_picture(kaggle_folder / "1_3.tif", np.minimum(make_tissue(0), 247) + np.uint8(8))
        save_picture(kaggle_folder / "1_3_mask.tif", np.zeros((60, 80), np.uint8))
        return kaggle_folder

    @pytest.mark.parametrize("action", ["keep", "drop", "propagate"])
    def test_they_are_listed_and_treated_as_asked(self, contradictory: Path, tmp_path: Path, action) -> None:
        study = ingest(contradictory, tmp_path / "study", contradictions=action)
        done = {"keep": "kept", "drop": "dropped", "propagate": "mask propagated"}[action]
        (row,) = rows(study.path / CONTRADICTIONS)
        assert (row["empty_frame"], row["masked_frame"], row["action"]) == ("1_3", "1_1", done)
        loaded = Study.load(study.path)
        frames = loaded.frames.set_index("frame_id")
        assert ("1_3" in frames.index) == (action != "drop")
        assert ("images/1_3.png" in files_of(study.path)) == (action != "drop")
        if action == "keep":
            assert not loaded.mask("1_3").any()
        if action == "propagate":
            np.testing.assert_array_equal(loaded.mask("1_3"), loaded.mask("1_1"))
            assert frames.loc["1_3", "area_px"] == frames.loc["1_1", "area_px"] > 0

    def test_a_mask_is_not_propagated_to_another_size(
        self, kaggle_folder: Path, tmp_path: Path, make_tissue, save_picture
    ) -> None:
        save_picture(kaggle_folder / "1_3.tif", np.kron(make_tissue(0), np.ones((2, 2), np.uint8)))
        save_picture(kaggle_folder / "1_3_mask.tif", np.zeros((120, 160), np.uint8))
        study = ingest(kaggle_folder, tmp_path / "study", contradictions="propagate")
        assert rows(study.path / CONTRADICTIONS)[0]["action"] == "kept, since the frames differ in size"

    def test_a_dropped_leader_hands_its_group_on(
        self, kaggle_folder: Path, tmp_path: Path, make_disc, save_picture
    ) -> None:
        save_picture(kaggle_folder / "1_1_mask.tif", np.zeros((60, 80), np.uint8))
        shutil.copy(kaggle_folder / "1_1.tif", kaggle_folder / "1_3.tif")
        save_picture(kaggle_folder / "1_3_mask.tif", make_disc())
        study = ingest(kaggle_folder, tmp_path / "study", contradictions="drop")
        assert study.frames["group"].tolist() == study.frames["frame_id"].tolist() == ["1_2", "1_3", "2_1", "2_2"]

    def test_real_ones(self, data_root: Path, tmp_path: Path) -> None:
        source = tmp_path / "fullres"
        source.mkdir()
        for name in ("1_9", "1_14", "1_35", "1_36", "1_5", "2_1"):
            for suffix in (".tif", "_mask.tif"):
                (source / f"{name}{suffix}").symlink_to(data_root / "kaggle-nerve" / "fullres" / f"{name}{suffix}")
        study = ingest(source, tmp_path / "study")
        found = [(row["empty_frame"], row["masked_frame"]) for row in rows(study.path / CONTRADICTIONS)]
        assert found == [("1_9", "1_14"), ("1_35", "1_36")]


class TestOutput:
    def test_again_from_the_same_source(self, kaggle_folder: Path, tmp_path: Path) -> None:
        first = ingest(kaggle_folder, tmp_path / "study")
        (kaggle_folder / "2_2.tif").unlink()
        (kaggle_folder / "2_2_mask.tif").unlink()
        second = ingest(kaggle_folder, tmp_path / "study")
        assert first.sha256() != second.sha256()
        assert files_of(tmp_path / "study") == {
            *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in ("1_1", "1_2", "2_1")),
            *(REPORT, CONTRADICTIONS, "frames.csv", "study.yaml"),
        }

    def test_a_failure_leaves_the_old_study(self, kaggle_folder: Path, tmp_path: Path) -> None:
        before = ingest(kaggle_folder, tmp_path / "study").sha256()
        (kaggle_folder / "1_1.tif").write_bytes(b"")
        with pytest.raises(DataError):
            ingest(kaggle_folder, tmp_path / "study", strict=True)
        assert Study.load(tmp_path / "study").sha256() == before
        assert not (tmp_path / "study" / staging._INCOMING).exists()

    def test_after_an_interruption_at_the_worst_moment(self, kaggle_folder: Path, tmp_path: Path) -> None:
        ingest(kaggle_folder, tmp_path / "study")
        (tmp_path / "study" / "study.yaml").unlink()
        (tmp_path / "study" / staging._INCOMING).mkdir()
        assert len(ingest(kaggle_folder, tmp_path / "study").frames) == 4

    def test_a_study_of_another_source_is_not_touched(self, kaggle_folder: Path, tmp_path: Path) -> None:
        ingest(kaggle_folder, tmp_path / "study")
        shutil.copytree(kaggle_folder, tmp_path / "other")
        with pytest.raises(UsageError, match=r"holds a study of .*source"):
            ingest(tmp_path / "other", tmp_path / "study")

    def test_a_folder_with_other_things_is_not_touched(self, kaggle_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").touch()
        with pytest.raises(UsageError, match="not empty, and is not a study"):
            ingest(kaggle_folder, tmp_path / "thesis")
        assert files_of(tmp_path / "thesis") == {"chapter.tex"}
        with pytest.raises(UsageError, match="is a file"):
            ingest(kaggle_folder, tmp_path / "thesis" / "chapter.tex")


def linked(source: Path, folder: Path, patterns: list[str]) -> Path:
    for pattern in patterns:
        for path in source.glob(pattern):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return folder


def test_real_patients_who_share_frames(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patterns = ["17_*.png", "18_*.png", "19_*.png", "20_*.png"]
    source = linked(data_root / "kaggle-nerve" / "train", tmp_path / "source", patterns)
    study = ingest(source, tmp_path / "study")
    assert len(study.frames) == len(list(source.glob("*_mask.png")))
    assert "shared by patients 17 and 18: splits" in capsys.readouterr().err


def test_real_frames_with_two_labels(data_root: Path, tmp_path: Path) -> None:
    source = linked(data_root / "usgra", tmp_path / "source", ["*/000*.png", "*/004*.png", "*/005*.png"])
    study = ingest(source, tmp_path / "study")
    assert study.labels == ["nerve", "vessel"]
    pairs = study.frames.groupby("group")["frame_id"].apply(tuple)
    expected = {("0002", "0047"), ("0003", "0050"), ("0004", "0054"), ("0006", "0056")}
    assert {pair for pair in pairs if len(pair) > 1} == expected
