from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from edgefusion.bundle import Bundle, Origin
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import DataError
from edgefusion.evaluation import publish as publishing
from edgefusion.evaluation.card import Notes, _what_it_is, read_notes
from edgefusion.evaluation.publish import WORST, main
from edgefusion.files import sha256_of_file
from edgefusion.models.zoo import build_model

PATIENTS = ("p00", "p01", "p02", "p03", "p04", "p05")


def make_bundle(folder: Path, labels: list[str], trained_on: tuple[str, ...]) -> Path:
    torch.manual_seed(0)
    bundle = Bundle(
        model=build_model("unet", 1, len(labels)),
        model_name="unet",
        recipe=ChannelRecipe(("raw",), 32, 48),
        labels=labels,
        # A network that was never trained starts from the prior, and finds something just below it.
        thresholds={"mask": 0.05, "presence": 0.0},
        study_name="necks",
        study_sha256="ab" * 32,
        trained_on=list(trained_on),
    )
    bundle.save(folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_phantom_study(tmp_path_factory.mktemp("publish") / "necks", 6, 8, size=(64, 96))


@pytest.fixture(scope="module")
def published(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``bundle``, ``out``, ``worst`` and ``notes.yaml``."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("publish")
    make_bundle(folder / "bundle", ["nerve"], PATIENTS[:2])
    notes = {"about": "For *necks*.", "terms": "made up", "license": "CC0", "causes": {"p02_f01": "a | b"}}
    (folder / "notes.yaml").write_text(yaml.safe_dump(notes))
    assert main(call(folder, study)) == 0
    return folder


def call(folder: Path, study: Study) -> list[str]:
    options = {"-o": folder / "out", "--pictures": folder / "worst", "--notes": folder / "notes.yaml"}
    return [str(folder / "bundle"), str(study.path), *(str(word) for pair in options.items() for word in pair)]


@pytest.fixture
def metrics(published: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((published / "out" / "metrics.json").read_text())
    return values


def test_what_is_published_is_small_whole_and_without_pictures(published: Path) -> None:
    out = published / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "bundle.yaml", "calibration.svg", "metrics.json", "model.safetensors")
    ]
    described = yaml.safe_load((out / "bundle.yaml").read_text())
    assert described["weights_sha256"] == sha256_of_file(out / "model.safetensors")
    assert described["terms"] == "made up"
    loaded = Bundle.load(out)
    assert loaded.trained_on == list(PATIENTS[:2])
    assert (out / "model.safetensors").stat().st_size < 0.6 * (published / "bundle/model.safetensors").stat().st_size


def test_only_new_patients_are_judged(metrics: dict[str, Any], study: Study) -> None:
    assert metrics["held_out"] == list(PATIENTS[2:])
    assert metrics["study"] == {"name": "necks", "sha256": study.sha256(), "judged_frames": 32}


def test_every_measure_has_an_interval_where_it_can(metrics: dict[str, Any]) -> None:
    rows = {row["measure"]: row for row in metrics["measures"]}
    for key in ("dice_all", "dice_masked", "recall", "pooled_f1", "boundary_f1"):
        assert rows[key]["low"] <= rows[key]["value"] <= rows[key]["high"], key
        assert rows[key]["n_patients"] == 4
    assert metrics["distance_unit"] == "mm"


def test_the_worst_frames_are_listed_and_drawn_apart(metrics: dict[str, Any], published: Path) -> None:
    worst = metrics["worst"]
    assert len(worst) == WORST
    assert [row["dice"] for row in worst] == sorted(row["dice"] for row in worst)
    drawn = {path.name for path in (published / "worst").iterdir()}
    assert drawn == {f"nerve_{row['frame_id']}.png" for row in worst}


def test_calibration_and_speed_are_measured(metrics: dict[str, Any]) -> None:
    of_label = metrics["calibration"]["nerve"]
    for regions in (of_label["before"], of_label["after"]):
        assert regions["all pixels"]["pixels"] == 32 * 64 * 96
        assert 0 < regions["border band"]["pixels"] < regions["all pixels"]["pixels"]
    assert of_label["after"]["all pixels"]["ece"] < of_label["before"]["all pixels"]["ece"]
    assert metrics["speed"]["median_ms"] > 0
    assert (metrics["speed"]["height"], metrics["speed"]["width"]) == (64, 96)


def test_the_card_says_what_a_reader_must_know(published: Path, metrics: dict[str, Any]) -> None:
    card = (published / "out" / "README.md").read_text(encoding="utf-8")
    for part in (
        *("For *necks*.", "License of the weights: CC0", "Terms of the data: made up", "2 patients (p00, p01)"),
        *(
            "32 frames of 4 patients (p02, p03, p04, p05)",
            "Dice, all frames",
            "Boundary F1",
            "HD95, mm",
            "calibration.svg",
        ),
        *("HD95, mm", "calibration.svg", "Diagnosis", "without an expert", "edgefusion.evaluation.publish", "torch 2"),
    ):
        assert part in " ".join(card.split()), part
    for row in metrics["worst"]:
        assert f"| {row['frame_id']} | {row['patient_id']} |" in card
        assert ("a \\| b |" if row["frame_id"] == "p02_f01" else "not looked at |") in card
    assert max(len(line) for line in card.splitlines() if not line.startswith(("|", "python"))) <= 120
    # Where folders are on this machine is nobody's business.
    assert str(published) not in card
    assert "../" not in card
    assert "publish bundle necks -o out --pictures worst --notes notes.yaml" in card
    # The network sees frames as they are, and has no output for presence.
    assert "- Sees: raw, at 32×48 pixels" in card
    assert "its highest probability (presence is no output of its own)" in " ".join(card.split())
    # Some phantoms show no nerve, so presence can be judged.
    assert "Specificity" in card
    assert "was not validated" not in card


def test_without_empty_frames_presence_is_not_claimed(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    rows = []
    generator = np.random.default_rng(0)
    for patient in "ab":
        mask = np.zeros((64, 96), np.uint8)
        mask[20:40, 30:60], mask[45:55, 60:70] = 1, 2
        image = generator.integers(0, 255, mask.shape, dtype=np.uint8)
        rows.append(store_frame(tmp_path / "study", f"{patient}_1", patient, image, mask))
    study = Study(tmp_path / "study", "two", ["nerve", "vessel"], "", "none", frames_table(rows))
    study.save()
    make_bundle(tmp_path / "bundle", study.labels, ("a",))
    (tmp_path / "notes.yaml").write_text("{}")
    assert main(call(tmp_path, study)) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.count("**presence was not validated**") == 2
    assert "Specificity" not in card
    assert "Sensitivity" not in card
    assert "HD95, px" in card


def test_presence_is_decided_by_another_network_and_judged_on_negatives(study: Study, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", ["nerve"], PATIENTS[:2])
    make_bundle(tmp_path / "understudy", ["nerve"], PATIENTS[:1])
    (tmp_path / "notes.yaml").write_text("{}")
    plan = ["--understudy", str(tmp_path / "understudy"), "--sensitivity", "0.9", "--negatives", str(study.path)]
    assert main([*call(tmp_path, study), *plan]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    choice, presence = metrics["presence_threshold"], metrics["presence"]["nerve"]
    assert choice["patients"] == ["p01"]
    assert Bundle.load(tmp_path / "out").thresholds["presence"] == pytest.approx(choice["threshold"])
    assert {row["kind"] for row in presence["rows"]} == {"cut beside it", study.name}
    assert presence["patients"] == 4
    card = " ".join((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split())
    assert f"Below a presence of {choice['threshold']:.3g} a frame's mask is emptied" in card
    assert f"keeps 90% of {choice['frames']} frames of 1 patient (p01)" in card
    assert "| as used |" in card
    assert "beyond what the frames under Presence show" in card
    assert "--understudy understudy --sensitivity 0.9 --negatives necks" in card


def test_a_card_promises_what_the_network_has() -> None:
    arguments: dict[str, Any] = {"widths": (8,) * 4, "stem_widths": (4,) * 3}
    model = build_model("edgefusion-unet", 2, 1, **arguments)
    bundle = Bundle(model, "edgefusion-unet", ChannelRecipe(("raw", "dpad"), 32, 48), ["nerve"], arguments)
    card = "\n".join(_what_it_is(bundle, Notes()))
    assert "Sees: raw, dpad, filtered at the frame's own size, at 32×48 pixels" in card
    assert "a mask, its border, its presence, at the frame's own size" in card


def test_an_interrupted_call_leaves_what_was_there(
    published: Path, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    (tmp_path / "worst" / "nerve_stale.png").touch()
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "write_card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(call(tmp_path, study))
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert {file.name for file in tmp_path.iterdir()} == {"bundle", "out", "worst", "notes.yaml"}
    # The pictures are of this call alone.
    assert len(list((tmp_path / "worst").iterdir())) == WORST
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        main(call(tmp_path, study))
    assert not list((tmp_path / "out").iterdir())


def test_mistakes_are_told_in_one_line(published: Path, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = call(published, study)
    inside = [str(published / "out" / "worst") if word == str(published / "worst") else word for word in arguments]
    other = make_bundle(published / "other", ["nerve", "vessel"], ())
    known = make_bundle(published / "known", ["nerve"], PATIENTS)
    capsys.readouterr()
    for wrong, hint in (
        (inside, "apart"),
        ([str(other), *arguments[1:]], "labelled"),
        ([str(known), *arguments[1:]], "all"),
    ):
        assert main(wrong) == 2
        assert hint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "[1]", "colour: red", "causes: [a]", "a: [", "causes:"])
def test_notes_that_are_no_notes_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text(text)
    with pytest.raises(DataError, match=r"notes\.yaml.*about, terms, license"):
        read_notes(tmp_path / "notes.yaml")


def test_who_was_trained_on_at_any_stage_does_not_judge(study: Study, tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path / "bundle", ["nerve"], PATIENTS[:1]))
    bundle.started_from = [
        Origin("phantoms", "cd" * 32, ["p05"], "none"),
        Origin("necks", study.sha256(), list(PATIENTS[1:3]), "CC-BY 4.0"),
    ]
    bundle.save(tmp_path / "bundle")
    assert (
        main(
            [str(tmp_path / "bundle"), str(study.path), "-o", str(tmp_path / "out"), "--pictures", str(tmp_path / "p")]
        )
        == 0
    )
    held_out = json.loads((tmp_path / "out" / "metrics.json").read_text())["held_out"]
    assert held_out == list(PATIENTS[3:])  # p05 of the phantoms is not p05 of this study
    card = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert "Started from weights trained on 2 patients (p01, p02) of the study 'necks' (terms: CC-BY 4.0)" in card
