from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefusion.cluster.space import Trial, applied, distributions, propose
from edgefusion.config import CompareConfig, SearchConfig
from edgefusion.errors import UsageError

_SPACE: dict[str, dict[str, Any]] = {
    "train": {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": {"low": 2, "high": 8},
        "flip": {"choices": [True, False]},
    },
    "network": {"widths": {"choices": [[8, 8, 8, 8], [16, 16, 16, 16]]}},
    "recipe": {"channels": {"choices": [["raw"], ["raw", "edges"]]}},
}
_BASE = CompareConfig(models=("edgefusion-unet",), network={"dropout": 0.0})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), number=st.integers(0, 200), sampler=st.sampled_from(["tpe", "random"]))
def test_proposals_lie_in_the_space_and_depend_on_the_arguments_alone(seed: int, number: int, sampler: Any) -> None:
    config = SearchConfig(_BASE, _SPACE, sampler, seed)
    proposed = propose(config, number, [])
    assert propose(config, number, []) == proposed
    assert 1e-4 <= proposed["train.learning_rate"] <= 1e-2
    assert proposed["train.batch_size"] in range(2, 9)
    after = applied(proposed, _BASE)
    assert after.train.batch_size == proposed["train.batch_size"]
    assert after.recipe.channels in (("raw",), ("raw", "edges"))
    assert after.network == {"dropout": 0.0, "widths": proposed["network.widths"]}
    assert after.models == _BASE.models


def test_only_tpe_learns_from_the_others_finished_or_not() -> None:
    config = SearchConfig(_BASE, _SPACE)
    drawn = replace(config, sampler="random")
    # Twelve trials, more than TPE draws at random first: small learning rates did well.
    trials = [Trial(number, propose(config, number, [])) for number in range(12)]
    done = [replace(trial, dice=-trial.settings["train.learning_rate"]) for trial in trials]
    assert propose(drawn, 12, done) == propose(drawn, 12, []) != propose(drawn, 13, [])
    learnt = propose(config, 12, done)
    assert learnt == propose(config, 12, done)
    assert learnt != propose(config, 12, [])
    under_way = [Trial(12 + number, learnt) for number in range(4)]
    assert propose(config, 16, done + under_way) != propose(config, 16, done)
    rates = [propose(replace(config, seed=seed), 12, done)["train.learning_rate"] for seed in range(8)]
    by_chance = [propose(replace(config, seed=seed), 12, [])["train.learning_rate"] for seed in range(8)]
    assert sum(rates) < sum(by_chance)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "Nothing is to be searched"),
        ({"training": {}}, "a part 'training'"),
        ({"train": {"learning_rat": {"low": 0, "high": 1}}}, "train.learning_rat cannot be searched"),
        ({"train": {"seed": {"choices": [0, 1]}}}, "train.seed cannot be searched. Choose among: epochs"),
        ({"train": {"epochs": {"low": 4, "high": 2}}}, "range of train.epochs is none"),
        ({"train": {"weight_decay": {"low": 0.0, "high": 1.0, "log": True}}}, "range of train.weight_decay is none"),
        ({"train": {"weight_decay": {"low": "1e-4", "high": 1.0}}}, "neither choices nor a range"),
        ({"train": {"weight_decay": {"low": 0.1, "high": 1.0, "step": 0.1}}}, "neither choices nor a range"),
        ({"train": {"batch_size": {"choices": []}}}, "neither choices nor a range"),
        ({"train": {"batch_size": 4}}, "neither choices nor a range"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        distributions(space)


def test_a_network_without_arguments_is_not_given_any() -> None:
    with pytest.raises(UsageError, match="unet takes no arguments, so widths"):
        applied({"network.widths": [1]}, replace(_BASE, models=("unet",)))


def test_the_space_that_ships_makes_sense() -> None:
    file = Path(__file__).parents[2] / "configs" / "search.yaml"
    assert len(distributions(yaml.safe_load(file.read_text())["space"])) == 5
