"""Our filters and edge maps beside other people's, for speed and quality, with this machine's own limits beside them.

python -m pip install -e '.[benchmarks]' opencv-contrib-python-headless && python benchmarks/channels.py

Peers that are not installed are left out. OpenCV's contributed filters come in a wheel that replaces the plain one:
use an environment of its own. Real frames are looked for in $EDGEFUSION_DATA/kaggle-nerve/fullres. Processor time is
given beside the clock's, since only it means something on a machine that is also doing other work.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from edgefusion.channels import quality
from edgefusion.channels.bands import cores
from edgefusion.channels.diffusion import SRAD_GRADING, despeckle, srad_cycles
from edgefusion.channels.edges import DENOISER, edge_map
from edgefusion.channels.fed import schedule
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import PhantomFrame, simulate_frame

Plane = NDArray[np.float32]
Filter = Callable[[Plane], Plane]

RATE = 50 * math.log(10) / 20
SRAD_COEFFICIENT_FLOPS, STEP_FLOPS = 28, 13
"""A pixel of the compiled loops; an addition, a multiplication, a division or a minimum counts one."""


def our_filters(threads: int) -> dict[str, Filter]:
    def ours(method: str, **options: Any) -> Filter:
        return lambda grey: despeckle(grey, method, threads=threads, **options)

    return {
        "SRAD, FED": ours("srad"),
        "SRAD, 100 explicit steps": ours("srad", explicit_step=0.1),
        "DPAD": ours("dpad"),
        "OSRAD": ours("osrad"),
        "Perona-Malik": ours("perona-malik"),
    }


def textbook_srad(dtype: type) -> Filter:
    """100 explicit steps in NumPy, as one writes it down."""

    def run(grey: Plane) -> Plane:
        u = np.exp(grey.astype(dtype) * dtype(RATE))
        for step in range(100):
            padded = np.pad(u, 1, mode="edge")
            sides = (padded[:-2, 1:-1] - u, padded[2:, 1:-1] - u, padded[1:-1, :-2] - u, padded[1:-1, 2:] - u)
            s1, s2 = sum(sides), sum(side * side for side in sides)
            q_squared = (s2 / 2 - s1 * s1 / 16) / (u + s1 / 4) ** 2
            q0_squared = dtype(max(math.exp(-4 * step / 60) ** 2, 1e-12))
            c = np.clip(1 / (1 + (q_squared - q0_squared) / (q0_squared * (1 + q0_squared))), 0, 1)
            wide = np.pad(c, 1, mode="edge")
            around = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
            u = u + dtype(0.05) * sum((c + other) * side for other, side in zip(around, sides, strict=True))
        return (np.log(u) / RATE).astype(np.float32)

    return run


def peers() -> dict[str, Filter]:
    """Peers that are installed, at the diffusion time of ours where they have one."""
    found: dict[str, Filter] = {
        "NumPy SRAD, float64": textbook_srad(np.float64),
        "NumPy SRAD, float32": textbook_srad(np.float32),
        "Gaussian, 3 px (OpenCV)": lambda grey: cv2.GaussianBlur(grey, (0, 0), 3),
    }
    if srad := _module("srad.__main__"):
        np.row_stack = np.vstack  # type: ignore[attr-defined]  # removed from NumPy since it was written
        found["PyPI srad, 100 steps"] = lambda grey: (
            np.asarray(srad.SRAD(np.round(grey * 255), 100, 0.4, 1 / 6), dtype=np.float32) / np.float32(255)
        )
    if medpy := _module("medpy.filter.smoothing"):
        found["medpy anisotropic diffusion"] = lambda grey: medpy.anisotropic_diffusion(
            grey, niter=50, kappa=0.04, gamma=0.2
        ).astype(np.float32)
    if sitk := _module("SimpleITK"):
        for name in ("Gradient", "Curvature"):
            function = getattr(sitk, f"{name}AnisotropicDiffusion")
            found[f"SimpleITK {name.lower()} diffusion"] = lambda grey, function=function: sitk.GetArrayFromImage(
                function(sitk.GetImageFromArray(grey), 0.125, 1.0, 1, 80)
            )
    if hasattr(cv2, "ximgproc"):
        found["OpenCV ximgproc diffusion"] = lambda grey: (
            cv2.ximgproc.anisotropicDiffusion(cv2.cvtColor(np.uint8(grey * 255), cv2.COLOR_GRAY2BGR), 0.2, 0.04, 50)[
                ..., 0
            ]
            / np.float32(255)
        )
    if restoration := _module("skimage.restoration"):
        found["skimage total variation"] = lambda grey: restoration.denoise_tv_chambolle(grey, 0.1)
        found["skimage non-local means"] = lambda grey: restoration.denoise_nl_means(grey, 5, 6, 0.1, fast_mode=True)
    return found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def timed(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds by the clock and by the processor.

    All are taken in turn, so that a busy moment strikes all, and each directly after an untimed call of its own, as in
    a stream of frames: right after another filter it would be charged for that one's memory in the caches.
    """
    clock: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            wall, used = time.perf_counter(), time.process_time()
            run()
            processor[name].append(1000 * (time.process_time() - used))
            clock[name].append(1000 * (time.perf_counter() - wall))
    return {name: (float(np.median(clock[name])), float(np.median(processor[name]))) for name in runs}


