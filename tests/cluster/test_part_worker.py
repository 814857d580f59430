from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from edgefusion.cluster import part_files, part_worker
from edgefusion.cluster.part_files import Plan, begin
from edgefusion.cluster.part_worker import PartWorker
from edgefusion.data.kaggle import decode_rle
from edgefusion.data.readers import read_labels
from edgefusion.errors import DataError, UsageError
from edgefusion.inference.fingerprint import fingerprint
from edgefusion.inference.inputs import FrameFile, find_frames
from edgefusion.inference.predict import predict_files
from edgefusion.inference.predictor import load_bundle

PER_PART = 16


def plan_of(folder: Path, frames: list[FrameFile], **settings: object) -> Plan:
    names = {str(frame.path): frame.path.stem for frame in frames}
    return begin(folder, frames, names, **{"made_by": "x", "formats": ("png",), "per_part": PER_PART, **settings})  # type: ignore[arg-type]


def test_parts_say_what_plain_predict_says(model: Path, source: Path, tmp_path: Path) -> None:
    """Masks, measures and reasons, frame by frame; a corrupt frame and a clip are rows like others."""
    bundle = load_bundle(model)
    frames = find_frames([source], tmp_path / "out")
    frames = [FrameFile(frame.path, (0.1, 0.2) if index == 3 else None) for index, frame in enumerate(frames)]
    plan = plan_of(tmp_path / "out", frames, made_by=fingerprint(bundle))
    worker = PartWorker(plan, model, False, "auto")
    for part in plan.pending():
        worker({"item": np.array([part])})
    assert plan.pending() == []

    plain = pd.DataFrame(predict_files([source], tmp_path / "plain", bundle, ["png"])).set_index("input")
    table = pd.read_parquet(sorted((tmp_path / "out").glob("part-*.parquet")))
    assert sorted(table["input"]) == sorted(plain.index)
    assert table["input"].is_unique
    found = 0
    for row in table.to_dict("records"):
        same = plain.loc[row["input"]]
        for column in ("name", "status", "reason", "input_sha256", "made_by", "presence_nerve", "area_px_nerve"):
            assert row[column] == same[column] or (pd.isna(row[column]) and pd.isna(same[column])), column
        if row["status"] == "done":
            mask = read_labels(tmp_path / "plain" / f"{row['name']}_mask.png")
            np.testing.assert_array_equal(read_labels(tmp_path / "out" / row["mask"]), mask)
            assert (row["height"], row["width"]) == mask.shape
            np.testing.assert_array_equal(decode_rle(row["rle_nerve"], mask.shape), mask == 1)
            found += int(mask.any())
    assert found > 5
    measured = table[table["area_mm2_nerve"].notna()]
    assert measured["area_mm2_nerve"].tolist() == pytest.approx((measured["area_px_nerve"] * 0.02).tolist(), abs=1e-4)
    assert len(measured) == 1
    failed = table[table["status"] == "failed"].set_index("name")
    assert set(failed.index) == {"corrupt"}
    assert "corrupt.png" in failed.loc["corrupt", "reason"]
    assert failed.loc["corrupt", "formats"] == ""
    assert plan.count() == {"done": len(frames) - 1, "failed": 1}


def test_a_clip_is_a_row_with_a_reason(model: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.tif"
    pages = [Image.new("L", (50, 40), 90) for _ in range(3)]
    pages[0].save(clip, save_all=True, append_images=pages[1:])
    plan = plan_of(tmp_path / "out", [FrameFile(clip, None), FrameFile(tmp_path / "gone.png", None)])
    PartWorker(plan, model, False, "auto").do(0)
    table = pd.read_parquet(plan.path(0))
    assert table["status"].tolist() == ["failed", "failed"]
    assert "is a clip" in table["reason"][0]
    assert "No such file" in table["reason"][1]
    # All columns have their types although there is no value, so that parts are one table.
    assert str(table["area_px_nerve"].dtype) in ("float64", "Int64")


def test_a_part_whose_writing_is_cut_off_is_not_there(
    model: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path / "out", find_frames([source], tmp_path / "out"))
    worker = PartWorker(plan, model, False, "auto")
    worker.do(0)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(part_worker, "write_results", cut_off)
    with pytest.raises(KeyboardInterrupt):
        worker.do(1)
    assert plan.pending() == [1, 2]


def test_a_part_appears_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is never to be seen half written."""
    plan = plan_of(tmp_path / "out", [FrameFile(tmp_path / "a.png", None)])

    def half(table: object, where: Path, **_: object) -> None:
        where.write_bytes(b"PAR1")
        assert not plan.path(0).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(part_files.pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        plan.write(0, [{"input": "a"}], pa.schema([("input", pa.string())]))
    assert not plan.path(0).exists()


def test_a_damaged_part_is_done_again(model: Path, source: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "out", find_frames([source], tmp_path / "out"))
    worker = PartWorker(plan, model, False, "auto")
    for part in range(plan.parts):
        worker.do(part)
    whole = plan.path(1).read_bytes()
    plan.path(1).write_bytes(whole[:-20])
    plan.path(2).write_bytes(whole)  # whole, but not as many rows
    assert plan.pending() == [1, 2]
    worker.do(1)
    assert plan.path(1).read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"made_by": "y"}, "another network"),
        ({"formats": ()}, "other formats"),
        ({"per_part": 8}, "another size"),
        ({"frames": 3}, "other frames"),
        ({"spacing": (1.0, 1.0)}, "other frames"),
    ],
)
def test_a_folder_goes_on_only_with_the_same(change: dict[str, object], reason: str, tmp_path: Path) -> None:
    frames = [FrameFile(tmp_path / f"{n}.png", None) for n in range(40)]
    before = plan_of(tmp_path / "out", frames)
    assert plan_of(tmp_path / "out", frames) == before
    count, spacing = change.pop("frames", 40), change.pop("spacing", None)
    others = [FrameFile(frame.path, spacing) for frame in frames[:count]]  # type: ignore[misc, arg-type]
    with pytest.raises(UsageError, match=reason):
        plan_of(tmp_path / "out", others, **change)
    (tmp_path / "out" / "run.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(DataError, match=r"run\.json cannot be read"):
        plan_of(tmp_path / "out", frames)


def test_every_frame_is_in_one_part(tmp_path: Path) -> None:
    frames = [FrameFile(tmp_path / f"{n}.png", (0.5, 0.25) if n % 2 else None) for n in range(41)]
    plan = plan_of(tmp_path / "out", frames)
    assert plan.parts == 3
    listed = [plan.inputs(part) for part in range(plan.parts)]
    assert [len(rows) for rows in listed] == [plan.size(part) for part in range(plan.parts)] == [16, 16, 9]
    assert [row["input"] for rows in listed for row in rows] == [str(frame.path) for frame in frames]
    assert listed[0][1]["spacing_col_mm"] == 0.25
    assert listed[0][0]["spacing_row_mm"] is None
