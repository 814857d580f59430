from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefusion.inference.shapes import fit_shapes, project

SIZE = (24, 32)


def discs(seed: int, count: int = 30) -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: 2 * SIZE[0], : 2 * SIZE[1]]
    centres = zip(generator.uniform(14, 34, count), generator.uniform(14, 50, count), strict=True)
    return [(rows - row) ** 2 + (columns - column) ** 2 < 100 for row, column in centres]


@pytest.fixture
def noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).random(SIZE, dtype=np.float32)


def test_components_are_orthonormal_and_ordered() -> None:
    masks = discs(0)
    shapes = fit_shapes(masks, SIZE, 8)
    basis = shapes.components.reshape(8, -1).astype(float)
    np.testing.assert_allclose(basis @ basis.T, np.eye(8), atol=1e-4)
    small = np.stack([mask.reshape(SIZE[0], 2, SIZE[1], 2).mean((1, 3)) for mask in masks])
    np.testing.assert_allclose(shapes.mean, small.mean(0), atol=1e-6)
    spread = ((small - small.mean(0)).reshape(len(masks), -1) @ basis.T).var(0)
    assert (np.diff(spread) <= 1e-6).all()


def test_training_masks_survive_a_full_basis_and_noise_does_not(noise: NDArray[np.float32]) -> None:
    masks = discs(0)
    shapes = fit_shapes(masks, SIZE, 1000)
    # Centred, thirty masks span 29 dimensions.
    assert len(shapes.components) == 29
    seen = masks[3].reshape(SIZE[0], 2, SIZE[1], 2).mean((1, 3)).astype(np.float32)
    np.testing.assert_allclose(project(seen, shapes), seen, atol=1e-4)
    assert np.abs(project(noise, shapes) - noise).mean() > 0.2


def test_what_was_projected_is_in_the_subspace(noise: NDArray[np.float32]) -> None:
    shapes = fit_shapes(discs(1), SIZE, 5)
    # Close to the mean nothing is clipped.
    near = (shapes.mean * 0.5 + 0.25 + 0.1 * noise).astype(np.float32)
    once = project(near, shapes)
    clipped = (once == 0) | (once == 1)
    assert not clipped.all()
    again = project(once, shapes)
    assert np.abs(again - once).max() <= np.abs(once - near).max()
    assert once.dtype == np.float32
    assert (once.min(), once.max()) >= (0, 0)
    assert once.max() <= 1


def test_fewer_components_are_the_first_ones() -> None:
    many, few = fit_shapes(discs(2), SIZE, 9), fit_shapes(discs(2), SIZE, 4)
    np.testing.assert_allclose(np.abs(many.first(4).components), np.abs(few.components), atol=1e-4)


def test_masks_that_are_all_alike_have_no_components(noise: NDArray[np.float32]) -> None:
    mask = discs(0, 1)[0]
    shapes = fit_shapes([mask, mask, mask], SIZE, 4)
    assert len(shapes.components) == 0
    np.testing.assert_array_equal(project(noise, shapes), shapes.mean)
