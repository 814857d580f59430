"""One short hash for everything that decides what a frame's prediction is."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from safetensors.torch import save

import edgefusion
from edgefusion.bundle import Bundle
from edgefusion.inference.drift import COMPANION


def fingerprint(bundle: Bundle, flip_averaging: bool = False, *more: object) -> str:
    """16 hexadecimal digits that change with the network, its weights and settings, this program, and ``more``."""
    recipe = dataclasses.asdict(bundle.recipe)
    steps = {label: dataclasses.asdict(step) for label, step in bundle.postprocessing.items()}
    thresholds, name = bundle.thresholds, bundle.model_name
    settings = [edgefusion.__version__, name, recipe, bundle.labels, thresholds, steps, flip_averaging, *map(str, more)]
    # Added only where there is any, so that the name of all others' results stays as it was.
    settings += [bundle.temperatures] if bundle.temperatures else []
    weights = save({name: value.cpu().contiguous() for name, value in bundle.model.state_dict().items()})
    drift = save(bundle.companions.get(COMPANION, {}))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + weights + drift).hexdigest()[:16]
