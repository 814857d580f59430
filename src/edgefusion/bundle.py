"""A Bundle: a folder with everything that a trained network is. No pickle anywhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

import edgefusion
from edgefusion import bundle_checks as checks
from edgefusion.config import ChannelRecipe, PostProcessing
from edgefusion.data.bounds import read_json, read_yaml
from edgefusion.errors import BundleError, DataError, UsageError
from edgefusion.files import atomic_path, sha256_of_bytes, sha256_of_file, write_json, write_text
from edgefusion.models.zoo import build_model, check_size

FORMAT = 2
"""Version of the folder's layout; a bundle with another one is refused."""


ONNX_FILE = "model.onnx"
"""Name of the exported graph in a bundle's folder, where there is one."""

_COMPANION = re.compile(r"(?!model\.)[a-z][a-z0-9_]*\.safetensors")
"""Files that a bundle may name as companions: in its own folder, and not the weights."""


@dataclass(frozen=True)
class Origin:
    """One training that left its mark on the weights."""

    study: str
    """Name of the study."""
    sha256: str
    """SHA-256 of the study's ``frames.csv``."""
    trained_on: list[str]
    """Patient ids whose frames were trained on."""
    terms: str
    """Terms of the frames."""


@dataclass
class Bundle:
    """A trained network and what is needed to use it. The channel recipe travels with the weights."""

    model: nn.Module
    """The network, in evaluation mode after ``load``."""
    model_name: str
    """Its name in the zoo."""
    recipe: ChannelRecipe
    """The channels that it sees, and its input size."""
    labels: list[str]
    """What its maps mean; label k of a mask is ``labels[k - 1]``."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Arguments that the constructor got besides channels and labels."""
    thresholds: dict[str, float] = field(default_factory=lambda: {"mask": 0.5, "presence": 0.5})
    """Probability from which a pixel, and from which a label as a whole, counts as there."""
    temperatures: dict[str, float] = field(default_factory=dict)
    """What a label's pixel logits are divided by, see ``inference.temperature``; 1 where there is no entry. The
    thresholds hold for probabilities after that."""
    postprocessing: dict[str, PostProcessing] = field(default_factory=dict)
    """What is done to a label's mask, by its name; nothing where there is no entry."""
    study_name: str = ""
    """Name of the study that it was trained on."""
    study_sha256: str = ""
    """SHA-256 of that study's ``frames.csv``."""
    trained_on: list[str] = field(default_factory=list)
    """Patient ids whose frames it was trained on."""
    started_from: list[Origin] = field(default_factory=list)
    """The trainings before this one, if it did not start from fresh weights; the first comes first."""
    terms: str = ""
    """Terms of the training data, repeated in the model card."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of merit, as far as they were measured."""
    versions: dict[str, str] = field(default_factory=dict)
    """Programs that made it; filled in by ``save``."""
    weights_sha256: str = ""
    """SHA-256 of ``model.safetensors``; filled in by ``save`` and ``load``."""
    companions: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Small tables that travel with the weights, such as what is remembered of the training frames. Each is a file of
    its own, named by its key (small letters, digits and ``_``) with ``.safetensors``."""

    def history(self) -> list[Origin]:
        """All trainings behind the weights, this bundle's own last."""
        return [*self.started_from, Origin(self.study_name, self.study_sha256, list(self.trained_on), self.terms)]

    def seen(self, study_sha256: str) -> set[str]:
        """Patients who may not judge it: those of its own study, and of the same study at any stage before."""
        before = (origin.trained_on for origin in self.started_from if origin.sha256 == study_sha256)
        return set(self.trained_on).union(*before)

    def save(self, folder: Path, half: bool = False) -> None:
        """Write the bundle; ``bundle.yaml`` comes last, so a folder that has one is whole.

        Args:
            folder: Made when absent; a bundle in it is replaced.
            half: Keep the parameters as 16-bit numbers, in half the room; ``load`` widens them again. What is no
                parameter stays as it is: a running variance spans more decades than 16 bits hold, and is small.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / "model.safetensors"
        (folder / ONNX_FILE).unlink(missing_ok=True)  # made from the weights that are replaced
        with atomic_path(weights) as temporary:
            # Not save_file: it makes a private file, which an installation for several users could not read.
            temporary.write_bytes(save(self._tensors(half)))
        write_json(folder / "metrics.json", self.metrics)
        write_text(folder / "README.md", self._card())
        self.weights_sha256 = sha256_of_file(weights)
        self.versions = {"edgefusion": edgefusion.__version__, "torch": str(torch.__version__), "numpy": np.__version__}
        self.save_description(folder)

    def save_description(self, folder: Path) -> None:
        """Write the companions and ``bundle.yaml`` into the folder that holds this bundle, and leave the rest alone.

        Args:
            folder: Its weights are those of ``weights_sha256``.

        Raises:
            BundleError: If a companion's name is not allowed.
        """
        files = {}
        _check_companions([f"{name}.safetensors" for name in self.companions])
        for name, tensors in self.companions.items():
            with atomic_path(folder / f"{name}.safetensors") as temporary:
                temporary.write_bytes(save({key: value.contiguous().cpu() for key, value in tensors.items()}))
            files[f"{name}.safetensors"] = sha256_of_file(folder / f"{name}.safetensors")
        description = {
            "format": FORMAT,
            "model": {"name": self.model_name, "arguments": self.model_args},
            "recipe": {**dataclasses.asdict(self.recipe), "channels": list(self.recipe.channels)},
            "labels": self.labels,
            "thresholds": self.thresholds,
            "temperatures": self.temperatures,
            "postprocessing": {label: dataclasses.asdict(steps) for label, steps in self.postprocessing.items()},
            "study": {"name": self.study_name, "sha256": self.study_sha256, "trained_on": self.trained_on},
            "started_from": [dataclasses.asdict(origin) for origin in self.started_from],
            "terms": self.terms,
            "weights_sha256": self.weights_sha256,
            "files": files,
            "versions": self.versions,
        }
        write_text(folder / "bundle.yaml", yaml.safe_dump(description, sort_keys=False, allow_unicode=True))

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read and check a bundle.

        Raises:
            UsageError: If the folder is not there or is not a bundle.
            BundleError: If it is damaged, was altered, or is from another version.
        """
        folder = Path(folder)
        file = folder / "bundle.yaml"
        checks.refuse_pickles(folder)
        if not file.is_file():
            raise UsageError(f"{folder} is not a model bundle: it has no bundle.yaml.", "Train one: edgefusion train.")
        weights = folder / "model.safetensors"
        try:
            values = read_yaml(file)
            if int(values["format"]) > FORMAT:
                raise BundleError(f"{folder} was written by a newer version of EdgeFusion.", "Upgrade edgefusion.")
            if int(values["format"]) < FORMAT:
                raise BundleError(f"{folder} is from an older version, whose channels differ.", "Train it again.")
            name, arguments = str(values["model"]["name"]), dict(values["model"]["arguments"])
            recipe, labels = ChannelRecipe.from_dict(values["recipe"]), list(values["labels"])
            checks.check_labels(labels)
            check_size(recipe.height, recipe.width)
            checks.check_recipe(recipe.channels, recipe.height, recipe.width, recipe.time)
            outline = checks.outline(build_model, name, len(recipe.channels), len(labels), **arguments)
            checks.check_weights(weights, str(values["weights_sha256"]), name, outline)
            bundle = cls(
                model=build_model(name, len(recipe.channels), len(labels), **arguments),
                model_name=name,
                recipe=recipe,
                labels=labels,
                model_args=arguments,
                thresholds={key: float(values["thresholds"][key]) for key in ("mask", "presence")},
                # Bundles made before there were any have no entry.
                temperatures=_temperatures(values.get("temperatures", {}), labels),
                postprocessing=_steps(values.get("postprocessing", {}), labels),
                study_name=str(values["study"]["name"]),
                study_sha256=str(values["study"]["sha256"]),
                trained_on=list(values["study"]["trained_on"]),
                started_from=[Origin(**origin) for origin in values["started_from"]],
                terms=str(values["terms"]),
                versions=dict(values["versions"]),
                metrics=read_json(folder / "metrics.json", "the metrics of a bundle"),
            )
            checks.check_thresholds(bundle.thresholds)
            bundle.weights_sha256 = str(values["weights_sha256"])
            files = {str(name): str(sha256) for name, sha256 in values.get("files", {}).items()}
            _check_companions(files)
        # Building the network from made-up arguments can fail in any of these ways too.
        except (
            *(yaml.YAMLError, OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError),
            *(UsageError, DataError),
        ) as error:
            reason = " ".join(str(error).split())
            raise BundleError(f"{file} is not a valid description ({reason}).", "Export the bundle again.") from error
        try:
            bundle.model.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise BundleError(f"{weights} does not fit the network '{name}'.", "Export the bundle again.") from error
        bundle.model.eval()
        bundle.companions = {Path(name).stem: _companion(folder / name, sha256) for name, sha256 in files.items()}
        return bundle

    def _tensors(self, half: bool) -> dict[str, torch.Tensor]:
        tensors = {name: value.contiguous().cpu() for name, value in self.model.state_dict().items()}
        if half:
            tensors |= {name: tensors[name].half() for name, _ in self.model.named_parameters()}
            # Beyond 65,504 a 16-bit number is infinite.
            if not all(torch.isfinite(value).all() for value in tensors.values()):
                raise BundleError("The weights do not fit into 16 bits.", "Save the bundle without `half`.")
        return tensors

    def _card(self) -> str:
        channels = ", ".join(self.recipe.channels)
        lines = [
            f"# {self.model_name} for {', '.join(self.labels)}",
            "",
            "For research. Not a medical device; not for diagnosis.",
            "",
            f"- Input: {channels} at {self.recipe.height}×{self.recipe.width}, "
            f"filtered at the {self.recipe.resolution}'s size",
            f"- Trained on: {len(self.trained_on)} patients of the study '{self.study_name}'",
            *(f"- Started from: {len(o.trained_on)} patients of the study '{o.study}'" for o in self.started_from),
            f"- Terms of the data: {self.terms or 'not stated'}",
            "",
            "| measure | value |",
            "|---|---|",
            *(f"| {k} | {v:.4f} |" for k, v in self.metrics.items() if isinstance(v, float)),
            "",
        ]
        return "\n".join(lines)


