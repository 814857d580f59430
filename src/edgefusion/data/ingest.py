"""Turning files into a study: everything is read, nothing is dropped silently, near-duplicates are grouped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from edgefusion.config import UNSTATED_TERMS
from edgefusion.data import duplicates
from edgefusion.data.intake import Intake
from edgefusion.data.layouts import Problem, recognise
from edgefusion.data.patients import name_patients
from edgefusion.data.readers import MAX_LABEL, read_labels
from edgefusion.data.signature import holds_dicom
from edgefusion.data.staging import publish, staged
from edgefusion.data.study import Study, frames_table, write_png
from edgefusion.errors import UsageError
from edgefusion.files import is_plain_name, write_text
from edgefusion.progress import say

if TYPE_CHECKING:
    from edgefusion.data.dicom.intake import DicomIntake

REPORT = "ingest-report.csv"
"""What was odd about the source's files: ``file,reason,action``."""

CONTRADICTIONS = "contradictions.csv"
"""Frames without foreground that have a near-identical frame with some."""

OnContradiction = Literal["keep", "drop", "propagate"]

_GROUPED = "kept, in one group with its copy"


def ingest(
    source: Path | str,
    output: Path | str,
    *,
    patient_regex: str | None = None,
    patients_csv: Path | str | None = None,
    contradictions: OnContradiction = "keep",
    strict: bool = False,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    terms: str = UNSTATED_TERMS,
    key: Path | str | None = None,
) -> Study:
    """Make a study of a folder of frames and masks or of clips, of a single file, or of DICOM files.

    The shapes of folders that are understood stand at ``edgefusion.data.layouts.recognise``. Every file that was not
    used as its name suggests is listed in ``ingest-report.csv`` of the study, and counted on stderr.

    Args:
        source: A folder; a PNG, TIFF, JPEG, NIfTI or video file; or a DICOM file, a folder of them, or a DICOMDIR.
            NIfTI files are read as ``nifti.open_nifti`` says. Frames of videos are unlabelled, and each video counts as
            a patient unless something else is given. DICOM frames are cropped to the ultrasound image, unlabelled, and
            grouped by Patient ID; identifiers become keyed hashes.
        output: The study's folder: new, empty, or a study of the same source, which is then replaced at the very end.
        patient_regex: Searched in every frame's path within the source; the first group is the patient.
        patients_csv: A table ``image,patient`` instead.
        contradictions: What becomes of a frame that is said to have no foreground although a near-identical frame has
            some (all are listed in ``contradictions.csv``): "keep" it as it is, "drop" it, or "propagate" the other's
            mask to it.
        strict: Stop at the first frame that cannot be used, instead of leaving it out.
        name: The study's name, by default that of its folder.
        labels: Names of the labels 1, 2 ...; by default those in nnU-Net's ``dataset.json``, else nerve, vessel,
            label_3 ...
        terms: Under which terms the frames may be used, and whom to name: stands in reports and in the card of every
            network that is trained on them.
        key: For DICOM, the file of the key that patients' pseudonyms are made with. It is made where there is none; by
            default it lies in the user's configuration folder. The same key gives the same pseudonyms.

    Returns:
        The study, complete on disk.

    Raises:
        UsageError: If the source or an option is wrong, or the output folder holds something else.
        DataError: If no frame can be used, or, with ``strict``, one cannot.
    """
    source, output = Path(source), Path(output)
    if contradictions not in get_args(OnContradiction):
        raise UsageError(f"contradictions is {contradictions!r}.", "Use keep, drop or propagate.")
    _check_labels(labels)
    intake: Intake | DicomIntake
    if holds_dicom(source):
        if patient_regex is not None or patients_csv is not None:
            raise UsageError(
                "DICOM files say themselves whose they are.", "Leave the pattern or table of patients out."
            )
        from edgefusion.data.dicom.intake import DicomIntake
        from edgefusion.data.dicom.objects import DicomSource
        from edgefusion.data.dicom.pseudonyms import load_pseudonyms

        files = DicomSource(source, load_pseudonyms(Path(key) if key else None, output), strict)
        intake = DicomIntake(files)
        label_names, origin, kind = list(labels) if labels else None, files.origin, "DICOM"
    else:
        layout = recognise(source)
        patients = name_patients(layout.entries, source, patient_regex, Path(patients_csv) if patients_csv else None)
        label_names = list(labels) if labels else layout.labels
        intake = Intake(source, layout, patients, label_names, strict)
        origin, kind = str(source.resolve()), layout.kind
    with staged(output, origin) as folder:
        stored, problems = intake.store_all(folder)
        table = frames_table([frame.row for frame in stored])
        problems += _exact_copies(table)
        pairs = duplicates.similar_pairs(np.stack([frame.description for frame in stored]))
        table["group"] = table["frame_id"].to_numpy()[duplicates.group_leaders(table, pairs)]
        found = duplicates.contradictions(table, pairs)
        table, found = _resolve(table, found, contradictions, folder)
        write_text(folder / CONTRADICTIONS, found.to_csv(index=False, lineterminator="\n"))
        report = pd.DataFrame(problems, columns=["file", "reason", "action"])
        write_text(folder / REPORT, report.to_csv(index=False, lineterminator="\n"))
        study = Study(
            path=folder,
            name=name or output.resolve().name,
            labels=label_names or _default_labels(max(frame.highest_label for frame in stored)),
            origin=origin,
            terms=terms,
            frames=table,
        )
        study = publish(study, output)
    _summarise(study, kind, problems, found)
    return study


