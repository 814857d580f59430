"""Pictures and folders that the tests of the data room are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Picture = NDArray[Any]


def tissue(seed: int, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """A frame with structures of the size that real ones have; another seed is another place."""
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), height / 25)
    return np.clip(120 + 40 * smooth / smooth.std(), 12, 255).astype(np.uint8)


def disc(height: int = 60, width: int = 80, radius: int = 10, value: int = 255) -> NDArray[np.uint8]:
    """A mask with one round nerve in the middle."""
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), radius, value, -1)
    return mask


def save(path: Path, pixels: Picture) -> Path:
    """Write a picture in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def make_tissue() -> Callable[..., NDArray[np.uint8]]:
    return tissue


@pytest.fixture
def make_disc() -> Callable[..., NDArray[np.uint8]]:
    return disc


@pytest.fixture
def save_picture() -> Callable[[Path, Picture], Path]:
    return save


@pytest.fixture
def kaggle_folder(tmp_path: Path) -> Path:
    """Two patients with two frames each, 1_2 without a nerve."""
    folder = tmp_path / "source"
    for seed, name in enumerate(("1_1", "1_2", "2_1", "2_2")):
        save(folder / f"{name}.tif", tissue(seed))
        save(folder / f"{name}_mask.tif", disc() if name != "1_2" else np.zeros((60, 80), np.uint8))
    return folder
