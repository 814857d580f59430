"""What learned diffusion is worth to segmentation: its one step as a channel, and its objective as a start.

edgefusion compare runs/pretraining-phantoms --config configs/pretraining.yaml -o runs/pretraining
python benchmarks/denoisers.py runs/kaggle -o runs/learned-diffusion
python benchmarks/denoising_quality.py -o runs/learned-diffusion
python benchmarks/learned_diffusion.py channels,starts runs/kaggle -o runs/learned-diffusion

Every training resumes. All learn from the same 21 patients and are judged on 8 others; the nine patients of the final
comparison are in neither.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from denoisers import SPLIT, Blind, Denoiser, Filter, Plane, one_step, small, trained
from denoising_quality import LEARNED

from edgefusion.bundle import Bundle
from edgefusion.channels import recipe as recipe_room
from edgefusion.channels.diffusion import METHODS
from edgefusion.config import ChannelRecipe, CompareConfig, TrainConfig
from edgefusion.data.splits import make_splits, write_splits
from edgefusion.data.study import Study
from edgefusion.evaluation.aggregate import read_frames, summarise
from edgefusion.evaluation.compare import compare_models
from edgefusion.files import sha256_of_file
from edgefusion.models.edgefusion_unet import EdgeFusionUNet
from edgefusion.training.crossval import compare


def _learned_channels(given: argparse.Namespace) -> dict[str, str]:
    """Make each denoiser a channel of this process, by a name that changes with its weights and setting.

    The package knows no such channel: it would have to ship a network for it, and what it does to segmentation is
    only asked here.
    """
    chosen = json.loads((given.output / "chosen.json").read_text(encoding="utf-8"))
    names = {}
    for kind, title in LEARNED.items():
        file = given.output / f"{kind}.safetensors"
        run = one_step(trained(Denoiser(), file), **chosen[title])

        def channel(image: Plane, time: float, threads: int | None, run: Filter = run) -> Plane:
            return run(small(image))

        setting = "-".join(str(value) for value in chosen[title].values())
        name = f"learned-{kind}-{sha256_of_file(file)[:8]}-{setting}"
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
    sets |= {f"raw + {title}": ("raw", learned.get(title, "")) for title in LEARNED.values()}
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
    trained(Blind(blind), given.output / "start.safetensors")
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


PARTS = {"channels": channels, "starts": starts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", help="channels, starts or both, divided by a comma")
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the denoisers")
    parser.add_argument("--phantom-start", type=Path, default=Path("runs/pretraining"))
    parser.add_argument("--only", default="", help="numbers of some trainings of a part, from 0")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for part in given.parts.split(","):
        PARTS[part](given)


if __name__ == "__main__":
    main()
