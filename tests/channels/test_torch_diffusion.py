"""The tensor filters against the compiled ones."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from edgefusion.channels.diffusion import despeckle
from edgefusion.channels.torch_diffusion import despeckle_tensor
from edgefusion.errors import UsageError


def frames(shape: tuple[int, int], count: int = 2) -> np.ndarray:
    rng = np.random.default_rng(3)
    smooth = np.cumsum(rng.normal(0, 0.02, (count, *shape)), axis=2)
    return np.clip(0.5 + smooth + rng.normal(0, 0.1, (count, *shape)), 0, 1).astype(np.float32)


@pytest.mark.parametrize("method", ["srad", "dpad"])
@pytest.mark.parametrize("shape", [(60, 75), (1, 40), (33, 1)])
@pytest.mark.parametrize("time", [2.0, 10.0, 20.0])
def test_agrees_with_the_compiled_filter(method: str, shape: tuple[int, int], time: float) -> None:
    images = frames(shape)
    result = despeckle_tensor(torch.from_numpy(images)[:, None], method, time=time).numpy()[:, 0]
    for tensor, image in zip(result, images, strict=True):
        assert np.abs(tensor - despeckle(image, method, time=time)).max() < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_agrees_on_a_gpu() -> None:
    images = torch.from_numpy(frames((60, 75)))[:, None]
    on_gpu = despeckle_tensor(images.cuda(), "dpad").cpu()
    assert (on_gpu - despeckle_tensor(images, "dpad")).abs().max() < 1e-4


def test_gradients_flow() -> None:
    images = torch.from_numpy(frames((20, 20)))[:, None].requires_grad_()
    despeckle_tensor(images, "srad", time=2, cycles=2).square().sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("method", ["srad", "dpad"])
def test_constant_frames_stay(method: str, level: float) -> None:
    images = torch.full((1, 1, 12, 13), level)
    torch.testing.assert_close(despeckle_tensor(images, method), images)


def test_wrong_use_is_explained() -> None:
    with pytest.raises(UsageError, match="B×1×H×W"):
        despeckle_tensor(torch.zeros(3, 4))
    with pytest.raises(UsageError, match="osrad"):
        despeckle_tensor(torch.zeros(1, 1, 3, 4), "osrad")


def test_other_channels_do_not_import_torch() -> None:
    code = "import sys, edgefusion.channels.recipe, edgefusion.channels.quality; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
