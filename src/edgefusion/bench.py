"""What a frame costs on this machine, stage by stage: the shipped network in every backend beside its peers."""

from __future__ import annotations

import json
import subprocess  # nosec B404
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgefusion import nnunet_peer
from edgefusion.bundle import ONNX_FILE, Bundle
from edgefusion.bundles import NAMES, find
from edgefusion.environment import environment
from edgefusion.inference.backends import BACKENDS
from edgefusion.inference.onnx import export_onnx
from edgefusion.models.names import TITLES
from edgefusion.models.zoo import build_model
from edgefusion.progress import say

PEERS = ("unet", "unet-matched")
"""MONAI's U-Net at its customary width, and at EdgeFusion-UNet's multiply-adds."""

_BLOCK = 10
_RUNNERS = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
_NNUNET = "nnU-Net's predictor"
_REFERENCE = f"{TITLES['unet-matched']}, {_RUNNERS['torch']}"
_WHOLE = "whole way"


def run_bench(frames: int, size: tuple[int, int], bundle: str | None = None) -> dict[str, Any]:
    """Time the way of one frame from pixels to overlay.

    Every contender is a process of its own, because threads that one library keeps ready slow another's down. They
    work by turns, a few frames at a time, so that a busy moment of the machine strikes all alike.

    Args:
        frames: Frames that each contender is timed on.
        size: Rows and columns of the frame.
        bundle: See ``edgefusion.load``.

    Returns:
        The machine, and ``contenders``: for each ``stages`` with their ``median_ms`` and ``p95_ms``; and, but for the
        channels, ``frames_per_second``, ``times_unet`` (its median relative to that of MONAI's U-Net of equal
        multiply-adds in PyTorch), ``start_s`` from nothing to the first mask, and ``peak_mb`` of memory.
    """
    chosen = bundle or NAMES[0]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tasks = {"channels": ("channels", "")}
        tasks |= {f"EdgeFusion, {_RUNNERS[backend]}": (backend, _with_onnx(chosen, scratch)) for backend in BACKENDS}
        for name in PEERS:
            folder = _peer(name, chosen, scratch / name)
            tasks |= {f"{TITLES[name]}, {_RUNNERS[backend]}": (backend, folder) for backend in BACKENDS}
        if nnunet_peer.installed():
            tasks[_NNUNET] = ("nnunet", "")
        say(f"Starting {len(tasks)} processes, one after the other ...")
        workers = {title: stack.enter_context(_Worker(*task, size)) for title, task in tasks.items()}
        say(f"Timing them by turns, {frames} frames of {size[0]}×{size[1]} each ...")
        for done in range(0, frames, _BLOCK):
            for title, worker in workers.items():
                # nnU-Net takes a second or more a frame.
                worker.work(1 if title == _NNUNET else min(_BLOCK, frames - done))
    contenders = {title: worker.figures() for title, worker in workers.items()}
    reference = contenders[_REFERENCE]["stages"][_WHOLE]["median_ms"]
    for title, worker in workers.items():
        if title != "channels":
            whole = contenders[title]["stages"][_WHOLE]["median_ms"]
            contenders[title] |= {
                "frames_per_second": round(1000 / whole, 1),
                "times_unet": round(whole / reference, 3),
                "start_s": round(worker.start_s, 2),
                "peak_mb": round(worker.peak_mb),
            }
    return {
        **environment(),
        "bundle": chosen,
        "size": list(size),
        "frames": frames,
        "nnunet": nnunet_peer.installed(),
        "contenders": contenders,
    }


def _with_onnx(bundle: str, scratch: Path) -> str:
    """The bundle, or a copy of it that has the ONNX file as well."""
    if (find(bundle) / ONNX_FILE).is_file():
        return bundle
    folder = scratch / "bundle"
    if not folder.exists():
        Bundle.load(find(bundle)).save(folder)
        export_onnx(folder)
    return str(folder)


def _peer(name: str, bundle: str, folder: Path) -> str:
    """MONAI's U-Net at the bundle's input size, with fresh weights, which cost what trained ones do."""
    shipped = Bundle.load(find(bundle))
    recipe, labels = shipped.recipe, shipped.labels
    Bundle(build_model(name, len(recipe.channels), len(labels)), name, recipe, labels).save(folder)
    export_onnx(folder)
    return str(folder)


class _Worker:
    """A process that times one contender when it is told to."""

    def __init__(self, kind: str, bundle: str, size: tuple[int, int]) -> None:
        command = [sys.executable, "-m", "edgefusion.bench_worker", kind, bundle, *map(str, size)]
        started = time.perf_counter()
        # A list, no shell, and nothing in it that a file said.
        self._process = subprocess.Popen(  # nosec B603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._times: dict[str, list[float]] = {}
        self.peak_mb = 0.0
        self._read()
        self.start_s = time.perf_counter() - started

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def work(self, frames: int) -> None:
        """Time some frames."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{frames}\n")
        self._process.stdin.flush()
        answer = self._read()
        self.peak_mb = answer["peak_mb"]
        for stage, times in answer["times"].items():
            self._times.setdefault(stage, []).extend(times)

    def figures(self) -> dict[str, Any]:
        """Median and 95th percentile of every stage."""
        stages = {
            stage: {"median_ms": round(float(np.median(v)), 2), "p95_ms": round(float(np.percentile(v, 95)), 2)}
            for stage, v in self._times.items()
        }
        return {"stages": stages}

    def _read(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Libraries talk on stdout, too.
            if line.startswith(('{"times"', '"ready"')):
                return json.loads(line)
        raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended.")  # type: ignore[arg-type]


def as_text(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    rows, columns = figures["size"]
    lines = [
        f"{figures['processor']}, {figures['cores']} cores; frame {rows}×{columns}, {figures['frames']} frames; "
        f"bundle {figures['bundle']}",
        "",
        f"{'stage':<52}{'median ms':>11}{'p95 ms':>9}",
    ]
    totals = []
    for title, values in figures["contenders"].items():
        for stage, time_ in values["stages"].items():
            if stage != _WHOLE:
                lines.append(f"{title + ': ' + stage:<52}{time_['median_ms']:>11.2f}{time_['p95_ms']:>9.2f}")
            else:
                totals.append(
                    f"{title:<38}{time_['median_ms']:>11.2f}{time_['p95_ms']:>9.2f}{values['frames_per_second']:>10.1f}"
                    f"{values['times_unet']:>9.2f}{values['start_s']:>9.2f}{values['peak_mb']:>9.0f}"
                )
    head = f"{'whole way':<38}{'median ms':>11}{'p95 ms':>9}{'frames/s':>10}{'x U-Net':>9}{'start s':>9}{'peak MB':>9}"
    lines += ["", head, *totals, "", f"x U-Net: relative to {_REFERENCE}. Whole way: from pixels to overlay."]
    if not figures["nnunet"]:
        lines.append("nnU-Net is not installed here, so it is not timed.")
    return "\n".join(lines)
