"""A model card: what a bundle is, how well it does, where it fails, and what it must not be used for.

The sections follow Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgefusion.bundle import Bundle
from edgefusion.errors import DataError
from edgefusion.evaluation.aggregate import MEASURES
from edgefusion.evaluation.answer import between, counted, number, title_of
from edgefusion.evaluation.calibration import BINS, REGIONS
from edgefusion.evaluation.presence import has_presence_head
from edgefusion.evaluation.presence_table import as_markdown

_PRESENCE = {"sensitivity": "Sensitivity", "specificity": "Specificity", "auroc": "AUROC of presence"}
_MANY = 40
_LINE = 120


@dataclass(frozen=True)
class Notes:
    """The part of a card that only a person can write."""

    about: str = ""
    """What the network is for, where the data came from, what a reader must know of the split. Markdown."""
    terms: str = ""
    """Terms of the training data; by default what the study says."""
    license: str = ""
    """Terms of the weights."""
    made_with: str = ""
    """The commands that trained it."""
    causes: dict[str, str] = field(default_factory=dict)
    """For frames among the worst, by frame id: why the network fails there, as far as looking at it tells."""


def read_notes(path: Path) -> Notes:
    """Read notes from a YAML or JSON file (JSON is YAML).

    Raises:
        DataError: If the file is missing, or holds anything but the fields of ``Notes``.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Notes(**{**values, "causes": {str(key): str(text) for key, text in values.get("causes", {}).items()}})
    except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError) as error:
        names = ", ".join(entry.name for entry in dataclasses.fields(Notes))
        reason = " ".join(str(error).split())
        raise DataError(f"{path} holds no notes for a card ({reason}).", f"It may have the fields {names}.") from error


def write_card(name: str, bundle: Bundle, metrics: Mapping[str, Any], notes: Notes, command: str) -> str:
    """The card as Markdown.

    Args:
        name: Of the bundle.
        bundle: What the card is about.
        metrics: What ``publish.publish`` returns.
        notes: A person's part.
        command: What made the card.
    """
    labels = ", ".join(bundle.labels)
    return "\n".join(
        [
            *(f"# {name}: finds {labels} in ultrasound images", ""),
            *("For research. Not a medical device; not for diagnosis.", ""),
            *((notes.about.strip(), "") if notes.about else ()),
            *_what_it_is(bundle, notes),
            *_data(bundle, metrics),
            *(line for label in bundle.labels for line in _results(label, metrics)),
            *(line for label in bundle.labels for line in _presence(label, metrics)),
            *_calibration(metrics),
            *(line for label in bundle.labels for line in _worst(label, metrics, notes)),
            *_speed(metrics),
            *_use(bundle, metrics),
            *_origin(bundle, notes, command),
        ]
    )


def _what_it_is(bundle: Bundle, notes: Notes) -> Iterator[str]:
    recipe = bundle.recipe
    parameters = sum(parameter.numel() for parameter in bundle.model.parameters())
    yield from ("## What it is", "")
    yield f"- Network: {title_of(bundle.model_name)}, {parameters / 1e6:.2f} M parameters"
    where = "at the frame's own size" if recipe.resolution == "frame" else "at the network's size"
    filtered = "" if recipe.channels == ("raw",) else f", filtered {where}"
    yield f"- Sees: {', '.join(recipe.channels)}{filtered}, at {recipe.height}×{recipe.width} pixels"
    presence = "presence" if has_presence_head(bundle) else "highest probability (presence is no output of its own)"
    yield _item(
        f"Answers: for each of {', '.join(bundle.labels)} a mask, its border, its {presence}, at the frame's own size"
    )
    yield _item(f"Thresholds: mask {bundle.thresholds['mask']:g}, presence {bundle.thresholds['presence']:.3g}")
    yield f"- License of the weights: {notes.license or 'not stated'}"
    yield ""


