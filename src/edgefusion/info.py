"""What this installation is and knows, told at once: nothing here imports torch."""

from __future__ import annotations

from typing import Any

from edgefusion.bundles import shipped
from edgefusion.config import CHANNELS
from edgefusion.environment import environment
from edgefusion.models.names import TITLES, stored_costs

FORMATS = {
    "read": [
        *("png", "tif", "tiff", "jpg", "jpeg", "mp4", "m4v", "mov", "avi", "mkv", "webm", "gif"),
        *("nii", "nii.gz", "dcm"),
    ],
    "write": [
        *("png", "overlay", "json", "kaggle", "video", "measures"),
        *("dicom-seg", "dicom-seg-probability", "dicom-seg-placed", "dicom-sc", "dicom-sr"),
    ],
}
"""Formats that are read, and output formats of ``predict``; a test holds them against readers and writers,
which are too heavy to import here."""


def facts() -> dict[str, Any]:
    """Versions and machine, networks with their costs, trained networks that ship along, channels, formats."""
    return {
        **environment(),
        "models": stored_costs(),
        "bundles": shipped(),
        "channels": list(CHANNELS),
        "formats": FORMATS,
    }


def as_text(values: dict[str, Any]) -> str:
    """The facts for a person."""
    lines = [
        f"EdgeFusion {values['edgefusion']}, Python {values['python']} on {values['system']}",
        f"{values['processor']}, {values['cores']} cores",
        ", ".join(f"{name} {version}" for name, version in values["packages"].items()),
        "",
        f"{'network':<26}{'name':<26}{'parameters':>12}{'multiply-adds at 96x128':>26}",
    ]
    for name, cost in values["models"].items():
        millions, giga = cost["parameters"] / 1e6, cost["multiply_adds"] / 1e9
        lines.append(f"{TITLES[name]:<26}{name:<26}{millions:>10.2f} M{giga:>24.2f} G")
    lines.append("")
    for name, bundle in values["bundles"].items():
        lines.append(f"{name:<26}{bundle['model']:<26}{', '.join(bundle['labels'])} ({bundle['terms']})")
    if not values["bundles"]:
        lines.append("trained: none in this installation")
    lines += ["", f"channels: {', '.join(values['channels'])}"]
    lines += [f"{kind}s: {', '.join(names)}" for kind, names in values["formats"].items()]
    return "\n".join(lines)
