"""From clip to overlay: each stage by itself, then all of them together, on a clip made of phantoms.

python benchmarks/video.py --seconds 30 --backend onnx --threads 1

Stages one after the other, median milliseconds a frame; the whole way as `edgefusion predict --format video` goes it,
with the frames that pass through the network together and the backend as stated; peak memory of the process.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from edgefusion.bundle import ONNX_FILE, Bundle
from edgefusion.bundles import find
from edgefusion.data.phantom.cine import simulate_clip
from edgefusion.data.region import FRAMES, find_region
from edgefusion.data.video import open_video
from edgefusion.data.video_writer import VideoWriter
from edgefusion.environment import environment
from edgefusion.inference import stream
from edgefusion.inference.backends import OnnxBackend
from edgefusion.inference.predict_clip import predict_clip
from edgefusion.inference.predictor import Predictor
from edgefusion.inference.writers import draw_overlay

RATE = 30


def milliseconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def with_threads(model: str, backend: str, threads: int) -> Predictor:
    torch.set_num_threads(threads)
    folder = find(model)
    bundle = Bundle.load(folder)
    runs = OnnxBackend(folder / ONNX_FILE, bundle.weights_sha256, threads) if backend == "onnx" else None
    return Predictor(bundle, backend=runs)


def stages(clip: Path, predictor: Predictor, folder: Path, count: int) -> dict[str, list[float]]:
    """Every stage on the same frames, in turn, so that a busy moment of the machine strikes all alike."""
    found: dict[str, list[float]] = {name: [] for name in ("decode", "prepare", "infer", "finish", "draw", "encode")}
    reader = open_video(clip).read()
    keep: dict[str, Any] = {}

    def does(name: str, action: Callable[[], Any]) -> Any:
        found[name].append(milliseconds(lambda: keep.__setitem__(name, action())))
        return keep[name]

    with VideoWriter(folder / "stages.mp4", RATE) as writer:
        for _ in range(count):
            image = does("decode", lambda: next(reader))
            stack = does("prepare", lambda image=image: predictor.prepare(image))
            (maps,) = does("infer", lambda stack=stack: predictor.infer(stack[None]))
            prediction = does("finish", lambda maps=maps, image=image: predictor.finish(maps, image.shape))
            drawn = does("draw", lambda image=image, prediction=prediction: draw_overlay(image, prediction))
            does("encode", lambda drawn=drawn: writer.write(drawn))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--size", default="420x580")
    parser.add_argument("--model", default="brachial-plexus")
    parser.add_argument("--backend", default="onnx", choices=["torch", "onnx"])
    parser.add_argument("--threads", type=int, default=1, help="of the network; the other stages have one each")
    parser.add_argument("--batches", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    count = round(given.seconds * RATE)
    predictor = with_threads(given.model, given.backend, given.threads)
    facts = environment()
    print(f"{facts['processor']}, {facts['cores']} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{given.model}, {given.backend} with {given.threads} threads")
    print(f"{count} frames of {height}×{width} at {RATE} a second\n")
    with TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        with VideoWriter(clip, RATE) as writer:
            for frame in simulate_clip(0, count, (height, width)):
                writer.write(frame)
        for image in list(simulate_clip(0, 1, (height, width))) * 3:
            predictor.predict(image)
        timed = stages(clip, predictor, folder, min(count, 150))
        print("| stage | median ms | p95 ms |\n|---|---|---|")
        for stage, values in timed.items():
            print(f"| {stage} | {np.median(values):.2f} | {np.percentile(values, 95):.2f} |")
        whole = np.sum(list(timed.values()), axis=0)
        print(f"| all, one after the other | {np.median(whole):.2f} | {np.percentile(whole, 95):.2f} |")
        finding = milliseconds(lambda: find_region(open_video(clip).read()))
        print(f"| finding the region, once a clip ({FRAMES} frames) | {finding:.0f} | |\n")
        print("| together | seconds | CPU seconds | frames/s | times real time | peak MB so far |")
        print("|---|---|---|---|---|---|")
        for _ in range(given.rounds):
            for batch in map(int, given.batches.split(",")):
                stream.BATCH = batch
                used, started = time.process_time(), time.perf_counter()
                predict_clip(open_video(clip), predictor, folder, "clip", ["video"])
                seconds, used = time.perf_counter() - started, time.process_time() - used
                print(
                    f"| {batch} | {seconds:.1f} | {used:.1f} | {count / seconds:.1f} | {given.seconds / seconds:.2f} "
                    f"| {peak_mb():.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
