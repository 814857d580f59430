"""What each part of EdgeFusion-UNet is worth: one training a file of configs/ablation and seed, one table.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
python benchmarks/ablation.py runs/kaggle -o runs/ablation --jobs 2

Every file is read on top of configs/ablation/full.yaml and compared with it, on development patients only. A file's
first line says what it changes. Runs resume, and one whose settings have changed is refused; ``--only a,b`` trains some
of them, and the table is made of all that are complete. ``--configs configs/live`` asks the same of smaller and larger
networks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from edgefusion.channels.bands import cores
from edgefusion.evaluation.aggregate import read_frames, summarise
from edgefusion.evaluation.compare import compare_models
from edgefusion.files import write_text

REFERENCE = "full"
BASE = Path("configs/ablation/full.yaml")
MEASURES = {"dice_masked": 3, "precision": 3, "boundary_f1": 3, "hd95": 1}
"""Measures of the table, with their digits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--configs", type=Path, default=Path("configs/ablation"), help="folder of the files")
    parser.add_argument("--only", default="", help="names of files, without .yaml")
    parser.add_argument("--seeds", default="0", help="train once with each")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side; they share the cores")
    parser.add_argument("--precision", choices=["32", "bf16"], help="instead of what the files say")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else [REFERENCE, *variants(given.configs)]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda name: train(name, given), names))
    print(table(given.output, given.configs))


def variants(configs: Path) -> dict[str, str]:
    """What each file but the reference changes, by its first line."""
    files = sorted(configs.glob("*.yaml"))
    return {
        file.stem: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for file in files
        if file.stem != REFERENCE
    }


def train(name: str, given: argparse.Namespace) -> None:
    run_compare(given, given.configs / f"{name}.yaml", given.output / name, "--seeds", given.seeds)


def run_compare(given: argparse.Namespace, file: Path, output: Path, *options: str) -> None:
    """Train by a file that is read on top of the reference, with this training's share of the cores."""
    command = [sys.executable, "-m", "edgefusion", "compare", str(given.study), "-o", str(output)]
    command += ["--config", str(BASE)]
    if file.stem != REFERENCE:
        command += ["--config", str(file)]
    if given.precision:
        command += ["--train.precision", given.precision]
    threads = str(max(1, cores() // given.jobs))
    subprocess.run([*command, *options], check=True, env={**os.environ, "OMP_NUM_THREADS": threads})


def table(output: Path, configs: Path) -> str:
    """A markdown table of the complete runs, if the reference is among them; also writes their frames, in one file."""
    titles = {REFERENCE: "EdgeFusion-UNet as it is", **variants(configs)}
    complete = [name for name in titles if (output / name / "report.html").is_file()]
    if REFERENCE not in complete:
        return f"{REFERENCE} is not trained yet: no table."
    frames = pd.concat([read_frames(output / name / "frames.csv").assign(model=name) for name in complete])
    write_text(output / "frames.csv", frames.to_csv(index=False))
    values = summarise(frames).set_index(["model", "measure"])
    pairs = compare_models(frames, REFERENCE).set_index(["other", "measure"])
    lines = [
        "| what is changed | Dice, masked frames | difference (95 %) | p, Holm | precision | boundary F1 | HD95, px |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in complete:
        dice, *others = (f"{values.loc[(name, key), 'value']:.{digits}f}" for key, digits in MEASURES.items())
        cells = [titles[name], dice]
        if name == REFERENCE:
            cells += ["", ""]
        else:
            pair = pairs.loc[(name, "dice_masked")]
            cells.append(f"{-pair['difference']:+.3f} ({-pair['high']:+.3f} to {-pair['low']:+.3f})")
            cells.append(f"{pair['p_holm']:.2f}")
        lines.append("| " + " | ".join([*cells, *others]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
