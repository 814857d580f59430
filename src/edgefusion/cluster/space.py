"""What a search may change, and what it proposes next. Optuna proposes; what it has proposed is kept in files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgefusion.config import ChannelRecipe, CompareConfig, SearchConfig, TrainConfig
from edgefusion.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Settings = dict[str, Any]
"""Values of what is searched, by names such as ``train.learning_rate``."""

_FIXED = ("seed", "precision")
_PARTS = {"train": TrainConfig, "recipe": ChannelRecipe}


@dataclass(frozen=True)
class Trial:
    """One proposal and what became of it."""

    number: int
    """From 0, in the order of the proposals."""
    settings: Settings
    """What was proposed."""
    dice: float | None = None
    """The objective, in [0, 1]; None while the trial is under way."""


def distributions(space: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """The search space as Optuna has it.

    Raises:
        UsageError: For an empty space, a setting that does not exist or is not to be searched, or a range that is none.
    """
    found: dict[str, BaseDistribution] = {}
    for part, settings in space.items():
        if part not in ("train", "recipe", "network"):
            raise UsageError(f"The search space has a part '{part}'.", "Its parts are train, network and recipe.")
        for name, entry in settings.items():
            if part in _PARTS:
                known = [field.name for field in dataclasses.fields(_PARTS[part]) if field.name not in _FIXED]
                if name not in known:
                    raise UsageError(f"{part}.{name} cannot be searched.", f"Choose among: {', '.join(known)}.")
            found[f"{part}.{name}"] = _distribution(f"{part}.{name}", entry)
    if not found:
        raise UsageError("Nothing is to be searched.", "Describe a space, as configs/search.yaml does.")
    return found


def _distribution(name: str, entry: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match entry:
        case {"choices": [_, *_] as choices, **rest} if not rest:
            # As JSON, since a choice may be a list.
            return CategoricalDistribution([json.dumps(choice) for choice in choices])
        case {"low": int() | float() as low, "high": int() | float() as high, **rest} if not rest.keys() - {"log"}:
            kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
            try:
                made: BaseDistribution = kind(low, high, log=bool(rest.get("log", False)))
            except ValueError as error:
                raise UsageError(f"The range of {name} is none: {error}") from None
            return made
    raise UsageError(
        f"The search space of {name} is neither choices nor a range of numbers: {entry}.",
        "Write {choices: [8, 16]} or {low: 0.0001, high: 0.1, log: true}.",
    )


def propose(config: SearchConfig, number: int, others: list[Trial]) -> Settings:
    """The settings of trial ``number``, which depend on nothing but the arguments.

    The study that Optuna learns from is made anew every time from what is known of the other trials, so that a search
    that was stopped goes on as if it had not been.

    Args:
        config: The search.
        number: Of the trial, from 0.
        others: Trials that ended or are under way; "random" takes no notice of them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = distributions(config.space)
    seed = config.seed * 100_003 + number
    sampler: optuna.samplers.BaseSampler
    if config.sampler == "random":
        sampler = optuna.samplers.RandomSampler(seed)
    else:
        sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    coded = [name for name in known if isinstance(known[name], optuna.distributions.CategoricalDistribution)]
    for trial in others:
        params = {name: json.dumps(value) if name in coded else value for name, value in trial.settings.items()}
        state = optuna.trial.TrialState.RUNNING if trial.dice is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(state=state, value=trial.dice, params=params, distributions=known))
    proposed = study.ask(known).params
    return {name: json.loads(value) if name in coded else value for name, value in proposed.items()}


def applied(settings: Settings, base: CompareConfig) -> CompareConfig:
    """``base`` with the settings of one trial.

    Raises:
        UsageError: For network settings of a network that takes none.
    """
    parts: dict[str, dict[str, Any]] = {"train": {}, "recipe": {}, "network": {}}
    for name, value in settings.items():
        part, _, key = name.partition(".")
        parts[part][key] = tuple(value) if part == "recipe" and isinstance(value, list) else value
    if parts["network"] and base.models != ("edgefusion-unet",):
        raise UsageError(
            f"{base.models[0]} takes no arguments, so {', '.join(parts['network'])} cannot be searched.",
            "Search arguments of edgefusion-unet only.",
        )
    return replace(
        base,
        train=replace(base.train, **parts["train"]),
        recipe=replace(base.recipe, **parts["recipe"]),
        network={**base.network, **parts["network"]},
    )