def _check_companions(files: Iterable[str]) -> None:
    if strangers := [name for name in files if not _COMPANION.fullmatch(name)]:
        raise BundleError(f"A bundle cannot have companion files named {', '.join(map(repr, strangers))}.")


def _companion(file: Path, sha256: str) -> dict[str, Tensor]:
    small = file.is_file() and file.stat().st_size <= checks.MAX_COMPANION_BYTES
    content = file.read_bytes() if small else b""
    if sha256_of_bytes(content) != sha256:
        raise BundleError(f"{file} is missing or not the file that was saved.", "Copy the bundle again.")
    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise BundleError(f"{file} holds no tensors.", "Export the bundle again.") from error
    return tensors


def _temperatures(values: dict[str, Any], labels: list[str]) -> dict[str, float]:
    temperatures = {label: float(value) for label, value in dict(values).items()}
    if temperatures.keys() - set(labels) or not all(0 < value < float("inf") for value in temperatures.values()):
        raise ValueError("temperatures of labels that it does not find, or that are not above 0")
    return temperatures


def _steps(values: dict[str, dict[str, Any]], labels: list[str]) -> dict[str, PostProcessing]:
    steps = {label: PostProcessing(**of_label) for label, of_label in dict(values).items()}
    if strangers := steps.keys() - set(labels):
        raise ValueError(f"post-processing of {', '.join(sorted(strangers))}, which it does not find")
    return steps
