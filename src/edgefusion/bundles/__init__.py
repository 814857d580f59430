"""The trained networks that ship with the package: a folder each, beside this file. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgefusion.errors import UsageError

NAMES = ("brachial-plexus", "regional")
"""Names that stand for a folder; the first is the default."""

FOLDER = Path(__file__).parent
"""Where the shipped bundles are."""


def find(bundle: Path | str | None = None) -> Path:
    """The folder of a bundle.

    Args:
        bundle: None for the default, one of ``NAMES`` as text, or a folder. A ``Path`` is always a folder, and so is
            ``"./regional"``, so that a folder of that name can be reached.

    Raises:
        UsageError: If a name stands for a bundle that this installation lacks.
    """
    name = NAMES[0] if bundle is None else bundle
    if not (isinstance(name, str) and name in NAMES):
        return Path(name)
    folder = FOLDER / name
    if not (folder / "bundle.yaml").is_file():
        raise UsageError(
            f"The trained network '{name}' is not part of this installation.",
            "Install a release that has it, or train one (edgefusion train) and name its folder.",
        )
    return folder


def shipped() -> dict[str, dict[str, Any]]:
    """What ships with this installation: for each name the ``model``, the ``labels`` and the ``terms``."""
    found = {}
    for name in NAMES:
        file = FOLDER / name / "bundle.yaml"
        if file.is_file():
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
            found[name] = {"model": values["model"]["name"], "labels": values["labels"], "terms": values["terms"]}
    return found
