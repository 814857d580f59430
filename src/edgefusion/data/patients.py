"""Finding out whose frame a file is."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from edgefusion.data.layouts import Entry
from edgefusion.data.sources import stem_of
from edgefusion.errors import DataError, UsageError
from edgefusion.progress import say


def name_patients(
    entries: Sequence[Entry], source: Path, patient_regex: str | None, patients_csv: Path | None
) -> dict[str, str]:
    """Patient of every entry, by its frame id.

    Args:
        entries: The frames of the source.
        source: The source folder or file; patterns and tables see paths relative to it.
        patient_regex: A pattern that is searched in the path; its first group is the patient.
        patients_csv: A table with columns ``image`` (path, file name, or name without ending) and ``patient``.

    Returns:
        Names as given, else those that the layout itself has, else the frame's own id, which is said on stderr.

    Raises:
        UsageError: If both ways are given, the pattern is wrong, or a frame has no patient by the way that is given.
        DataError: If the table cannot be understood.
    """
    if patient_regex is not None and patients_csv is not None:
        raise UsageError("Patients come from a pattern or from a table, not from both.", "Leave one of them out.")
    if patient_regex is not None:
        return _by_pattern(entries, source, patient_regex)
    if patients_csv is not None:
        return _by_table(entries, source, patients_csv)
    if all(entry.patient for entry in entries):
        return {entry.frame_id: str(entry.patient) for entry in entries}
    say(
        "WARNING: nothing tells which frames belong to one patient, so EACH FILE COUNTS AS ITS OWN PATIENT. "
        "Frames of one person can then be trained on and judged on, which flatters every result. "
        "Give a pattern (--patient-regex) or a table (--patients-csv)."
    )
    return {entry.frame_id: entry.frame_id for entry in entries}


def _by_pattern(entries: Sequence[Entry], source: Path, pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"The patient regex {pattern!r} is not valid: {error}.") from error
    if compiled.groups == 0:
        raise UsageError(
            f"The patient regex {pattern!r} has no group.", "Put the patient's part in brackets: '(P[0-9]+)_'."
        )
    found = {entry.frame_id: compiled.search(entry.name_in(source)) for entry in entries}
    patients = {frame: match.group(1) for frame, match in found.items() if match and match.group(1)}
    _check_all(entries, source, patients, f"the patient regex {pattern!r}")
    return patients


def _by_table(entries: Sequence[Entry], source: Path, table: Path) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"))))
    except FileNotFoundError:
        raise UsageError(f"There is no table of patients {table}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}.") from error
    by_image: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        image, patient = (row.get("image") or "").strip(), (row.get("patient") or "").strip()
        if not image or not patient:
            raise DataError(f"{table}, line {line}, lacks image or patient.", "Its header must be image,patient.")
        if by_image.setdefault(image, patient) != patient:
            raise DataError(f"{table}, line {line}, gives {image} a second patient.")
    patients = {}
    for entry in entries:
        for name in (entry.name_in(source), entry.image.name, stem_of(entry.image), entry.frame_id):
            if name in by_image:
                patients[entry.frame_id] = by_image[name]
                break
    _check_all(entries, source, patients, str(table))
    return patients


def _check_all(entries: Sequence[Entry], source: Path, patients: dict[str, str], by: str) -> None:
    without = [entry.name_in(source) for entry in entries if entry.frame_id not in patients]
    if without:
        raise UsageError(f"{len(without)} of {len(entries)} frames have no patient by {by}, first {without[0]}.")
