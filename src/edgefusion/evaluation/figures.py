"""The report's charts as SVG. Each is drawn from a small table, which is also what its CSV holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

from edgefusion.evaluation.chart_style import (
    GRID,
    INK,
    MUTED,
    WIDTH,
    ModelStyle,
    chart,
    legend_below,
    name_rows,
    single,
)

_AREA_BINS = 6


def patient_dice(frames: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice over the frames with a mask and all seeds, for every model and patient.

    Returns:
        Columns model, patient_id, dice, n_frames (distinct ones).
    """
    masked = frames[frames["true_area"] > 0]
    grouped = masked.groupby(["model", "patient_id"], sort=False)
    return grouped.agg(dice=("dice", "mean"), n_frames=("frame_id", "nunique")).reset_index()


def area_dice(frames: pd.DataFrame, bins: int = _AREA_BINS) -> pd.DataFrame:
    """Dice in bins of true area that hold about equally many frames.

    Returns:
        Columns model, area_low, area_high, area_median (pixels), n_frames (distinct ones), dice, dice_q25, dice_q75.
    """
    masked = frames[frames["true_area"] > 0]
    edges = np.unique(np.quantile(masked["true_area"], np.linspace(0, 1, bins + 1))) if len(masked) else np.array([])
    rows = []
    for model, of_model in masked.groupby("model", sort=False):
        place = np.clip(np.searchsorted(edges, of_model["true_area"], "right") - 1, 0, max(len(edges) - 2, 0))
        for _, inside in of_model.groupby(place):
            quartiles = inside["dice"].quantile([0.25, 0.75])
            rows.append(
                {
                    "model": model,
                    "area_low": inside["true_area"].min(),
                    "area_high": inside["true_area"].max(),
                    "area_median": inside["true_area"].median(),
                    "n_frames": inside["frame_id"].nunique(),
                    "dice": inside["dice"].mean(),
                    "dice_q25": quartiles[0.25],
                    "dice_q75": quartiles[0.75],
                }
            )
    return pd.DataFrame(rows)


