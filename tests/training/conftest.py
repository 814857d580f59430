"""A study so small that training on it takes seconds: bright discs on noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgefusion.data.study import Study, frames_table, store_frame


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _make_discs(folder: Path, name: str, prefix: str, seed: int) -> Study:
    """Six patients with six frames each, the last of each without a nerve; frames of two sizes."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(6):
        shape = (48, 64) if patient % 2 else (60, 80)
        for frame in range(6):
            mask = np.zeros(shape, np.uint8)
            if frame < 5:
                centre = (int(rng.integers(20, shape[1] - 20)), int(rng.integers(18, shape[0] - 18)))
                cv2.circle(mask, centre, 9, 1, -1)
            image = np.clip(rng.normal(70, 20, shape) + 110 * mask, 0, 255).astype(np.uint8)
            rows.append(store_frame(folder, f"{patient}_{frame}", f"{prefix}{patient}", image, mask))
    study = Study(folder, name, ["nerve"], "simulated", "none", frames_table(rows))
    study.save()
    return Study.load(folder)


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return _make_discs(tmp_path_factory.mktemp("discs") / "study", "discs", "", 0)


@pytest.fixture(scope="session")
def other_discs(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Other patients, other frames: who was trained on ``discs`` knows none of them."""
    return _make_discs(tmp_path_factory.mktemp("other-discs") / "study", "other", "other ", 1)
