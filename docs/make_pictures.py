"""Draw the README's pictures: a phantom frame on its way to the nerve, and the result on real frames.

edgefusion demo -o demo && python docs/make_pictures.py demo docs/results/kaggle-fixed

No real frame is shown: the terms of the data forbid it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.data.readers import read_labels
from edgefusion.data.study import Study
from edgefusion.models.names import TITLES

PICTURES = Path(__file__).parent / "pictures"
TRUTH, FOUND = "#2ca02c", "#e6009e"
MODEL = "edgefusion-unet"


def way_to_the_nerve(demo: Path) -> None:
    """One phantom frame: what the network sees, and what it finds. The frame is the median by Dice, not the best."""
    study = Study.load(demo / "phantoms")
    frames = pd.read_csv(demo / "run" / "frames.csv").query("model == @MODEL and has_nerve").sort_values("dice")
    row = frames.iloc[len(frames) // 2]
    image, truth = study.image(row["frame_id"]), study.mask(row["frame_id"])
    assert truth is not None
    found = read_labels(demo / "run" / MODEL / row["fold"] / "predictions" / f"{row['frame_id']}.png")
    stack = build_stack(image, ChannelRecipe(("raw", "dpad", "edges"), *image.shape))
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.1), layout="constrained")
    titles = ["raw", "denoised (DPAD)", "edges", "nerve: true and found"]
    for axis, title, picture in zip(axes, titles, [*stack, image / 255.0], strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=12)
        axis.set_axis_off()
    for mask, colour in ((truth, TRUTH), (found, FOUND)):
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for outline in outlines:
            closed = np.vstack([outline[:, 0], outline[:1, 0]])
            axes[3].plot(closed[:, 0], closed[:, 1], color=colour, linewidth=1.6)
    figure.savefig(PICTURES / "way.png", dpi=90)


def result_on_real_frames(run: Path) -> None:
    """Masked-frame Dice and boundary F1 of every network, with 95 % intervals."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    measures = pd.DataFrame(summary["measures"])
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.2), layout="constrained", sharey=True)
    names = summary["models"][::-1]
    for axis, measure, title in zip(axes, ["dice_masked", "boundary_f1"], ["Dice", "Boundary F1 (2 px)"], strict=True):
        rows = measures[measures["measure"] == measure].set_index("model").loc[names]
        values = rows[["value", "low", "high"]].astype(float)
        for place, (name, row) in enumerate(values.iterrows()):
            colour = FOUND if name == MODEL else "#5c6670"
            axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
            axis.plot(row["value"], place, "o", color=colour)
            axis.annotate(f"{row['value']:.3f}", (row["value"], place), (0, 6), textcoords="offset points", ha="center")
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [TITLES[name] for name in names])
    axes[0].set_ylim(-0.5, len(names) - 0.3)
    figure.savefig(PICTURES / "result.png", dpi=90)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    way_to_the_nerve(Path(sys.argv[1]))
    result_on_real_frames(Path(sys.argv[2]))
