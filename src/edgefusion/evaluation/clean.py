"""The honest part of an evaluation: what is shared with the training is said, and the rest is measured apart."""

from __future__ import annotations

from typing import Any

import pandas as pd

from edgefusion.data.simhash import BITS
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.answer import counted, number
from edgefusion.evaluation.memory import IDENTICAL, KINDS, NEARLY, SEEN, Overlap
from edgefusion.progress import say

_NAMED = 10


def overlap_facts(overlap: Overlap) -> dict[str, Any]:
    """The overlap for ``summary.json``.

    Returns:
        ``patients`` (those trained on); of the other patients ``identical`` and ``near_duplicate`` (each with
        ``frames``, their number, and ``patients``) and ``worst`` (the frame that is most like a training frame, or
        None); ``not_remembered`` (studies behind the bundle of whose frames it remembers nothing, so that only
        patients' names could be compared).
    """
    others = overlap.frames[~overlap.frames[SEEN]]
    alike = others.sort_values("bits", kind="stable")
    columns = ["frame_id", "patient_id", "bits", "of_study", "of_patient"]
    return {
        "patients": overlap.patients(SEEN),
        **{
            name: {"frames": int(others[kind].sum()), "patients": list(others["patient_id"][others[kind]].unique())}
            for name, kind in (("identical", IDENTICAL), ("near_duplicate", NEARLY))
        },
        "worst": alike[columns].head(1).to_dict("records")[0] if len(alike) else None,
        "not_remembered": overlap.forgotten,
    }


def measure_clean(table: pd.DataFrame, overlap: Overlap) -> dict[str, Any] | None:
    """The measures without every patient of whom anything is shared: one known frame of a patient makes all easier.

    Args:
        table: The judged frames, see ``aggregate.read_frames``.
        overlap: Of these frames.

    Returns:
        ``frames`` and ``patients`` (how many are left) and ``measures`` (rows of ``summarise``; none where nobody is
        left); None where nothing is shared, and all is clean.
    """
    if overlap.frames.empty:
        return None
    rest = table[~table["patient_id"].isin(overlap.patients(*KINDS))]
    return {
        "frames": int(rest["frame_id"].nunique()),
        "patients": int(rest["patient_id"].nunique()),
        "measures": [] if rest.empty else summarise(rest).to_dict("records"),
    }


def warn(facts: dict[str, Any]) -> None:
    """Say on stderr what is shared, a line each.

    Args:
        facts: Of ``overlap_facts``.
    """
    if facts["patients"]:
        say(f"Careful: it was trained on {_people(facts['patients'])} of those to be judged; their frames flatter it.")
    same, near, worst = facts["identical"], facts["near_duplicate"], facts["worst"]
    nearest = worst and (
        f"the nearest is {worst['frame_id']}, {worst['bits']} of {BITS} bits from a frame of patient "
        f"{worst['of_patient']} in '{worst['of_study']}'"
    )
    if same["frames"]:
        say(
            f"Careful: it was trained on the very pixels of {counted(same['frames'], 'frame')} of "
            f"{_people(same['patients'])}; {nearest}."
        )
    if near["frames"]:
        say(
            f"Careful: {counted(near['frames'], 'frame')} of {_people(near['patients'])} nearly repeat frames that it "
            f"was trained on; {nearest}."
        )
    if facts["not_remembered"]:
        say(
            f"The bundle does not remember the frames of {', '.join(facts['not_remembered'])}: copies of them would go "
            "unnoticed (see edgefusion.evaluation.memory)."
        )


def tell_clean(clean: dict[str, Any] | None, measures: pd.DataFrame) -> None:
    """Say on stderr what is left of the Dice without patients of whom anything is shared.

    Args:
        clean: Of ``measure_clean``.
        measures: Rows of ``summarise`` over all judged frames.
    """
    if clean is None:
        return
    if not clean["patients"]:
        say(
            "No patient is left who shares nothing with the training: these figures do not say how it does on new ones."
        )
        return
    everyone, rest = (_dice(rows) for rows in (measures.to_dict("records"), clean["measures"]))
    figures = ", ".join(f"{label} {number(rest[label])} (all: {number(everyone[label])})" for label in rest)
    say(
        f"Without these patients, on {counted(clean['frames'], 'frame')} of {counted(clean['patients'], 'patient')}, "
        f"the Dice of masked frames is: {figures}."
    )


def _dice(rows: list[Any]) -> dict[str, float]:
    return {row["label"]: float(row["value"]) for row in rows if row["measure"] == "dice_masked"}


def _people(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{counted(len(names), 'patient')} ({', '.join(names[:_NAMED])}{more})"
