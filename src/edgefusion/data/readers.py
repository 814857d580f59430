"""Reading PNG, TIFF and JPEG files as grey frames and as label masks."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgefusion.data.tiff_pages import count_directories
from edgefusion.errors import DataError
from edgefusion.remote import Place, place

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
"""File name endings that are read, in lower case."""

MAX_PIXELS = 32 * 1024 * 1024
"""Larger pictures are refused before they are decoded: a small file can claim any size. 8K video has fewer."""

MAX_SCANS = 100
"""A JPEG with more scans is refused: each goes over the whole picture, and takes a dozen bytes. Usual are 10."""

START_OF_SCAN = b"\xff\xda"
"""Marker of a scan, which cannot occur in the compressed data of one (ISO/IEC 10918-1, B.1.1.2)."""

MAX_LABEL = 32
"""Larger values in a mask are grey levels of a picture, not labels."""

_STRIP = 64
_FORMATS = ("PNG", "TIFF", "JPEG")
_COLOUR_MODES = ("LA", "RGB", "RGBA")

# What Pillow warns of is either harmless or followed by an error, which then says it better.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_frame(path: Place | str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a picture as a grey frame.

    Colour is turned into grey by ITU-R BT.601 luma, which leaves colour pictures that are grey as they are. What an
    alpha channel makes transparent becomes black. A picture that notes its orientation is turned upright.

    Args:
        path: A PNG, TIFF or JPEG file of at most ``MAX_PIXELS`` pixels, with 8 or 16 bits a sample.

    Returns:
        H×W uint8, or uint16 where the file has 16 bits a sample; full scale is white.

    Raises:
        DataError: If the file is missing, empty, damaged, too large, of another format, or has several pages.
    """
    return _grey(_decode(place(path), keep_palette=False))


def count_pages(path: Path | str) -> int:
    """Pages of a TIFF file; 1 for all else, also for what turns out to be unreadable: reading it will say why."""
    try:
        with Path(path).open("rb") as file:
            return count_directories(file)
    except (ValueError, OverflowError, OSError):
        return 1


def read_pages(path: Path | str) -> Iterator[NDArray[np.uint8] | NDArray[np.uint16]]:
    """Read the pages of a TIFF file one by one as grey frames, each as ``read_frame`` would, and all of one size.

    Raises:
        DataError: As for ``read_frame``, if a page has another size than the first, or is coloured with 16 bits.
    """
    path = Path(path)
    shape: tuple[int, ...] = ()
    try:
        with path.open("rb") as file:
            pages = count_directories(file)
        with Image.open(path, formats=["TIFF"]) as image:
            for page in range(pages):
                image.seek(page)
                _check_pixels(path, image)
                if _is_deep_colour(image):
                    raise DataError(f"{path} has pages with 16-bit colours.", "Save it in grey.")
                frame = _grey(_samples(path, _upright(image), keep_palette=False))
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise DataError(f"Page {page + 1} of {path} has another size than its first.")
                yield frame
    except DataError:
        raise
    except Exception as error:
        raise _refusal(path, error) from error


