"""A Study: a folder that describes frames of patients, with or without label masks.

``study.yaml`` says what the study is, ``frames.csv`` has one row a frame, ``images/`` and ``masks/`` hold lossless
PNGs. A study needs nothing outside its folder, so it can be moved, copied and hashed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from edgefusion.data.bounds import check_table, read_yaml
from edgefusion.data.readers import read_frame, read_labels
from edgefusion.errors import DataError, UsageError
from edgefusion.files import is_plain_name, sha256_of_bytes, write_text, writing
from edgefusion.remote import Place, RemotePath, place

_TEXT_COLUMNS = ("frame_id", "patient_id", "image", "mask", "sha256", "group", "source", "clean")
_FILE_COLUMNS = ("image", "mask", "clean")
COLUMNS = (
    "frame_id",
    "patient_id",
    "image",
    "mask",
    "height",
    "width",
    "spacing_row_mm",
    "spacing_col_mm",
    "sha256",
    "group",
    "area_px",
    "source",
    "clean",
)
"""Columns of ``frames.csv``, in this order."""

_FORMAT = 1


@dataclass(frozen=True)
class Study:
    """Frames, their patients and their label masks. Treat it as read-only; make a changed one anew.

    Attributes:
        path: The study's folder; it may lie on object storage, then the study cannot be saved.
        name: A short name, for reports.
        labels: Names of the labels; pixel value k of a mask is ``labels[k - 1]``, 0 is background.
        origin: Where the frames came from.
        terms: The terms of use of the frames.
        frames: One row a frame, with the columns ``COLUMNS``. Paths are relative to ``path``; an unlabelled frame has
            an empty ``mask`` and a missing ``area_px`` (labelled pixels); spacing is in mm a pixel or missing;
            ``group`` is shared by near-duplicates; ``clean`` is the noise-free image of a simulated frame, or empty.
    """

    path: Place
    name: str
    labels: list[str]
    origin: str
    terms: str
    frames: pd.DataFrame

    @classmethod
    def load(cls, path: Place | str) -> Study:
        """Read the study in folder ``path``, or on object storage (``s3://bucket/study``).

        Raises:
            UsageError: If ``path`` is not the folder of a study.
            DataError: If the study's files contradict what a study must be.
            UnreachableError: If its storage does not answer or does not let us in.
        """
        path = place(path)
        if isinstance(path, Path) and not path.is_dir():
            raise UsageError(f"There is no folder {path}.", "Make a study with 'edgefusion ingest SOURCE -o STUDY'.")
        if not is_study(path):
            raise UsageError(
                f"{path} is not a study: it has no study.yaml or no frames.csv.",
                "Make one with 'edgefusion ingest SOURCE -o STUDY'.",
            )
        facts = _read_facts(path / "study.yaml")
        return cls(
            path=path,
            name=str(facts["name"]),
            labels=[str(label) for label in facts["labels"]],
            origin=str(facts.get("origin", "")),
            terms=str(facts.get("terms", "")),
            frames=_read_frames(path / "frames.csv"),
        )

    def save(self) -> None:
        """Write ``frames.csv``, and ``study.yaml`` last, because its presence says that the study is complete."""
        if isinstance(self.path, RemotePath):
            raise UsageError(f"{self.path} is read only.", "Save the study to a folder and copy that there.")
        facts = {
            "format": _FORMAT,
            "name": self.name,
            "labels": list(self.labels),
            "origin": self.origin,
            "terms": self.terms,
        }
        write_text(self.path / "frames.csv", self._csv())
        write_text(self.path / "study.yaml", yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))

    def image(self, frame_id: str) -> NDArray[Any]:
        """The frame's grey image, H×W uint8 or uint16.

        Raises:
            DataError: If its file is gone, damaged, or holds other pixels than when the study was made.
        """
        row = self._row(frame_id)
        image = read_frame(self.path / row["image"])
        if pixels_sha256(image) != row["sha256"]:
            raise DataError(
                f"{self.path / row['image']}, frame {frame_id!r}, is not the picture that was ingested.",
                "Ingest the source again.",
            )
        return image

    def mask(self, frame_id: str) -> NDArray[np.uint8] | None:
        """The frame's label mask, H×W uint8 with values 0 ... ``len(labels)``, or None if it is unlabelled."""
        row = self._row(frame_id)
        if not row["mask"]:
            return None
        mask = read_labels(self.path / row["mask"])
        if mask.shape != (row["height"], row["width"]) or mask.max(initial=0) > len(self.labels):
            raise DataError(f"The mask {self.path / row['mask']} does not fit its study.", "Ingest the source again.")
        return mask

    @property
    def cache(self) -> Path:
        """Folder that keeps what was computed from the frames: in the study, or for one on object storage the user's.

        The latter is in ``EDGEFUSION_CACHE``, by default in ``edgefusion`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
        """
        if isinstance(self.path, Path):
            return self.path / "cache"
        general = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgefusion"
        folder = Path(os.environ.get("EDGEFUSION_CACHE") or general)
        return folder / sha256_of_bytes(str(self.path).encode())[:16]

    def labelled(self) -> pd.DataFrame:
        """The rows of ``frames`` that have a mask; an all-zero mask counts, it says that nothing is there."""
        return self.frames[self.frames["mask"] != ""]

    def sha256(self) -> str:
        """SHA-256 of ``frames.csv``, which itself holds the hash of every image's pixels."""
        return sha256_of_bytes(self._csv().encode())

    def _csv(self) -> str:
        # Areas are whole pixels, or missing.
        frames = self.frames[list(COLUMNS)].astype({"area_px": "Int64"})
        return str(frames.to_csv(index=False, lineterminator="\n"))

    def _row(self, frame_id: str) -> Mapping[str, Any]:
        try:
            return self._rows[frame_id]
        except KeyError:
            raise UsageError(f"The study {self.path} has no frame {frame_id!r}.") from None

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        return {row["frame_id"]: row for row in self.frames.to_dict("records")}  # type: ignore[misc]


def is_study(path: Place) -> bool:
    """Whether ``path`` is the folder of a complete study."""
    return (path / "study.yaml").is_file() and (path / "frames.csv").is_file()


def store_frame(
    folder: Path,
    frame_id: str,
    patient_id: str,
    image: NDArray[Any],
    mask: NDArray[np.uint8] | None,
    *,
    spacing: tuple[float, float] | None = None,
    source: str = "",
    clean: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Write one frame into a study's folder and return its row of ``frames.csv``.

    The row's group is the frame's own id until near-duplicates are known.

    Args:
        folder: The study's folder; ``images/``, ``masks/`` and ``clean/`` are made in it.
        frame_id: Unique in the study, and fit to be a file's name.
        patient_id: Whose frame it is.
        image: H×W uint8 or uint16.
        mask: H×W uint8 label mask, or None where nothing is known about the frame.
        spacing: Height and width of a pixel in mm, or None.
        source: The file that the frame came from.
        clean: The same view without noise, H×W uint8 or uint16, for simulated frames.
    """
    name = f"{frame_id}.png"
    row: dict[str, Any] = {
        "frame_id": frame_id,
        "patient_id": patient_id,
        "image": f"images/{name}",
        "mask": "" if mask is None else f"masks/{name}",
        "height": image.shape[0],
        "width": image.shape[1],
        "spacing_row_mm": spacing[0] if spacing else np.nan,
        "spacing_col_mm": spacing[1] if spacing else np.nan,
        "sha256": pixels_sha256(image),
        "group": frame_id,
        "area_px": np.nan if mask is None else int(np.count_nonzero(mask)),
        "source": source,
        "clean": "" if clean is None else f"clean/{name}",
    }
    for column, pixels in (("image", image), ("mask", mask), ("clean", clean)):
        if pixels is not None:
            write_png(folder / row[column], pixels)
    return row


def frames_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of ``store_frame`` as a study's table of frames."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype({"area_px": "Int64"})


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write H×W uint8 or uint16 as a lossless grey PNG; not atomic, a study counts from its ``study.yaml`` on."""
    # On ultrasound frames and masks this strategy gave the smallest files in the shortest time of all.
    encoded, content = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])
    if not encoded:
        raise DataError(f"{path} could not be encoded as PNG (shape {pixels.shape}, type {pixels.dtype}).")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.tobytes())


