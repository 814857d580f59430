"""What the zoo holds, for those who only want to list it: no torch here."""

from __future__ import annotations

import json
from importlib.resources import files

MODELS = (
    "edgefusion-unet",
    "unet",
    "unet-matched",
    "resunet",
    "resunet-matched",
    "attention-unet",
)
"""Every name that ``build_model`` knows."""

TITLES = {
    "edgefusion-unet": "EdgeFusion-UNet",
    "unet": "U-Net",
    "unet-matched": "U-Net, matched",
    "resunet": "Residual U-Net",
    "resunet-matched": "Residual U-Net, matched",
    "attention-unet": "Attention U-Net",
}
"""The names that tables and figures show."""


def stored_costs() -> dict[str, dict[str, float]]:
    """Parameters and multiply-adds of every network at 96×128 with one label, as measured by ``costs.measure``.

    Stored, because ``edgefusion info`` must answer without loading torch; a test holds the file against
    the networks.
    """
    text = files("edgefusion.models").joinpath("costs.json").read_text(encoding="utf-8")
    costs: dict[str, dict[str, float]] = json.loads(text)
    return costs