def read_mask(path: Path | str) -> NDArray[np.uint8]:
    """Read a picture as a label mask, as people draw and export them.

    A palette's index is the label. In a picture that only has black and white (0 and full scale) white is label 1, in a
    JPEG whatever is nearer to white than to black, since its compression blurs the values. Any other grey value is
    itself the label.

    Args:
        path: A PNG, TIFF or JPEG file of at most ``MAX_PIXELS`` pixels.

    Returns:
        H×W uint8 labels, 0 is background.

    Raises:
        DataError: As for ``read_frame``, or if the picture is coloured, or has more grey levels than labels can be.
    """
    path = Path(path)
    samples = _decode(path, keep_palette=True)
    white = np.iinfo(samples.dtype).max
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return np.asarray(_grey(samples) > white // 2, dtype=np.uint8)
    if samples.ndim == 3:
        colours = samples[..., : _colour_channels(samples)]
        if (colours != colours[..., :1]).any():
            remedy = "Save it as a palette or grey PNG in which the pixel value is the label."
            raise DataError(f"{path} is a coloured mask.", remedy)
        samples = colours[..., 0]
    if np.isin(samples, (0, white)).all():
        return np.asarray(samples == white, dtype=np.uint8)
    return _as_labels(path, samples)


def read_labels(path: Place | str) -> NDArray[np.uint8]:
    """Read a mask of a study, in which the pixel value always is the label: H×W uint8."""
    path = place(path)
    return _as_labels(path, _decode(path, keep_palette=True))


def _as_labels(path: Place, samples: NDArray[Any]) -> NDArray[np.uint8]:
    if samples.ndim != 2 or samples.max() > MAX_LABEL:
        raise DataError(
            f"{path} has values up to {samples.max()}: these are grey levels, not labels.",
            f"A mask is black and white, or has labels from 1 to {MAX_LABEL} on 0.",
        )
    return samples.astype(np.uint8)


def _decode(path: Place, keep_palette: bool) -> NDArray[Any]:
    """The file's samples, uint8 or uint16: H×W, or H×W×2 to 4 with colours and alpha in the order RGBA."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not content:
        raise DataError(f"{path} is empty (0 bytes).", "Copy or export it again.")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_pixels(path, image)
            is_tiff = image.format == "TIFF"
            pages = count_directories(io.BytesIO(content)) if is_tiff else getattr(image, "n_frames", 1)
            if pages > 1:
                raise DataError(f"{path} has {pages} pages.", "Save every page as a file of its own.")
            if image.format == "JPEG" and content.count(START_OF_SCAN) > MAX_SCANS:
                raise DataError(f"{path} has more than {MAX_SCANS} scans.", "Save it as a baseline JPEG or as a PNG.")
            deep_colour = _is_deep_colour(image)
            image.load()
            if deep_colour:
                return _decode_deep_colour(content)
            return _samples(path, _upright(image), keep_palette)
    except UnidentifiedImageError:
        raise DataError(f"{path} is not a PNG, TIFF or JPEG picture, whatever its name says.") from None
    except DataError:
        raise
    # Decoders answer damaged files with nearly every kind of exception.
    except Exception as error:
        raise _refusal(path, error) from error


def _refusal(path: Place, error: Exception) -> DataError:
    if isinstance(error, Image.DecompressionBombError):
        return DataError(f"{path} claims more than {MAX_PIXELS} pixels.", "Crop it or scale it down.")
    if isinstance(error, OverflowError):
        return DataError(f"{path} cannot be read: {error}.", "Divide it.")
    return DataError(f"{path} is damaged: {error}.", "Copy or export it again.")


def _is_deep_colour(image: Image.Image) -> bool:
    # Pillow cuts 16-bit colour to 8 bits; only its raw mode, known before loading, tells.
    return image.mode in _COLOUR_MODES and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _check_pixels(path: Place, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        what = f"{path} claims {width}×{height} pixels, more than the {MAX_PIXELS} allowed."
        raise DataError(what, "Crop it or scale it down.")


def _upright(image: Image.Image) -> Image.Image:
    # In place: otherwise one that is upright would be copied.
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _samples(path: Place, image: Image.Image, keep_palette: bool) -> NDArray[Any]:
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "P" and not keep_palette:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode not in ("L", "P", "F", *_COLOUR_MODES) and not image.mode.startswith("I"):
        image = image.convert("RGB")
    samples = np.asarray(image)
    if samples.dtype in (np.uint8, np.uint16):
        return samples
    # Some 16-bit pictures arrive as 32-bit numbers.
    if samples.dtype.kind in "iu" and samples.min() >= 0 and samples.max() <= np.iinfo(np.uint16).max:
        return samples.astype(np.uint16)
    raise DataError(f"{path} has samples of type {samples.dtype}.", "Save it with 8 or 16 bits a sample.")


def _decode_deep_colour(content: bytes) -> NDArray[Any]:
    samples = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise ValueError("its 16-bit colours cannot be decoded")
    if samples.ndim == 3 and samples.shape[2] >= 3:
        # OpenCV puts blue first. In place, since this may be a quarter of a gigabyte.
        swap = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        samples = cv2.cvtColor(samples, swap, dst=samples)
    return np.asarray(samples)


def _colour_channels(samples: NDArray[Any]) -> int:
    return 3 if samples.shape[2] >= 3 else 1


def _grey(samples: NDArray[Any]) -> NDArray[Any]:
    if samples.ndim == 2:
        return np.ascontiguousarray(samples)
    grey = np.empty(samples.shape[:2], samples.dtype)
    # By strips, since what lies between colours and grey takes many times their room.
    for top in range(0, len(samples), _STRIP):
        grey[top : top + _STRIP] = _grey_strip(samples[top : top + _STRIP])
    return grey


def _grey_strip(samples: NDArray[Any]) -> NDArray[Any]:
    colours = samples[..., : _colour_channels(samples)]
    grey = colours[..., 0]
    if (colours != colours[..., :1]).any():
        luma = colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        grey = np.rint(luma).astype(samples.dtype)
    if samples.shape[2] in (2, 4):
        opacity = samples[..., -1] / np.float32(np.iinfo(samples.dtype).max)
        grey = np.rint(grey * opacity).astype(samples.dtype)
    return grey
