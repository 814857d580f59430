"""What each channel does to segmentation: one small network, one seed, one schedule, one set of patients.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
python benchmarks/channel_choice.py runs/kaggle -o runs/channel-choice --validation-patients 3,8,13,18,23,28,33,38,43

The network is the customary Residual U-Net, which sees the channels concatenated. Each set of channels is a run of its
own that can be resumed; ``--sets`` trains some of them, and the table is made of all that are complete.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from edgefusion.config import ChannelRecipe, CompareConfig, SplitConfig, TrainConfig
from edgefusion.evaluation.aggregate import read_frames, summarise
from edgefusion.evaluation.compare import compare_models
from edgefusion.files import write_text
from edgefusion.training.crossval import compare

SETS = {
    "raw": ("raw",),
    "raw + SRAD": ("raw", "srad"),
    "raw + DPAD": ("raw", "dpad"),
    "raw + OSRAD": ("raw", "osrad"),
    "raw + fused edges": ("raw", "edges"),
    "raw + ICOV": ("raw", "icov"),
    "raw + ROEWA": ("raw", "roewa"),
    "raw + feature asymmetry": ("raw", "feature-asymmetry"),
    "raw + Canny": ("raw", "canny"),
    "raw + DPAD + fused edges": ("raw", "dpad", "edges"),
    "all": ("raw", "srad", "dpad", "osrad", "edges", "feature-asymmetry"),
}
MEASURES = ("dice_masked", "boundary_f1", "hd95")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--validation-patients", required=True)
    parser.add_argument("--sets", default="", help="numbers of the sets to train, from 0; by default all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    chosen = [int(number) for number in given.sets.split(",") if number] or range(len(SETS))
    for number in chosen:
        compare(given.study, given.output / str(number), _config(list(SETS.values())[number], given))
    print(table(given.output))


def _config(channels: tuple[str, ...], given: argparse.Namespace) -> CompareConfig:
    return CompareConfig(
        models=("resunet",),
        baseline_channels="all",
        flip_averaging=True,
        recipe=ChannelRecipe(channels=channels),
        train=TrainConfig(epochs=given.epochs, precision=given.precision),
        split=SplitConfig(validation_patients=tuple(given.validation_patients.split(","))),
    )


def table(output: Path) -> str:
    """A markdown table of the complete sets; also writes their frames, one file for all."""
    complete = [(n, name) for n, name in enumerate(SETS) if (output / str(n) / "report.html").is_file()]
    frames = pd.concat([read_frames(output / str(n) / "frames.csv").assign(model=name) for n, name in complete])
    write_text(output / "frames.csv", frames.to_csv(index=False))
    values = summarise(frames).set_index(["model", "measure"])
    pairs = compare_models(frames, "raw").set_index(["other", "measure"])
    lines = ["| channels | Dice, masked frames | difference from raw (95 %) | p, Holm | boundary F1 | HD95, px |"]
    lines.append("|---|---|---|---|---|---|")
    for _, name in complete:
        dice, boundary, hd95 = (values.loc[(name, measure)] for measure in MEASURES)
        cells = [name, f"{dice['value']:.3f} ({dice['low']:.3f} to {dice['high']:.3f})"]
        if name == "raw":
            cells += ["", ""]
        else:
            pair = pairs.loc[(name, "dice_masked")]
            gain = f"{-pair['difference']:+.3f} ({-pair['high']:+.3f} to {-pair['low']:+.3f})"
            cells += [gain, f"{pair['p_holm']:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{boundary['value']:.3f}", f"{hd95['value']:.1f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
