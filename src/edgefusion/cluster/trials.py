"""The trials of a search as files: what was proposed, what came out, the table, the best settings and a chart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edgefusion.cluster.space import Settings, Trial, applied
from edgefusion.config import CompareConfig
from edgefusion.evaluation.chart_style import MUTED, PALETTE, chart, legend_below, single
from edgefusion.files import atomic_path, write_json, write_text

_PROPOSAL = "proposal.json"
_RESULT = "result.json"


def trial_folder(output: Path, number: int) -> Path:
    """Where a trial keeps its trainings."""
    return output / "trials" / f"{number:03d}"


def read_trials(output: Path) -> list[Trial]:
    """Every trial that was proposed, by number."""
    trials = []
    for file in sorted((output / "trials").glob(f"*/{_PROPOSAL}")):
        settings = json.loads(file.read_text(encoding="utf-8"))
        result = file.with_name(_RESULT)
        dice = json.loads(result.read_text(encoding="utf-8"))["dice"] if result.is_file() else None
        trials.append(Trial(int(file.parent.name), settings, dice))
    return trials


def write_proposal(output: Path, number: int, settings: Settings) -> None:
    """Keep what is to be tried, before it is."""
    write_json(trial_folder(output, number) / _PROPOSAL, settings)


def write_result(output: Path, number: int, dice: float) -> None:
    """Keep what a trial came to."""
    write_json(trial_folder(output, number) / _RESULT, {"dice": dice})


def best_of(trials: list[Trial]) -> Trial:
    """The finished trial with the highest Dice; of equals the first."""
    return max((trial for trial in trials if trial.dice is not None), key=lambda trial: (trial.dice, -trial.number))


def write_summary(output: Path, trials: list[Trial], base: CompareConfig) -> None:
    """Write ``search.csv``, ``search.svg`` and ``best.yaml``, which ``train --config`` takes.

    Args:
        output: Folder of the search.
        trials: All of them, at least one finished.
        base: The settings that were not searched, with the number format that was used.
    """
    done = [trial for trial in trials if trial.dice is not None]
    table = pd.DataFrame([{"trial": trial.number, "dice": trial.dice, **trial.settings} for trial in done])
    write_text(output / "search.csv", table.to_csv(index=False))
    with atomic_path(output / "search.svg") as temporary:
        temporary.write_bytes(draw_history(table))
    best = applied(best_of(done).settings, base)
    settings = {
        "model": best.models[0],
        "train": dataclasses.asdict(best.train),
        "recipe": {**dataclasses.asdict(best.recipe), "channels": list(best.recipe.channels)},
        "network": best.network,
    }
    write_text(output / "best.yaml", yaml.safe_dump(settings, sort_keys=False))


@chart
def draw_history(table: pd.DataFrame) -> Figure:
    """The Dice of every trial, and the best so far.

    Args:
        table: Columns trial and dice.
    """
    figure, axes = single(3.2)
    dice = table["dice"].to_numpy(dtype=np.float64)
    axes.plot(table["trial"], dice, "o", color=MUTED, markersize=5, label="a trial")
    best = np.maximum.accumulate(dice)
    axes.plot(table["trial"], best, drawstyle="steps-post", color=PALETTE[0], linewidth=2, label="the best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation Dice")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, axes)
    return figure
