"""Milliseconds a frame, stage by stage, on this machine: every network beside a plain U-Net in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgefusion.bundle import Bundle
from edgefusion.channels.diffusion import despeckle
from edgefusion.channels.edges import edge_map
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import simulate_frame
from edgefusion.environment import environment
from edgefusion.inference.predictor import Predictor
from edgefusion.models.names import MODELS, TITLES
from edgefusion.models.zoo import build_model
from edgefusion.progress import say

_WARM_UP = 3


def run_bench(frames: int, size: tuple[int, int]) -> dict[str, Any]:
    """Time the stages on one phantom frame.

    The stages are timed in turn, round by round, so that a busy moment of the machine strikes all alike.

    Args:
        frames: Rounds that count.
        size: Rows and columns of the frame.

    Returns:
        The machine, and for each stage the median and the 95th percentile in milliseconds, and the
        median relative to the plain U-Net's whole way.
    """
    image = simulate_frame(seed=0, patient=0, frame=0, size=size).image
    denoised = despeckle(image, "dpad")
    recipe = ChannelRecipe(("raw", "dpad", "edges"))
    stages: dict[str, Callable[[], Any]] = {
        "channels: SRAD": lambda: despeckle(image, "srad"),
        "channels: DPAD": lambda: despeckle(image, "dpad"),
        "channels: edges after DPAD": lambda: edge_map(image, denoised),
        "channels: the whole stack": lambda: build_stack(image, recipe),
    }
    for name in MODELS:
        own = recipe if name == "edgefusion-unet" else replace(recipe, channels=("raw",))
        network = build_model(name, len(own.channels), 1)
        predictor = Predictor(Bundle(network, name, own, ["nerve"]))
        stages[f"frame to mask: {TITLES[name]}"] = lambda predictor=predictor: predictor.predict(image)  # type: ignore[misc]
    times: dict[str, list[float]] = {stage: [] for stage in stages}
    say(f"Timing {len(stages)} stages, {frames} rounds, on a frame of {size[0]}×{size[1]} ...")
    for round_ in range(-_WARM_UP, frames):
        for stage, run in stages.items():
            started = time.perf_counter()
            run()
            if round_ >= 0:
                times[stage].append(1000 * (time.perf_counter() - started))
    peer = float(np.median(times[f"frame to mask: {TITLES['unet']}"]))
    return {
        **environment(),
        "size": list(size),
        "frames": frames,
        "stages": {
            stage: {
                "median_ms": round(float(np.median(values)), 2),
                "p95_ms": round(float(np.percentile(values, 95)), 2),
                "times_unet": round(float(np.median(values)) / peer, 3),
            }
            for stage, values in times.items()
        },
    }


def as_text(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    rows, columns = figures["size"]
    lines = [
        f"{figures['processor']}, {figures['cores']} cores; frame {rows}×{columns}, {figures['frames']} rounds",
        "",
        f"{'stage':<44}{'median ms':>11}{'p95 ms':>9}{'x U-Net':>9}",
    ]
    for stage, values in figures["stages"].items():
        median, p95, ratio = values["median_ms"], values["p95_ms"], values["times_unet"]
        lines.append(f"{stage:<44}{median:>11.2f}{p95:>9.2f}{ratio:>9.2f}")
    return "\n".join(lines)
