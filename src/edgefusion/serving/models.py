"""The networks that a server offers, by name."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from edgefusion.bundles import NAMES, shipped
from edgefusion.errors import UsageError
from edgefusion.inference.predictor import Predictor, load
from edgefusion.inference.writers import NOTICE
from edgefusion.serving.problems import Problem


class Models:
    """Networks by name; the first one answers where none is named.

    Args:
        predictors: At least one.
    """

    def __init__(self, predictors: dict[str, Predictor]) -> None:
        if not predictors:
            raise UsageError("There is no network to serve.", "Name a bundle: edgefusion serve --model BUNDLE.")
        self._predictors = predictors
        self.default = next(iter(predictors))
        """Name of the network that answers where none is named."""

    @classmethod
    def load(cls, bundles: Sequence[str] = ()) -> Models:
        """Read bundles, folders or names of shipped ones, and after them the shipped ones that were not named.

        Raises:
            UsageError: If one is not a bundle.
            BundleError: If one is damaged, altered, or newer than this program.
        """
        predictors: dict[str, Predictor] = {}
        for bundle in bundles:
            name = bundle if bundle in NAMES else Path(bundle).resolve().name
            if name in predictors:
                raise UsageError(f"Two bundles are called '{name}'.", "Rename one of the folders.")
            predictors[name] = load(bundle)
        for name in shipped():
            if name not in predictors:
                predictors[name] = load(name)
        return cls(predictors)

    def get(self, name: str | None = None) -> tuple[str, Predictor]:
        """A network with its name.

        Raises:
            Problem: 422 where there is none of that name.
        """
        name = name or self.default
        if name not in self._predictors:
            known = ", ".join(self._predictors)
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"There is no network of that name. Choose one of: {known}.")
        return name, self._predictors[name]

    def describe(self) -> list[dict[str, Any]]:
        """Of each network: name, what it finds, its input, thresholds, and the terms of its data."""
        return [
            {
                "name": name,
                "default": name == self.default,
                "network": predictor.bundle.model_name,
                "labels": list(predictor.bundle.labels),
                "channels": list(predictor.bundle.recipe.channels),
                "input": {"height": predictor.bundle.recipe.height, "width": predictor.bundle.recipe.width},
                "thresholds": predictor.bundle.thresholds,
                "study": predictor.bundle.study_name,
                "terms": predictor.bundle.terms,
                "notice": NOTICE,
            }
            for name, predictor in self._predictors.items()
        ]
