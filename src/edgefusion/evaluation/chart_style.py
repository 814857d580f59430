"""How the report's charts look: colours, markers, and SVGs that suit a light and a dark page.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and every network has a marker of
its own besides.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgefusion.evaluation.compare import family
from edgefusion.models.names import TITLES

P = ParamSpec("P")

INK = "#24292f"
"""Text, and lines that carry meaning."""
MUTED = "#6b7480"
"""Axes, and lines in the background."""
GRID = "#dde2e8"
"""Grid lines."""
WIDTH = 5.6
"""Inches. Narrow, so that the writing stays legible on a phone."""

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""What is compared, in this order."""
_MARKERS = ("o", "s", "^", "D", "v", "P")
_ON_DARK = {
    INK: "#e6e9ed",
    MUTED: "#9aa4b0",
    GRID: "#353c45",
    **dict(zip(PALETTE, ("#4ea8de", "#f0b429", "#2fc79a", "#e39ac4", "#f58549", "#8fd0f5"), strict=True)),
}
_SETTINGS: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "edgefusion",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class ModelStyle:
    """How a model looks in every chart."""

    title: str
    """Its name for people."""
    colour: str
    """Shared by both sizes of a network."""
    marker: str
    """Shared by both sizes of a network."""
    face: str
    """Filled for the customary size, hollow for the matched one."""
    line: str
    """Solid for the customary size, dashed for the matched one."""


def model_styles(models: Sequence[str]) -> dict[str, ModelStyle]:
    """Give every model its look, by its place in the list; all its sizes share colour and marker."""
    families = list(dict.fromkeys(family(model) for model in models))
    styles = {}
    for model in models:
        place = families.index(family(model)) % len(PALETTE)
        colour, matched = PALETTE[place], family(model) != model
        styles[model] = ModelStyle(
            title=TITLES.get(model, model),
            colour=colour,
            marker=_MARKERS[place],
            face="none" if matched else colour,
            line="--" if matched else "-",
        )
    return styles


def chart(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Turn a function that draws a figure into one that returns it as SVG."""

    @wraps(draw)
    def as_svg(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with mpl.rc_context(_SETTINGS):
            content = io.BytesIO()
            draw(*args, **kwargs).savefig(content, format="svg", transparent=True, metadata={"Date": None})
        return content.getvalue().replace(b"<defs>", _adaptive_style() + b"<defs>", 1)

    return as_svg


def picture(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Turn a function that draws a figure into one that returns it as PNG on white, for documents."""

    @wraps(draw)
    def as_png(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with mpl.rc_context(_SETTINGS):
            content = io.BytesIO()
            draw(*args, **kwargs).savefig(content, format="png", dpi=150, metadata={"Software": None})
        return content.getvalue()

    return as_png


def _adaptive_style() -> bytes:
    """Style sheet inside the SVG: the reader's own typeface, and lighter colours on a dark page."""
    rules = [
        f'[style*="{kind}: {colour}"]{{{kind}:{dark}!important}}'
        for colour, dark in _ON_DARK.items()
        for kind in ("fill", "stroke")
    ]
    font = "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif!important}"
    return f"<style>{font}@media(prefers-color-scheme:dark){{{''.join(rules)}}}</style>".encode()


def single(height: float) -> tuple[Figure, Axes]:
    """A figure of the usual width and ``height`` inches with one pair of axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart from top to bottom."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")


def legend_below(figure: Figure, axes: Axes) -> None:
    """Put the legend of ``axes`` under the whole figure, where it hides nothing."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
