"""The tables of docs/results/comparison.md, from a finished comparison: measures, differences, and the spread of seeds.

python benchmarks/comparison_table.py runs/kaggle-fixed --keep docs/results/kaggle-fixed

``--control`` adds EdgeFusion-UNet of another run of the same split, such as the one that sees the raw frame in every
channel: what the channels are worth. ``--without 18`` leaves a patient out of what is judged. ``--keep`` copies what
may be published: settings, split, machine, costs, figures of every frame, logs; no frame, no mask. Where there are
several seeds, missed frames are a mean over them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import yaml

from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.answer import mean_count
from edgefusion.evaluation.compare import compare_models
from edgefusion.evaluation.run import Run, read_run
from edgefusion.files import write_text
from edgefusion.models.names import TITLES

COLUMNS = {
    "dice_masked": ("Dice, masked frames (95 %)", 3),
    "dice_patients": ("Dice, mean of patients", 3),
    "precision": ("precision", 3),
    "pooled_f1": ("pooled F1", 3),
    "boundary_f1": ("boundary F1, 2 px", 3),
    "hd95": ("HD95, px", 1),
    "n_missed": ("missed", 0),
}
DIFFERENCES = ("dice_masked", "precision", "pooled_f1", "boundary_f1", "hd95")
KEPT = ("env.json", "splits.json", "costs.json", "frames.csv", "summary.json")


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def measures(run: Run, label: str) -> str:
    values = summarise(run.frames[run.frames["label"] == label]).set_index(["model", "measure"])
    lines = [line(["network", "G mult.-adds", "ms", *(title for title, _ in COLUMNS.values())])]
    lines.append("|---" * (3 + len(COLUMNS)) + "|")
    for model in run.models:
        cost = run.costs[model]
        cells = [TITLES[model], f"{cost['multiply_adds'] / 1e9:.2f}", f"{cost['ms_per_frame']:.1f}"]
        for measure, (_, digits) in COLUMNS.items():
            row = values.loc[(model, measure)]
            span = f" ({row['low']:.{digits}f} to {row['high']:.{digits}f})" if measure == "dice_masked" else ""
            value = mean_count(row["value"]) if measure == "n_missed" else f"{row['value']:.{digits}f}"
            cells.append(value + span)
        lines.append(line(cells))
    return "\n".join(lines)


def differences(frames: pd.DataFrame, reference: str) -> str:
    pairs = compare_models(frames, reference).set_index(["other", "measure"])
    lines = [line([f"{TITLES[reference]} minus", *(COLUMNS[measure][0].split(" (")[0] for measure in DIFFERENCES)])]
    lines.append("|---" * (1 + len(DIFFERENCES)) + "|")
    for other in pairs.index.get_level_values("other").unique():
        cells = [TITLES.get(other, other)]
        for measure in DIFFERENCES:
            pair, digits = pairs.loc[(other, measure)], COLUMNS[measure][1]
            span = f"{pair['low']:+.{digits}f} to {pair['high']:+.{digits}f}"
            cells.append(f"{pair['difference']:+.{digits}f} ({span}), p {pair['p_holm']:.2f}")
        lines.append(line(cells))
    return "\n".join(lines)


def against_control(run: Run, control: Run, label: str) -> str:
    """The network of this run against the same network of another run, which saw other channels."""
    itself = run.frames[run.frames["model"] == run.reference]
    other = control.frames[control.frames["model"] == run.reference]
    seen = ", ".join(control.channels[run.reference])
    frames = pd.concat([itself, other.assign(model=f"itself seeing {seen}")])
    return differences(frames[frames["label"] == label], run.reference)


def folds(run: Run, label: str) -> str:
    """Masked-frame Dice by fold; with several seeds, how much of it is the luck of training."""
    masked = run.frames[(run.frames["label"] == label) & (run.frames["true_area"] > 0)]
    dice = masked.pivot_table(index="model", columns="fold", values="dice").loc[run.models]
    lines = [line(["network", *dice.columns]), "|---" * (1 + len(dice.columns)) + "|"]
    lines += [line([TITLES[str(model)], *(f"{value:.3f}" for value in row)]) for model, row in dice.iterrows()]
    return "\n".join(lines)


def keep(run: Run, folder: Path) -> None:
    for name in KEPT:
        write_text(folder / name, (run.path / name).read_text(encoding="utf-8"))
    # Where folders are on this machine is nobody's business.
    settings = {key: value for key, value in run.config.items() if key != "study"}
    if settings.get("pretrained"):
        settings["pretrained"] = Path(settings["pretrained"]).name
    write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    for stale in folder.glob("log-*.csv"):
        stale.unlink()
    for model, log in run.log.groupby("model"):
        write_text(folder / f"log-{model}.csv", pd.DataFrame(log).drop(columns="model").to_csv(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--keep", type=Path, help="folder that receives the files behind the tables")
    parser.add_argument("--control", type=Path, help="run in which EdgeFusion-UNet saw other channels")
    parser.add_argument("--without", default="", help="patients who are not judged, separated by commas")
    given = parser.parse_args()
    run = read_run(given.run)
    run = replace(run, frames=run.frames[~run.frames["patient_id"].isin(given.without.split(","))])
    for label in run.frames["label"].unique():
        frames = run.frames[run.frames["label"] == label]
        print(f"{label}\n\n{measures(run, label)}\n\n{differences(frames, run.reference)}\n\n{folds(run, label)}\n")
        if given.control:
            print(against_control(run, read_run(given.control), label), "\n")
    if given.keep:
        keep(run, given.keep)


if __name__ == "__main__":
    main()