def truth_quality(run: Filter, frames: Iterable[PhantomFrame]) -> NDArray[np.float64]:
    """Mean PSNR, SSIM, EPI and gCNR of the nerve against its surroundings."""
    rows = []
    for frame in frames:
        clean, result = frame.clean / 255, np.asarray(run(_unit(frame.image)), dtype=np.float64)
        fitted = quality.affine_fit(result, clean)
        inside = frame.mask > 0
        around = (cv2.dilate(frame.mask, np.ones((25, 25), np.uint8)) > 0) & ~inside
        contrast = quality.gcnr(result, inside, around) if inside.any() else math.nan
        rows.append((quality.psnr(fitted, clean), quality.ssim(fitted, clean), quality.epi(result, clean), contrast))
    return np.nanmean(np.array(rows), axis=0)


def real_quality(run: Filter, frames: list[NDArray[np.uint8]]) -> tuple[float, float]:
    """Mean gain in ENL, and mean SSI, over the most homogeneous square of each frame."""
    figures = [quality.describe(_unit(frame), np.asarray(run(_unit(frame)))) for frame in frames]
    gain = float(np.mean([figure["enl_after"] / figure["enl_before"] for figure in figures]))
    return gain, float(np.mean([figure["ssi"] for figure in figures]))


def _unit(image: NDArray[np.uint8]) -> Plane:
    return image.astype(np.float32) / np.float32(255)


def true_edges(frame: PhantomFrame) -> NDArray[np.bool_]:
    """Outlines of the speckle-free picture's strongest 3 %, and the nerve's."""
    smooth = cv2.GaussianBlur(_unit(frame.clean), (0, 0), 2.0)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=4096) for order in ((1, 0), (0, 1)))
    high = float(np.quantile(np.hypot(dx, dy), 0.97))
    edges = cv2.Canny(dx.astype(np.int16), dy.astype(np.int16), 0.6 * high, high, L2gradient=True) > 0
    return np.asarray(edges | quality.outline(frame.mask))


@numba.njit(error_model="numpy", fastmath={"contract"}, nogil=True)
def _multiply_add(rounds: int, a: np.float32, b: np.float32, values: Plane) -> None:
    for _ in range(rounds):
        for j in range(values.shape[1]):
            x, y, z = values[0, j], values[1, j], values[2, j]
            for _ in range(16):
                x, y, z = x * a + b, y * a + b, z * a + b
            values[0, j], values[1, j], values[2, j] = x, y, z


@numba.njit(error_model="numpy", fastmath=True, nogil=True)
def _read(rounds: int, values: Plane) -> np.float32:
    total = np.float32(0)
    for _ in range(rounds):
        part = np.float32(0)
        for j in range(values.size):
            part += values[j]
        total = part - total
    return total


