"""The scripts in ``benchmarks`` that train the denoisers and use them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgefusion.channels import recipe
from edgefusion.channels.diffusion import METHODS
from edgefusion.config import ChannelRecipe
from edgefusion.errors import UsageError
from edgefusion.files import write_json
from edgefusion.models.denoiser import Denoiser, denoise, draw_timesteps

FOLDER = Path(__file__).parents[2] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    file = FOLDER / f"{name}.py"
    if not file.is_file():
        pytest.skip("not a source tree")
    monkeypatch.syspath_prepend(FOLDER)  # these scripts build on each other
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_denoiser_whose_training_was_cut_short_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoisers = script("denoisers", monkeypatch)
    monkeypatch.setattr(denoisers, "SAVED", 2)
    frames = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    def fit(name: str, halt: int | None = None) -> dict[str, torch.Tensor]:
        steps = iter(range(100))

        def timesteps(*arguments: Any) -> torch.Tensor:
            if next(steps) == halt:
                raise KeyboardInterrupt
            return draw_timesteps(*arguments)

        monkeypatch.setattr(denoisers, "draw_timesteps", timesteps)
        torch.manual_seed(0)
        denoisers.fit(Denoiser((8, 8)), frames, frames, tmp_path / f"{name}.safetensors", steps=5)
        return load_file(tmp_path / f"{name}.safetensors")

    undisturbed = fit("undisturbed")
    with pytest.raises(KeyboardInterrupt):
        fit("disturbed", halt=3)
    with pytest.raises(UsageError, match="no denoiser"):
        denoisers.trained(Denoiser((8, 8)), tmp_path / "disturbed.safetensors")
    resumed = fit("disturbed")
    assert all(torch.equal(resumed[name], value) for name, value in undisturbed.items())
    assert {file.name for file in tmp_path.iterdir()} == {"undisturbed.safetensors", "disturbed.safetensors"}
    network = denoisers.trained(Denoiser((8, 8)), tmp_path / "disturbed.safetensors")
    filtered = denoisers.one_step(network, 200, noise=False)(frames[0, 0].numpy())
    assert filtered.shape == (16, 16)
    assert not network.training


def test_learned_channels_are_made_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = script("learned_diffusion", monkeypatch)
    monkeypatch.setattr(recipe, "CHANNELS", recipe.CHANNELS)
    chosen = {}
    for kind, title in learned.LEARNED.items():
        network = Denoiser()
        torch.nn.init.normal_(network.head.weight, std=0.05)
        save_file(network.state_dict(), tmp_path / f"{kind}.safetensors")
        chosen[title] = {"timestep": 200, "noise": False}
    write_json(tmp_path / "chosen.json", chosen)
    before = dict(METHODS)
    try:
        names = learned._learned_channels(SimpleNamespace(output=tmp_path))
        assert len(set(names.values())) == 2
        image = np.random.default_rng(0).integers(0, 256, (185, 256)).astype(np.uint8)
        stack = recipe.build_stack(image, ChannelRecipe(("raw", *names.values())))
    finally:
        for name in METHODS.keys() - before.keys():
            del METHODS[name]
    raw = torch.from_numpy(stack[:1])[None]
    for plane, kind in zip(stack[1:], learned.LEARNED, strict=True):
        network = Denoiser().eval()
        network.load_state_dict(load_file(tmp_path / f"{kind}.safetensors"))
        np.testing.assert_allclose(plane, denoise(network, raw, 200)[0, 0].numpy(), atol=1e-4)
        assert np.abs(plane - stack[0]).max() > 0.01
