from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from edgefusion.data.nnunet import export_nnunet
from edgefusion.data.phantom import make_phantom_study
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import UsageError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_phantom_study(tmp_path_factory.mktemp("studies") / "small-necks", 5, 3, 0, (64, 96))


@pytest.fixture
def exported(study: Study, tmp_path: Path) -> Path:
    return export_nnunet(study, tmp_path, 7)


def test_every_frame_is_a_case_with_its_pixels(study: Study, exported: Path) -> None:
    assert exported.name == "Dataset007_SmallNecks"
    for frame in study.frames["frame_id"]:
        with Image.open(exported / "imagesTr" / f"{frame}_0000.png") as image:
            np.testing.assert_array_equal(np.asarray(image), study.image(frame))
        with Image.open(exported / "labelsTr" / f"{frame}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), study.mask(frame))
    assert len(list(exported.glob("*Tr/*"))) == 2 * len(study.frames)


def test_the_description_is_what_nnunet_asks_for(study: Study, exported: Path) -> None:
    description = json.loads((exported / "dataset.json").read_text(encoding="utf-8"))
    assert description["labels"] == {"background": 0, "nerve": 1}
    assert (description["numTraining"], description["file_ending"]) == (15, ".png")
    assert list(description["channel_names"]) == ["0"]
    assert description["licence"] == study.terms


def test_no_patient_is_on_both_sides_and_each_judges_once(study: Study, exported: Path) -> None:
    patient = pd.read_csv(exported / "cases.csv").set_index("case")["patient_id"]
    splits = json.loads((exported / "splits_final.json").read_text(encoding="utf-8"))
    assert len(splits) == 5
    for split in splits:
        assert not {patient[case] for case in split["train"]} & {patient[case] for case in split["val"]}
    judged = [case for split in splits for case in split["val"]]
    assert sorted(judged) == sorted(study.frames["frame_id"])


def test_frames_without_labels_are_for_prediction(tmp_path: Path) -> None:
    rows = []
    for number, name in enumerate(["a b", "a_b", "A_B", "later"]):
        mask = None if name == "later" else np.full((64, 64), number % 3, np.uint8)
        image = np.full((64, 64), number, np.uint8)
        rows.append(store_frame(tmp_path / "study", f"{name}", f"p{number}", image, mask))
    study = Study(tmp_path / "study", "x", ["nerve", "vessel"], "", "", frames_table(rows))
    study.save()
    folder = export_nnunet(tmp_path / "study", tmp_path, folds=2)
    assert folder.name == "Dataset501_X"
    assert {path.name for path in (folder / "imagesTr").iterdir()} == {
        "a_b_0000.png",
        "a_b-2_0000.png",
        "A_B-3_0000.png",
    }
    assert [path.name for path in (folder / "imagesTs").iterdir()] == ["later_0000.png"]
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "nerve": 1, "vessel": 2}


def test_what_is_refused(study: Study, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a new or empty folder"):
        export_nnunet(study, tmp_path, 7)
    with pytest.raises(UsageError, match="1 to 999"):
        export_nnunet(study, tmp_path, 1000)
    with pytest.raises(UsageError, match="cannot be divided"):
        export_nnunet(study, tmp_path, 8, folds=6)
    assert not list(tmp_path.glob("Dataset008*"))
    shutil.rmtree(exported)
    assert export_nnunet(study, tmp_path, 7) == exported
