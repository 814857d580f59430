"""How far a frame is from the training frames."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.clip import Region
from edgefusion.data.study import write_png
from edgefusion.errors import BundleError
from edgefusion.inference.drift import COMPANION, Drift, plane_of
from edgefusion.inference.picture_statistics import STATISTICS, statistics
from edgefusion.inference.predict import predict_files
from edgefusion.inference.predictor import Predictor


def reference() -> Drift:
    return Drift(np.zeros(STATISTICS), np.eye(STATISTICS), 2.0)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(32, 32), (48, 64), (96, 128)]),
    st.sampled_from(["flat", "noise", "ramp"]),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_every_picture_has_finite_statistics(shape: tuple[int, int], kind: str, level: float, seed: int) -> None:
    plane: NDArray[np.float32] = np.full(shape, level, np.float32)
    if kind == "noise":
        plane = np.random.default_rng(seed).random(shape, dtype=np.float32)
    elif kind == "ramp":
        plane = plane * np.linspace(0, 1, shape[1], dtype=np.float32)
    values = statistics(plane)
    assert values.shape == (STATISTICS,)
    assert np.isfinite(values).all()


def test_statistics_are_what_they_say() -> None:
    plane = np.zeros((64, 64), np.float32)
    plane[:, 32:] = 1
    values = statistics(plane)
    assert values[:7] == pytest.approx([0, 0, 0, 1, 1, 1, 0.5])
    assert values[8:10] == pytest.approx(np.log(0.51), abs=1e-6)  # half black, half white
    assert values[10:18] == pytest.approx(0.5)
    assert values[18:21] == pytest.approx([0, 0.5, 1], abs=0.02)
    # Columns of one pixel: all of the finest scale is lateral, and its orthonormal detail has half their difference.
    stripes = np.tile(np.array([0, 1], np.float32), (64, 32))
    finest = np.exp(statistics(stripes)[21:24]) - 1 / 255
    assert finest == pytest.approx([0, 1, 0], abs=1e-6)
    # Their transpose is vertical.
    assert np.exp(statistics(stripes.T)[21:24]) - 1 / 255 == pytest.approx([1, 0, 0], abs=1e-6)


def test_values_out_of_range_count_as_the_nearest() -> None:
    plane = np.full((32, 32), 0.5, np.float32)
    plane[:8], plane[8:16] = -1e6, 1e6
    values = statistics(plane)
    assert values[0] == 0
    assert values[5] == 1
    assert values[8:10] == pytest.approx(np.log(0.26), abs=1e-6)


def test_half_precision_hardly_matters() -> None:
    plane = np.random.default_rng(0).random((96, 128), dtype=np.float32)
    np.testing.assert_allclose(statistics(plane), statistics(plane.astype(np.float16)), atol=0.02)


def test_the_raw_channel_is_looked_at_where_there_is_one() -> None:
    stack = np.zeros((2, 32, 32), np.float32)
    stack[1] = 1
    assert plane_of(stack, ChannelRecipe(channels=("edges", "raw"), height=32, width=32)).min() == 1
    assert plane_of(stack, ChannelRecipe(channels=("edges", "dpad"), height=32, width=32)).max() == 0


def test_drift_is_the_distance_over_the_limit() -> None:
    plane = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    assert reference()(plane) == pytest.approx(np.linalg.norm(statistics(plane)) / 2)


def test_a_bundle_carries_it() -> None:
    plane = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    assert Drift.of({}) is None
    carried = Drift.of({COMPANION: reference().tensors()})
    assert carried is not None
    assert carried(plane) == reference()(plane)


@pytest.mark.parametrize(
    "change",
    [
        {"version": torch.tensor(2)},
        {"mean": torch.zeros(3)},
        {"whitening": torch.full((STATISTICS, STATISTICS), torch.nan)},
        {"limit": torch.tensor(0.0)},
        {"limit": torch.tensor([1.0, 2.0])},
        {"mean": None},
    ],
)
def test_damaged_statistics_are_refused(change: dict[str, torch.Tensor | None]) -> None:
    tensors = {key: value for key, value in (reference().tensors() | change).items() if value is not None}
    with pytest.raises(BundleError, match="drift"):
        Drift.of({COMPANION: tensors})


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference().limit = 1.0  # type: ignore[misc]


MakeBundle = Callable[..., Bundle]
Knows = Callable[[Bundle, NDArray[np.uint8]], Bundle]


def known(shift: int = 0) -> NDArray[np.uint8]:
    image = np.full((50, 70), 30, dtype=np.uint8)
    image[10:35, 20 + shift : 50 + shift] = 200
    return image


def strange() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)


def test_every_way_to_a_prediction_has_the_same_drift(make_bundle: MakeBundle, knows: Knows) -> None:
    bundle = knows(make_bundle(), known())
    images = [known(), known(2), strange()]
    one_by_one = [Predictor(bundle).predict(image) for image in images]
    assert [prediction.unlike_training for prediction in one_by_one] == [False, False, True]
    drifts = [prediction.drift for prediction in one_by_one]
    assert [p.drift for p in Predictor(bundle).predict_batch(images)] == drifts
    assert [p.drift for p in Predictor(bundle, flip_averaging=True).predict_batch(images)] == drifts
    # A frame's drift is its own, however much of the maps of those before is in its own.
    assert [p.drift for p in Predictor(bundle).stream(images, smoothing=0.9)] == drifts


def test_only_the_region_is_looked_at(make_bundle: MakeBundle, knows: Knows) -> None:
    predictor = Predictor(knows(make_bundle(), known()))
    screen = np.full((90, 110), 255, np.uint8)
    screen[20:70, 30:100] = known()
    assert predictor.predict(screen).unlike_training
    assert predictor.predict(screen, region=Region(20, 30, 50, 70)).unlike_training is False


def test_a_bundle_without_it_cannot_tell(make_bundle: MakeBundle, tmp_path: Path) -> None:
    prediction = Predictor(make_bundle()).predict(strange())
    assert prediction.drift is None
    assert prediction.unlike_training is None
    write_png(tmp_path / "in" / "a.png", strange())
    (summary,) = predict_files([tmp_path / "in"], tmp_path / "out", make_bundle(), ["json"])
    assert "drift" not in summary
    said = json.loads((tmp_path / "out" / "a.json").read_text())
    assert (said["drift"], said["unlike_training"]) == (None, None)


def test_strange_frames_are_named_and_in_the_report(
    make_bundle: MakeBundle, knows: Knows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = knows(make_bundle(), known()), tmp_path / "out"
    for name, image in {"good": known(1), "odd": strange(), "odder": strange()[::-1]}.items():
        write_png(tmp_path / "in" / f"{name}.png", image)
    for status in ("done", "kept"):
        summaries = predict_files([tmp_path / "in"], out, bundle, ["json"])
        assert [(row["name"], row["status"], row["unlike_training"]) for row in summaries] == [
            *(("good", status, 0), ("odd", status, 1), ("odder", status, 1))
        ]
        assert "Unlike what this model knows: 2 of 3 frames" in (said := capsys.readouterr().err)
        assert "odd, odder" in said
    table = pd.read_csv(out / "predict-report.csv")
    assert list(table["unlike_training"]) == [0, 1, 1]
    for name, drift in zip(table["name"], table["drift"], strict=True):
        frame = json.loads((out / f"{name}.json").read_text())
        assert frame["drift"] == drift
        assert frame["unlike_training"] is (drift > 1)
    predict_files([tmp_path / "in" / "good.png"], tmp_path / "calm", bundle, ["json"])
    assert "Unlike" not in capsys.readouterr().err


def test_a_clip_says_it_of_every_frame(make_bundle: MakeBundle, knows: Knows, tmp_path: Path) -> None:
    bundle, frames = knows(make_bundle(), known()), [known(), strange(), known(1), strange()]
    source = tmp_path / "clip.tif"
    pages = [Image.fromarray(image) for image in frames]
    pages[0].save(source, save_all=True, append_images=pages[1:])
    (summary,) = predict_files([source], tmp_path / "out", bundle, ["video", "json"], crop="none")
    assert (summary["frames"], summary["unlike_training"]) == (4, 2)
    table = pd.read_csv(tmp_path / "out" / "clip.csv")
    assert list(table["unlike_training"]) == [0, 1, 0, 1]
    said = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert [frame["unlike_training"] for frame in said["frames"]] == [False, True, False, True]
    assert [frame["drift"] for frame in said["frames"]] == list(table["drift"])
    assert "drift" not in {key for key in said if key != "frames"}