def _data(bundle: Bundle, metrics: Mapping[str, Any]) -> Iterator[str]:
    study, held_out = metrics["study"], metrics["held_out"]
    yield from ("## Data", "")
    for origin in bundle.started_from:
        yield _item(
            f"Started from weights trained on {_patients(origin.trained_on)} of the study '{origin.study}' "
            f"(terms: {origin.terms or 'not stated'})"
        )
    yield _item(f"Trained on {_patients(bundle.trained_on)} of the study '{bundle.study_name}'")
    yield _item(
        f"Judged on {counted(study['judged_frames'], 'frame')} of {_patients(held_out)} of the study "
        f"'{study['name']}', none of whom was trained on; split by patient, never by frame"
    )
    yield from _overlap(metrics)
    yield _item(f"Terms of the data: {bundle.terms or 'not stated'}")
    hashes = f"{bundle.study_sha256[:16]}… (trained), {study['sha256'][:16]}… (judged)"
    yield _item(f"SHA-256 of the studies' tables of frames: {hashes}")
    yield ""


def _overlap(metrics: Mapping[str, Any]) -> Iterator[str]:
    worst, clean = metrics["overlap"]["worst"], metrics["clean"]
    if worst is None:
        return
    rest = {row["label"]: number(row["value"]) for row in clean["measures"] if row["measure"] == "dice_masked"}
    figures = ", ".join(f"{label} {value}" for label, value in rest.items())
    kinds = (metrics["overlap"][kind]["patients"] for kind in ("identical", "near_duplicate"))
    known = sorted({patient for patients in kinds for patient in patients})
    yield _item(
        f"Of those judged, {_patients(known)} {'has' if len(known) == 1 else 'have'} frames like training frames "
        f"(the nearest: {worst['frame_id']}, like one of patient {worst['of_patient']} of the study "
        f"'{worst['of_study']}'). Without them, Dice of masked frames: {figures or 'nobody is left'}"
    )


def _patients(names: Sequence[str]) -> str:
    return counted(len(names), "patient") + (f" ({', '.join(names)})" if len(names) <= _MANY else "")


