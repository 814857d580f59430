"""What number formats and what runs the network cost and gain: milliseconds a frame against the mask they give.

    python benchmarks/precision.py RUN/MODEL/FOLD STUDY --calibrate 1,2,4 --judge 6,11,16

The bundle must not have been trained on the patients that judge. INT8 is calibrated on frames of other patients.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgefusion.bundle import Bundle
from edgefusion.data.study import Study
from edgefusion.environment import environment
from edgefusion.inference.backends import Arrays, Backend, OnnxBackend, TorchBackend
from edgefusion.inference.graph import Network
from edgefusion.inference.onnx import STACK, export_onnx, network_graph
from edgefusion.inference.predictor import Predictor

ROUNDS, BLOCKS = 200, 5


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Stacks of frames, one by one."""

    def __init__(self, stacks: Sequence[NDArray[np.float32]]) -> None:
        self._stacks: Iterator[NDArray[np.float32]] = iter(stacks)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        stack = next(self._stacks, None)
        return None if stack is None else {STACK: stack[None]}


class Session:
    """A graph in a file, as a backend."""

    name = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, stacks: NDArray[np.floating[Any]]) -> Arrays:
        result: Arrays = self._session.run(None, {STACK: stacks.astype(np.float32)})
        return result


class Half:
    """PyTorch in bfloat16."""

    name = "torch"

    def __init__(self, bundle: Bundle) -> None:
        self._network = Network(bundle.model).eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, stacks: NDArray[np.floating[Any]]) -> Arrays:
        x = torch.from_numpy(stacks).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return [maps.float().numpy() for maps in self._network(x)]


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("study", type=Path)
    parser.add_argument("--calibrate", required=True, help="patients, separated by commas")
    parser.add_argument("--judge", required=True, help="patients, separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    bundle, study = Bundle.load(given.bundle), Study.load(given.study)
    judges = given.judge.split(",")
    if set(judges) & bundle.seen(study.sha256()) or set(judges) & set(given.calibrate.split(",")):
        parser.error("these patients were trained on, or calibrate")
    torch.set_num_threads(given.threads)
    predictor = Predictor(bundle)

    def frames(patients: Sequence[str], every: int) -> list[str]:
        rows = study.frames[study.frames["patient_id"].isin(patients) & (study.frames["mask"] != "")]
        return list(rows["frame_id"])[::every]

    calibration = [predictor.prepare(study.image(name)) for name in frames(given.calibrate.split(","), 5)]
    with tempfile.TemporaryDirectory() as folder:
        backends = _backends(given.bundle, bundle, calibration, Path(folder), given.threads)
        ids = frames(judges, 1)
        stacks = np.stack([predictor.prepare(study.image(name)) for name in ids])
        truths = [np.asarray(study.mask(name)) for name in ids]
        times = _times(backends, stacks)
        reference: list[NDArray[np.bool_]] = []
        environment_ = environment()
        print(f"{environment_['processor']}, {given.threads} threads; {len(ids)} frames of patients {given.judge}\n")
        print("| network in | ms, median | p95 | Dice | Dice with float32 |\n|---|---|---|---|---|")
        for name, backend in backends.items():
            run = Predictor(bundle, backend=backend)
            sizes = [truth.shape for truth in truths]
            masks = [
                run.finish(run.infer(stack[None])[0], size).mask > 0 for stack, size in zip(stacks, sizes, strict=True)
            ]
            reference = reference or masks
            score = np.mean([dice(mask, truth > 0) for mask, truth in zip(masks, truths, strict=True)])
            same = np.mean([dice(mask, other) for mask, other in zip(masks, reference, strict=True)])
            median, p95 = np.median(times[name]), np.percentile(times[name], 95)
            print(f"| {name} | {median:.2f} | {p95:.2f} | {score:.4f} | {same:.4f} |")


def _backends(
    folder: Path, bundle: Bundle, calibration: list[NDArray[np.float32]], scratch: Path, threads: int
) -> dict[str, Backend]:
    whole = export_onnx(folder, scratch / "whole.onnx")
    network, ready = scratch / "network.onnx", scratch / "ready.onnx"
    onnx.save(network_graph(whole, bundle.weights_sha256), network)
    quant_pre_process(network, ready, skip_symbolic_shape=True)
    found: dict[str, Backend] = {
        "PyTorch, float32": TorchBackend(bundle),
        "PyTorch, bfloat16": Half(bundle),
        "ONNX Runtime, float32": OnnxBackend(whole, bundle.weights_sha256, threads),
    }
    for name, method in (("minimum and maximum", "MinMax"), ("percentile 99.99", "Percentile")):
        file = scratch / f"{method}.onnx"
        quantization.quantize_static(
            ready,
            file,
            Calibration(calibration),
            per_channel=True,
            op_types_to_quantize=["Conv"],
            calibrate_method=quantization.CalibrationMethod[method],
            extra_options={"CalibPercentile": 99.99},
        )
        found[f"ONNX Runtime, INT8 convolutions, ranges by {name}"] = Session(file, threads)
    return found


def _times(backends: dict[str, Backend], stacks: NDArray[np.float32]) -> dict[str, list[float]]:
    """In turn, block by block: threads that one library keeps ready slow another's down, for a while."""
    times: dict[str, list[float]] = {name: [] for name in backends}
    for _ in range(BLOCKS):
        for name, backend in backends.items():
            run: Callable[[NDArray[np.float32]], Arrays] = backend
            for round_ in range(-10, ROUNDS // BLOCKS):
                stack = stacks[round_ % len(stacks)][None]
                started = time.perf_counter()
                run(stack)
                if round_ >= 0:
                    times[name].append(1000 * (time.perf_counter() - started))
    return times


if __name__ == "__main__":
    main()
