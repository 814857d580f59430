"""The whole way on built-in phantoms, small enough for two cores and a coffee."""

from __future__ import annotations

import json
import os
from pathlib import Path

from edgefusion.config import ChannelRecipe, CompareConfig, SplitConfig, TrainConfig
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.study import Study, is_study
from edgefusion.evaluation.answer import text_table
from edgefusion.progress import say
from edgefusion.training.crossval import compare

PATIENTS, FRAMES, SIZE = 24, 12, (210, 290)

CONFIG = CompareConfig(
    recipe=ChannelRecipe(height=64, width=96),
    train=TrainConfig(epochs=16, precision="32"),
    split=SplitConfig(folds=2),
)
"""Every patient is judged once, by networks that were trained on the other half of the patients."""


def run_demo(output: Path) -> Path:
    """Make phantoms, train four networks on each of two folds, compare them by patient, and write the report.

    Args:
        output: Folder that receives ``phantoms/`` and ``run/``; an interrupted demo goes on where it stopped.

    Returns:
        Path of the report, which is also the last thing that the program prints.
    """
    say(f"1/3  {PATIENTS} simulated patients, {FRAMES} frames each, a third of them without the nerve")
    folder = output / "phantoms"
    study = Study.load(folder) if is_study(folder) else make_phantom_study(folder, PATIENTS, FRAMES, 0, SIZE)
    say(f"2/3  {len(CONFIG.models)} networks, each trained on half of the patients and judged on the others, twice")
    report = compare(study, output / "run", CONFIG, jobs=min(2, os.cpu_count() or 1))
    say("3/3  The comparison")
    print(text_table(json.loads((output / "run" / "summary.json").read_text(encoding="utf-8"))))
    return report