def _results(label: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    rows = {row["measure"]: row for row in metrics["measures"] if row["label"] == label}
    unit = metrics["distance_unit"]
    yield from (f"## Results: {label}", "")
    yield from ("| measure | value | 95 % interval | frames | patients |", "|---|---|---|---|---|")
    for key, title in {**{measure.key: measure.title for measure in MEASURES}, **_PRESENCE}.items():
        row = rows[key]
        if math.isnan(row["value"]) or (key in _PRESENCE and not metrics["empty_frames"][label]):
            continue
        digits, name = (1, f"{title}, {unit}") if key in ("hd95", "surface_distance") else (3, title)
        cells = (name, number(row["value"], digits), between(row["low"], row["high"], digits))
        yield f"| {' | '.join(cells)} | {row['n_frames']} | {row['n_patients']} |"
    missed = rows["n_missed"]
    yield ""
    yield _prose(
        f"Intervals: bootstrap of patients. {missed['value']:.0f} of {missed['n_frames']} frames that show the {label} "
        "got an empty mask; distances leave them out. Boundary F1 at 2 px. Measured with the weights in this folder, "
        "one pass a frame, at the frames' own size."
    )
    yield ""


def _presence(label: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    summary, choice = metrics["presence"].get(label), metrics["presence_threshold"]
    if summary is None:
        return
    yield from (f"## Presence: {label}", "")
    if choice:
        yield _prose(
            f"Below a presence of {choice['threshold']:.3g} a frame's mask is emptied. This threshold keeps "
            f"{choice['sensitivity']:.0%} of {counted(choice['frames'], 'frame')} of {_patients(choice['patients'])} "
            f"where another network, trained alike without them, meets them; the patients judged here chose nothing."
        )
        yield ""
    *table, remark = as_markdown(summary)
    yield from (*table, _prose(remark), "")


def _calibration(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Calibration", "", "![Share of true pixels against predicted probability](calibration.svg)", "")
    yield from ("| label | pixels | expected calibration error | claims too much by |", "|---|---|---|---|")
    for label, of_label in metrics["calibration"].items():
        for region, title in REGIONS.items():
            before, after = of_label["before"][region], of_label["after"][region]
            cells = (f"{number(before[key])} → {number(after[key])}" for key in ("ece", "bias"))
            yield f"| {label} | {title} | {' | '.join(cells)} |"
    yield ""
    for label, of_label in metrics["calibration"].items():
        low, high = (number(end, 2) for end in of_label["span"])
        yield _item(
            f"{label}: logits are divided by a temperature of {number(of_label['temperature'], 2)}, fitted on "
            f"{counted(of_label['patients'], 'patient')}. Before → after: each patient with the temperature that the "
            f"others would choose ({low} to {high}). Masks cut at .5 are the same."
        )
    yield ""
    yield _prose(
        f"{BINS} bins of pixel probability. Nearly all pixels are surely background, so the second row of a label is "
        "the one that says whether a probability near the outline can be believed."
    )
    yield ""


def _worst(label: str, metrics: Mapping[str, Any], notes: Notes) -> Iterator[str]:
    rows = [row for row in metrics["worst"] if row["label"] == label]
    unit = metrics["distance_unit"]
    yield from (f"## The worst frames: {label}", "")
    yield f"| frame | patient | Dice | precision | recall | HD95, {unit} | true px | found px | cause |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        scores = [number(row[key]) for key in ("dice", "precision", "recall")]
        areas = [f"{row[key]:.0f}" for key in ("true_area", "predicted_area")]
        cause = notes.causes.get(row["frame_id"], "not looked at").replace("|", "\\|")
        cells = [row["frame_id"], row["patient_id"], *scores, number(row["hd95"], 1), *areas, " ".join(cause.split())]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _speed(metrics: Mapping[str, Any]) -> Iterator[str]:
    speed = metrics["speed"]
    yield from ("## Speed", "")
    yield _prose(
        f"{speed['median_ms']:.0f} ms a frame of {speed['height']}×{speed['width']} (95th percentile "
        f"{speed['p95_ms']:.0f} ms; filters, network and all, one frame at a time) on {speed['processor']}, "
        f"{speed['cores']} cores, no GPU."
    )
    yield ""


def _use(bundle: Bundle, metrics: Mapping[str, Any]) -> Iterator[str]:
    labels = " or ".join(bundle.labels)
    yield from ("## What it is for", "")
    yield "Research on segmentation, teaching, and as a baseline to compare with."
    yield from ("", "## What it must not be used for", "")
    yield _item("Diagnosis, or any decision about a patient.")
    yield _item("Guiding a needle, or any intervention, without an expert who reads the image independently of it.")
    yield _item("Other anatomy, probes, machines or populations than those of its study, unless measured there first.")
    yield _item(f"Measuring the area of a {labels} where single frames matter: see the worst frames.")
    for label, empty in metrics["empty_frames"].items():
        there = f"Telling whether a {label} is there at all"
        if label in metrics["presence"]:
            yield _item(f"{there}, beyond what the frames under Presence show; none is of a new patient without one.")
        elif empty:
            yield _item(f"{there}, beyond what {counted(empty, 'frame')} without one can show.")
        else:
            yield _item(
                f"{there}: **presence was not validated**, because every judged frame shows one. A mask is no evidence "
                f"that there is a {label}."
            )
    yield ""


def _origin(bundle: Bundle, notes: Notes, command: str) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
    yield from ("## How it was made", "", "```")
    if notes.made_with:
        yield notes.made_with.strip()
    yield from (command, "```", "", f"Versions: {versions}.", "")


def _prose(text: str) -> str:
    return textwrap.fill(text, _LINE, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> str:
    return textwrap.fill(f"- {text}", _LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
