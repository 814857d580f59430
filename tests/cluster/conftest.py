"""A real Ray cluster of two nodes on the loopback, started once, a study so small that training takes a second, a
network that was never trained, and frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study, frames_table, store_frame, write_png
from edgefusion.inference.predictor import Predictor
from edgefusion.models.zoo import build_model

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """HOST:PORT of two nodes with one core each; nobody is connected. Node ``first`` and ``second`` are resources."""
    pytest.importorskip("ray", reason='needs Ray: pip install "edgefusion[cluster]"')
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=_node("first"))
    cluster.add_node(**_node("second"))
    yield cluster.address
    cluster.shutdown()


def _node(name: str) -> dict[str, object]:
    return {
        "num_cpus": 1,
        "resources": {name: 1.0},
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
        "env_vars": {"OMP_NUM_THREADS": "1"},
    }


@pytest.fixture(scope="session")
def few_discs(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Four patients with four frames each, 48×64; three of each four show a bright disc on noise, one shows none."""
    folder: Path = tmp_path_factory.mktemp("few") / "study"
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(4):
        for frame in range(4):
            mask = np.zeros((48, 64), np.uint8)
            if frame < 3:
                cv2.circle(mask, (int(rng.integers(20, 44)), int(rng.integers(18, 30))), 9, 1, -1)
            image = np.clip(rng.normal(70, 20, mask.shape) + 110 * mask, 0, 255).astype(np.uint8)
            rows.append(store_frame(folder, f"{patient}_{frame}", f"{patient}", image, mask))
    study = Study(folder, "discs", ["nerve"], "simulated", "none", frames_table(rows))
    study.save()
    return Study.load(folder)


def blotches(rng: np.random.Generator, height: int) -> NDArray[np.uint8]:
    noise = cv2.GaussianBlur(rng.standard_normal((height, 70)), (0, 0), 4)
    return np.clip(120 + 600 * noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was never trained: its masks are blotches that depend on every weight and pixel."""
    torch.manual_seed(0)
    arguments = {"widths": [8, 8, 8, 8], "stem_widths": [4, 4, 4]}
    recipe = ChannelRecipe(channels=("raw", "edges"), height=48, width=64, resolution="network")
    network = build_model("edgefusion-unet", 2, 1, **arguments).eval()
    bundle = Bundle(network, "edgefusion-unet", recipe, ["nerve"], arguments, {"mask": 0.5, "presence": 0.0})
    typical = float(np.median(Predictor(bundle).predict(blotches(np.random.default_rng(1), 60)).probability))
    bundle.thresholds["mask"] = typical
    folder = tmp_path_factory.mktemp("model") / "bundle"
    bundle.save(folder)
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """39 frames of different sizes, and one that is none."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for n in range(39):
        write_png(folder / f"f{n:02}.png", blotches(rng, 50 + n))
    (folder / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return folder