def cost_table(summary: pd.DataFrame, costs: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Boundary F1 with its interval beside what each model costs.

    Args:
        summary: Result of ``summarise`` for one label.
        costs: Of every model, as far as known: parameters, multiply_adds, ms_per_frame.

    Returns:
        Columns model, boundary_f1, low, high, parameters, multiply_adds, ms_per_frame.
    """
    table = summary[summary["measure"] == "boundary_f1"][["model", "value", "low", "high"]]
    known = pd.DataFrame.from_dict(costs, orient="index", columns=["parameters", "multiply_adds", "ms_per_frame"])
    return table.rename(columns={"value": "boundary_f1"}).merge(known, left_on="model", right_index=True)


@chart
def draw_differences(comparisons: pd.DataFrame, styles: dict[str, ModelStyle]) -> Figure:
    """Reference minus each other model in Dice points, with 95 % intervals; 0 is no difference.

    Args:
        comparisons: Rows of ``compare_models`` for one label and measure.
        styles: Looks of the models.
    """
    figure, axes = single(0.9 + 0.34 * len(comparisons))
    points = 100 * comparisons[["difference", "low", "high"]].to_numpy(dtype=np.float64)
    for row, (other, (difference, low, high)) in enumerate(zip(comparisons["other"], points, strict=True)):
        style = styles[str(other)]
        axes.plot([low, high], [row, row], color=style.colour, linewidth=2.2)
        axes.plot(difference, row, style.marker, color=style.colour, markersize=8, mfc=style.face)
    axes.axvline(0, color=INK, linewidth=1)
    name_rows(axes, [f"vs {styles[str(other)].title}" for other in comparisons["other"]])
    reference = styles[str(comparisons["reference"].iloc[0])].title
    axes.set_xlabel(f"Dice points: {reference} minus the other")
    return figure


@chart
def draw_learning_curves(log: pd.DataFrame, styles: dict[str, ModelStyle]) -> Figure:
    """Validation Dice and training loss by epoch: the mean of folds, and each fold faintly.

    Args:
        log: Columns model, fold, epoch, train_loss, val_dice.
        styles: Looks of the models.
    """
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    panels = ((upper, "val_dice", "validation Dice"), (lower, "train_loss", "training loss"))
    for axes, column, name in panels:
        for model, of_model in log.groupby("model", sort=False):
            style = styles[str(model)]
            if of_model["fold"].nunique() > 1:
                for _, fold in of_model.groupby("fold"):
                    axes.plot(fold["epoch"], fold[column], style.line, color=style.colour, alpha=0.25, linewidth=0.8)
            mean = of_model.groupby("epoch")[column].mean()
            axes.plot(mean.index, mean, style.line, color=style.colour, linewidth=2, label=style.title)
        axes.set_ylabel(name)
    lower.set_xlabel("epoch")
    legend_below(figure, upper)
    return figure


@chart
def draw_dice_by_model(patients: pd.DataFrame, summary: pd.DataFrame, styles: dict[str, ModelStyle]) -> Figure:
    """Each patient's mean Dice under every model, a line a patient; bars are the means' 95 % intervals.

    Args:
        patients: Result of ``patient_dice``.
        summary: Result of ``summarise`` for the same label.
        styles: Looks of the models, in the order of the rows.
    """
    figure, axes = single(1.0 + 0.5 * len(styles))
    table = patients.pivot(index="patient_id", columns="model", values="dice").reindex(columns=list(styles))
    rows = np.arange(len(styles))
    axes.plot(table.T, rows, color=MUTED, alpha=0.3, linewidth=0.8)
    means = summary[summary["measure"] == "dice_patients"].set_index("model")[["value", "low", "high"]]
    for row, (model, style) in enumerate(styles.items()):
        dice = table[model].dropna()
        axes.plot(dice, np.full(len(dice), row), style.marker, color=style.colour, mfc=style.face, markersize=4)
        value, low, high = means.loc[model].to_numpy(dtype=np.float64)
        # Above the patients, so that neither hides the other.
        axes.plot([low, high], [row - 0.24, row - 0.24], color=style.colour, linewidth=2.2)
        axes.plot(value, row - 0.24, style.marker, color=style.colour, mfc=style.face, markersize=8)
    name_rows(axes, [style.title for style in styles.values()])
    axes.set_xlabel("mean Dice of a patient (frames with a mask)")
    return figure


@chart
def draw_dice_by_patient(patients: pd.DataFrame, styles: dict[str, ModelStyle]) -> Figure:
    """Every patient a row, from the hardest to the easiest; every model a marker.

    Args:
        patients: Result of ``patient_dice``.
        styles: Looks of the models.
    """
    table = patients.pivot(index="patient_id", columns="model", values="dice")
    table = table.loc[table.mean(axis=1).sort_values(ascending=False).index]
    many = len(table) > 60
    figure, axes = single(1.3 + len(table) * (0.06 if many else 0.19))
    rows = np.arange(len(table))
    axes.hlines(rows, table.min(axis=1), table.max(axis=1), color=GRID, linewidth=2)
    for model, style in styles.items():
        if model in table:
            axes.plot(table[model], rows, style.marker, color=style.colour, mfc=style.face, label=style.title, ms=5)
    name_rows(axes, [""] * len(table) if many else [str(patient) for patient in table.index])
    axes.tick_params("y", labelsize=8)
    axes.set_ylabel("patient")
    axes.set_xlabel("mean Dice of a patient (frames with a mask)")
    legend_below(figure, axes)
    return figure


@chart
def draw_dice_by_area(areas: pd.DataFrame, styles: dict[str, ModelStyle], label: str) -> Figure:
    """Mean Dice in bins of true area; a band holds the middle half of the first model's frames.

    Args:
        areas: Result of ``area_dice``.
        styles: Looks of the models.
        label: What was segmented.
    """
    figure, axes = single(3.6)
    for place, (model, style) in enumerate(styles.items()):
        of_model = areas[areas["model"] == model]
        area = of_model["area_median"]
        if place == 0:
            axes.fill_between(area, of_model["dice_q25"], of_model["dice_q75"], color=style.colour, alpha=0.13, lw=0)
        axes.plot(area, of_model["dice"], style.line, color=style.colour, marker=style.marker, label=style.title)
        axes.lines[-1].set(markerfacecolor=style.face, markersize=5.5, linewidth=1.6)
    axes.set_xscale("log")
    ticks = [float(f"{area:.2g}") for area in sorted(areas["area_median"].unique())]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"true area of the {label} (pixels, logarithmic)")
    axes.set_ylabel("Dice")
    legend_below(figure, axes)
    return figure


@chart
def draw_costs(table: pd.DataFrame, styles: dict[str, ModelStyle]) -> Figure:
    """Boundary F1 with its interval against multiply-adds, and against milliseconds a frame.

    Args:
        table: Result of ``cost_table``.
        styles: Looks of the models.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    scales = (("multiply_adds", 1e-9, "multiply-adds a frame (G)"), ("ms_per_frame", 1.0, "milliseconds a frame"))
    for axes, (column, scale, name) in zip(panels, scales, strict=True):
        for row in table.to_dict("records"):
            style, x = styles[str(row["model"])], row[column] * scale
            axes.plot([x, x], [row["low"], row["high"]], color=style.colour, linewidth=1.4, alpha=0.6)
            title = f"{style.title}, {row['parameters'] / 1e6:.2f} M"
            axes.plot(x, row["boundary_f1"], style.marker, color=style.colour, mfc=style.face, ms=8, label=title)
        axes.set_xlim(left=0)
        axes.margins(x=0.12)
        axes.set_xlabel(name)
    panels[0].set_ylabel("boundary F1 (2 px)")
    legend_below(figure, panels[0])
    return figure
