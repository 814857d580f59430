"""Train the denoisers of learned diffusion: on real frames without labels, on phantoms with their clean truth, and
EdgeFusion-UNet itself as one, as a start for segmentation.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
edgefusion phantom -o runs/pretraining-phantoms --patients 500 --frames 3 --seed 1
python benchmarks/denoisers.py runs/kaggle -o runs/learned-diffusion

Real frames are those of the 21 patients that are neither judged in the ablation nor in the final comparison. Trainings
resume. What the denoisers are good for is asked by ``denoising_quality.py`` and ``learned_diffusion.py``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgefusion.arrays import as_unit
from edgefusion.channels.recipe import cached_stacks
from edgefusion.config import ChannelRecipe, SplitConfig
from edgefusion.data.readers import read_frame
from edgefusion.data.splits import make_splits
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.files import atomic_path
from edgefusion.models.blocks import PRIOR_LOGIT
from edgefusion.models.costs import measure
from edgefusion.models.denoiser import FIRST, Denoiser, denoise, denoising_loss, draw_timesteps, grey_scale
from edgefusion.models.edgefusion_unet import EdgeFusionUNet
from edgefusion.progress import say

SPLIT = SplitConfig(
    validation_patients=("6", "11", "16", "21", "22", "26", "31", "46"),
    without_patients=("3", "8", "13", "18", "23", "28", "33", "38", "43"),
)
SIZE = (96, 128)
BATCH, PEAK, WARM = 16, 2e-3, 100
SAVED = 100
"""Steps between two checkpoints."""
CHOOSING = 40
"""The last so many patients of the phantom study are not learnt from: they choose timesteps and diffusion times."""
KINDS = ("frames", "phantoms", "start")

Plane = NDArray[np.float32]
Filter = Callable[[Plane], Plane]


class Blind(nn.Module):
    """EdgeFusion-UNet as a denoiser that is not told the timestep: its mask becomes the velocity."""

    def __init__(self, network: EdgeFusionUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        velocity: Tensor = self.network(noisy).mask - PRIOR_LOGIT
        return velocity


def fit(network: nn.Module, source: Tensor, target: Tensor, file: Path, steps: int, seed: int = 0) -> None:
    """Train by ``denoising_loss`` on N×1×H×W grey levels and their targets, and write the weights.

    Beside ``file`` lies the state of a training that is under way; one that was interrupted goes on from it.
    """
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=1e-2)
    under_way = file.with_name(f"{file.stem}-under-way.safetensors")
    done = _read_state(under_way, network, optimizer) if under_way.is_file() else 0
    started, losses = time.monotonic(), []
    network.train()
    for step in range(done, steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(source), (BATCH,), generator=generator)
        pair = torch.cat([source[chosen], target[chosen]], 1)
        mirrored = torch.rand(BATCH, 1, 1, 1, generator=generator) < 0.5
        seen, wanted = torch.where(mirrored, pair.flip(3), pair).split(1, 1)
        mean, deviation = grey_scale(seen)
        seen, wanted = (seen - mean) / deviation, (wanted - mean) / deviation
        timesteps, noise = draw_timesteps(BATCH, generator), torch.randn(seen.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(1.0, (step + 1) / WARM) * (1 + math.cos(math.pi * step / steps)) / 2
        torch.manual_seed(seed * 1_000_003 + step)  # dropout
        with torch.autocast("cpu", torch.bfloat16):
            loss = denoising_loss(network, seen, wanted, timesteps, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % SAVED == 0:
            _write_state(under_way, network, optimizer, step + 1)
            left = (time.monotonic() - started) / (step + 1 - done) * (steps - step - 1)
            say(f"{file.stem}: step {step + 1}/{steps}, loss {np.mean(losses[-SAVED:]):.3f}, about {left:.0f} s left")
    _write(file, network.state_dict())
    under_way.unlink(missing_ok=True)


def _write_state(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["step"] = torch.tensor(step)
    _write(file, tensors)


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    with atomic_path(file) as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}))


def _read_state(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(file)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    start = len("network.")
    network.load_state_dict({name[start:]: value for name, value in tensors.items() if name.startswith("network.")})
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(tensors["step"])


def real_frames(folder: Path) -> Tensor:
    """Raw frames of the training patients; their masks are not looked at."""
    study = Study.load(folder)
    split = make_splits(study, SPLIT)[0]
    assert not {*split.train} & {*SPLIT.validation_patients, *SPLIT.without_patients}
    return torch.from_numpy(cached_stacks(study, split.train_frames(study), ChannelRecipe(), study.cache)).float()


def phantoms(folder: Path, choosing: bool) -> tuple[Study, pd.DataFrame]:
    """The phantom study and the rows of the frames to learn from, or of those that choose."""
    study = Study.load(folder)
    last = list(dict.fromkeys(study.frames["patient_id"]))[-CHOOSING:]
    return study, study.frames[study.frames["patient_id"].isin(last) == choosing]


def small(image: NDArray[Any]) -> Plane:
    return np.asarray(cv2.resize(as_unit(image), SIZE[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--phantoms", type=Path, default=Path("runs/pretraining-phantoms"))
    parser.add_argument("--only", default=",".join(KINDS), help="some of the trainings")
    parser.add_argument("--steps", type=int, default=1200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for kind in given.only.split(","):
        file = given.output / f"{kind}.safetensors"
        if file.is_file():
            say(f"{kind} is complete already")
            continue
        torch.manual_seed(0)
        network = Blind(EdgeFusionUNet(1, 1, presence_head=False)) if kind == "start" else Denoiser()
        if kind == "phantoms":
            study, rows = phantoms(given.phantoms, choosing=False)
            ids = list(rows["frame_id"])
            source = torch.from_numpy(cached_stacks(study, ids, ChannelRecipe(), study.cache)).float()
            clean = [small(read_frame(study.path / name)) for name in rows["clean"]]
            target = torch.from_numpy(np.stack(clean))[:, None]
        else:
            source = target = real_frames(given.study)
        say(f"{kind}: {len(source)} frames, {measure_denoiser(network)}")
        fit(network, source, target, file, given.steps)


def measure_denoiser(network: nn.Module) -> str:
    counted = network.network if isinstance(network, Blind) else _AtOnce(network)
    costs = measure(counted, 1, *SIZE)
    return f"{costs['parameters']} parameters, {costs['multiply_adds'] / 1e9:.3f} G multiply-adds"


class _AtOnce(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        velocity: Tensor = self.network(x, torch.full((len(x),), FIRST))
        return velocity


def trained(network: nn.Module, file: Path) -> nn.Module:
    """``network`` with the weights of a complete training, in evaluation mode."""
    if not file.is_file():
        raise UsageError(f"There is no denoiser {file}.", "Train it with benchmarks/denoisers.py.")
    network.load_state_dict(load_file(file))
    return network.eval().to(memory_format=torch.channels_last)


def one_step(network: nn.Module, timestep: int, noise: bool) -> Filter:
    """The network as a filter of frames at its own size; ``noise`` is drawn alike for every frame."""

    def run(frame: Plane) -> Plane:
        generator = torch.Generator().manual_seed(0) if noise else None
        return denoise(network, torch.from_numpy(frame)[None, None], timestep, generator)[0, 0].numpy()

    return run


if __name__ == "__main__":
    main()
