"""How much is learnt from few patients: the same networks after equally many steps on 3, 6, 12 and all 21 patients.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
python benchmarks/ablation.py runs/kaggle -o runs/ablation --jobs 2
python benchmarks/few_labels.py runs/kaggle --whole runs/ablation -o runs/few-labels --jobs 2

Patients are drawn by lot among the ablation's training patients, smaller draws inside larger ones; every further lot
has a further seed of training, too. All are judged on the ablation's development patients. Runs resume; ``--only 6``
trains one size, and the table is made of all trainings that are complete.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from ablation import BASE, REFERENCE, run_compare
from matplotlib.figure import Figure

from edgefusion.config import SplitConfig, TrainConfig
from edgefusion.data.splits import Split, make_splits, read_splits
from edgefusion.data.study import Study
from edgefusion.evaluation.aggregate import read_frames, summarise
from edgefusion.evaluation.chart_style import PALETTE, legend_below, picture, single
from edgefusion.evaluation.compare import compare_models
from edgefusion.files import atomic_path

NETWORKS = {
    REFERENCE: "EdgeFusion-UNet",
    "three-channels": "EdgeFusion-UNet, raw, denoised and edges",
    "unet-matched": "U-Net, matched",
}
"""Files of configs/ablation."""
LEAST_FRAMES = 20
"""A patient with fewer is not drawn: of three patients, one with two frames would hardly be one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--whole", type=Path, required=True, help="output of ablation.py: trained on all patients")
    parser.add_argument("--only", default="3,6,12", help="numbers of patients to train on")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="networks to train")
    parser.add_argument("--lots", default="0", help="train once on each of these lots")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side; they share the cores")
    parser.add_argument("--precision", choices=["32", "bf16"], help="instead of what the files say")
    parser.add_argument("--picture", type=Path, help="file for the learning curves, as PNG")
    given = parser.parse_args()
    study = Study.load(given.study)
    sizes, lots = ([int(part) for part in text.split(",")] for text in (given.only, given.lots))
    names = [(size, lot, network) for size in sizes for lot in lots for network in given.networks.split(",")]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda name: train(study, given, *name), names))
    runs = complete(given.output, given.whole, lots)
    if not runs:
        print("EdgeFusion-UNet is not trained yet: no table.")
        return
    values = curves(study, runs)
    print(as_markdown(values))
    if given.picture:
        with atomic_path(given.picture) as temporary:
            temporary.write_bytes(draw_curves(values))


def split_of(study: Study, size: int, lot: int) -> Split:
    """Who trains and who judges: in one lot, the first ``size`` patients of the same shuffled list."""
    base = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    judged, outside = (tuple(base[key].split(",")) for key in ("validation_patients", "without_patients"))
    frames = study.labelled()["patient_id"].value_counts()
    pool = sorted(set(frames.index) - {*judged, *outside})
    drawn = np.random.default_rng(lot).permutation([name for name in pool if frames[name] >= LEAST_FRAMES])[:size]
    left_out = tuple(name for name in pool if size and name not in drawn)
    return make_splits(study, SplitConfig(validation_patients=judged, without_patients=(*outside, *left_out)))[0]


def train(study: Study, given: argparse.Namespace, size: int, lot: int, network: str) -> None:
    split, whole = split_of(study, size, lot), split_of(study, 0, lot)
    others = set(study.labelled()["patient_id"]) - {*split.train, *split.validation}
    epochs = yaml.safe_load(BASE.read_text(encoding="utf-8"))["train"]["epochs"]
    options = ["--without-patients", ",".join(sorted(others)), "--seeds", str(lot)]
    options += ["--train.epochs", str(round(epochs * steps(study, whole) / steps(study, split)))]
    run_compare(given, BASE.with_name(f"{network}.yaml"), folder(given.output, size, lot) / network, *options)