def _check_labels(labels: Sequence[str] | None) -> None:
    if labels is None:
        return
    if not 1 <= len(labels) <= MAX_LABEL or len(set(labels)) < len(labels) or not all(map(is_plain_name, labels)):
        raise UsageError(
            f"The labels {list(labels)} are not 1 to {MAX_LABEL} different names that can stand in the name of a file."
        )


def _default_labels(highest: int) -> list[str]:
    names = ["nerve", "vessel", *(f"label_{value}" for value in range(3, highest + 1))]
    return names[: max(1, highest)]


def _exact_copies(table: pd.DataFrame) -> list[Problem]:
    copies = table[table["sha256"].duplicated()]
    originals = table.drop_duplicates("sha256").set_index("sha256")["source"]
    return [
        Problem(str(source), f"same pixels as {originals[digest]}", _GROUPED)
        for source, digest in zip(copies["source"], copies["sha256"], strict=True)
    ]


def _resolve(
    table: pd.DataFrame, found: pd.DataFrame, action: OnContradiction, folder: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Carry out what was asked for contradictory frames; both tables are returned changed."""
    table, found = table.set_index("frame_id", drop=False), found.assign(action="kept")
    for position, (empty, masked) in enumerate(zip(found["empty_frame"], found["masked_frame"], strict=True)):
        if action == "drop":
            for column in ("image", "mask"):
                (folder / str(table.loc[empty, column])).unlink()
            table = table.drop(index=empty)
            found.loc[position, "action"] = "dropped"
        elif action == "propagate":
            mask = read_labels(folder / str(table.loc[masked, "mask"]))
            if mask.shape == (table.loc[empty, "height"], table.loc[empty, "width"]):
                write_png(folder / str(table.loc[empty, "mask"]), mask)
                table.loc[empty, "area_px"] = table.loc[masked, "area_px"]
                found.loc[position, "action"] = "mask propagated"
            else:
                found.loc[position, "action"] = "kept, since the frames differ in size"
    # A group is named by its first frame, which may have been dropped.
    table["group"] = table.groupby("group", sort=False)["frame_id"].transform("first")
    return table.reset_index(drop=True), found


def _summarise(study: Study, kind: str, problems: Sequence[Problem], found: pd.DataFrame) -> None:
    frames, labelled = study.frames, study.labelled()
    empty = int((labelled["area_px"] == 0).sum())
    own_patient = bool((frames["patient_id"] == frames["frame_id"]).all())
    say(
        f"{len(frames)} frames of {frames['patient_id'].nunique()} {'assumed ' if own_patient else ''}patients "
        f"({kind}); {len(labelled)} labelled ({', '.join(study.labels)}), {empty} of them empty; "
        f"{len(frames) - len(labelled)} unlabelled."
    )
    sizes = frames["group"].value_counts()
    say(f"{int((sizes > 1).sum())} groups of near-duplicates hold {int(sizes[sizes > 1].sum())} of the frames.")
    shared = frames.groupby("group")["patient_id"].unique()
    ties = sorted({" and ".join(names) for names in shared if len(names) > 1})
    if ties and not own_patient:
        say(f"Near-duplicate frames are shared by patients {'; '.join(ties)}: splits keep such patients together.")
    for action, count in Counter(found["action"]).items():
        say(f"{count} contradictions (empty, but near-identical to a masked frame): {action}; see {CONTRADICTIONS}.")
    for action, count in Counter(problem.action for problem in problems).items():
        say(f"{count} files {action}; see {REPORT}.")
    say(f"The study is in {study.path}.")
