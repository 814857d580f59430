"""The tables of docs/results/postprocessing.md, from what benchmarks/postprocessing.py wrote.

python benchmarks/postprocessing_table.py runs/postprocessing/development.csv

Every combination minus none, over all frames and trainings of a network, with a bootstrap of patients. A star: p < .05
after Holm's correction for all combinations. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.evaluation.bootstrap import RESAMPLES, difference_test, patient_counts, ratio, sums_by_patient
from edgefusion.evaluation.compare import SIGNIFICANCE, holm
from edgefusion.evaluation.presence_frames import POSITIVE

NONE = "none"
MEASURES = {
    "dice": ("Dice", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "boundary_f1": ("boundary F1", 3),
    "hd95": ("HD95, px", 2),
    "false_regions": ("false regions", 3),
}
"""Means over frames with the label, and their digits."""


def table(frames: pd.DataFrame) -> str:
    """Markdown for every network and label: measures with the label, then masks in frames without it."""
    sections = []
    for (model, label), of_label in frames.groupby(["model", "label"], sort=False):
        shown = of_label[of_label["kind"] == POSITIVE]
        counts = f"{shown['frame_id'].nunique()} frames, {shown['patient_id'].nunique()} patients"
        sections.append(f"**{model}, {label}** ({counts}, {shown['fold'].nunique()} trainings)")
        extra = {"missed": lambda f: (f["predicted_area"] == 0).astype(float), "ms": lambda f: f["milliseconds"]}
        sections.append(_table(shown, {key: _column(key) for key in MEASURES} | extra))
        absent = of_label[of_label["kind"] != POSITIVE]
        if len(absent):
            titles = {
                f"{kind} ({part['frame_id'].nunique()} frames, {part['patient_id'].nunique()} patients)": kind
                for kind, part in absent.groupby("kind", sort=False)
            }
            sections.append("Share of frames without it that get a mask:")
            sections.append(_table(absent, {title: _masked(kind) for title, kind in titles.items()}))
            sections.append("False regions in each of them:")
            sections.append(_table(absent, {title: _regions_of(kind) for title, kind in titles.items()}))
    return "\n\n".join(sections)


def _column(key: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda frames: frames[key]


def _masked(kind: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda frames: (frames["predicted_area"] > 0).astype(float).where(frames["kind"] == kind)


def _regions_of(kind: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda frames: frames["false_regions"].astype(float).where(frames["kind"] == kind)


def _table(frames: pd.DataFrame, columns: dict[str, Callable[[pd.DataFrame], pd.Series]]) -> str:
    keys = ["fold", "frame_id"] + (["kind"] if frames["kind"].nunique() > 1 else [])
    tables = {name: part.sort_values(keys) for name, part in frames.groupby("combination", sort=False)}
    none = tables.pop(NONE)
    titles = [MEASURES.get(key, (key, 3))[0] for key in columns]
    lines = [f"| combination | {' | '.join(titles)} |", "|---" * (1 + len(columns)) + "|"]
    rows = {name: [name] for name in (NONE, *tables)}
    for key, values_of in columns.items():
        digits = MEASURES.get(key, (key, 3))[1]
        base = values_of(none).to_numpy(float)
        rows[NONE].append(f"{np.nanmean(base):.{digits}f}")
        tests = []
        for part in tables.values():
            assert (part[keys].to_numpy() == none[keys].to_numpy()).all()
            tests.append(paired(values_of(part).to_numpy(float), base, none["patient_id"].to_numpy()))
        for name, (difference, low, high, p), p_holm in zip(
            tables, tests, holm([test[3] for test in tests]), strict=True
        ):
            if key == "ms":
                rows[name].append(f"{np.median(tables[name]['milliseconds']):.2f}")
            elif np.isnan(p):
                rows[name].append(f"{difference:+.{digits}f}")
            else:
                interval = f"{low:+.{digits}f} to {high:+.{digits}f}"
                rows[name].append(f"{difference:+.{digits}f} ({interval}){'*' if p_holm < SIGNIFICANCE else ''}")
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows.values())])


def paired(values: NDArray[Any], base: NDArray[Any], patients: NDArray[Any]) -> tuple[float, float, float, float]:
    """Mean difference over the frames where both have a value, its interval and p, see ``difference_test``."""
    both = ~np.isnan(values) & ~np.isnan(base)
    names, patient = np.unique(patients[both], return_inverse=True)
    difference = sums_by_patient((values - base)[both], patient, len(names))
    number = sums_by_patient(np.ones(both.sum()), patient, len(names))
    counts = patient_counts(len(names), RESAMPLES, 0)
    mean = float(difference.sum() / number.sum())
    return (mean, *difference_test(mean, ratio(counts @ difference, counts @ number), len(names)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path, nargs="+", help="files of benchmarks/postprocessing.py")
    given = parser.parse_args()
    names = dict.fromkeys(("frame_id", "patient_id"), str)
    print(table(pd.concat([pd.read_csv(file, dtype=names) for file in given.frames], ignore_index=True)))


if __name__ == "__main__":
    main()