def steps(study: Study, split: Split) -> int:
    """Steps of an epoch."""
    return max(1, len(split.train_frames(study)) // TrainConfig().batch_size)


def folder(output: Path, size: int, lot: int) -> Path:
    return output / f"patients_{size}" / f"lot_{lot}"


def complete(output: Path, whole: Path, lots: list[int]) -> list[dict[str, list[Path]]]:
    """The runs of each network, one a lot, that are complete: for every size that has the reference, all patients last.

    Of a network without a run in every lot, there is none: the lots of one size are compared as a whole.
    """
    sizes = sorted(int(path.name.removeprefix("patients_")) for path in output.glob("patients_*"))
    found = []
    for folders in [*([folder(output, size, lot) for lot in lots] for size in sizes), [whole]]:
        runs = {network: [path / network for path in folders] for network in NETWORKS}
        runs = {name: paths for name, paths in runs.items() if all((path / "report.html").is_file() for path in paths)}
        if REFERENCE in runs:
            found.append(runs)
    return found


def curves(study: Study, sizes: list[dict[str, list[Path]]]) -> pd.DataFrame:
    """One row a size and network.

    Its columns are patients, network, frames (mean of the lots), value with low and high (masked-frame Dice),
    boundary_f1 and hd95, and the difference in Dice to the reference with least, most and p.
    """
    rows = []
    for runs in sizes:
        splits = [read_splits(path / "splits.json")[0] for path in runs[REFERENCE]]
        frames = pd.concat(
            read_frames(path / "frames.csv").assign(model=network, fold=f"lot_{lot}")
            for network, paths in runs.items()
            for lot, path in enumerate(paths)
        )
        values = summarise(frames).set_index(["model", "measure"])
        pairs = compare_models(frames, REFERENCE).set_index(["measure", "other"])
        for network in runs:
            row = {"patients": len(splits[0].train), "network": network}
            row["frames"] = round(float(np.mean([len(split.train_frames(study)) for split in splits])))
            row |= values.loc[(network, "dice_masked"), ["value", "low", "high"]].to_dict()
            row |= {key: values.loc[(network, key), "value"] for key in ("boundary_f1", "hd95")}
            if network != REFERENCE:
                pair = pairs.loc[("dice_masked", network)]
                row |= {"difference": -pair["difference"], "least": -pair["high"], "most": -pair["low"]}
                row["p"] = pair["p"]
            rows.append(row)
    return pd.DataFrame(rows)


def as_markdown(values: pd.DataFrame) -> str:
    lines = [
        "| patients (frames) | network | Dice, masked frames (95 %) | minus EdgeFusion-UNet (95 %), p "
        "| boundary F1, 2 px | HD95, px |",
        "|---|---|---|---|---|---|",
    ]
    for row in values.to_dict("records"):
        first = row["network"] == REFERENCE
        cells = [
            f"{row['patients']} ({row['frames']})",
            NETWORKS[row["network"]],
            f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            "" if first else f"{row['difference']:+.3f} ({row['least']:+.3f} to {row['most']:+.3f}), {row['p']:.2f}",
            f"{row['boundary_f1']:.3f}",
            f"{row['hd95']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@picture
def draw_curves(values: pd.DataFrame) -> Figure:
    """Masked-frame Dice against the number of patients, with intervals; networks stand a little apart."""
    figure, axes = single(3.6)
    for place, (network, title) in enumerate(NETWORKS.items()):
        rows = values[values["network"] == network]
        at = rows["patients"] * (1 + 0.03 * (place - 1))
        span = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
        axes.errorbar(at, rows["value"], span, color=PALETTE[place], marker="os^"[place], capsize=3, label=title)
    axes.set_xscale("log")
    axes.set_xticks(list(values["patients"].unique()), [str(size) for size in values["patients"].unique()])
    axes.minorticks_off()
    axes.set_xlabel("patients trained on")
    axes.set_ylabel("Dice, frames of 8 other patients")
    legend_below(figure, axes)
    return figure


if __name__ == "__main__":
    main()
