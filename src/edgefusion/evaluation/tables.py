"""The report's tables as HTML: every value with its interval in small print below."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from edgefusion.evaluation.aggregate import MEASURES
from edgefusion.evaluation.answer import between, mean_count, number, p_text, span, title_of
from edgefusion.evaluation.chart_style import ModelStyle
from edgefusion.evaluation.page import table, unbroken, value_cell
from edgefusion.evaluation.run import Run

Styles = dict[str, ModelStyle]

_DISTANCES = ("hd95", "surface_distance")
_LOWER_IS_BETTER = {measure.key for measure in MEASURES if not measure.higher_is_better} | {"n_missed"}

_OVERLAP = {
    "dice_masked": "Dice, masked frames",
    "dice_all": "Dice, all frames",
    "dice_patients": "Dice, mean of patients",
    "precision": "Precision",
    "recall": "Recall",
    "pooled_precision": "Pooled precision",
    "pooled_recall": "Pooled recall",
    "pooled_f1": "Pooled F1",
}
_BORDER = {
    "boundary_f1": "Boundary F1, 2 px",
    "hd95": "HD95 ({unit})",
    "surface_distance": "Surface distance ({unit})",
    "n_missed": "Missed frames",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "auroc": "AUROC",
}
_DIFFERENCES = {
    "dice_masked": "Dice, masked frames (points)",
    "dice_all": "Dice, all frames (points)",
    "precision": "Precision (points)",
    "pooled_f1": "Pooled F1 (points)",
    "boundary_f1": "Boundary F1 (points)",
    "hd95": "HD95 ({unit})",
}


def named(style: ModelStyle) -> str:
    """A model's name behind the dot that it has in the charts."""
    fill = "transparent" if style.face == "none" else style.colour
    return f'<i class="dot" style="border-color:{style.colour};background:{fill}"></i>{unbroken(style.title)}'


def overlap_table(summary: pd.DataFrame, styles: Styles) -> str:
    """Dice, precision, recall and F1 of every model. ``summary``: one label's rows of ``summarise``."""
    return _measures_table(summary, styles, _OVERLAP)


def border_table(summary: pd.DataFrame, styles: Styles, unit: str) -> str:
    """Border and presence measures of every model. ``summary``: one label's rows of ``summarise``."""
    return _measures_table(summary, styles, {key: name.format(unit=unit) for key, name in _BORDER.items()})


def _measures_table(summary: pd.DataFrame, styles: Styles, columns: dict[str, str]) -> str:
    records = {(row["model"], row["measure"]): row for row in summary.to_dict("records")}
    best = {}
    for key in columns:
        values = summary.loc[summary["measure"] == key, "value"]
        best[key] = values.min() if key in _LOWER_IS_BETTER else values.max()
    rows = []
    for model, style in styles.items():
        cells = []
        for key in columns:
            row = records[model, key]
            digits = 1 if key in _DISTANCES else 3
            value, below = number(row["value"], digits), span(row["low"], row["high"], digits)
            if key == "n_missed":
                value, below = mean_count(row["value"]), f"of {row['n_frames']}"
            strong = len(styles) > 1 and row["value"] == best[key]
            cells.append(value_cell(value, below, strong))
        rows.append([named(style), *cells])
    return table(["Network", *columns.values()], rows)


def difference_table(comparisons: pd.DataFrame, styles: Styles, unit: str) -> str:
    """Reference minus every other model, with interval and corrected p-value, for one label."""
    records = {(row["other"], row["measure"]): row for row in comparisons.to_dict("records")}
    rows = []
    for model in comparisons["other"].unique():
        cells = []
        for key in _DIFFERENCES:
            pair = records[model, key]
            scale = 1.0 if key in _DISTANCES else 100.0
            sign = "+" if pair["difference"] > 0 else ""
            below = between(pair["low"], pair["high"], 1, scale)
            value = f"{sign}{number(scale * pair['difference'], 1)}"
            cells.append(value_cell(value, f"{below}<br>{p_text(pair['p_holm'])}", strong=bool(pair["better"])))
        rows.append([f"minus {named(styles[model])}", *cells])
    reference = escape(styles[comparisons["reference"].iloc[0]].title)
    return table([reference, *(name.format(unit=unit) for name in _DIFFERENCES.values())], rows)


def cost_table(run: Run, styles: Styles) -> str:
    """What every network sees and what it costs."""
    minutes = run.log.groupby(["model", "fold"])["seconds"].sum().groupby("model").mean() / 60
    rows = []
    for model, style in styles.items():
        cost = run.costs.get(model, {})
        rows.append(
            [
                named(style),
                escape(", ".join(run.channels[model])),
                f"{number(cost.get('parameters', np.nan) / 1e6, 2)} M",
                f"{number(cost.get('multiply_adds', np.nan) / 1e9, 3)} G",
                f"{number(cost.get('ms_per_frame', np.nan), 1)} ms",
                f"{number(minutes.get(model, np.nan), 1)} min",
            ]
        )
    return table(["Network", "Sees", "Parameters", "Multiply-adds", "A frame takes", "Training, a fold"], rows)


def fold_table(run: Run, label: str) -> str:
    """Who was trained on and judged in every fold, and every model's Dice over the masked frames there."""
    of_label = run.frames[run.frames["label"] == label]
    dice = of_label[of_label["true_area"] > 0].groupby(["fold", "model"])["dice"].mean()
    rows = []
    for split in run.splits:
        judged = of_label.loc[of_label["fold"] == split.name, "frame_id"].nunique()
        counts = [len(split.train), len(split.validation), judged, len(split.excluded_frames)]
        scores = [number(float(dice.get((split.name, model), np.nan))) for model in run.models]
        rows.append([escape(split.name.replace("_", " ")), *map(str, counts), *scores])
    head = ["Split", "Patients trained on", "Patients judged", "Frames judged", "Frames left out"]
    return table([*head, *(unbroken(title_of(model)) for model in run.models)], rows)
