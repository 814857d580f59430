"""What a frame costs on this machine, stage by stage: the shipped network in every backend beside MONAI's U-Nets."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion import nnunet_peer
from edgefusion.bundle import Bundle
from edgefusion.bundles import find
from edgefusion.channels.diffusion import despeckle
from edgefusion.channels.edges import edge_map
from edgefusion.data.phantom.study import simulate_frame
from edgefusion.environment import environment
from edgefusion.inference.backends import BACKENDS
from edgefusion.inference.onnx import export_onnx
from edgefusion.inference.predictor import Predictor, load
from edgefusion.inference.writers import draw_overlay
from edgefusion.models.names import TITLES
from edgefusion.models.zoo import build_model
from edgefusion.progress import say

PEERS = ("unet", "unet-matched")
"""MONAI's U-Net at its customary width, and at EdgeFusion-UNet's multiply-adds."""

_WARM_UP = 5
_NNUNET = "whole way: nnU-Net, its own predictor"
_SELDOM = 20
"""nnU-Net takes a second or more a frame: it runs in one of so many rounds."""
_RUNNERS = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
_PEER = f"whole way: {TITLES['unet-matched']}, {_RUNNERS['torch']}"

Stages = dict[str, Callable[[], Any]]


def run_bench(frames: int, size: tuple[int, int], bundle: str | None = None) -> dict[str, Any]:
    """Time the way of one phantom frame from pixels to overlay.

    The stages are timed in turn, round by round, so that a busy moment of the machine strikes all alike. Memory and
    the time to start are those of a process of its own for each backend.

    Args:
        frames: Rounds that count.
        size: Rows and columns of the frame.
        bundle: See ``edgefusion.load``.

    Returns:
        The machine; ``stages``, for each the ``median_ms``, ``p95_ms`` and ``times_unet``, its median relative to
        MONAI's U-Net of equal multiply-adds in PyTorch; and ``processes``, for each backend the ``frames_per_second``
        of a whole way, ``start_s`` from nothing to the first mask, and ``peak_mb`` of memory.
    """
    image = simulate_frame(seed=0, patient=0, frame=0, size=size).image
    with tempfile.TemporaryDirectory() as scratch:
        stages = {**_channel_stages(image), **_network_stages(image, bundle), **_peer_stages(image, Path(scratch))}
        say(f"Timing {len(stages)} stages, {frames} rounds, on a frame of {size[0]}×{size[1]} ...")
        times: dict[str, list[float]] = {stage: [] for stage in stages}
        for round_ in range(-_WARM_UP, frames):
            for stage, run in stages.items():
                if stage == _NNUNET and round_ % _SELDOM:
                    continue
                started = time.perf_counter()
                run()
                if round_ >= 0:
                    times[stage].append(1000 * (time.perf_counter() - started))
    peer = float(np.median(times[_PEER]))
    return {
        **environment(),
        "bundle": bundle or "brachial-plexus",
        "size": list(size),
        "frames": frames,
        "nnunet": nnunet_peer.installed(),
        "stages": {
            stage: {
                "median_ms": round(float(np.median(values)), 2),
                "p95_ms": round(float(np.percentile(values, 95)), 2),
                "times_unet": round(float(np.median(values)) / peer, 3),
            }
            for stage, values in times.items()
        },
        "processes": {_RUNNERS[backend]: _process(backend, bundle, size, frames) for backend in BACKENDS},
    }


def _channel_stages(image: NDArray[np.uint8]) -> Stages:
    denoised = despeckle(image, "dpad")
    return {
        "channel: SRAD": lambda: despeckle(image, "srad"),
        "channel: DPAD": lambda: despeckle(image, "dpad"),
        "channel: edges, after DPAD": lambda: edge_map(image, denoised),
    }


def _network_stages(image: NDArray[np.uint8], bundle: str | None) -> Stages:
    by_torch, by_onnx = load(bundle, backend="torch"), load(bundle, backend="onnx")
    stack = by_onnx.prepare(image)
    (maps,) = by_onnx.infer(stack[None])
    prediction = by_onnx.finish(maps, image.shape)
    return {
        "stage 1: resize, channels": lambda: by_onnx.prepare(image),
        f"stage 2: network, {_RUNNERS['torch']}": lambda: by_torch.infer(stack[None]),
        f"stage 2: network, {_RUNNERS['onnx']}": lambda: by_onnx.infer(stack[None]),
        "stage 3: resize back, mask, outlines": lambda: by_onnx.finish(maps, image.shape),
        "stage 4: overlay": lambda: draw_overlay(image, prediction),
        f"whole way: EdgeFusion, {_RUNNERS['torch']}": _whole_way(by_torch, image),
        f"whole way: EdgeFusion, {_RUNNERS['onnx']}": _whole_way(by_onnx, image),
    }


def _peer_stages(image: NDArray[np.uint8], scratch: Path) -> Stages:
    """MONAI's U-Nets at the shipped network's input size, with fresh weights, which cost what trained ones do."""
    recipe = Bundle.load(find()).recipe
    stages: Stages = {}
    for name in PEERS:
        folder = scratch / name
        Bundle(build_model(name, len(recipe.channels), 1), name, recipe, ["nerve"]).save(folder)
        stages[f"whole way: {TITLES[name]}, {_RUNNERS['torch']}"] = _whole_way(load(folder, backend="torch"), image)
        export_onnx(folder)
        stages[f"whole way: {TITLES[name]}, {_RUNNERS['onnx']}"] = _whole_way(load(folder, backend="onnx"), image)
    if nnunet_peer.installed():
        stages[_NNUNET] = nnunet_peer.whole_way(image)
    return stages


def _whole_way(model: Predictor, image: NDArray[np.uint8]) -> Callable[[], Any]:
    return lambda: draw_overlay(image, model.predict(image))


def _process(backend: str, bundle: str | None, size: tuple[int, int], frames: int) -> dict[str, float]:
    code = "import sys; from edgefusion.bench import measure_process; measure_process(*sys.argv[1:])"
    arguments = [backend, bundle or "", *map(str, size), str(frames)]
    started = str(time.time())
    done = subprocess.run([sys.executable, "-c", code, started, *arguments], check=True, capture_output=True, text=True)
    values: dict[str, float] = json.loads(done.stdout)
    return values


def measure_process(started: str, backend: str, bundle: str, rows: str, columns: str, frames: str) -> None:
    """Predict in this process and print what it took as JSON: the other side of ``run_bench``."""
    image = np.tile(np.arange(int(columns), dtype=np.uint8), (int(rows), 1))
    model = load(bundle or None, backend=backend)  # type: ignore[arg-type]
    model.predict(image)
    first = time.time() - float(started)
    begun = time.perf_counter()
    for _ in range(int(frames)):
        draw_overlay(image, model.predict(image))
    rate = int(frames) / (time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kilobytes, macOS in bytes.
    megabytes = peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    print(json.dumps({"frames_per_second": round(rate, 1), "start_s": round(first, 2), "peak_mb": round(megabytes)}))


def as_text(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    rows, columns = figures["size"]
    lines = [
        f"{figures['processor']}, {figures['cores']} cores; frame {rows}×{columns}, {figures['frames']} rounds",
        "",
        f"{'stage':<52}{'median ms':>11}{'p95 ms':>9}{'x U-Net':>9}",
    ]
    for stage, values in figures["stages"].items():
        median, p95, ratio = values["median_ms"], values["p95_ms"], values["times_unet"]
        lines.append(f"{stage:<52}{median:>11.2f}{p95:>9.2f}{ratio:>9.2f}")
    lines += ["", f"{'process of its own':<52}{'frames/s':>11}{'start s':>9}{'peak MB':>9}"]
    for backend, values in figures["processes"].items():
        rate, start, peak = values["frames_per_second"], values["start_s"], values["peak_mb"]
        lines.append(f"{backend:<52}{rate:>11.1f}{start:>9.2f}{peak:>9.0f}")
    lines += ["", f"x U-Net: relative to {_PEER.removeprefix('whole way: ')}. Whole way: from pixels to overlay."]
    if not figures["nnunet"]:
        lines.append("nnU-Net is not installed here, so it is not timed.")
    return "\n".join(lines)
