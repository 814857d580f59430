"""A real Ray cluster of two nodes on the loopback, started once, and a study so small that training takes a second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgefusion.data.study import Study, frames_table, store_frame

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of this folder in one process of pytest-xdist, so that they share the cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("cluster"))


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