def pixels_sha256(image: NDArray[Any]) -> str:
    """SHA-256 of an image's shape, type and pixels, whatever file format it came in."""
    head = f"{image.shape}{image.dtype.name}".encode()
    return sha256_of_bytes(head + np.ascontiguousarray(image).tobytes())


def _read_facts(path: Place) -> dict[str, Any]:
    facts = read_yaml(path)
    try:
        str(facts)
    except ValueError:
        raise DataError(f"{path} has a number of thousands of digits.", "Ingest the source again.") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("labels"), list) or "name" not in facts:
        raise DataError(f"{path} does not name the study and its labels.", "Ingest the source again.")
    if unfit := [label for label in map(str, facts["labels"]) if not is_plain_name(label)]:
        raise DataError(f"{path} names a label {unfit[0]!r}, which cannot stand in the name of a file.", "Rename it.")
    if facts.get("format", _FORMAT) != _FORMAT:
        raise DataError(
            f"{path} has format {facts['format']}, this program reads {_FORMAT}.", "Ingest the source again."
        )
    return facts


def _read_frames(path: Place) -> pd.DataFrame:
    text_types: dict[str, Any] = {column: "object" for column in _TEXT_COLUMNS}
    na_values: dict[str, Any] = {column: [""] for column in COLUMNS if column not in _TEXT_COLUMNS}
    try:
        text = path.read_text(encoding="utf-8")
        check_table(path, text)
        frames = pd.read_csv(
            io.StringIO(text),
            dtype={**text_types, "height": "int64", "width": "int64", "area_px": "Int64"},
            keep_default_na=False,
            na_values=na_values,
        )
        frames = frames.astype({name: "float64" for name in ("spacing_row_mm", "spacing_col_mm") if name in frames})
    except (ValueError, TypeError, OverflowError) as error:  # pandas has all three for what is no whole number
        raise DataError(f"{path} cannot be read: {error}.", "Ingest the source again.") from error
    missing = [column for column in COLUMNS if column not in frames.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}.", "Ingest the source again.")
    repeated = frames["frame_id"][frames["frame_id"].duplicated()]
    if len(repeated):
        raise DataError(f"{path} lists frame {repeated.iloc[0]!r} twice.", "Ingest the source again.")
    # A frame's id becomes the name of files that are made of it.
    for column in (*_FILE_COLUMNS, "frame_id"):
        for name in frames[column]:
            # A study may come from a stranger: its table must not reach outside its folder, on no system.
            leads_out = any(kind(name).anchor or ".." in kind(name).parts for kind in (PurePosixPath, PureWindowsPath))
            if leads_out or "\0" in name:
                raise DataError(f"{path} names {name!r}, which lies outside the study.", "Do not use this study.")
    if isinstance(path, Path):  # object storage has no links
        _check_links(path.parent, frames)
    return frames[list(COLUMNS)]


def _check_links(folder: Path, frames: pd.DataFrame) -> None:
    """No file of the study may be a link that leads out of its folder: an archive can hold such links."""
    root = folder.resolve()
    names = {name for column in _FILE_COLUMNS for name in frames[column] if name}
    suspects = {parent for name in names for parent in PurePosixPath(name).parents} | {*names}
    for name in suspects:
        if (folder / name).is_symlink() and not (folder / name).resolve().is_relative_to(root):
            raise DataError(f"{folder / name} is a link that leads out of the study.", "Do not use this study.")
