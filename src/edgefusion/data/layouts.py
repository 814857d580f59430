"""Recognising how a source folder pairs its frames with masks, from file names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefusion.data.bounds import read_json
from edgefusion.data.kaggle import FRAME_NAME, MASK_TABLE, read_mask_table
from edgefusion.data.sources import is_clip, is_known, stem_of
from edgefusion.errors import DataError, UsageError
from edgefusion.files import is_hidden

SKIPPED = "skipped"
"""Action for a frame that was not taken over."""

IGNORED = "ignored"
"""Action for a file that is no frame of its own."""

_MASK_SUFFIX = "_mask"
_MASK_FOLDERS = ("masks", "labels")
_KINDS = "PNG, TIFF, JPEG, NIfTI or video file"
_FRAME_OF_CLIP = re.compile(r"(.+)_f\d{5,}")
_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Problem:
    """Something about a source file that a person should know: a line of ``ingest-report.csv``."""

    file: str
    reason: str
    action: str


@dataclass(frozen=True)
class Entry:
    """One frame that a source offers, or one clip of frames.

    Attributes:
        frame_id: Unique in the source, fit to be a file's name; frames of a clip are called ``frame_id_f00001`` ...
        image: The frame's file.
        mask: The mask's file, if there is one.
        runs: The mask as Kaggle's run lengths, if there is no file; empty text for no nerve.
        patient: The patient, where the layout itself says it.
    """

    frame_id: str
    image: Path
    mask: Path | None = None
    runs: str | None = None
    patient: str | None = None

    def name_in(self, source: Path) -> str:
        """The frame's file as a path relative to the source, with forward slashes."""
        return relative_name(self.image, source)


@dataclass
class Layout:
    """What a source holds: its entries in a stable order, the names of its labels if it has them, and what is odd."""

    kind: str
    entries: list[Entry] = field(default_factory=list)
    labels: list[str] | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def has_masks(self) -> bool:
        """Whether any frame has a mask, so that a frame without one is worth a word."""
        return any(entry.mask is not None or entry.runs is not None for entry in self.entries)


def relative_name(path: Path, source: Path) -> str:
    """``path`` relative to the source folder, or its name where the source is that file."""
    return path.name if path == source else path.relative_to(source).as_posix()


def recognise(source: Path) -> Layout:
    """Find the frames of a picture or clip file, or of a folder in one of the shapes that are known.

    In the order in which they are tried: nnU-Net's ``imagesTr/`` and ``labelsTr/`` with ``dataset.json``; ``images/``
    with ``masks/`` or ``labels/``; Kaggle's ``P_N.tif`` with ``P_N_mask.tif`` or ``train_masks.csv`` in the folder or
    beside it; ``x.png`` with ``x_mask.png``; plain frames. In each a NIfTI file may stand for a picture,
    or with all its frames for as many; a video is a clip of unlabelled frames.

    Raises:
        UsageError: If the source is missing, or is a folder without pictures in any of these shapes.
        DataError: If ``dataset.json`` or ``train_masks.csv`` cannot be understood.
    """
    if source.is_file():
        return Layout("single clip" if is_clip(source) else "single picture", [Entry(stem_of(source), source)])
    if not source.is_dir():
        raise UsageError(f"There is no file or folder {source}.", "Give the folder that holds the frames.")
    if (source / "study.yaml").is_file():
        raise UsageError(f"{source} is a study already.", "Use it as it is.")
    if (source / "imagesTr").is_dir():
        layout = _nnunet(source)
    elif (source / "images").is_dir():
        layout = _folders(source)
    else:
        layout = _flat(source)
    if not layout.entries:
        raise _nothing(source)
    return _with_unique_ids(layout, source)


def _with_unique_ids(layout: Layout, source: Path) -> Layout:
    first: dict[str, Entry] = {}
    for entry in layout.entries:
        # Ids become file names, which some file systems compare without regard to case.
        earlier = first.setdefault(entry.frame_id.casefold(), entry)
        if earlier is not entry:
            reason = f"its name would clash with that of {earlier.name_in(source)}"
            layout.problems.append(Problem(entry.name_in(source), reason, SKIPPED))
    for name, entry in list(first.items()):
        clip = first.get(match.group(1)) if (match := _FRAME_OF_CLIP.fullmatch(name)) else None
        if clip is not None and is_clip(clip.image):
            reason = f"its name would clash with that of a frame of {clip.name_in(source)}"
            layout.problems.append(Problem(entry.name_in(source), reason, SKIPPED))
            del first[name]
    layout.entries = list(first.values())
    return layout


def _nothing(source: Path) -> UsageError:
    found = (path for path in source.glob("*/*") if _is_picture(path) and not is_hidden(path, source))
    inner = sorted({path.parent.relative_to(source).as_posix() for path in found})
    remedy = (
        f"Did you mean a folder inside it: {', '.join(inner[:5])}?" if inner else "Give the folder that holds them."
    )
    return UsageError(f"{source} has no {_KINDS}.", remedy)


