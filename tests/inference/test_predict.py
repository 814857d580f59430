from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.data.kaggle import decode_rle
from edgefusion.data.readers import read_frame, read_labels
from edgefusion.data.study import Study, frames_table, store_frame, write_png
from edgefusion.errors import DataError, UsageError
from edgefusion.inference import predict
from edgefusion.inference.predict import predict_files
from edgefusion.inference.predictor import BATCH, Predictor
from edgefusion.inference.writers import FORMATS

MakeBundle = Callable[..., Bundle]


def picture(seed: int = 0, size: tuple[int, int] = (50, 70)) -> NDArray[np.uint8]:
    image = np.full(size, 30, dtype=np.uint8)
    image[10 + seed % 20 : 35, 20:50] = 200
    return image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for n in range(4):
        write_png(folder / f"{n}.png", picture(n, (50 + n, 70)))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Results without the report, which also says what was already there."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: content for name, content in found.items() if name != "predict-report.csv"}


def statuses(summaries: list[dict[str, Any]]) -> list[str]:
    return [summary["status"] for summary in summaries]


def frames_run(bundle: Bundle) -> int:
    return sum(bundle.model.batches)  # type: ignore[union-attr, arg-type]


def test_every_frame_in_every_format(make_bundle: MakeBundle, source: Path, tmp_path: Path) -> None:
    bundle, out = make_bundle(), tmp_path / "out"
    summaries = predict_files([source], out, bundle, FORMATS)
    assert set(files(out)) == {
        "submission.csv",
        *(f"{n}{end}" for n in range(4) for end in ("_mask.png", "_overlay.png", ".json")),
    }
    for n, summary in enumerate(summaries):
        expected = Predictor(bundle).predict(picture(n, (50 + n, 70)))
        assert expected.area_px[0] > 0
        np.testing.assert_array_equal(read_labels(out / f"{n}_mask.png"), expected.mask)
        assert read_frame(out / f"{n}_overlay.png").shape == expected.mask.shape
        assert json.loads((out / f"{n}.json").read_text())["labels"][0]["area_px"] == expected.area_px[0]
        assert summary["input"] == str((source / f"{n}.png").resolve())
        assert (summary["name"], summary["status"]) == (str(n), "done")
        assert summary["area_px_nerve"] == expected.area_px[0]
        assert summary["presence_nerve"] == pytest.approx(expected.presence[0], abs=1e-6)
        assert "area_mm2_nerve" not in summary
    rows = pd.read_csv(out / "submission.csv", dtype=str, keep_default_na=False)
    for n, pixels in rows.itertuples(index=False):
        mask = read_labels(out / f"{n}_mask.png")
        np.testing.assert_array_equal(decode_rle(pixels, mask.shape), mask)  # type: ignore[arg-type]


