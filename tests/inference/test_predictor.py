from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import edgefusion
from edgefusion import bundles
from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.data.clip import Region
from edgefusion.errors import BundleError, UsageError
from edgefusion.inference.predictor import BATCH, Prediction, Predictor, load
from edgefusion.models.blocks import SegmentationOutput
from edgefusion.models.zoo import build_model

MakeBundle = Callable[..., Bundle]


def rectangle() -> NDArray[np.bool_]:
    truth = np.zeros((105, 145), dtype=bool)
    truth[30:60, 40:100] = True
    return truth


def assert_same(one: Prediction, other: Prediction) -> None:
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-6)
    np.testing.assert_allclose(one.edge_probability, other.edge_probability, atol=1e-6)
    np.testing.assert_allclose(one.presence, other.presence, atol=1e-6)
    assert (one.area_px, one.area_mm2, one.labels) == (other.area_px, other.area_mm2, other.labels)


class Answer(nn.Module):
    """Gives the same logits for every frame."""

    def __init__(self, mask: Tensor, boundary: Tensor | None = None, presence: Tensor | None = None) -> None:
        super().__init__()
        self.output = (mask, boundary, presence)

    def forward(self, x: Tensor) -> SegmentationOutput:
        return SegmentationOutput(*(part if part is None else part.expand(len(x), *part.shape) for part in self.output))


def halves() -> Tensor:
    """Two labels that overlap in the middle third; the first is surer on the left, the second on the right."""
    logits = torch.full((2, 48, 64), -9.0)
    logits[0, :, :43] = torch.linspace(6, 2, 43)
    logits[1, :, 21:] = torch.linspace(2, 6, 43)
    return logits


def test_a_bright_region_is_found_at_the_frames_own_size(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    found = Predictor(make_bundle()).predict(frame)
    assert found.mask.shape == frame.shape
    assert found.mask.dtype == np.uint8
    assert found.probability.shape == found.edge_probability.shape == (1, *frame.shape)
    assert found.probability.dtype == found.edge_probability.dtype == np.float32
    # The network's pixels are 2.2 of the frame's, and one that the region touches counts as bright.
    truth, around = rectangle(), cv2.dilate(rectangle().astype(np.uint8), np.ones((7, 7), np.uint8))
    assert (truth <= found.mask).all()
    assert (found.mask <= around).all()
    assert found.area_px == (int(found.mask.sum()),)
    assert found.area_mm2 is None
    assert found.labels == ["nerve"]


def test_what_is_found_is_not_shifted(make_bundle: MakeBundle) -> None:
    rows, columns = np.mgrid[:421, :579]
    disc = ((rows - 200.25) ** 2 + (columns - 300.75) ** 2 < 60**2).astype(np.uint8) * 255
    found = np.argwhere(Predictor(make_bundle(gains=(1.0,))).predict(disc).mask)
    np.testing.assert_allclose(found.mean(0), (200.25, 300.75), atol=0.5)


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image.astype(np.uint16) * 257,
        lambda image: image / 255,
        lambda image: (image / 255).astype(np.float32),
        lambda image: np.repeat(image[..., None], 3, axis=2),
        np.asfortranarray,
    ],
    ids=["uint16", "float64", "float32", "RGB", "fortran"],
)
def test_every_kind_of_frame_gives_the_same(
    make_bundle: MakeBundle, frame: NDArray[np.uint8], convert: Callable[..., NDArray[np.generic]]
) -> None:
    predictor = Predictor(make_bundle())
    one, other = predictor.predict(frame), predictor.predict(convert(frame))
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-3)


def test_the_frame_is_left_alone(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    before = frame.copy()
    Predictor(make_bundle(), flip_averaging=True).predict(frame)
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("image", [np.zeros(4), np.zeros((4, 4, 2)), np.full((4, 4), 2.0), np.zeros((0, 3), np.uint8)])
def test_what_is_no_frame_is_refused(make_bundle: MakeBundle, image: NDArray[np.generic]) -> None:
    with pytest.raises(UsageError):
        Predictor(make_bundle()).predict(image)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (48, 64), (600, 20)])
