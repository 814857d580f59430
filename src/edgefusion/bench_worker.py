"""The other side of ``bench``: one contender in a process of its own, which works when it is told to."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Stages = dict[str, Callable[[], Any]]


def main(kind: str, bundle: str, rows: str, columns: str) -> None:
    """Say on stdout, as JSON lines, when the first frame is done, then the times of as many rounds as stdin asks for.

    Args:
        kind: "channels", "torch" or "onnx" (a bundle in that backend), or "nnunet".
        bundle: Folder or name of the bundle.
        rows: Of the frame.
        columns: Of the frame.
    """
    image = _frame(int(rows), int(columns))
    match kind:
        case "channels":
            stages = _channels(image)
        case "nnunet":
            stages = _nnunet(image)
        case _:
            stages = _bundle(image, bundle, kind)
    for run in stages.values():
        run()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        times: dict[str, list[float]] = {stage: [] for stage in stages}
        for _ in range(int(line)):
            for stage, run in stages.items():
                started = time.perf_counter()
                run()
                times[stage].append(1000 * (time.perf_counter() - started))
        print(json.dumps({"times": times, "peak_mb": _peak_mb()}), flush=True)


def _frame(rows: int, columns: int) -> NDArray[np.uint8]:
    """Speckle around a dark disc: enough for something to be found, and at once there."""
    y, x = np.mgrid[:rows, :columns]
    disc = np.hypot(y - rows / 3, x - columns / 2) < rows / 10
    speckle = np.random.default_rng(0).rayleigh(1, (rows, columns))
    return np.asarray(np.clip(40 * np.where(disc, 0.5, 1.5) * speckle, 0, 255), dtype=np.uint8)


def _channels(image: NDArray[np.uint8]) -> Stages:
    from edgefusion.channels.diffusion import despeckle
    from edgefusion.channels.edges import edge_map

    denoised = despeckle(image, "dpad")
    return {
        "SRAD": lambda: despeckle(image, "srad"),
        "DPAD": lambda: despeckle(image, "dpad"),
        "edges, after DPAD": lambda: edge_map(image, denoised),
    }


def _bundle(image: NDArray[np.uint8], bundle: str, backend: str) -> Stages:
    from edgefusion.inference.predictor import load
    from edgefusion.inference.writers import draw_overlay

    path = Path(bundle)
    model = load(path if path.is_dir() else bundle, backend=backend)  # type: ignore[arg-type]
    stack = model.prepare(image)
    (maps,) = model.infer(stack[None])
    prediction = model.finish(maps, image.shape)
    return {
        "resize, channels": lambda: model.prepare(image),
        "network": lambda: model.infer(stack[None]),
        "resize back, mask, outlines": lambda: model.finish(maps, image.shape),
        "overlay": lambda: draw_overlay(image, prediction),
        "whole way": lambda: draw_overlay(image, model.predict(image)),
    }


def _nnunet(image: NDArray[np.uint8]) -> Stages:
    from edgefusion.nnunet_peer import whole_way

    return {"whole way": whole_way(image)}


def _peak_mb() -> float:
    try:
        # Not getrusage on Linux: it begins with what the process had that started this one.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes


if __name__ == "__main__":
    main(*sys.argv[1:])