def _is_picture(path: Path) -> bool:
    return is_known(path) and path.is_file()


def _pictures(folder: Path, layout: Layout, source: Path, recursive: bool = False) -> dict[str, Path]:
    """Pictures by their name without ending (and with the folders between); others are noted in the layout."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*") if recursive else folder.iterdir(), key=_natural):
        if not path.is_file() or is_hidden(path, folder):
            continue
        name = relative_name(path, source)
        key = path.relative_to(folder).with_name(stem_of(path)).as_posix()
        if not _is_picture(path):
            if path.suffix.lower() not in (".csv", ".json", ".md", ".txt"):
                layout.problems.append(Problem(name, f"not a {_KINDS}", IGNORED))
        elif key in found:
            layout.problems.append(Problem(name, f"same name as {found[key].name}", SKIPPED))
        else:
            found[key] = path
    return found


def _natural(path: Path) -> list[Any]:
    """Sort key that puts 1_2 before 1_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def _identifier(key: str) -> str:
    return key.replace("/", "_")


def _note_orphans(layout: Layout, masks: Iterable[Path], source: Path) -> None:
    for mask in masks:
        layout.problems.append(Problem(relative_name(mask, source), "mask without a frame", IGNORED))


def _flat(source: Path) -> Layout:
    layout = Layout("pairs")
    pictures = _pictures(source, layout, source)
    masks = {key.removesuffix(_MASK_SUFFIX): path for key, path in pictures.items() if key.endswith(_MASK_SUFFIX)}
    frames = {key: path for key, path in pictures.items() if not key.endswith(_MASK_SUFFIX)}
    named = {key: match for key in frames if (match := FRAME_NAME.fullmatch(key))}
    _note_orphans(layout, (path for key, path in masks.items() if key not in frames), source)
    if len(named) * 2 <= len(frames):
        layout.entries = [Entry(key, path, masks.get(key)) for key, path in frames.items()]
        return layout
    layout.kind = "kaggle"
    # The table is only needed, and only read, where mask files are missing.
    table = {} if all(key in masks for key in named) else _mask_table(source)
    for key, path in frames.items():
        if key not in named:
            reason = "name is not patient_number, as those of the other frames are"
            layout.problems.append(Problem(path.name, reason, SKIPPED))
            continue
        runs = None if key in masks else table.get(key)
        layout.entries.append(Entry(key, path, masks.get(key), runs, named[key].group(1)))
    return layout


def _mask_table(source: Path) -> dict[str, str]:
    for folder in (source, source.resolve().parent):
        if (folder / MASK_TABLE).is_file():
            return read_mask_table(folder / MASK_TABLE)
    return {}


def _folders(source: Path) -> Layout:
    layout = Layout("folders")
    frames = _pictures(source / "images", layout, source, recursive=True)
    masks: dict[str, Path] = {}
    for name in _MASK_FOLDERS:
        if (source / name).is_dir():
            masks = _pictures(source / name, layout, source, recursive=True)
            break
    masks = {key if key in frames else key.removesuffix(_MASK_SUFFIX): path for key, path in masks.items()}
    _note_orphans(layout, (path for key, path in masks.items() if key not in frames), source)
    layout.entries = [Entry(_identifier(key), path, masks.get(key)) for key, path in frames.items()]
    return layout


def _nnunet(source: Path) -> Layout:
    layout = Layout("nnunet", labels=_nnunet_labels(source / "dataset.json"))
    masks: dict[str, Path] = {}
    if (source / "labelsTr").is_dir():
        masks = _pictures(source / "labelsTr", layout, source)
    cases: set[str] = set()
    for key, path in _pictures(source / "imagesTr", layout, source).items():
        name = relative_name(path, source)
        channel = _CHANNEL.fullmatch(key)
        if channel is None:
            layout.problems.append(Problem(name, "name does not end in a channel such as _0000", SKIPPED))
        elif channel.group(2) != "0000":
            layout.problems.append(Problem(name, "a further channel of a frame; only _0000 is read", IGNORED))
        else:
            case = channel.group(1)
            cases.add(case)
            layout.entries.append(Entry(case, path, masks.get(case)))
    _note_orphans(layout, (path for key, path in masks.items() if key not in cases), source)
    return layout


def _nnunet_labels(path: Path) -> list[str] | None:
    """Label names in the order of their values: ``{"name": value}`` in nnU-Net 2, ``{"value": name}`` in nnU-Net 1."""
    if not path.is_file():
        return None
    content = read_json(path, "a description of a dataset")
    try:
        declared = content["labels"]
        pairs = [(key, value) if isinstance(value, int) else (value, int(key)) for key, value in declared.items()]
        names = {int(value): str(name) for name, value in pairs if int(value) != 0}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not name its labels as {{name: value}} ({error}).", "Regions of several labels are not read."
        ) from error
    if sorted(names) != list(range(1, len(names) + 1)):
        raise DataError(f"{path} has label values {sorted(names)}.", "They must be 1, 2, 3 ... without a gap.")
    return [names[value] for value in sorted(names)]
