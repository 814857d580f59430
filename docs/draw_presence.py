"""Draw what presence can be told by: how many frames without a nerve are recognised, at what cost in frames with one.

python benchmarks/presence.py runs/published-bp-presence runs/kaggle --negatives runs/kaggle-fullres runs/phantoms \
    -o docs/results/presence/frames.csv
python docs/draw_presence.py docs/results/presence/frames.csv

It shows scores, and no frame.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from edgefusion.evaluation.presence_frames import CUT, POSITIVE

PICTURE = Path(__file__).parent / "pictures" / "presence.png"
RULES = {"head": ("presence head", "#e6009e"), "maximum": ("highest probability", "#5c6670")}


def presence(frames: pd.DataFrame) -> None:
    """A curve a score and kind of negatives; a ring where the threshold lies that was chosen."""
    shown = frames[frames["kind"] == POSITIVE]
    others = frames[frames["kind"] != POSITIVE]
    kinds = list(others["kind"].unique())
    titles = {
        CUT: "cut beside the nerve",
        "kaggle-fullres": "real, without a nerve",
        "kaggle-fullres, contradicted": "real, annotated both ways",
    }
    figure, panels = plt.subplots(1, len(kinds), figsize=(3.4 * len(kinds), 3.6), layout="constrained", sharey=True)
    for panel, kind in zip(panels, kinds, strict=True):
        negative = others[others["kind"] == kind]
        for rule, (name, colour) in RULES.items():
            thresholds = np.r_[np.unique(np.r_[shown[rule], negative[rule]]), np.inf]
            kept = [(shown[rule] >= threshold).mean() for threshold in thresholds]
            recognised = [(negative[rule] < threshold).mean() for threshold in thresholds]
            panel.plot(kept, recognised, color=colour, label=name)
        used = shown["used"].mean(), 1 - negative["used"].mean()
        panel.plot(*used, "o", color=RULES["head"][1], markerfacecolor="none", markersize=9, label="at its threshold")
        patients = negative["patient_id"].nunique()
        panel.set_title(f"{titles.get(kind, kind)}\n{len(negative)} frames, {patients} patients", fontsize=10)
        panel.set_xlabel("sensitivity")
        panel.set(xlim=(0.7, 1.005), ylim=(-0.02, 1.02))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("specificity")
    panels[0].legend(loc="lower left", frameon=False, fontsize=9)
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    presence(pd.read_csv(sys.argv[1]))