def test_a_study_with_spacing_gives_mm2(make_bundle: MakeBundle, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    rows = [store_frame(folder, f"f{n}", "p", picture(n), None, spacing=(0.1, 0.2)) for n in range(2)]
    Study(folder, "s", ["nerve"], "", "", frames_table(rows)).save()
    summaries = predict_files([folder], tmp_path / "out", make_bundle(), ["json"])
    assert [summary["name"] for summary in summaries] == ["f0", "f1"]
    for summary in summaries:
        assert summary["area_mm2_nerve"] == pytest.approx(summary["area_px_nerve"] * 0.02)


def test_more_frames_than_a_batch_keep_their_order(make_bundle: MakeBundle, tmp_path: Path) -> None:
    for n in range(2 * BATCH + 5):
        write_png(tmp_path / "in" / f"{n:03}.png", picture(n))
    bundle = make_bundle()
    summaries = predict_files([tmp_path / "in"], tmp_path / "out", bundle, ["png"])
    assert [summary["name"] for summary in summaries] == [f"{n:03}" for n in range(2 * BATCH + 5)]
    assert bundle.model.batches == [BATCH, BATCH, 5]
    for n, summary in enumerate(summaries):
        assert summary["area_px_nerve"] == Predictor(bundle).predict(picture(n)).area_px[0]


def test_a_second_call_keeps_what_is_there(make_bundle: MakeBundle, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = predict_files([source], out, make_bundle(), FORMATS)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "submission.csv"}
    bundle = make_bundle()
    second = predict_files([source], out, bundle, FORMATS)
    assert frames_run(bundle) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert statuses(second) == ["kept"] * 4
    for one, other in zip(first, second, strict=True):
        assert {key: other[key] for key in one if key != "status"} == {k: v for k, v in one.items() if k != "status"}


def _other_weights(bundle: Bundle) -> dict[str, Any]:
    with torch.no_grad():
        bundle.model.gains *= 1.5  # type: ignore[operator]
    return {}


def _other_threshold(bundle: Bundle) -> dict[str, Any]:
    bundle.thresholds["mask"] = 0.6
    return {}


def _flip(bundle: Bundle) -> dict[str, Any]:
    return {"flip_averaging": True}


@pytest.mark.parametrize("change", [_other_weights, _other_threshold, _flip])
def test_another_network_or_setting_does_all_again(
    make_bundle: MakeBundle, source: Path, tmp_path: Path, change: Callable[[Bundle], dict[str, Any]]
) -> None:
    predict_files([source], tmp_path / "out", make_bundle(), ["png"])
    bundle = make_bundle()
    options = change(bundle)
    assert statuses(predict_files([source], tmp_path / "out", bundle, ["png"], **options)) == ["done"] * 4


def test_only_what_changed_is_done_again(make_bundle: MakeBundle, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files([source], out, make_bundle(), ["png"])
    write_png(source / "1.png", picture(9))
    (out / "2_mask.png").unlink()
    write_png(source / "4.png", picture(4))
    assert statuses(predict_files([source], out, make_bundle(), ["png"])) == ["kept", "done", "done", "kept", "done"]
    np.testing.assert_array_equal(read_labels(out / "1_mask.png"), Predictor(make_bundle()).predict(picture(9)).mask)


def test_a_further_format_is_added_and_the_first_still_counts(
    make_bundle: MakeBundle, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for formats, expected in ((["png"], "done"), (["json"], "done"), (["png", "json"], "kept"), (["kaggle"], "done")):
        assert statuses(predict_files([source], out, make_bundle(), formats)) == [expected] * 4


def test_files_of_a_former_network_do_not_count(make_bundle: MakeBundle, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files([source], out, make_bundle(gains=(3.0,)), ["png", "json"])
    predict_files([source], out, make_bundle(), ["png"])
    # The JSON that is there is the former network's.
    assert statuses(predict_files([source], out, make_bundle(), ["png", "json"])) == ["done"] * 4


def test_a_submission_never_mixes_two_networks(make_bundle: MakeBundle, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files([source], out, make_bundle(gains=(3.0,)), ["kaggle"])
    predict_files([source / "1.png", source / "3.png"], out, make_bundle(), ["kaggle"])
    assert list(pd.read_csv(out / "submission.csv")["img"]) == [1, 3]
    predict_files([source / "0.png"], out, make_bundle(), ["kaggle"])
    assert list(pd.read_csv(out / "submission.csv")["img"]) == [0, 1, 3]


@pytest.mark.parametrize("moment", ["write_results", "add"])
def test_an_interrupted_call_is_finished_by_the_next(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    formats = ["png", "kaggle"]
    for n in range(2 * BATCH):
        write_png(tmp_path / "in" / f"{n}.png", picture(n))
    predict_files([tmp_path / "in"], tmp_path / "undisturbed", make_bundle(), formats)
    owner: Any = predict if moment == "write_results" else predict.Record
    original, calls = getattr(owner, moment), []

    def interrupted(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == (4 if moment == "write_results" else 2):
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(owner, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_files([tmp_path / "in"], tmp_path / "out", make_bundle(), formats)
    monkeypatch.undo()
    bundle = make_bundle()
    summaries = predict_files([tmp_path / "in"], tmp_path / "out", bundle, formats)
    assert statuses(summaries).count("kept") == BATCH
    assert frames_run(bundle) == BATCH
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_equal_names_do_not_overwrite_each_other(make_bundle: MakeBundle, tmp_path: Path) -> None:
    paths = [tmp_path / folder / name for folder in "ab" for name in ("x.png", "x.tif", "X.png", "x-2.png")]
    for n, path in enumerate(paths):
        write_png(path, picture(2 * n))
    out = tmp_path / "out"
    first = predict_files([tmp_path / "b"], out, make_bundle(), ["png"])
    summaries = predict_files([tmp_path / "a", tmp_path / "b"], out, make_bundle(), ["png"])
    names = {summary["input"]: summary["name"] for summary in summaries}
    assert len({name.casefold() for name in names.values()}) == len(paths)
    assert {summary["input"]: summary["name"] for summary in first}.items() <= names.items()
    for n, path in enumerate(paths):
        expected = Predictor(make_bundle()).predict(picture(2 * n)).mask
        np.testing.assert_array_equal(read_labels(out / f"{names[str(path.resolve())]}_mask.png"), expected)


def test_a_frame_of_the_same_name_in_a_later_call_does_not_overwrite(make_bundle: MakeBundle, tmp_path: Path) -> None:
    for folder in "ab":
        write_png(tmp_path / folder / "x.png", picture(ord(folder)))
        predict_files([tmp_path / folder / "x.png"], tmp_path / "out", make_bundle(), ["png"])
    assert set(files(tmp_path / "out")) == {"x_mask.png", "x-2_mask.png"}


@pytest.fixture
def spoilt(source: Path) -> Path:
    (source / "1.png").write_bytes(b"")
    (source / "2.png").write_text("this is not a picture")
    return source


def test_spoilt_frames_are_reported_and_left_out(
    make_bundle: MakeBundle, spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    summaries = predict_files([spoilt], out, make_bundle(), FORMATS)
    assert statuses(summaries) == ["done", "failed", "failed", "done"]
    error = capsys.readouterr().err
    assert error.count("1.png") == error.count("2.png") == 1
    assert "2 failed" in error
    report = pd.read_csv(out / "predict-report.csv", keep_default_na=False, dtype=str)
    assert list(report["status"]) == statuses(summaries)
    assert "empty" in report["reason"][1]
    assert list(report["reason"] == "") == [True, False, False, True]
    assert list(report["formats"]) == ["json kaggle overlay png", "", "", "json kaggle overlay png"]
    assert list(pd.read_csv(out / "submission.csv")["img"]) == [0, 3]


def test_a_spoilt_frame_is_tried_again(make_bundle: MakeBundle, spoilt: Path, tmp_path: Path) -> None:
    predict_files([spoilt], tmp_path / "out", make_bundle(), ["png"])
    write_png(spoilt / "1.png", picture(1))
    assert statuses(predict_files([spoilt], tmp_path / "out", make_bundle(), ["png"])) == [
        *("kept", "done", "failed", "kept")
    ]


def test_a_frame_that_becomes_unreadable_leaves_the_submission(
    make_bundle: MakeBundle, source: Path, tmp_path: Path
) -> None:
    predict_files([source], tmp_path / "out", make_bundle(), ["kaggle"])
    (source / "1.png").write_bytes(b"")
    predict_files([source], tmp_path / "out", make_bundle(), ["kaggle"])
    assert list(pd.read_csv(tmp_path / "out" / "submission.csv")["img"]) == [0, 2, 3]


def test_strict_fails_at_the_end(make_bundle: MakeBundle, spoilt: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 4 frames .*predict-report\.csv"):
        predict_files([spoilt], tmp_path / "out", make_bundle(), ["png"], strict=True)
    assert set(files(tmp_path / "out")) == {"0_mask.png", "3_mask.png"}


def test_where_nothing_worked_it_fails(
    make_bundle: MakeBundle, spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="2 of 2"):
        predict_files([spoilt / "1.png", spoilt / "2.png"], tmp_path / "out", make_bundle(), ["png", "kaggle"])
    assert set(files(tmp_path / "out")) == set()
    capsys.readouterr()
    # A single file: its reason is the error, said once.
    with pytest.raises(DataError, match=r"1\.png is empty"):
        predict_files([spoilt / "1.png"], tmp_path / "out", make_bundle(), ["png"])
    assert capsys.readouterr().err == ""


def test_wrong_use_writes_nothing(make_bundle: MakeBundle, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments in (([source], ["pgn"]), ([source], []), ([tmp_path / "none"], ["png"]), ([], ["png"])):
        with pytest.raises(UsageError):
            predict_files(arguments[0], out, make_bundle(), arguments[1])
    assert not out.exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        predict_files([source], tmp_path / "file", make_bundle(), ["png"])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2\n"])
def test_a_damaged_report_is_not_overwritten(
    make_bundle: MakeBundle, source: Path, tmp_path: Path, content: bytes
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "predict-report.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"predict-report\.csv.*Move it away"):
        predict_files([source], out, make_bundle(), ["png"])
    assert (out / "predict-report.csv").read_bytes() == content


def test_other_labels_fit_in_the_same_report(make_bundle: MakeBundle, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files([source / "0.png"], out, make_bundle(), ["png"])
    (two,) = predict_files([source / "1.png"], out, make_bundle(gains=(9.0, 8.0)), ["png"])
    assert {"area_px_nerve", "area_px_vessel"} <= two.keys()
    (kept,) = predict_files([source / "0.png"], out, make_bundle(), ["png"])
    assert kept["status"] == "kept"
    assert isinstance(kept["area_px_nerve"], int)
    assert "area_px_vessel" not in kept


def test_a_real_frame_comes_back_at_its_own_size(make_bundle: MakeBundle, data_root: Path, tmp_path: Path) -> None:
    frames = sorted((data_root / "kaggle-nerve" / "train").glob("1_1.png"))
    if not frames:
        pytest.skip("the Kaggle frames are not there")
    predict_files(frames, tmp_path / "out", make_bundle(), FORMATS)
    shape = read_frame(frames[0]).shape
    assert read_labels(tmp_path / "out" / "1_1_mask.png").shape == shape
    assert read_frame(tmp_path / "out" / "1_1_overlay.png").shape == shape


def test_a_dicom_file_gives_its_spacing_and_where_to_look(
    make_bundle: MakeBundle, write_ultrasound: Callable[..., Path], tmp_path: Path
) -> None:
    frame = np.zeros((120, 160), np.uint8)
    frame[10:20, :] = 255  # a bright bar of the screen, outside the region
    frame[60:80, 60:90] = 200
    region = {"left": 30, "top": 40, "right": 129, "bottom": 109, "cm": 0.01}
    file = write_ultrasound(tmp_path / "IM1", frame[None], regions=[region], rate=None)
    (row,) = predict_files([file], tmp_path / "out", make_bundle(), ["png", "json"])
    mask = read_labels(tmp_path / "out" / "IM1_mask.png")
    assert mask.shape == frame.shape
    assert mask[60:80, 60:90].any()
    assert not mask[:40].any()
    assert row["area_mm2_nerve"] == pytest.approx(row["area_px_nerve"] * 0.1 * 0.2, rel=1e-3)
