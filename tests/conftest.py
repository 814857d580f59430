"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets, or a skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("EDGEFUSION_DATA", default))
    if not root.is_dir():
        pytest.skip(f"real data not present at {root}; set EDGEFUSION_DATA to its folder")
    return root
