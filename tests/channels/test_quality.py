"""Quality figures on cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgefusion.channels import quality
from edgefusion.errors import UsageError

RNG = np.random.default_rng(0)
EVERYWHERE = np.ones((64, 64), dtype=bool)


def test_enl_of_gamma_noise_is_its_number_of_looks() -> None:
    image = RNG.gamma(4.0, 0.1, (256, 256))
    assert quality.enl(image, np.ones_like(image, dtype=bool)) == pytest.approx(4, rel=0.03)


def test_enl_of_a_flat_region_is_not_a_number() -> None:
    assert math.isnan(quality.enl(np.full((64, 64), 0.5), EVERYWHERE))


def test_suppression_indices() -> None:
    before = 0.5 + RNG.normal(0, 0.1, (64, 64))
    after = 0.5 + (before - 0.5) / 4 + 0.1
    spread = before.std() / 4
    assert quality.ssi(before, after) == pytest.approx((spread / after.mean()) / (before.std() / before.mean()))
    assert quality.smpi(before, after) == pytest.approx((1 + abs(before.mean() - after.mean())) / 4)
    assert quality.ssi(before, before) == pytest.approx(1)


def test_contrast_to_noise() -> None:
    image = RNG.normal(0.3, 0.05, (64, 64))
    left = np.zeros((64, 64), dtype=bool)
    left[:, :32] = True
    image[left] += 0.4
    assert quality.cnr(image, left, ~left) == pytest.approx(0.4 / math.hypot(0.05, 0.05), rel=0.1)
    assert quality.gcnr(image, left, ~left) > 0.99
    # A change of contrast raises CNR or lowers it, but not gCNR.
    assert quality.gcnr(image**3, left, ~left) == pytest.approx(quality.gcnr(image, left, ~left), abs=0.03)


def test_gcnr_of_one_distribution_is_near_zero() -> None:
    image = RNG.random((400, 400))
    left = np.zeros(image.shape, dtype=bool)
    left[:, :200] = True
    assert quality.gcnr(image, left, ~left) < 0.07


def test_edge_preservation() -> None:
    clean = RNG.random((40, 40))
    assert quality.epi(clean, clean) == pytest.approx(1)
    assert quality.epi(0.2 + 0.5 * clean, clean) == pytest.approx(1)
    assert abs(quality.epi(RNG.random((40, 40)), clean)) < 0.15


def test_psnr_and_affine_fit() -> None:
    clean = RNG.random((50, 50))
    assert quality.psnr(clean + 0.1, clean) == pytest.approx(20)
    assert quality.psnr(clean, clean) == math.inf
    assert quality.psnr(quality.affine_fit(0.3 * clean + 0.2, clean), clean) > 200
    np.testing.assert_allclose(quality.affine_fit(np.full_like(clean, 0.5), clean), clean.mean())


def test_ssim() -> None:
    clean = RNG.random((50, 50))
    assert quality.ssim(clean, clean) == pytest.approx(1)
    assert quality.ssim(1 - clean, clean) < 0
    c1 = 0.01**2
    a, b = np.full((30, 30), 0.2), np.full((30, 30), 0.6)
    assert quality.ssim(a, b) == pytest.approx((2 * 0.12 + c1) / (0.04 + 0.36 + c1))


def test_homogeneous_region_is_found() -> None:
    image = np.clip(RNG.normal(0.5, 0.2, (100, 120)), 0, 1)
    image[60:95, 70:110] = 0.5 + RNG.normal(0, 0.01, (35, 40))
    rows, columns = np.nonzero(quality.homogeneous_region(image))
    assert len(rows) == 32 * 32
    assert rows.min() >= 60
    assert rows.max() < 95
    assert columns.min() >= 70
    assert columns.max() < 110


@pytest.mark.parametrize("shape", [(1, 1), (5, 90), (90, 5)])
def test_describe_small_frames(shape: tuple[int, int]) -> None:
    image = RNG.random(shape)
    assert set(quality.describe(image, image)) == {"enl_before", "enl_after", "ssi", "smpi"}


def lines(*columns: int) -> np.ndarray:
    edges = np.zeros((40, 60), dtype=bool)
    edges[:, list(columns)] = True
    return edges


def test_perfect_edges() -> None:
    scores = quality.edge_scores([lines(20) * 0.8], [lines(20)], [lines(20)])
    assert scores.ods_f == pytest.approx(1)
    assert scores.average_precision == pytest.approx(1)
    assert scores.wall_recall == pytest.approx(1)
    assert scores.threshold == pytest.approx(0.8, abs=0.01)


def test_edges_within_tolerance_count() -> None:
    assert quality.edge_scores([lines(24) * 1.0], [lines(20)]).ods_f == pytest.approx(1)
    assert quality.edge_scores([lines(25) * 1.0], [lines(20)]).ods_f == 0


def test_half_of_the_detections_and_half_of_the_truth() -> None:
    # Column 20 is right, column 40 is false, and the true column 55 is missed.
    scores = quality.edge_scores([lines(20, 40) * 1.0], [lines(20, 55)], [lines(55)])
    assert scores.ods_f == pytest.approx(0.5)
    assert scores.average_precision == pytest.approx(0.25)
    assert scores.wall_recall == 0


def test_strong_true_edges_before_weak_false_ones() -> None:
    edges = lines(20) * 1.0 + lines(40) * 0.5
    scores = quality.edge_scores([edges], [lines(20)])
    assert scores.ods_f == pytest.approx(1)
    assert scores.threshold > 0.5
    assert math.isnan(scores.wall_recall)


def test_empty_map_scores_zero() -> None:
    scores = quality.edge_scores([np.zeros((40, 60))], [lines(20)])
    assert scores.ods_f == 0
    assert scores.average_precision == 0


def test_outline_touches_the_background_only() -> None:
    mask = np.zeros((10, 10), dtype=np.uint8)
    mask[2:6, 0:4] = 1
    edge = quality.outline(mask)
    assert edge.sum() == 4 * 4 - 2 * 3
    assert not edge[3:5, 0:3].any()


def test_wrong_sizes_are_explained() -> None:
    with pytest.raises(UsageError, match="one size"):
        quality.psnr(np.zeros((3, 3)), np.zeros((4, 4)))
    with pytest.raises(UsageError, match="empty"):
        quality.enl(np.zeros((64, 64)), ~EVERYWHERE)
    with pytest.raises(UsageError, match="edge maps"):
        quality.edge_scores([], [lines(1)])
