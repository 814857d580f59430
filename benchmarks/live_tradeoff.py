"""What smaller and larger EdgeFusion-UNets find, against milliseconds a frame: a table, and a picture.

python benchmarks/ablation.py runs/kaggle --configs configs/live -o runs/ablation --jobs 2
python benchmarks/live_tradeoff.py runs/ablation --picture docs/pictures/live-tradeoff.png

Nothing is trained here. Dice, boundary F1 and HD95 are those of the runs, with flip averaging. Times are medians on
one phantom frame, from the frame to its mask at the frame's own size, without flips; all networks are timed in turn in
one process, so that a busy moment of the machine strikes all alike. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ablation import REFERENCE, variants
from matplotlib.figure import Figure

from edgefusion.bundle import Bundle
from edgefusion.data.phantom.study import simulate_frame
from edgefusion.data.splits import read_splits
from edgefusion.evaluation.aggregate import read_frames, summarise
from edgefusion.evaluation.chart_style import MUTED, PALETTE, picture, single
from edgefusion.evaluation.compare import compare_models
from edgefusion.files import atomic_path
from edgefusion.inference.predictor import Predictor
from edgefusion.models.costs import measure

CONFIGS = Path("configs/live")
BASELINE = "unet-matched"
FRAME = (420, 580)
"""Rows and columns of a frame of the scanners that this is for."""
WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="output of ablation.py")
    parser.add_argument("--rounds", type=int, default=200, help="timings of each network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="file for the picture, as PNG")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    titles = {REFERENCE: "EdgeFusion-UNet as it is", **variants(CONFIGS), BASELINE: "U-Net of equal multiply-adds"}
    complete = {name: title for name, title in titles.items() if (given.runs / name / "report.html").is_file()}
    values = measured(given.runs, complete, given.rounds)
    print(as_markdown(values))
    if given.picture:
        with atomic_path(given.picture) as temporary:
            temporary.write_bytes(draw_tradeoff(values))


def measured(runs: Path, titles: dict[str, str], rounds: int) -> pd.DataFrame:
    """One row a network, fastest first.

    Its columns are name, title, multiply_adds, ms and network_ms (of it, the network's own), dice_masked with low and
    high, boundary_f1, hd95, and difference, least and most (masked-frame Dice minus the reference's).
    """
    bundles = {name: Bundle.load(_bundle_of(runs / name)) for name in titles}
    times = timed({name: Predictor(bundle) for name, bundle in bundles.items()}, rounds)
    frames = pd.concat(read_frames(runs / name / "frames.csv").assign(model=name) for name in titles)
    values = summarise(frames).set_index(["model", "measure"])
    pairs = compare_models(frames, REFERENCE).set_index(["measure", "other"])
    rows = []
    for name, title in titles.items():
        bundle = bundles[name]
        size = (len(bundle.recipe.channels), bundle.recipe.height, bundle.recipe.width)
        row = {"name": name, "title": title, "multiply_adds": measure(bundle.model, *size)["multiply_adds"]}
        row |= dict(zip(("ms", "network_ms"), times[name], strict=True))
        row |= {key: values.loc[(name, key), "value"] for key in ("dice_masked", "boundary_f1", "hd95")}
        row |= values.loc[(name, "dice_masked"), ["low", "high"]].to_dict()
        if name != REFERENCE:
            pair = pairs.loc[("dice_masked", name)]
            row |= {"difference": -pair["difference"], "least": -pair["high"], "most": -pair["low"]}
        rows.append(row)
    return pd.DataFrame(rows).sort_values("ms")


def _bundle_of(run: Path) -> Path:
    (model,) = {str(name) for name in read_frames(run / "frames.csv")["model"]}
    return run / model / read_splits(run / "splits.json")[0].name


def timed(predictors: dict[str, Predictor], rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds of a whole prediction, and of the network in it."""
    image = simulate_frame(seed=0, patient=0, frame=0, size=FRAME).image
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in predictors}
    for round_ in range(-WARM_UP, rounds):
        for name, predictor in predictors.items():
            started = time.perf_counter()
            stack = predictor.prepare(image)[None]
            prepared = time.perf_counter()
            (maps,) = predictor.infer(stack)
            inferred = time.perf_counter()
            predictor.finish(maps, image.shape)
            if round_ >= 0:
                times[name].append((time.perf_counter() - started, inferred - prepared))
    medians = {name: 1000 * np.median(np.array(values), axis=0) for name, values in times.items()}
    return {name: (float(whole), float(network)) for name, (whole, network) in medians.items()}


def as_markdown(values: pd.DataFrame) -> str:
    lines = [
        "| network | G mult.-adds | ms | network's ms | Dice, masked frames (95 %) | minus as it is (95 %) "
        "| boundary F1, 2 px | HD95, px |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in values.to_dict("records"):
        difference = f"{row['difference']:+.3f} ({row['least']:+.3f} to {row['most']:+.3f})"
        cells = [
            row["title"],
            f"{row['multiply_adds'] / 1e9:.2f}",
            f"{row['ms']:.1f}",
            f"{row['network_ms']:.1f}",
            f"{row['dice_masked']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            "" if row["name"] == REFERENCE else difference,
            f"{row['boundary_f1']:.3f}",
            f"{row['hd95']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def front(values: pd.DataFrame) -> pd.DataFrame:
    """The Pareto front of networks, fastest first: those that find more than every faster one."""
    return values[values["dice_masked"] > values["dice_masked"].cummax().shift(fill_value=0)]


@picture
def draw_tradeoff(values: pd.DataFrame) -> Figure:
    """Masked-frame Dice against milliseconds a frame; what nothing beats in both is joined by a line."""
    figure, axes = single(5)
    best = front(values)
    axes.step(best["ms"], best["dice_masked"], where="post", color=MUTED, linewidth=0.8)
    for number, row in enumerate(values.to_dict("records"), start=1):
        place = {BASELINE: 1, REFERENCE: 4}.get(row["name"], 0)
        at, marker = (row["ms"], row["dice_masked"]), "s" if row["name"] == BASELINE else "o"
        axes.plot(*at, marker, color=PALETTE[place], label=f"{number}  {row['title']}")
        # Above and below by turns, since the best of them lie close together.
        axes.annotate(str(number), at, (0, 6 if number % 2 else -14), textcoords="offset points", ha="center")
    axes.margins(0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds a frame, frame to mask, two cores")
    axes.set_ylabel("Dice, frames of 8 other patients")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, handletextpad=0.2, columnspacing=1)
    return figure


if __name__ == "__main__":
    main()
