"""The rates from which docs/scale.md is reckoned: what a frame costs in time, memory and disk, stage by stage.

    python benchmarks/scale.py [--frames 48] [--small 20480] [--model brachial-plexus]

Takes about two minutes on a quiet core; times are processor times. Frames are simulated speckle of 420x580 pixels: the
stages do not mind what is in them, but for PNG files, which real frames make smaller.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.bundles import find
from edgefusion.channels.recipe import build_stack, cached_stacks
from edgefusion.cluster.part_files import begin
from edgefusion.cluster.part_worker import PartWorker
from edgefusion.config import ChannelRecipe
from edgefusion.data.duplicates import similar_pairs
from edgefusion.data.ingest import ingest
from edgefusion.data.study import Study
from edgefusion.evaluation.evaluate import judge
from edgefusion.inference.inputs import FrameFile, find_frames
from edgefusion.inference.predictor import load
from edgefusion.models.zoo import build_model
from edgefusion.training.dataset import load_frames

SIZE = (420, 580)
MILLION = 1_000_000
PATIENTS, FRAMES_A_PATIENT = 1000, 120
CORE_HOUR, GB_MONTH = 0.05, 0.023


def write_source(folder: Path, frames: int) -> None:
    rng = np.random.default_rng(0)
    for n in range(frames):
        tissue = cv2.GaussianBlur(rng.standard_normal(SIZE), (0, 0), 25)
        speckle = cv2.GaussianBlur(rng.rayleigh(1, SIZE), (0, 0), 1.2)
        image = np.clip(speckle * np.exp(0.6 * tissue / tissue.std()) * 60, 0, 255).astype(np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        if n % 3:
            cv2.ellipse(mask, (250 + n, 200), (60, 40), 20, 0, 360, 255, -1)
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{n % 8}_{n}.png"), image)
        cv2.imwrite(str(folder / f"{n % 8}_{n}_mask.png"), mask)


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds, of all threads, which other programs on the machine hardly change."""
    start = time.process_time()
    work()
    return time.process_time() - start


