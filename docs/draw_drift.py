"""Draw the drift of every kind of picture, from what ``benchmarks/drift.py`` wrote. It shows scores, and no frame.

python docs/draw_drift.py docs/results/drift/brachial-plexus.csv docs/results/drift/regional.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PICTURE = Path(__file__).parent / "pictures" / "drift.png"
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def drift(paths: list[Path]) -> None:
    """A row a kind: a line over nine tenths of its frames, a bar over half, a mark at the median."""
    figure, panels = plt.subplots(1, len(paths), figsize=(6.2 * len(paths), 8), layout="constrained")
    for panel, path in zip(np.atleast_1d(panels), paths, strict=True):
        kinds = pd.read_csv(path).groupby("kind", sort=False)["drift"]
        for row, (_, values) in enumerate(kinds):
            least, low, middle, high, most = values.quantile(SHARES)
            colour = "#0072b2" if row == 0 else "#5c6670"
            panel.plot([least, most], [row, row], color=colour, linewidth=1)
            panel.plot([low, high], [row, row], color=colour, linewidth=6, alpha=0.5, solid_capstyle="butt")
            panel.plot(middle, row, "o", color=colour, markersize=5)
        panel.axvline(1, color="#e6009e", linewidth=1)
        panel.set_xscale("log")
        panel.set_yticks(range(len(kinds)), [kind for kind, _ in kinds])
        panel.invert_yaxis()
        panel.set_title(path.stem)
        panel.set_xlabel("drift (1: the limit)")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3, axis="x")
    figure.savefig(PICTURE, dpi=80)


if __name__ == "__main__":
    drift([Path(argument) for argument in sys.argv[1:]])
