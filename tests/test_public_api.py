from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import edgefusion as ef


@pytest.mark.parametrize("name", [name for name in ef.__all__ if not name.startswith("_")])
def test_every_public_name_is_there_and_explains_itself(name: str) -> None:
    function = getattr(ef, name)
    assert callable(function)
    assert "Args:" in (inspect.getdoc(function) or "")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="despekle"):
        _ = ef.despekle


def test_despeckle_and_edge_map_need_no_torch() -> None:
    code = (
        "import sys, numpy as np, edgefusion as ef\n"
        "image = (np.arange(60 * 80) % 251).reshape(60, 80).astype('uint8')\n"
        "denoised = ef.despeckle(image)\n"
        "edges = ef.edge_map(image, denoised)\n"
        "assert denoised.shape == edges.shape == image.shape and 0 <= edges.min() and edges.max() <= 1\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