def resident() -> float:
    """MB that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def size_of(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def step_seconds(model: str, batch: int = 16) -> float:
    """One training step of the network alone: forward, a loss, backward."""
    bundle = load(model, backend="torch").bundle
    network, recipe = bundle.model.train(), bundle.recipe
    x = torch.rand(batch, len(recipe.channels), recipe.height, recipe.width)

    def step() -> None:
        network.zero_grad()
        torch.nn.functional.softplus(network(x).mask).mean().backward()

    step()
    return min(seconds(step) for _ in range(2))


def frame_memory(paths: int) -> float:
    """Bytes that the list of frames takes in the driver, a frame."""
    before = resident()
    frames = [FrameFile(Path(f"/storage/study/images/patient_{n:07}.png"), None) for n in range(paths)]
    names = {str(frame.path): frame.path.stem for frame in frames}
    return (resident() - before) * 1e6 / max(len(names), 1)


def one_worker(plan_of: tuple[Path, Path, str], parts: list[int], out: object = None) -> None:
    """Do parts of a plan; ``out`` gets the seconds without the loading of the network."""
    source, folder, model = plan_of
    torch.set_num_threads(1)
    frames = find_frames([source], folder)
    plan = begin(folder, frames, {str(f.path): f.path.stem for f in frames}, "x", ("png",), 8)
    worker = PartWorker(plan, find(model), False, "auto")
    took = seconds(lambda: [worker.do(part) for part in parts])
    if out is not None:
        out.put(took)  # type: ignore[attr-defined]


def predict_rates(images: Path, root: Path, model: str, frames: int) -> tuple[float, float, Path]:
    """Processor seconds a frame with one worker and with two side by side, and the folder of the first."""
    parts = list(range(frames // 8))
    context = multiprocessing.get_context("spawn")
    rates = []
    for workers in (1, 2):
        folder, queue = root / f"parts{workers}", context.Queue()
        folder.mkdir()
        shares = [parts[k::workers] for k in range(workers)]
        jobs = [context.Process(target=one_worker, args=((images, folder, model), share, queue)) for share in shares]
        for job in jobs:
            job.start()
        took = [queue.get() for _ in jobs]
        for job in jobs:
            job.join()
        rates.append(sum(took) / (8 * len(parts)))
    return rates[0], rates[1], root / "parts1"


def growth_of_memory(root: Path, frames: int) -> list[tuple[int, float]]:
    """MB of a worker with a tiny network after so many small frames; 64 frames, named again and again."""
    arguments = {"widths": [8, 8, 8, 8], "stem_widths": [4, 4, 4]}
    recipe = ChannelRecipe(channels=("raw", "edges"), height=48, width=64, resolution="network")
    network = build_model("edgefusion-unet", 2, 1, **arguments).eval()
    Bundle(network, "edgefusion-unet", recipe, ["nerve"], arguments).save(root / "tiny")
    folder = root / "small"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(64):
        cv2.imwrite(str(folder / f"{n}.png"), rng.integers(0, 255, (60, 80), dtype=np.uint8))
    named = [FrameFile(folder / f"{n % 64}.png", None) for n in range(frames)]
    names = {str(frame.path): frame.path.stem for frame in named}
    plan = begin(root / "small-parts", named, names, "x", ())
    worker = PartWorker(plan, root / "tiny", False, "auto")
    found = []
    for part in range(plan.parts):
        worker.do(part)
        if part % max(1, plan.parts // 4) == 0 or part == plan.parts - 1:
            found.append(((part + 1) * plan.per_part, resident()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--model", default="brachial-plexus")
    parser.add_argument("--small", type=int, default=2048, help="frames for the growth of a worker's memory")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    n, model = given.frames, given.model
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_source(root / "source", n)
        taken = seconds(lambda: ingest(root / "source", root / "study"))
        study = Study.load(root / "study")
        ids = [str(frame) for frame in study.frames["frame_id"]]
        predictor = load(model, threads=1)
        recipe = predictor.bundle.recipe
        build_stack(study.image(ids[0]), recipe, threads=1)
        filtering = seconds(lambda: [build_stack(study.image(i), recipe, threads=1) for i in ids[:16]]) / 16
        cached_stacks(study, ids, recipe, study.cache)
        entries = [path for path in study.cache.rglob("*") if path.is_file()]
        held = load_frames(study, ids, recipe, study.cache)
        a_frame = (held.stacks.nbytes + held.targets.nbytes) / n
        reading = seconds(lambda: load_frames(study, ids, recipe, study.cache)) / n
        predictions = [predictor.predict(study.image(i)) for i in ids[:8]]
        judging = seconds(lambda: [judge(study, i, p) for i, p in zip(ids, predictions, strict=False)]) / 8
        one, two, parts = predict_rates(study.path / "images", root, model, n)  # type: ignore[operator]
        rows = sorted(parts.glob("part-*.parquet"))
        rates = {
            "ingest": (taken / n, size_of(list((root / "study" / "images").iterdir())) / n),
            "filter (channels)": (filtering, size_of(entries) / n),
            "read a frame for training": (reading, a_frame),
            "training step": (step_seconds(model) / 16, 0.0),
            "judge (evaluate, without predicting)": (judging, 0.0),
            "predict, 1 worker": (one, size_of(rows) / n),
            "predict, 2 workers": (two, 0.0),
            "masks as PNG": (0.0, size_of(list(parts.rglob("*.png"))) / n),
        }
        memory = growth_of_memory(root, given.small)
    searches = []
    rng = np.random.default_rng(0)
    for count in (1000, 2000, 4000, 8000):
        vectors: NDArray[np.float32] = rng.standard_normal((count, 1024)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        searches.append((count, seconds(lambda vectors=vectors: similar_pairs(vectors))))  # type: ignore[misc]
    tables(rates, memory, searches, frame_memory(200_000))


def tables(
    rates: dict[str, tuple[float, float]],
    memory: list[tuple[int, float]],
    searches: list[tuple[int, float]],
    listed: float,
) -> None:
    load_1 = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load_1:.1f}\n")
    print("| stage | ms of a core a frame | KB a frame |\n|---|---|---|")
    for stage, (took, size) in rates.items():
        print(f"| {stage} | {f'{1000 * took:.1f}' if took else ''} | {f'{size / 1000:.1f}' if size else ''} |")
    print(f"| list of frames in the driver | | {listed / 1000:.2f} |")
    print("\n| frames | near-duplicate search, s | ns a pair |\n|---|---|---|")
    for count, took in searches:
        print(f"| {count} | {took:.2f} | {1e9 * took / (count * (count - 1) / 2):.1f} |")
    print("\n| small frames done | MB of the worker |\n|---|---|")
    for done, held in memory:
        print(f"| {done} | {held:.0f} |")
    pair = searches[-1][1] / (searches[-1][0] ** 2 / 2)
    print("\n| | a million frames | a thousand patients of 120 frames |\n|---|---|---|")
    for stage in ("ingest", "filter (channels)", "judge (evaluate, without predicting)", "predict, 1 worker"):
        hours = [rates[stage][0] * count / 3600 for count in (MILLION, PATIENTS * FRAMES_A_PATIENT)]
        print(f"| {stage}, core hours | {hours[0]:.1f} | {hours[1]:.1f} |")
        print(f"| {stage}, $ at {CORE_HOUR} a core hour | {CORE_HOUR * hours[0]:.2f} | {CORE_HOUR * hours[1]:.2f} |")
    counts = (MILLION, PATIENTS * FRAMES_A_PATIENT)
    print("| near-duplicate search, core hours |" + "|".join(f" {pair * c * c / 2 / 3600:.2f} " for c in counts) + "|")
    epochs = [rates["training step"][0] * 14 * c / 3600 for c in counts]
    print(f"| training, 14 epochs, core hours | {epochs[0]:.0f} | {epochs[1]:.0f} |")
    for stage, what in (
        ("ingest", "study on disk"),
        ("filter (channels)", "cache on disk"),
        ("read a frame for training", "frames in memory while training"),
        ("predict, 1 worker", "Parquet"),
        ("masks as PNG", "masks as PNG"),
    ):
        gigabytes = [rates[stage][1] * c / 1e9 for c in counts]
        print(f"| {what}, GB | {gigabytes[0]:.1f} | {gigabytes[1]:.1f} |")
    disk = rates["ingest"][1] + rates["predict, 1 worker"][1]
    print(f"| study and Parquet, $ a month at {GB_MONTH} a GB | {disk * GB_MONTH / 1e3:.2f} |", end="")
    print(f" {disk * GB_MONTH * counts[1] / 1e9:.2f} |")


if __name__ == "__main__":
    main()
