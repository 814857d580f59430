"""How far measures of the nerve from a bundle's masks lie from those of the annotators' masks.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
python benchmarks/measures.py brachial-plexus runs/kaggle

Judged are labelled frames of patients whom the bundle was not trained on, in which both masks show the label. Prints
Markdown: for each measure the mean difference (bundle minus annotator) with the 95 % limits of agreement (Bland and
Altman 1986: mean ± 1.96 standard deviations over frames), the median absolute difference, and the correlation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from edgefusion.data.study import Study
from edgefusion.inference.measure import measure
from edgefusion.inference.predictor import Predictor, load_bundle
from edgefusion.progress import track

SHOWN = {
    "area": "area",
    "feret_max": "Feret diameter, largest",
    "feret_min": "Feret diameter, smallest",
    "circularity": "circularity",
    "depth_nearest": "depth, nearest",
    "depth_centroid": "depth, centre of mass",
    "echo_mean": "mean echo",
    "hypoechoic_fraction": "hypoechoic fraction",
    "border_sharpness": "border sharpness",
}
"""Measures of the table, and their names in it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder of a bundle, or the name of one that ships along")
    parser.add_argument("study", type=Path)
    parser.add_argument("--label", default="nerve")
    given = parser.parse_args()
    found, frames, patients = collect(Study.load(given.study), given.bundle, given.label)
    shown = found["patient"].nunique()
    print(f"{len(found)} frames of {shown} patients; {frames} of {patients} patients were judged.\n")
    print(as_markdown(agreement(found)))


def collect(study: Study, bundle_name: str, label: str) -> tuple[pd.DataFrame, int, int]:
    """Both measures of every frame that both masks show the label in; and how many frames and patients were judged."""
    bundle = load_bundle(bundle_name)
    predictor, index, value = Predictor(bundle), bundle.labels.index(label), study.labels.index(label) + 1
    labelled = study.labelled()
    judged = labelled[~labelled["patient_id"].isin(bundle.seen(study.sha256()))]
    rows = []
    for row in track(judged.to_dict("records"), "Measuring", total=len(judged)):
        image, mask = study.image(row["frame_id"]), study.mask(row["frame_id"])
        assert mask is not None
        sides = (row["spacing_row_mm"], row["spacing_col_mm"])
        spacing = (float(sides[0]), float(sides[1])) if np.isfinite(sides).all() else None
        ours = measure(predictor.predict(image), image, spacing, index)
        theirs = measure(mask, image, spacing, value - 1)
        if ours.regions and theirs.regions:
            values = {f"{who}_{n}": getattr(m, n) for who, m in (("ours", ours), ("theirs", theirs)) for n in SHOWN}
            rows.append({"patient": row["patient_id"], "unit": ours.unit, **values})
    return pd.DataFrame(rows), len(judged), judged["patient_id"].nunique()


def agreement(found: pd.DataFrame) -> pd.DataFrame:
    """One row a measure: mean of the annotator's, mean difference, its limits, median absolute difference, r."""
    rows = []
    for name in SHOWN:
        ours, theirs = found[f"ours_{name}"].astype(float), found[f"theirs_{name}"].astype(float)
        difference = ours - theirs
        spread = 1.96 * difference.std()
        rows.append(
            {
                "measure": name,
                "annotator": theirs.mean(),
                "difference": difference.mean(),
                "low": difference.mean() - spread,
                "high": difference.mean() + spread,
                "median": difference.abs().median(),
                "correlation": ours.corr(theirs),
            }
        )
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    lines = [
        "| measure | annotator, mean | difference | limits of agreement | median absolute difference | r |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        digits = 3 if abs(row["annotator"]) < 2 else 0 if abs(row["annotator"]) > 500 else 1
        mean, difference, low, high, median = (
            f"{row[key]:.{digits}f}" for key in ("annotator", "difference", "low", "high", "median")
        )
        name = SHOWN[row["measure"]]
        lines.append(f"| {name} | {mean} | {difference} | {low} to {high} | {median} | {row['correlation']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
