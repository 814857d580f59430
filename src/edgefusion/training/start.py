"""What a network is before its training: arguments that fit its frames, and weights that another training left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from edgefusion.bundle import Bundle, Origin
from edgefusion.config import ChannelRecipe
from edgefusion.data.splits import Split
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.memory import IDENTICAL, NEARLY, find_overlap
from edgefusion.inference.predictor import load_bundle
from edgefusion.progress import say
from edgefusion.training.dataset import FrameSet

_PRESENCE = "presence_head."


def fitting_arguments(model: str, recipe: ChannelRecipe, training: FrameSet) -> dict[str, Any]:
    """Fit EdgeFusion-UNet to its channels and frames.

    It is told which channel holds the edges, if any does. Where every training frame shows every label (at least half
    of one pixel of the network), it gets no presence head: one that never saw an absence could only learn to say yes.
    """
    arguments: dict[str, Any] = {}
    if model == "edgefusion-unet":
        if "edges" in recipe.channels:
            arguments["edge_channel"] = recipe.channels.index("edges")
        if bool((training.targets.amax((2, 3)) >= 0.5).all()):
            arguments["presence_head"] = False
    return arguments


def load_start(start: Path | str, model: str, recipe: ChannelRecipe, study: Study, split: Split) -> Bundle:
    """Read the bundle that a training is to start from.

    Raises:
        UsageError: If it is another network, sees other channels, or was itself trained, at any stage, on a patient of
            this study who is to be judged, or on the very pixels of one of these patients' frames, of whatever study.
    """
    before = load_bundle(start)
    if (before.model_name, before.recipe.channels) != (model, recipe.channels):
        raise UsageError(
            f"{start} is a {before.model_name} that sees {', '.join(before.recipe.channels)}: "
            f"a {model} that sees {', '.join(recipe.channels)} cannot start from it.",
            "Start from a bundle of the same network and channels.",
        )
    overlap = find_overlap(before, study, split.validation_frames(study))
    known = {*overlap.patients(IDENTICAL), *(before.seen(study.sha256()) & set(split.validation))}
    if known:
        raise UsageError(
            f"{start} was trained on patients who are to be judged: {', '.join(sorted(known))}.",
            "Start from another study, or hold out the same patients there.",
        )
    if near := overlap.patients(NEARLY):
        say(f"Careful: {start} was trained on frames nearly like those of patients to be judged: {', '.join(near)}.")
    return before


def take_over(module: nn.Module, before: Bundle) -> list[Origin]:
    """Give ``module`` the weights of a bundle, see ``take_weights``.

    Returns:
        All trainings behind these weights, the last one last.

    Raises:
        UsageError: If the networks differ in size or labels.
    """
    take_weights(module, before.model)
    return before.history()


def take_weights(module: nn.Module, other: nn.Module) -> None:
    """Give ``module`` the weights of another network; a presence head that only one of the two has is left alone.

    Raises:
        UsageError: If the networks differ in size or labels.
    """
    held, wanted = other.state_dict(), module.state_dict()
    weights = {name: value for name, value in held.items() if name in wanted or not name.startswith(_PRESENCE)}
    weights |= {name: value for name, value in wanted.items() if name not in held and name.startswith(_PRESENCE)}
    try:
        module.load_state_dict(weights)
    except RuntimeError:
        raise UsageError("The network to start from has another size or other labels.", "Train it alike.") from None
