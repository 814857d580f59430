"""What this machine and this installation are, without importing torch."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import edgefusion

_PARTS = ("torch", "monai", "lightning", "numpy", "numba", "opencv-python-headless", "pandas", "scikit-learn", "scipy")


def environment() -> dict[str, Any]:
    """Versions, processor and cores: what a reader needs in order to judge a measured number."""
    return {
        "edgefusion": edgefusion.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in _PARTS},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # Not Linux: the platform module knows what there is to know.
    return platform.processor() or "unknown"