def test_any_size_works(make_bundle: MakeBundle, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    assert Predictor(make_bundle()).predict(image).mask.shape == size


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_frame_without_contrast_is_no_accident(make_bundle: MakeBundle, level: int) -> None:
    found = Predictor(make_bundle()).predict(np.full((60, 80), level, dtype=np.uint8))
    assert np.isfinite(found.probability).all()
    assert np.isfinite(found.edge_probability).all()


def test_area_in_mm2(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    found = Predictor(make_bundle()).predict(frame, spacing=(0.2, 0.1))
    assert found.area_mm2 == pytest.approx((found.area_px[0] * 0.02,))


@pytest.mark.parametrize(("logit", "there"), [(-0.01, False), (0.01, True)])
def test_the_presence_head_can_empty_a_frame(
    make_bundle: MakeBundle, frame: NDArray[np.uint8], logit: float, there: bool
) -> None:
    found = Predictor(make_bundle(presence=(logit,))).predict(frame, spacing=(1, 1))
    assert found.presence == pytest.approx((1 / (1 + np.exp(-logit)),))
    assert found.mask.any() == there
    assert (found.area_px[0] > 0, found.area_mm2[0] > 0, bool(found.contours[0])) == (there,) * 3  # type: ignore[index]
    assert found.probability.max() > 0.99


def test_without_a_presence_head_the_greatest_probability_counts(
    make_bundle: MakeBundle, frame: NDArray[np.uint8]
) -> None:
    found = Predictor(make_bundle(gains=(0.3,))).predict(frame)
    assert found.presence == (pytest.approx(float(found.probability.max())),)
    # A cautious network: sure enough for a pixel, not for a label as a whole.
    strict = Predictor(make_bundle(gains=(0.3,), thresholds={"mask": 0.5, "presence": 0.9})).predict(frame)
    assert found.area_px[0] > 0 == strict.area_px[0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(low=st.floats(0.01, 0.99), high=st.floats(0.01, 0.99))
def test_a_higher_threshold_never_gives_a_larger_mask(
    make_bundle: MakeBundle, frame: NDArray[np.uint8], low: float, high: float
) -> None:
    low, high = sorted((low, high))
    masks = [
        Predictor(make_bundle(gains=(0.8,), thresholds={"mask": t, "presence": 0.0})).predict(frame).mask
        for t in (low, high)
    ]
    assert (masks[1] <= masks[0]).all()


def test_where_labels_overlap_the_more_probable_one_stands(make_bundle: MakeBundle) -> None:
    found = Predictor(make_bundle(gains=(1, 1), model=Answer(halves()))).predict(np.zeros((48, 64), np.uint8))
    expected = np.where(np.arange(64) < 32, 1, 2)
    assert (found.mask == expected).all()
    assert found.area_px == (48 * 32, 48 * 32)


def test_an_absent_label_leaves_its_pixels_to_the_others(make_bundle: MakeBundle) -> None:
    model = Answer(halves(), presence=torch.tensor([-5.0, 5.0]))
    found = Predictor(make_bundle(gains=(1, 1), model=model)).predict(np.zeros((48, 64), np.uint8))
    assert found.area_px == (0, 48 * 43)
    assert found.contours[0] == []
    assert (found.mask[:, 21:] == 2).all()


def test_a_boundary_head_gives_the_edges(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    found = Predictor(make_bundle(presence=(9.0,))).predict(frame)
    # This network's boundary head says the opposite of its mask.
    np.testing.assert_allclose(found.edge_probability, 1 - found.probability, atol=1e-5)


def test_without_a_boundary_head_edges_are_where_the_probability_steps(make_bundle: MakeBundle) -> None:
    logits = torch.full((1, 48, 64), -30.0)
    logits[:, 12:36, 16:48] = 30
    edges = Predictor(make_bundle(model=Answer(logits))).predict(np.zeros((48, 64), np.uint8)).edge_probability[0]
    assert edges.min() >= 0
    assert edges.max() <= 1
    np.testing.assert_allclose(edges[24, [15, 16, 47, 48]], 1, atol=1e-5)
    np.testing.assert_allclose(edges[[11, 12, 35, 36], 30], 1, atol=1e-5)
    assert edges[24, 17:47].max() < 1e-5
    assert edges[:10].max() < 1e-5


def test_noise_around_an_empty_frame_is_not_blown_up_to_edges(make_bundle: MakeBundle) -> None:
    logits = -8 + torch.randn(1, 48, 64, generator=torch.Generator().manual_seed(0))
    found = Predictor(make_bundle(model=Answer(logits))).predict(np.zeros((48, 64), np.uint8))
    assert found.edge_probability.max() < 0.05


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), labels=st.integers(1, 3))
def test_contours_enclose_exactly_the_mask(seed: int, labels: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(labels, 48, 64)).astype(np.float32)
    logits = torch.from_numpy(np.stack([cv2.GaussianBlur(plane, (0, 0), 4) for plane in noise]) * 50)
    bundle = Bundle(Answer(logits), "answer", ChannelRecipe(("raw",), 48, 64), ["a", "b", "c"][:labels])
    found = Predictor(bundle).predict(np.zeros((53, 71), np.uint8))
    for label in range(labels):
        region = (found.mask == label + 1).astype(np.uint8)
        outlines = [contour.astype(np.int32) for contour in found.contours[label]]
        assert all(contour.dtype == np.float32 and contour.shape[1] == 2 for contour in found.contours[label])
        assert bool(outlines) == bool(region.any())
        drawn = cv2.drawContours(np.zeros_like(region), outlines, -1, 1, cv2.FILLED) if outlines else region
        # Outer outlines: holes are the only difference.
        outside = cv2.copyMakeBorder(1 - region, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
        cv2.floodFill(outside, None, (0, 0), 2, flags=4)
        np.testing.assert_array_equal(drawn, (outside[1:-1, 1:-1] != 2).astype(np.uint8))


def test_contours_are_x_then_y(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    (outline,) = Predictor(make_bundle()).predict(frame).contours[0]
    np.testing.assert_allclose(outline.min(0), (40, 30), atol=2)
    np.testing.assert_allclose(outline.max(0), (99, 59), atol=2)


class LeftHanded(nn.Module):
    """Is drawn to the left of every frame, in all three heads."""

    def forward(self, x: Tensor) -> SegmentationOutput:
        mask = x[:, :1] + torch.linspace(2, -2, x.shape[3])
        return SegmentationOutput(mask, mask / 2, mask[..., 0].mean(2))


def test_flip_averaging_treats_left_and_right_alike(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    plain = Predictor(make_bundle(model=LeftHanded()))
    averaged = Predictor(make_bundle(model=LeftHanded()), flip_averaging=True)
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    one, other = averaged.predict(frame), averaged.predict(mirrored)
    np.testing.assert_allclose(one.probability, other.probability[..., ::-1], atol=1e-5)
    np.testing.assert_allclose(one.edge_probability, other.edge_probability[..., ::-1], atol=1e-5)
    np.testing.assert_allclose(one.presence, other.presence, atol=1e-5)
    assert np.abs(plain.predict(frame).probability - plain.predict(mirrored).probability[..., ::-1]).max() > 0.1
    mean = (plain.predict(frame).probability + plain.predict(mirrored).probability[..., ::-1]) / 2
    np.testing.assert_allclose(one.probability, mean, atol=1e-5)


def test_flip_averaging_also_without_other_heads(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    # A network that treats both sides alike gains nothing.
    assert_same(Predictor(make_bundle(), flip_averaging=True).predict(frame), Predictor(make_bundle()).predict(frame))


def test_a_batch_gives_what_each_frame_gives(make_bundle: MakeBundle) -> None:
    generator = np.random.default_rng(0)
    sizes = [(60 + i, 90 - i) for i in range(BATCH + 3)]
    images = [generator.integers(0, 255, size, dtype=np.uint8) for size in sizes]
    spacings = [(0.1, 0.1 * i) if i % 2 else None for i in range(len(images))]
    bundle = make_bundle()
    predictor = Predictor(bundle)
    together = predictor.predict_batch(images, spacings)
    assert bundle.model.batches == [BATCH, 3]
    for found, image, spacing in zip(together, images, spacings, strict=True):
        assert_same(found, predictor.predict(image, spacing))


def test_no_frames_no_predictions(make_bundle: MakeBundle) -> None:
    assert Predictor(make_bundle()).predict_batch([]) == []


def test_ready_stacks_give_the_same_and_one_by_one(make_bundle: MakeBundle, frame: NDArray[np.uint8]) -> None:
    bundle = make_bundle()
    predictor = Predictor(bundle)
    stack = build_stack(frame, bundle.recipe)
    stacks = np.repeat(stack[None].astype(np.float16), 2 * BATCH + 1, axis=0)
    predictions = predictor.predict_stacks(stacks, [frame.shape] * len(stacks), [(1.0, 1.0)] * len(stacks))
    first = next(predictions)
    assert bundle.model.batches == [BATCH]
    assert first.area_mm2 == pytest.approx(first.area_px)
    np.testing.assert_array_equal(first.mask, predictor.predict(frame).mask)
    assert len(list(predictions)) == 2 * BATCH


@pytest.mark.parametrize("shape", [(2, 2, 48, 64), (2, 1, 64, 48), (1, 48, 64)])
def test_stacks_of_another_recipe_are_refused(make_bundle: MakeBundle, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(1, 48, 64\)"):
        list(Predictor(make_bundle()).predict_stacks(np.zeros(shape, np.float32), [(9, 9)] * shape[0]))


def test_a_size_for_every_stack_is_needed(make_bundle: MakeBundle) -> None:
    with pytest.raises(UsageError, match="2 stacks came with 1 sizes"):
        list(Predictor(make_bundle()).predict_stacks(np.zeros((2, 1, 48, 64), np.float32), [(9, 9)]))


@pytest.mark.parametrize("head", range(3))
def test_a_network_that_answers_nonsense_is_no_empty_frame(make_bundle: MakeBundle, head: int) -> None:
    parts = [torch.zeros(1, 48, 64), torch.zeros(1, 48, 64), torch.zeros(1)]
    parts[head].view(-1)[0] = torch.nan
    with pytest.raises(BundleError, match="not numbers"):
        Predictor(make_bundle(model=Answer(*parts))).predict(np.zeros((9, 9), np.uint8))


def test_dropout_does_not_act_in_use(frame: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    model = build_model("edgefusion-unet", 1, 1, widths=(8,) * 4, stem_widths=(4,) * 3, dropout=0.5).train()
    predictor = Predictor(Bundle(model, "edgefusion-unet", ChannelRecipe(("raw",), 48, 64), ["nerve"]))
    assert_same(predictor.predict(frame), predictor.predict(frame))


def test_a_saved_bundle_predicts_as_before(tmp_path: Path, frame: NDArray[np.uint8]) -> None:
    arguments = {"widths": (8,) * 4, "stem_widths": (4,) * 3}
    torch.manual_seed(0)
    bundle = Bundle(
        build_model("edgefusion-unet", 2, 2, **arguments),
        "edgefusion-unet",
        ChannelRecipe(("raw", "edges"), 48, 64),
        ["nerve", "vessel"],
        model_args=arguments,
    )
    bundle.save(tmp_path / "bundle")
    loaded = edgefusion.load(tmp_path / "bundle")
    assert_same(loaded.predict(frame), Predictor(bundle).predict(frame))
    assert_same(
        load(str(tmp_path / "bundle"), flip_averaging=True).predict(frame), Predictor(bundle, True).predict(frame)
    )


def test_a_bundle_in_half_the_room_predicts_nearly_the_same(tmp_path: Path, frame: NDArray[np.uint8]) -> None:
    arguments = {"widths": (8,) * 4, "stem_widths": (4,) * 3}
    torch.manual_seed(0)
    model = build_model("edgefusion-unet", 2, 1, **arguments)
    bundle = Bundle(model, "edgefusion-unet", ChannelRecipe(("raw", "edges"), 48, 64), ["nerve"], arguments)
    bundle.save(tmp_path, half=True)
    whole, half = Predictor(bundle).predict(frame), load(tmp_path).predict(frame)
    np.testing.assert_allclose(half.probability, whole.probability, atol=2e-3)
    np.testing.assert_allclose(half.edge_probability, whole.edge_probability, atol=2e-3)
    np.testing.assert_allclose(half.presence, whole.presence, atol=2e-3)


@pytest.mark.parametrize("name", [None, "brachial-plexus", "regional"])
def test_a_bundle_that_does_not_ship_says_what_to_do(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "FOLDER", tmp_path)
    with pytest.raises(UsageError, match=rf"'{name or 'brachial-plexus'}'.*edgefusion train"):
        load(name)


def test_a_region_confines_what_is_found(make_bundle: MakeBundle) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    region = Region(top=10, left=20, height=60, width=80)
    predictor = Predictor(make_bundle())
    within, alone = predictor.predict(frame, region=region), predictor.predict(region.crop(frame))
    np.testing.assert_array_equal(region.crop(within.probability[0]), alone.probability[0])
    np.testing.assert_array_equal(region.crop(within.mask), alone.mask)
    assert within.mask.shape == frame.shape
    assert within.probability.sum() == alone.probability.sum()
    with pytest.raises(UsageError, match="does not lie"):
        predictor.predict(frame[:50], region=region)
