"""``predict --ray`` with its worker in this process: what it refuses, and what becomes of frames and of the output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("ray", reason='needs Ray: pip install "edgefusion[cluster]"')

import ray
import ray.data

from edgefusion.cluster import predict as module
from edgefusion.cluster.part_files import Plan
from edgefusion.cluster.predict import predict_on_cluster
from edgefusion.data.clip import Region
from edgefusion.errors import DataError, UsageError
from edgefusion.inference.predictor import load_bundle


class _Here:
    """What ``predict`` uses of a data set of Ray's, without a cluster."""

    def __init__(self, parts: list[int], **_: Any) -> None:
        self._parts = parts

    def map_batches(self, kind: Any, fn_constructor_args: tuple[Any, ...], **_: Any) -> _Here:
        self._worker = kind(*fn_constructor_args)
        return self

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        for part in self._parts:
            done = self._worker({"item": np.array([part])})
            yield {name: values[0] for name, values in done.items()}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "connected", lambda address: nullcontext())
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray.data, "from_items", _Here)


def test_a_folder_holds_one_list_of_frames_one_network_and_its_formats(
    model: Path, source: Path, tmp_path: Path
) -> None:
    frames, out = [source / f"f{n:02}.png" for n in range(3)], tmp_path / "out"
    first = predict_on_cluster(frames, out, model, "auto", per_part=2)
    assert first == {"frames": 3, "done": 3, "failed": 0, "parts": 2, "kept": 0}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.p*")}
    other = load_bundle(model)
    other.thresholds["mask"] /= 2
    other.save(tmp_path / "other")
    asked: dict[str, Any] = {"inputs": frames, "bundle": model}
    for change, reason in (
        ({"inputs": frames[:2]}, "other frames"),
        ({"inputs": frames[::-1]}, "other frames"),
        ({"bundle": tmp_path / "other"}, "another network"),
        ({"flip_averaging": True}, "another network, or of other settings"),
        ({"crop": Region(0, 0, 20, 20)}, "another network, or of other settings"),
        ({"formats": ("png", "json")}, "other formats"),
    ):
        with pytest.raises(UsageError, match=reason):
            predict_on_cluster(output=out, address="auto", per_part=2, **{**asked, **change})
    assert predict_on_cluster(frames, out, model, "auto", per_part=2) == {**first, "kept": 2}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.p*")} == before


def test_bad_frames_are_rows_and_an_error_only_where_there_are_no_others(
    model: Path, source: Path, tmp_path: Path
) -> None:
    frames, out = [source / "corrupt.png", source / "f00.png"], tmp_path / "out"
    assert predict_on_cluster(frames, out, model, "auto", per_part=1)["failed"] == 1
    table = pd.read_parquet(sorted(out.glob("part-*.parquet")))
    assert table["status"].tolist() == ["failed", "done"]
    assert "corrupt.png" in table["reason"][0]
    with pytest.raises(DataError, match="1 of 2 frames could not be used"):
        predict_on_cluster(frames, out, model, "auto", per_part=1, strict=True)
    with pytest.raises(DataError, match="1 of 1 frames could not be used"):
        predict_on_cluster(frames[:1], tmp_path / "none", model, "auto")


def test_the_first_part_that_cannot_be_written_ends_the_run(model: Path, source: Path, tmp_path: Path) -> None:
    """Another part was done before; it stays, and no frame is called bad."""
    frames, out = [source / f"f{n:02}.png" for n in range(3)], tmp_path / "out"
    (out / "frames").mkdir(parents=True)
    in_the_way = out / "frames" / "000001"
    in_the_way.write_text("a file")
    with pytest.raises(DataError, match=r"^Part 1 could not be done: .*000001") as error:
        predict_on_cluster(frames, out, model, "auto", per_part=1)
    assert "\n" not in str(error.value)
    assert [path.name for path in out.glob("part-*")] == ["part-000000.parquet"]
    in_the_way.unlink()
    assert predict_on_cluster(frames, out, model, "auto", per_part=1) == {
        "frames": 3, "done": 3, "failed": 0, "parts": 3, "kept": 1,
    }  # fmt: skip


def test_a_part_that_is_written_elsewhere_is_named(
    model: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a worker that has another disk at the same path."""
    monkeypatch.setattr(Plan, "write", lambda *_: None)
    with pytest.raises(DataError, match=r"part-000000\.parquet is not there, although a worker wrote it"):
        predict_on_cluster([source / "f00.png"], tmp_path / "out", model, "auto")
