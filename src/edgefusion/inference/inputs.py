"""The frames that files, folders and studies stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefusion.data import readers, video
from edgefusion.data.signature import is_dicom
from edgefusion.data.sources import SUFFIXES, is_known, stem_of
from edgefusion.data.study import Study, is_study
from edgefusion.errors import UsageError
from edgefusion.files import is_hidden
from edgefusion.progress import say
from edgefusion.remote import Place, RemotePath, place

LIST = ".txt"
"""Ending of a file that lists frames."""

_MASK = "_mask"


@dataclass(frozen=True)
class FrameFile:
    """A frame, or a clip of frames, that is to be predicted."""

    path: Place
    """Its file, absolute."""
    spacing: tuple[float, float] | None
    """Height and width of a pixel in mm, where known."""


def find_frames(inputs: Sequence[Place | str], output: Path) -> list[FrameFile]:
    """List the frames and clips of ``inputs``, each once.

    Args:
        inputs: Pictures, videos, NIfTI and DICOM files; folders, searched with all that is inside, where a picture or
            NIfTI file called ``x_mask`` beside ``x`` is its mask and not a frame; folders of studies; and lists,
            text files (``.txt``) with one file a line, as seen from the list's folder. A listed file that is not there
            is not an error yet. Pictures, studies and lists may lie on object storage (``s3://bucket/study``).
        output: Folder of the results; pictures in it are not frames.

    Returns:
        Frames in the order of the inputs, those of one folder sorted.

    Raises:
        UsageError: If an input does not exist, holds no frame, or is the output folder.
    """
    frames: list[FrameFile] = []
    for source in map(place, inputs):
        if source.suffix.lower() == LIST:
            frames += _of_list(source)
        elif isinstance(source, RemotePath) and source.suffix.lower() in readers.SUFFIXES:
            frames.append(FrameFile(source, None))
        elif is_study(source):
            frames += _of_study(Study.load(source))
        elif isinstance(source, RemotePath):
            raise UsageError(f"{source} is neither a study nor a picture.", "Name pictures in a list (.txt).")
        elif source.is_dir():
            frames += [FrameFile(path, None) for path in _of_folder(source.resolve(), output.resolve())]
        elif source.exists():
            frames.append(FrameFile(source.resolve(), None))
        else:
            raise UsageError(f"There is no file or folder {source}.", "Check its spelling.")
    if not frames:
        raise UsageError(
            "There is no frame to predict.", "Name pictures, videos, DICOM files, folders or lists of them, or a study."
        )
    return list({frame.path: frame for frame in reversed(frames)}.values())[::-1]


def _of_study(study: Study) -> Iterator[FrameFile]:
    columns = ["image", "spacing_row_mm", "spacing_col_mm"]
    for image, height_mm, width_mm in study.frames[columns].itertuples(index=False):
        known = np.isfinite(height_mm) and np.isfinite(width_mm)
        yield FrameFile(_absolute(study.path / image), (float(height_mm), float(width_mm)) if known else None)


def _of_list(file: Place) -> list[FrameFile]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(f"There is no list {file}.", "Check its spelling.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not a list of frames in UTF-8.", "Write one file a line.") from None
    names = [line.strip() for line in lines if line.strip()]
    return [FrameFile(_absolute(place(name) if "://" in name else file.parent / name), None) for name in names]


def _absolute(path: Place) -> Place:
    return path.resolve() if isinstance(path, Path) else path


def _of_folder(folder: Path, output: Path) -> list[Path]:
    if folder == output:
        raise UsageError(f"{folder} is both input and output.", "Choose another output folder.")
    pictures = [
        path
        for path in sorted(folder.rglob("*"))
        if not is_hidden(path, folder)
        and output not in path.parents
        and path.is_file()
        and (is_known(path) or (is_dicom(path) and path.name != "DICOMDIR"))
    ]
    names = {path.with_name(stem_of(path)) for path in pictures}
    masks = {
        path
        for path in pictures
        if not path.name.lower().endswith(video.SUFFIXES)
        and stem_of(path).endswith(_MASK)
        and path.with_name(stem_of(path).removesuffix(_MASK)) in names
    }
    if masks:
        say(f"{folder}: {len(masks)} pictures called x{_MASK} beside x are taken for masks, not for frames.")
    if not pictures:
        raise UsageError(
            f"{folder} holds no picture, video, NIfTI or DICOM file ({', '.join(SUFFIXES)}).",
            "Name a folder that does.",
        )
    return [path for path in pictures if path not in masks]
