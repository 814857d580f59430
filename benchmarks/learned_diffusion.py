"""Learned diffusion: a channel, a start for the segmentation network, and a filter, each against what it competes with.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
edgefusion phantom -o runs/pretraining-phantoms --patients 500 --frames 3 --seed 1
edgefusion compare runs/pretraining-phantoms --config configs/pretraining.yaml -o runs/pretraining
python benchmarks/learned_diffusion.py denoisers,quality,channels,starts runs/kaggle -o runs/learned-diffusion

Every part resumes. Everything learns from the same 21 patients, without their labels where it denoises, and is judged
on 8 others; the nine patients of the final comparison are in neither. How much a filter removes is chosen on phantoms
that no denoiser saw and no table shows.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from edgefusion.bundle import Bundle
from edgefusion.channels import quality
from edgefusion.channels import recipe as recipe_room
from edgefusion.channels.diffusion import METHODS, despeckle
from edgefusion.channels.recipe import CACHE, cached_stacks
from edgefusion.config import ChannelRecipe, CompareConfig, SplitConfig, TrainConfig
from edgefusion.data.phantom.study import simulate_frame
from edgefusion.data.readers import read_frame
from edgefusion.data.splits import make_splits, write_splits
from edgefusion.data.study import Study
from edgefusion.evaluation.aggregate import read_frames, summarise
from edgefusion.evaluation.compare import compare_models
from edgefusion.files import atomic_path, sha256_of_file, write_json
from edgefusion.models.blocks import PRIOR_LOGIT
from edgefusion.models.costs import measure
from edgefusion.models.denoiser import Denoiser, denoise, denoising_loss, draw_timesteps, grey_scale
from edgefusion.models.edgefusion_unet import EdgeFusionUNet
from edgefusion.progress import say
from edgefusion.training.crossval import compare

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
TIMESTEPS, TIMES = (80, 120, 180, 260, 360), (1.0, 2.5, 5.0, 10.0, 20.0)
KINDS = {"frames": "learned, real frames", "phantoms": "learned, phantoms"}

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
    """Train by ``denoising_loss`` on N×1×H×W grey levels and their targets, and leave the network in evaluation mode.

    ``file`` holds weights, optimiser and step; an interrupted training goes on from it, a complete one is read.
    """
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=1e-2)
    done = _read_state(file, network, optimizer) if file.is_file() else 0
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
        if (step + 1) % SAVED == 0 or step + 1 == steps:
            _write_state(file, network, optimizer, step + 1)
            left = (time.monotonic() - started) / (step + 1 - done) * (steps - step - 1)
            say(f"{file.stem}: step {step + 1}/{steps}, loss {np.mean(losses[-SAVED:]):.3f}, about {left:.0f} s left")
    network.eval()


def _write_state(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["step"] = torch.tensor(step)
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


def real_frames(given: argparse.Namespace) -> Tensor:
    """Raw frames of the training patients; their masks are not looked at."""
    study = Study.load(given.study)
    split = make_splits(study, SPLIT)[0]
    assert not {*split.train} & {*SPLIT.validation_patients, *SPLIT.without_patients}
    return torch.from_numpy(
        cached_stacks(study, split.train_frames(study), ChannelRecipe(), study.path / CACHE)
    ).float()


def phantoms(given: argparse.Namespace, choosing: bool) -> tuple[Study, pd.DataFrame]:
    """The phantom study and the rows of the frames to learn from, or of those that choose."""
    study = Study.load(given.phantoms)
    last = list(dict.fromkeys(study.frames["patient_id"]))[-CHOOSING:]
    return study, study.frames[study.frames["patient_id"].isin(last) == choosing]


def small(image: NDArray[Any]) -> Plane:
    return np.asarray(cv2.resize(as_unit(image), SIZE[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)


def denoisers(given: argparse.Namespace) -> None:
    """Train all three: on real frames, on phantoms, and EdgeFusion-UNet itself on real frames."""
    only = given.only.split(",") if given.only else ["frames", "phantoms", "start"]
    for kind in only:
        torch.manual_seed(0)
        network = Blind(EdgeFusionUNet(1, 1, presence_head=False)) if kind == "start" else Denoiser()
        if kind == "phantoms":
            study, rows = phantoms(given, choosing=False)
            ids = list(rows["frame_id"])
            source = torch.from_numpy(cached_stacks(study, ids, ChannelRecipe(), study.path / CACHE)).float()
            clean = [small(read_frame(study.path / name)) for name in rows["clean"]]
            target = torch.from_numpy(np.stack(clean))[:, None]
        else:
            source = target = real_frames(given)
        say(f"{kind}: {len(source)} frames, {measure_denoiser(network)}")
        fit(network, source, target, given.output / f"{kind}.safetensors", given.steps)


def measure_denoiser(network: nn.Module) -> str:
    counted = network.network if isinstance(network, Blind) else _AtOnce(network)
    costs = measure(counted, 1, *SIZE)
    return f"{costs['parameters']} parameters, {costs['multiply_adds'] / 1e9:.3f} G multiply-adds"


class _AtOnce(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        velocity: Tensor = self.network(x, torch.full((len(x),), TIMESTEPS[0]))
        return velocity


def trained(kind: str, given: argparse.Namespace) -> Denoiser:
    network = Denoiser()
    fit(network, torch.empty(0), torch.empty(0), given.output / f"{kind}.safetensors", 0)
    return network


def one_step(network: Denoiser, timestep: int, noise: bool) -> Filter:
    """The network as a filter of frames at its own size; ``noise`` is drawn alike for every frame."""

    def run(frame: Plane) -> Plane:
        generator = torch.Generator().manual_seed(0) if noise else None
        return denoise(network, torch.from_numpy(frame)[None, None], timestep, generator)[0, 0].numpy()

    return run


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
        network = trained(kind, given)

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
    return found | {title: (timesteps, learned(kind)) for kind, title in KINDS.items()}


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


def quality_table(given: argparse.Namespace) -> None:
    """Choose every filter's settings by PSNR on phantoms kept apart, judge them on others, and time them."""
    study, rows = phantoms(given, choosing=True)
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
    torch.set_num_threads(given.threads)
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
    figure, axes = plt.subplots(2, (len(shown) + 1) // 2, figsize=(11, 4.6), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, plane) in zip(axes.flat, shown.items(), strict=False):
        axis.imshow(plane, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _learned_channels(given: argparse.Namespace) -> dict[str, str]:
    """Make each denoiser a channel of this process, by a name that changes with its weights and setting.

    The package knows no such channel: it would have to ship a network for it, and what it does to segmentation is
    only asked here.
    """
    chosen = json.loads((given.output / "chosen.json").read_text(encoding="utf-8"))
    names = {}
    for kind, title in KINDS.items():
        run = one_step(trained(kind, given), **chosen[title])

        def channel(image: Plane, time: float, threads: int | None, run: Filter = run) -> Plane:
            return run(small(image))

        setting = "-".join(str(value) for value in chosen[title].values())
        name = f"learned-{kind}-{sha256_of_file(given.output / f'{kind}.safetensors')[:8]}-{setting}"
        METHODS[name] = channel
        recipe_room.CHANNELS = (*recipe_room.CHANNELS, name)
        names[title] = name
    return names


def _config(model: str, seed: int, given: argparse.Namespace) -> CompareConfig:
    return CompareConfig(
        models=(model,),
        baseline_channels="all",
        flip_averaging=True,
        train=TrainConfig(epochs=given.epochs, precision="bf16", seed=seed),
        split=SPLIT,
    )


def _seeds(given: argparse.Namespace) -> Iterator[int]:
    return map(int, given.seeds.split(","))


def _wanted(given: argparse.Namespace, count: int) -> set[int]:
    return {int(number) for number in given.only.split(",")} if given.only else set(range(count))


def channels(given: argparse.Namespace) -> None:
    """The Residual U-Net with each channel beside the raw frame."""
    wanted = _wanted(given, 5)
    learned = _learned_channels(given) if wanted & {3, 4} else {}
    sets = {"raw": ("raw",), "raw + SRAD": ("raw", "srad"), "raw + DPAD": ("raw", "dpad")}
    sets |= {f"raw + {title}": ("raw", learned.get(title, "")) for title in KINDS.values()}
    for seed in _seeds(given):
        for number, names in enumerate(sets.values()):
            if number in wanted:
                config = replace(_config("resunet", seed, given), recipe=ChannelRecipe(names))
                compare(given.study, given.output / "channels" / f"{number}-seed-{seed}", config)
    print(table(given, "channels", list(sets)), "\n")


def starts(given: argparse.Namespace) -> None:
    """EdgeFusion-UNet from fresh weights, from phantoms with their labels, and from denoising real frames."""
    wanted = _wanted(given, 3)
    denoised = _denoising_start(given) if 2 in wanted else ""
    runs = {
        "fresh weights": "",
        "segmenting phantoms": str(given.phantom_start),
        "denoising real frames, without labels": str(denoised),
    }
    for seed in _seeds(given):
        for number, start in enumerate(runs.values()):
            if number in wanted:
                config = replace(_config("edgefusion-unet", seed, given), pretrained=start)
                compare(given.study, given.output / "starts" / f"{number}-seed-{seed}", config)
    print(table(given, "starts", list(runs)), "\n")


def _denoising_start(given: argparse.Namespace) -> Path:
    """The denoiser's weights as a run to start from; its heads, which drew velocities, are fresh ones."""
    study, folder = Study.load(given.study), given.output / "denoising-start"
    split = make_splits(study, SPLIT)[0]
    torch.manual_seed(0)
    fresh, blind = (EdgeFusionUNet(1, 1, presence_head=False) for _ in range(2))
    fit(Blind(blind), torch.empty(0), torch.empty(0), given.output / "start.safetensors", 0)
    body = {name: value for name, value in blind.state_dict().items() if "_head." not in name}
    fresh.load_state_dict(body, strict=False)
    Bundle(
        model=fresh.eval(),
        model_name="edgefusion-unet",
        recipe=ChannelRecipe(),
        labels=list(study.labels),
        model_args={"presence_head": False},
        study_name=study.name,
        study_sha256=study.sha256(),
        trained_on=list(split.train),
        terms=study.terms,
    ).save(folder / "edgefusion-unet" / split.name)
    write_splits(folder / "splits.json", [split])
    return folder


def table(given: argparse.Namespace, part: str, titles: list[str]) -> str:
    """Markdown of the runs that are complete with all seeds, compared with the first."""
    found = []
    for number, title in enumerate(titles):
        files = {seed: given.output / part / f"{number}-seed-{seed}" for seed in _seeds(given)}
        if all((folder / "report.html").is_file() for folder in files.values()):
            found += [
                read_frames(folder / "frames.csv").assign(model=title, fold=f"seed {seed}")
                for seed, folder in files.items()
            ]
    if not found or found[0]["model"].iloc[0] != titles[0]:
        return f"{titles[0]} is not trained yet: no table."
    frames = pd.concat(found)
    values = summarise(frames).set_index(["model", "measure"])
    pairs = compare_models(frames, titles[0])
    pairs = pairs.set_index(["other", "measure"]) if len(pairs) else pairs
    head = [
        "",
        "Dice, masked frames",
        "difference (95 %)",
        "p, Holm",
        "precision",
        "boundary F1",
        "HD95, px",
        "by seed",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for title in dict.fromkeys(frames["model"]):
        dice, precision, boundary, hd95 = (
            values.loc[(title, key), "value"] for key in ("dice_masked", "precision", "boundary_f1", "hd95")
        )
        cells = [title, f"{dice:.3f}", "", "", f"{precision:.3f}", f"{boundary:.3f}", f"{hd95:.1f}"]
        if title != titles[0]:
            pair = pairs.loc[(title, "dice_masked")]
            cells[2] = f"{-pair['difference']:+.3f} ({-pair['high']:+.3f} to {-pair['low']:+.3f})"
            cells[3] = f"{pair['p_holm']:.2f}"
        of_title = frames[(frames["model"] == title) & (frames["true_area"] > 0)]
        cells.append(", ".join(f"{value:.3f}" for value in of_title.groupby("fold")["dice"].mean()))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "denoisers": denoisers,
    "quality": quality_table,
    "channels": channels,
    "starts": starts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", help=f"of {', '.join(PARTS)}, in this order, divided by commas")
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--phantoms", type=Path, default=Path("runs/pretraining-phantoms"))
    parser.add_argument("--phantom-start", type=Path, default=Path("runs/pretraining"))
    parser.add_argument("--only", default="", help="some trainings of a part: their names, or numbers from 0")
    parser.add_argument("--seeds", default="0,1", help="of the segmentation networks")
    parser.add_argument("--steps", type=int, default=1500, help="of a denoiser's training")
    parser.add_argument("--epochs", type=int, default=10, help="of a segmentation network's training")
    parser.add_argument("--judged", type=int, default=24, help="phantoms that filters are judged on")
    parser.add_argument("--threads", type=int, default=2, help="of a filter that is timed; trainings take one")
    given = parser.parse_args()
    for part in given.parts.split(","):
        torch.set_num_threads(1)
        PARTS[part](given)


if __name__ == "__main__":
    main()
