"""Stacks of channels, and their cache."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from edgefusion.channels.diffusion import METHODS, despeckle
from edgefusion.channels.edges import DENOISER, edge_map
from edgefusion.channels.recipe import build_stack, cached_stacks, check_channels
from edgefusion.config import CHANNELS, ChannelRecipe
from edgefusion.errors import UsageError


class FakeStudy:
    """As much of a study as the cache needs; counts how often a frame is read."""

    path = Path("study")

    def __init__(self, count: int = 4) -> None:
        rng = np.random.default_rng(0)
        self.images = {f"f{i}": rng.integers(0, 256, (30 + i, 40), dtype=np.uint8) for i in range(count)}
        self.frames = pd.DataFrame({"frame_id": list(self.images), "sha256": [f"{i:064x}" for i in range(count)]})
        self.reads = 0

    def image(self, frame_id: str) -> NDArray[np.uint8]:
        self.reads += 1
        return self.images[frame_id]


RECIPE = ChannelRecipe(channels=("raw", "dpad", "edges"), height=24, width=32)


@pytest.mark.parametrize("resolution", ["frame", "network"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_channel(resolution: str, dtype: type) -> None:
    image = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (50, 61), dtype=dtype)
    recipe = ChannelRecipe(channels=CHANNELS, height=24, width=32, resolution=resolution)  # type: ignore[arg-type]
    stack = build_stack(image, recipe)
    assert stack.shape == (len(CHANNELS), 24, 32)
    assert stack.dtype == np.float32
    assert stack.min() >= 0
    assert stack.max() <= 1
    np.testing.assert_array_equal(stack, build_stack(image, recipe, threads=1))


def test_filters_run_before_or_after_resizing() -> None:
    image = np.random.default_rng(2).integers(0, 256, (50, 64), dtype=np.uint8)
    small = lambda plane: cv2.resize(plane, (32, 24), interpolation=cv2.INTER_AREA)  # noqa: E731
    denoised = despeckle(image, "dpad", time=10 * (64 / 580) ** 2)
    before = build_stack(image, RECIPE)
    np.testing.assert_allclose(before[0], small(image / np.float32(255)), atol=1e-6)
    np.testing.assert_allclose(before[1], small(denoised), atol=1e-6)
    np.testing.assert_allclose(before[2], small(edge_map(image, denoised)), atol=1e-6)
    after = build_stack(image, ChannelRecipe(RECIPE.channels, 24, 32, "network"))
    np.testing.assert_allclose(after[1], despeckle(before[0], "dpad", time=10 * (32 / 580) ** 2), atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_diffusion_time_follows_the_width(name: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (50, 580), dtype=np.uint8)
    half = cv2.resize(image, (290, 25), interpolation=cv2.INTER_AREA)
    as_it_is = build_stack(image, ChannelRecipe((name,), *image.shape, time=8.0))
    np.testing.assert_array_equal(as_it_is[0], despeckle(image, name, time=8.0))
    # Half as wide, whether it came so or was made so: a quarter of the time.
    small = build_stack(half, ChannelRecipe((name,), *half.shape, time=8.0))
    np.testing.assert_array_equal(small[0], despeckle(half, name, time=2.0))
    resized = build_stack(image, ChannelRecipe((name,), 25, 290, "network", time=8.0))
    first = build_stack(image, ChannelRecipe(("raw",), 25, 290))
    np.testing.assert_array_equal(resized[0], despeckle(first[0], name, time=2.0))


@pytest.mark.parametrize(("name", "method"), [("edges", "fused"), ("icov", "icov"), ("canny", "canny")])
def test_edges_without_their_filter_take_its_time_from_the_recipe(name: str, method: str) -> None:
    image = np.random.default_rng(4).integers(0, 256, (50, 64), dtype=np.uint8)
    denoiser = DENOISER[method]
    assert denoiser
    denoised = despeckle(image, denoiser, time=300 * (64 / 580) ** 2)
    alone = build_stack(image, ChannelRecipe((name,), *image.shape, time=300.0))
    np.testing.assert_array_equal(alone[0], edge_map(image, denoised, method))


def test_a_channel_may_come_more_than_once() -> None:
    image = np.random.default_rng(5).integers(0, 256, (50, 64), dtype=np.uint8)
    stack = build_stack(image, ChannelRecipe(("raw", "edges", "raw", "edges"), 24, 32))
    np.testing.assert_array_equal(stack[:2], stack[2:])
    np.testing.assert_array_equal(build_stack(image, ChannelRecipe(("raw", "raw", "raw"), 24, 32)), stack[[0, 0, 0]])


def test_duplicate_channels_are_cached(tmp_path: Path) -> None:
    stacks = cached_stacks(FakeStudy(1), ["f0"], ChannelRecipe(("raw",) * 3, 24, 32), tmp_path)  # type: ignore[arg-type]
    assert stacks.shape == (1, 3, 24, 32)
    np.testing.assert_array_equal(stacks[0, 0], stacks[0, 2])


def test_the_key_tells_times_apart() -> None:
    assert ChannelRecipe(time=5.0).key() != ChannelRecipe().key()


def test_a_recipe_from_before_the_time_reads() -> None:
    old = {"channels": ["raw", "dpad"], "height": 24, "width": 32, "resolution": "frame"}
    assert ChannelRecipe.from_dict(old) == ChannelRecipe(("raw", "dpad"), 24, 32, time=10.0)


def test_unknown_channel_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'edges'"):
        check_channels(["raw", "edge"])
    with pytest.raises(UsageError, match="empty"):
        build_stack(np.zeros((4, 4), dtype=np.uint8), ChannelRecipe(channels=()))


def test_cache_is_filled_once_and_keeps_the_order(tmp_path: Path) -> None:
    study = FakeStudy()
    ids = ["f2", "f0", "f3"]
    first = cached_stacks(study, ids, RECIPE, tmp_path)  # type: ignore[arg-type]
    assert first.shape == (3, 3, 24, 32)
    assert first.dtype == np.float16
    assert study.reads == 3
    again = cached_stacks(study, ids[::-1], RECIPE, tmp_path)  # type: ignore[arg-type]
    assert study.reads == 3
    np.testing.assert_array_equal(again, first[::-1])
    np.testing.assert_allclose(first[0], build_stack(study.images["f2"], RECIPE), atol=1e-3)


def test_another_recipe_is_another_entry(tmp_path: Path) -> None:
    study = FakeStudy(1)
    cached_stacks(study, ["f0"], RECIPE, tmp_path)  # type: ignore[arg-type]
    other = cached_stacks(study, ["f0"], ChannelRecipe(("raw",), 24, 32), tmp_path)  # type: ignore[arg-type]
    assert other.shape == (1, 1, 24, 32)
    assert study.reads == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_damaged_entry_is_built_again_with_a_warning(tmp_path: Path, damage: str) -> None:
    study = FakeStudy(1)
    expected = cached_stacks(study, ["f0"], RECIPE, tmp_path)  # type: ignore[arg-type]
    entry = tmp_path / RECIPE.key() / f"{0:064x}"
    content = bytearray(entry.read_bytes())
    content[-5] ^= 1
    entry.write_bytes({"flip": bytes(content), "cut": entry.read_bytes()[:500], "empty": b"", "text": b"hello"}[damage])
    with pytest.warns(RuntimeWarning, match="damaged"):
        again = cached_stacks(study, ["f0"], RECIPE, tmp_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again, expected)
    assert study.reads == 2
    cached_stacks(study, ["f0"], RECIPE, tmp_path)  # type: ignore[arg-type]
    assert study.reads == 2


def test_entry_of_an_older_version_is_built_again_silently(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    study = FakeStudy(1)
    cached_stacks(study, ["f0"], RECIPE, tmp_path)  # type: ignore[arg-type]
    entry = tmp_path / RECIPE.key() / f"{0:064x}"
    entry.write_bytes(b"edgefusion stack 0\n" + entry.read_bytes().split(b"\n", 1)[1])
    cached_stacks(study, ["f0"], RECIPE, tmp_path)  # type: ignore[arg-type]
    assert study.reads == 2
    assert not [warning for warning in recwarn if "damaged" in str(warning.message)]


def test_frames_outside_the_study_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Frame 'x' is not in study"):
        cached_stacks(FakeStudy(), ["f0", "x"], RECIPE, tmp_path)  # type: ignore[arg-type]


def test_no_frames_give_an_empty_array(tmp_path: Path) -> None:
    assert cached_stacks(FakeStudy(), [], RECIPE, tmp_path).shape == (0, 3, 24, 32)  # type: ignore[arg-type]