def limits() -> dict[str, float]:
    """Single-thread GFLOP/s of multiply-adds, and GB/s read from the first and the second cache."""
    values = np.ones((3, 128), dtype=np.float32)
    small, large = np.ones(4096, dtype=np.float32), np.ones(131072, dtype=np.float32)
    runs = {
        "multiply-add, GFLOP/s": lambda: _multiply_add(2000, np.float32(0.9), np.float32(0.1), values),
        "first cache, GB/s": lambda: _read(2000, small),
        "second cache, GB/s": lambda: _read(60, large),
    }
    work = (2000 * 128 * 16 * 3 * 2, 2000 * small.nbytes, 60 * large.nbytes)
    return {name: amount / 1e6 / used for (name, (_, used)), amount in zip(timed(runs, 30).items(), work, strict=True)}


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    columns = [part.strip() for part in header.split("|")]
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *[list(row) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def filters_report(frames: list[PhantomFrame], real: list[NDArray[np.uint8]], rounds: int, threads: int) -> str:
    filters: dict[str, Filter] = {"(none)": lambda grey: grey, **our_filters(threads), **peers()}
    grey = _unit(frames[0].image)
    milliseconds = timed({name: (lambda run=run: run(grey)) for name, run in filters.items()}, rounds)
    reference = milliseconds["SRAD, FED"][1]
    rows = []
    for name, run in filters.items():
        wall, used = milliseconds[name]
        psnr, ssim, epi, gcnr = truth_quality(run, frames)
        gain, ssi = real_quality(run, real) if real else (math.nan, math.nan)
        rows.append([name, f"{wall:.1f}", f"{used:.1f}", f"{used / reference:.2f}", f"{psnr:.2f}", f"{ssim:.3f}",
                     f"{epi:.2f}", f"{gcnr:.2f}", f"{gain:.1f}", f"{ssi:.2f}"])  # fmt: skip
    header = "filter | ms | processor ms | times SRAD | PSNR | SSIM | EPI | gCNR | ENL gain (real) | SSI (real)"
    return table(header, rows)


def edges_report(frames: list[PhantomFrame], rounds: int, threads: int) -> str:
    denoised = {
        method: [despeckle(frame.image, method) for frame in frames] for method in set(DENOISER.values()) if method
    }

    def ours(method: str, index: int) -> Plane:
        denoiser = DENOISER[method]
        given = denoised[denoiser][index] if denoiser else None
        return edge_map(frames[index].image, given, method, threads=threads)

    maps: dict[str, Callable[[int], Plane]] = {
        method: (lambda index, method=method: ours(method, index)) for method in DENOISER
    }
    maps["Sobel on the frame"] = lambda index: edge_map(frames[index].image, _unit(frames[index].image), "sobel")
    milliseconds = timed({name: (lambda run=run: run(0)) for name, run in maps.items()}, rounds)
    truths, walls = [true_edges(frame) for frame in frames], [quality.outline(frame.mask) for frame in frames]
    rows = []
    for name, run in maps.items():
        scores = quality.edge_scores([run(index) for index in range(len(frames))], truths, walls)
        wall, used = milliseconds[name]
        rows.append([name, f"{wall:.1f}", f"{used:.1f}", f"{scores.ods_f:.3f}", f"{scores.average_precision:.3f}",
                     f"{scores.wall_recall:.3f}"])  # fmt: skip
    return table("edge map, the despeckled frame given | ms | processor ms | ODS-F | AP | wall recall", rows)


def stacks_report(frame: NDArray[np.uint8], rounds: int, threads: int) -> str:
    small = cv2.resize(frame, (256, 185), interpolation=cv2.INTER_AREA)
    runs = {
        f"raw, DPAD and edges at {image.shape[0]}×{image.shape[1]}": (
            lambda image=image: build_stack(image, ChannelRecipe(("raw", "dpad", "edges")), threads=threads)
        )
        for image in (frame, small)
    }
    rows = [[name, f"{wall:.1f}", f"{used:.1f}"] for name, (wall, used) in timed(runs, rounds).items()]
    return table("stack | ms | processor ms", rows)


def roofline_report(frame: NDArray[np.uint8], rounds: int) -> str:
    grey = _unit(frame)
    cycles = schedule(10, srad_cycles(10), None, grading=SRAD_GRADING)
    flops = frame.size * sum(SRAD_COEFFICIENT_FLOPS + STEP_FLOPS * len(cycle.taus) for cycle in cycles)
    (_, used), measured = timed({"srad": lambda: despeckle(grey, "srad", threads=1)}, rounds)["srad"], limits()
    reached = flops / 1e6 / used
    rows = [[name, f"{value:.0f}"] for name, value in measured.items()]
    rows.append(["SRAD by FED, GFLOP/s, decompression and all", f"{reached:.0f}"])
    rows.append(["its share of the multiply-add limit", f"{reached / measured['multiply-add, GFLOP/s']:.0%}"])
    return table("one thread | measured", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15, help="timed calls of everything; medians are given")
    parser.add_argument("--frames", type=int, default=8, help="phantom and real frames for the figures of quality")
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    frames = [simulate_frame(seed=7, patient=index, frame=index) for index in range(options.frames)]
    folder = Path(os.environ.get("EDGEFUSION_DATA", "../shared/data")) / "kaggle-nerve" / "fullres"
    paths = [path for path in sorted(folder.glob("*.tif")) if "mask" not in path.name]
    chosen = paths[:: max(1, len(paths) // options.frames)][: options.frames]
    real = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in chosen]
    print(f"{options.frames} phantoms and {len(real)} real frames of 420×580, {options.threads} threads\n")
    print(filters_report(frames, real, options.rounds, options.threads), "\n")
    print(edges_report(frames, options.rounds, options.threads), "\n")
    print(stacks_report(frames[0].image, options.rounds, options.threads), "\n")
    print(roofline_report(frames[0].image, options.rounds))


if __name__ == "__main__":
    main()
