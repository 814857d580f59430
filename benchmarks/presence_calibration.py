"""Does a presence mean what it says? Temperature scaling of presence, fitted on some patients and judged on others.

python benchmarks/presence_calibration.py docs/results/presence/development.csv docs/results/presence/frames.csv \
    --picture docs/pictures/presence-calibration.png

Both files hold scores of frames, as ``benchmarks/presence.py`` writes them. The first chooses, from frames with the
label and pieces cut beside it; the second judges, by kind of negative. Frames are weighed so that 41 % show the label,
as in the challenge. Prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from edgefusion.evaluation.calibration import Reliability
from edgefusion.evaluation.presence import MIX
from edgefusion.evaluation.presence_frames import CUT, POSITIVE
from edgefusion.inference.predictor import load_bundle

SCORES = {"maximum": "highest probability", "head": "presence head"}
TITLES = {CUT: "cut beside the nerve", "kaggle-fullres": "real, without a nerve"}
Scaling = tuple[float, float]
"""A temperature, by which a logit is divided, and an offset, which is added to it then."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chooses", type=Path)
    parser.add_argument("judges", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    chooses, judges = pd.read_csv(given.chooses), pd.read_csv(given.judges)
    print("| score | scaling | negatives | ECE | NLL | claims too much by |\n|---|---|---|---|---|---|")
    judged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for score, title in SCORES.items():
        for name, scaling in scalings(chooses, score).items():
            for kind in kinds(judges):
                found = measure(mix(judges, kind), score, scaling)
                judged[score, name.partition(" (")[0], kind] = found
                cells = [title, name, kind, f"{found['ece']:.3f}", f"{found['loss']:.3f}", f"{found['bias']:+.3f}"]
                print(f"| {' | '.join(cells)} |")
    if given.picture:
        draw(judged, judges, given.picture)


def kinds(frames: pd.DataFrame) -> list[str]:
    """The kinds of negatives, but for those that were also annotated as showing the label."""
    return [kind for kind in frames["kind"].unique() if kind != POSITIVE and "contradicted" not in kind]


def mix(frames: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The frames with the label, and the negatives of one kind, with ``truth`` and ``weight``."""
    some = frames[frames["kind"].isin([POSITIVE, kind])].copy()
    some["truth"] = some["kind"] == POSITIVE
    sizes = some.groupby("truth")["truth"].transform("size")
    some["weight"] = np.where(some["truth"], MIX, 1 - MIX) / sizes
    return some


def logits(frames: pd.DataFrame, score: str) -> NDArray[np.float64]:
    return logit(frames[score].clip(1e-7, 1 - 1e-7).to_numpy())


def scalings(frames: pd.DataFrame, score: str) -> dict[str, Scaling]:
    """No scaling, what the shipped bundle does, a temperature, and one with an offset (Platt 1999)."""
    cuts = mix(frames, CUT)
    x, truth, weight = logits(cuts, score), cuts["truth"].to_numpy(), cuts["weight"].to_numpy()

    def loss(parameters: NDArray[np.float64]) -> float:
        return nll(x * np.exp(-parameters[0]) + sum(parameters[1:]), truth, weight)

    found = {"none": (1.0, 0.0)}
    if score == "maximum":
        found["the pixels' temperature, as shipped"] = (load_bundle("brachial-plexus").temperatures["nerve"], 0.0)
    for name, start in (("temperature", [0.0]), ("temperature and offset", [0.0, 0.0])):
        best = minimize(loss, start, method="Nelder-Mead").x
        scaling = float(np.exp(best[0])), float(sum(best[1:]))
        found[f"{name} ({', '.join(f'{value:.2f}' for value in scaling[: len(start)])})"] = scaling
    return found


def nll(x: NDArray[np.float64], truth: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:
    """Mean negative log-likelihood of a frame."""
    return float((np.logaddexp(0, np.where(truth, -x, x)) * weight).sum())


def measure(frames: pd.DataFrame, score: str, scaling: Scaling) -> dict[str, Any]:
    temperature, offset = scaling
    x = logits(frames, score) / temperature + offset
    truth, weight = frames["truth"].to_numpy(), frames["weight"].to_numpy()
    reliability = Reliability()
    reliability.add(expit(x), truth, weight * 1e6)  # it states whole numbers
    return {**reliability.summary(), "loss": nll(x, truth, weight)}


def draw(judged: dict[tuple[str, str, str], dict[str, Any]], frames: pd.DataFrame, picture: Path) -> None:
    """A reliability diagram a kind of negatives, before and after, in a third of the bins that the table has."""
    figure = plt.figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, len(kinds(frames)), sharey=True, squeeze=False)[0]
    rows = (
        ("maximum", "the pixels' temperature, as shipped", "highest probability, as shipped", "#5c6670", ":"),
        ("maximum", "temperature and offset", "highest probability, with temperature and offset", "#5c6670", "-"),
        ("head", "none", "presence head", "#e6009e", ":"),
        ("head", "temperature and offset", "presence head, with temperature and offset", "#e6009e", "-"),
    )
    for panel, kind in zip(panels, kinds(frames), strict=True):
        for score, scaling, title, colour, style in rows:
            bins = pd.DataFrame(judged[score, scaling, kind]["bins"])
            bins[["said", "true"]] = bins[["probability", "share"]].mul(bins["pixels"], axis=0)
            joint = bins.groupby((bins["probability"] * 5).clip(0, 4).astype(int))[["pixels", "said", "true"]].sum()
            said, true = joint["said"] / joint["pixels"], joint["true"] / joint["pixels"]
            panel.plot(said, true, style, color=colour, marker="o", markersize=4, label=title)
        panel.plot([0, 1], [0, 1], color="#c8ced4", linewidth=1)
        negative = frames[frames["kind"] == kind]
        patients = negative["patient_id"].nunique()
        panel.set_title(f"{TITLES.get(kind, kind)}\n{len(negative)} frames, {patients} patients", fontsize=10)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="presence")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of frames that show the nerve")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    main()
