"""How well learned diffusion denoises phantoms for its time, beside SRAD and DPAD.

python benchmarks/denoisers.py runs/kaggle -o runs/learned-diffusion
python benchmarks/denoising_quality.py -o runs/learned-diffusion

Every filter's setting is chosen by PSNR on phantom patients that no denoiser learnt from, and judged on phantoms of
another seed. All is judged at the network's size, against the clean frame of that size.
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
import torch
from denoisers import Denoiser, Filter, Plane, one_step, phantoms, small, trained
from numpy.typing import NDArray

from edgefusion.arrays import as_unit
from edgefusion.channels import quality
from edgefusion.channels.diffusion import despeckle
from edgefusion.data.phantom.study import simulate_frame
from edgefusion.data.readers import read_frame
from edgefusion.files import atomic_path, write_json
from edgefusion.progress import say

LEARNED = {"frames": "learned, real frames", "phantoms": "learned, phantoms"}
TIMESTEPS, TIMES = (80, 120, 180, 260, 360), (0.1, 0.3, 1.0, 3.0, 10.0)

Options = dict[str, Any]
Case = tuple[Plane, Plane, NDArray[np.uint8]]
"""A phantom: the frame and the clean frame at their own size, and the mask."""


def grid(given: argparse.Namespace) -> dict[str, tuple[list[Options], Callable[..., Filter]]]:
    """Every filter's settings, and what makes a filter, from a frame's own size to the network's, of one of them."""

    def classic(method: str, first: bool) -> Callable[..., Filter]:
        def make(time: float) -> Filter:
            def run(frame: Plane) -> Plane:
                frame = frame if first else small(frame)
                return small(despeckle(frame, method, time=time * (frame.shape[1] / 580) ** 2, threads=given.threads))

            return run

        return make

    def learned(kind: str) -> Callable[..., Filter]:
        network = trained(Denoiser(), given.output / f"{kind}.safetensors")

        def make(timestep: int, noise: bool) -> Filter:
            run = one_step(network, timestep, noise)
            return lambda frame: run(small(frame))

        return make

    times = [{"time": value} for value in TIMES]
    timesteps = [{"timestep": step, "noise": noise} for noise in (False, True) for step in TIMESTEPS]
    found: dict[str, tuple[list[Options], Callable[..., Filter]]] = {}
    for method in ("srad", "dpad"):
        found[f"{method.upper()} at the frame's size"] = (times, classic(method, True))
        found[f"{method.upper()} at 96×128"] = (times, classic(method, False))
    return found | {title: (timesteps, learned(kind)) for kind, title in LEARNED.items()}


def scores(run: Filter, cases: list[Case]) -> NDArray[np.float64]:
    """Mean PSNR, SSIM, EPI and gCNR of the nerve against its surroundings, all at the network's size."""
    rows = []
    for frame, clean, mask in cases:
        truth, result = small(clean).astype(np.float64), run(frame).astype(np.float64)
        inside = small(mask.astype(np.float32)) >= 0.5
        around = (cv2.dilate(inside.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & ~inside
        contrast = quality.gcnr(result, inside, around) if inside.any() else math.nan
        fitted = quality.affine_fit(result, truth)
        rows.append((quality.psnr(fitted, truth), quality.ssim(fitted, truth), quality.epi(result, truth), contrast))
    return np.asarray(np.nanmean(np.array(rows), axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the denoisers")
    parser.add_argument("--phantoms", type=Path, default=Path("runs/pretraining-phantoms"))
    parser.add_argument("--judged", type=int, default=24, help="phantoms that filters are judged on")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    study, rows = phantoms(given.phantoms, choosing=True)
    apart = [
        (as_unit(study.image(row.frame_id)), as_unit(read_frame(study.path / row.clean)), study.mask(row.frame_id))
        for row in rows.itertuples()
    ]
    shots = [simulate_frame(seed=7, patient=number, frame=number) for number in range(given.judged)]
    judged = [(as_unit(shot.image), as_unit(shot.clean), shot.mask) for shot in shots]
    chosen: dict[str, Options] = {}
    lines = ["| filter | setting | PSNR | SSIM | EPI | gCNR | ms | processor ms |", "|---|---|---|---|---|---|---|---|"]
    filters: dict[str, tuple[str, Filter]] = {"(none)": ("", small)}
    for title, (settings, make) in grid(given).items():
        found = [scores(make(**options), apart)[0] for options in settings]
        say(f"{title}: PSNR " + ", ".join(f"{_words(o)} {v:.2f}" for o, v in zip(settings, found, strict=True)))
        chosen[title] = settings[int(np.argmax(found))]
        if "time" in chosen[title]:
            filters[f"{title}, as in the recipe"] = ("T = 10", make(time=10.0))
        filters[title] = (_words(chosen[title]), make(**chosen[title]))
    write_json(given.output / "chosen.json", chosen)
    clocks = timed({title: run for title, (_, run) in filters.items()}, judged[0][0])
    for title, (setting, run) in filters.items():
        psnr, ssim, epi, gcnr = scores(run, judged)
        wall, used = clocks[title]
        cells = [f"{psnr:.2f}", f"{ssim:.3f}", f"{epi:.2f}", f"{gcnr:.2f}", f"{wall:.2f}", f"{used:.2f}"]
        lines.append("| " + " | ".join([title, setting, *cells]) + " |")
    print("\n".join(lines), "\n")
    picture({title: run for title, (_, run) in filters.items()}, judged[0], given.output / "learned-diffusion.png")


def _words(options: Options) -> str:
    if "time" in options:
        return f"T = {options['time']:g}"
    return f"t = {options['timestep']}, {'noise added' if options['noise'] else 'no noise added'}"


def timed(runs: dict[str, Filter], frame: Plane, rounds: int = 25) -> dict[str, tuple[float, float]]:
    """Median milliseconds by the clock and by the processor, all in turn, each after an untimed call of its own.

    What works at the network's size is given a frame of that size, so that shrinking it costs nothing.
    """
    measured: dict[str, list[tuple[float, float]]] = {title: [] for title in runs}
    for _ in range(rounds):
        for title, run in runs.items():
            given = frame if "frame's size" in title else small(frame)
            run(given)
            wall, used = time.perf_counter(), time.process_time()
            run(given)
            measured[title].append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - used)))
    return {
        title: (float(np.median([w for w, _ in v])), float(np.median([p for _, p in v])))
        for title, v in measured.items()
    }


def picture(runs: dict[str, Filter], case: Case, file: Path) -> None:
    """One phantom: as it is, by every chosen filter, and clean."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    frame, clean, _ = case
    shown = {"frame": small(frame)}
    shown |= {title: run(frame) for title, run in runs.items() if title != "(none)" and "recipe" not in title}
    shown["clean truth"] = small(clean)
    figure, axes = plt.subplots(2, (len(shown) + 1) // 2, figsize=(9, 3.9), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, plane) in zip(axes.flat, shown.items(), strict=False):
        axis.imshow(plane, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
