"""Reading NIfTI-1 and NIfTI-2 files, frame by frame, without ever holding more than one frame.

Axes are those of ITK, and so of nnU-Net's files: the first is the column, the second the row, the third the frame.
Pixels are taken in the order in which they are stored. An affine that turns or mirrors the picture is not applied, as
nnU-Net and ITK do not apply it either: what a scanner shows has no place in the body that it could be turned to.

Source: "NIfTI-1 Data Format", https://nifti.nimh.nih.gov/nifti-1, and its successor NIfTI-2.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Clip, Spacing
from edgefusion.data.readers import MAX_LABEL, MAX_PIXELS
from edgefusion.errors import DataError

SUFFIXES = (".nii", ".nii.gz")
"""File name endings of NIfTI files, in lower case."""

MAX_FRAMES = 100_000
"""More frames are refused: nobody scans that long, and a small file can claim any number."""

MAX_EXPANDED = 512 * 1024 * 1024
"""A compressed file that claims more bytes of pixels is refused: gzip makes a thousand of them out of one."""

_MAX_PIXELS = MAX_PIXELS // 4
"""Of one frame, since a pixel takes eight bytes while it is scaled."""

_MAX_OFFSET = 16 * 1024 * 1024
"""Between header and pixels lie extensions, which are not read."""

_MAGIC = {348: b"n+1\0", 540: b"n+2\0"}
"""By the size of the header."""

_TYPES = {2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 16: "f4", 64: "f8"}
_COLOURS = (128, 2304)
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
_WHITE = {np.uint8: 255, np.uint16: 65535}


@dataclass(frozen=True)
class _Stack:
    """What a header says, checked."""

    path: Path
    shape: tuple[int, int]
    """Rows and columns."""
    count: int
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    spacing: Spacing | None

    @property
    def scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)


def is_nifti(path: Path | str) -> bool:
    """Whether a file is NIfTI by its name."""
    return Path(path).name.lower().endswith(SUFFIXES)


def open_nifti(path: Path | str) -> Clip:
    """Open a NIfTI file of one frame, or of a stack of frames, as grey frames.

    A NIfTI file does not say what is white. Whole numbers from 0 to 255, whatever they are stored as, are taken for 8
    bits a pixel, others from 0 to 65535 for 16 bits, fractions from 0 to 1 for black to white; of anything else the
    file's least value becomes black and its greatest white. One rule holds for all frames of a file. The scaling of the
    header (``scl_slope``, ``scl_inter``) comes before it.

    The spacing is that of the header (``pixdim``, in the unit of ``xyzt_units``); it is unknown where no unit is given,
    and where it is 1 mm × 1 mm exactly, which is what programs write that know none.

    Args:
        path: A .nii or .nii.gz file, W×H, W×H×N or W×H×N×1, of integers or floating point numbers.

    Returns:
        The clip, one frame for each position on the third axis: H×W uint8 or uint16.

    Raises:
        DataError: If the file is missing, empty, damaged, too large, coloured, or has more axes; also from ``read``.
    """
    stack = _read_header(Path(path).resolve())
    return Clip(stack.path, lambda: _grey_frames(stack), stack.count, spacing=stack.spacing)


def open_nifti_mask(path: Path | str) -> Clip:
    """Open a NIfTI file whose values are labels: frames H×W uint8.

    A frame of 0 and 255 alone has label 1 where it is 255, as with pictures.

    Raises:
        DataError: As for ``open_nifti``; from ``read`` also where a value is no label.
    """
    stack = _read_header(Path(path).resolve())
    return Clip(stack.path, lambda: _label_frames(stack), stack.count, spacing=stack.spacing)


def _grey_frames(stack: _Stack) -> Iterator[NDArray[Any]]:
    if stack.dtype == np.uint8 and not stack.scaled:
        yield from _frames(stack)  # as they are, in one pass
        return
    low, high, whole = _range(stack)
    target: type[np.uint8] | type[np.uint16] = np.uint8 if whole and low >= 0 and high <= 255 else np.uint16
    if whole and low >= 0 and high <= 65535:
        low, high = 0.0, float(_WHITE[target])
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    for frame in _frames(stack):
        share = (frame.astype(np.float64) - low) / (high - low or 1.0)
        yield np.rint(share * _WHITE[target]).astype(target)


def _range(stack: _Stack) -> tuple[float, float, bool]:
    """Least and greatest value of all frames, and whether all are whole numbers."""
    low, high, whole = math.inf, -math.inf, True
    for frame in _frames(stack):
        least, greatest = float(frame.min()), float(frame.max())
        if not (math.isfinite(least) and math.isfinite(greatest)):
            raise DataError(f"{stack.path} has values that are no numbers.", "Export it again, as whole numbers.")
        low, high = min(low, least), max(high, greatest)
        whole = whole and (frame.dtype.kind in "iu" or bool((frame == np.rint(frame)).all()))
    if not math.isfinite(high - low):
        raise DataError(f"{stack.path} has values from {low:g} to {high:g}.", "Export it again, as whole numbers.")
    return low, high, whole


def _label_frames(stack: _Stack) -> Iterator[NDArray[np.uint8]]:
    for frame in _frames(stack):
        if np.isin(frame, (0, 255)).all():
            yield (frame == 255).astype(np.uint8)
        elif frame.min() < 0 or not frame.max() <= MAX_LABEL or (frame != np.rint(frame)).any():
            raise DataError(
                f"{stack.path} has values from {frame.min():g} to {frame.max():g} that are no labels.",
                f"A mask is black and white, or has whole numbers from 1 to {MAX_LABEL} on 0.",
            )
        else:
            yield frame.astype(np.uint8)


def _frames(stack: _Stack) -> Iterator[NDArray[Any]]:
    """The frames as stored, or, where the header scales them, as float64."""
    pixels = math.prod(stack.shape)
    with _opened(stack.path) as file:
        file.seek(stack.offset)
        for number in range(1, stack.count + 1):
            content = file.read(pixels * stack.dtype.itemsize)
            if len(content) < pixels * stack.dtype.itemsize:
                what = f"{stack.path} is cut off: frame {number} of {stack.count} is not there, or not all of it."
                raise DataError(what, "Copy or export it again.")
            frame: NDArray[Any] = np.frombuffer(content, stack.dtype).reshape(stack.shape)
            if stack.scaled:
                # What overflows is found out and said where the values are looked at.
                with np.errstate(over="ignore", invalid="ignore"):
                    frame = frame.astype(np.float64) * stack.slope + stack.intercept
            yield frame
        file.read(1)  # at its end gzip compares its checksum


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's expanded content; what reading it raises is put into words."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}.", "Copy or export it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_header(path: Path) -> _Stack:
    # It takes longer to import than all other readers together.
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    with _opened(path) as file:
        if not path.stat().st_size:
            raise DataError(f"{path} is empty (0 bytes).", "Copy or export it again.")
        head = file.read(540)
    order = "<" if int.from_bytes(head[:4], "little") in _MAGIC else ">"
    size = int.from_bytes(head[:4], "little" if order == "<" else "big")
    if size not in _MAGIC or len(head) < size:
        raise DataError(f"{path} is not a NIfTI file, whatever its name says.", "Export it again.")
    # Checks are made below, each with its own words: nibabel's write to the log, and mend what ought to be refused.
    kind = Nifti1Header if size == 348 else Nifti2Header
    header = kind(head[:size], endianness=order, check=False)
    if (head[344:348] if size == 348 else head[4:8]) != _MAGIC[size]:
        raise DataError(f"{path} is not a NIfTI file with its pixels in it.", "Export it as one .nii or .nii.gz file.")
    columns, rows, count = _axes(path, [int(value) for value in header["dim"]])
    dtype = _sample_type(path, int(header["datatype"]), order)
    if rows * columns > _MAX_PIXELS:
        what = f"{path} claims {columns}×{rows} pixels, more than the {_MAX_PIXELS} allowed."
        raise DataError(what, "Crop it or scale it down.")
    content = rows * columns * count * dtype.itemsize
    if count > MAX_FRAMES or (path.name.lower().endswith(".gz") and content > MAX_EXPANDED):
        what = f"{path} claims {count} frames, {content} bytes of pixels, more than the {MAX_EXPANDED} allowed."
        raise DataError(what, "Divide it into several files, or save it uncompressed.")
    slope, intercept = _scaling(path, float(header["scl_slope"]), float(header["scl_inter"]))
    offset = _offset(path, float(header["vox_offset"]), size)
    return _Stack(path, (rows, columns), count, dtype, offset, slope, intercept, _spacing(header))


def _axes(path: Path, dim: list[int]) -> tuple[int, int, int]:
    """Columns, rows and frames."""
    if not 2 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise DataError(f"{path} is damaged: its axes are {dim[1 : dim[0] + 1]}.", "Export it again.")
    shape = dim[1 : dim[0] + 1]
    if any(length > 1 for length in shape[3:]):
        raise DataError(
            f"{path} has more than three axes ({'×'.join(map(str, shape))}).",
            "Save every volume or channel as a file of its own: columns × rows × frames.",
        )
    return shape[0], shape[1], shape[2] if len(shape) > 2 else 1


def _sample_type(path: Path, code: int, order: str) -> np.dtype[Any]:
    if code in _COLOURS:
        raise DataError(f"{path} has colours.", "Save it in grey.")
    if code not in _TYPES:
        raise DataError(f"{path} has samples of type {code}.", "Save it with 8 or 16 bits a sample.")
    return np.dtype(order + _TYPES[code])


def _offset(path: Path, stated: float, header_bytes: int) -> int:
    if not header_bytes <= stated <= _MAX_OFFSET or stated != int(stated):
        raise DataError(f"{path} is damaged: its pixels are said to begin at byte {stated:g}.", "Export it again.")
    return int(stated)


def _scaling(path: Path, slope: float, intercept: float) -> tuple[float, float]:
    # By the standard 0 says that there is no scaling; nibabel writes NaN for the same.
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if math.isinf(slope) or not math.isfinite(intercept):
        raise DataError(f"{path} is damaged: its values are scaled by {slope:g} and {intercept:g}.", "Export it again.")
    return slope, intercept


def _spacing(header: Any) -> Spacing | None:
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & 7)
    width, height = (abs(float(value)) * (unit or 0) for value in header["pixdim"][1:3])
    if unit is None or not (0 < width < math.inf and 0 < height < math.inf) or width == height == 1:
        return None
    # Headers hold 32-bit numbers: 0.1 mm would become 0.10000000149.
    return float(np.float32(height).astype(str)), float(np.float32(width).astype(str))
