"""From the stored values of a DICOM frame to grey levels, full scale being white."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi

from edgefusion.data.dicom.pixels import PALETTE


def grey_scale(header: Dataset) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """How the frames of a file become grey.

    Up to 8 stored bits give uint8, more give uint16. Without a window the full scale of the stored bits becomes the
    full scale of the result, so that 8 and 16 bits stay as they are. A rescale (or modality table) is applied before a
    window (or VOI table, the first of several), as DICOM PS3.3, C.7.6.3 and C.11 have it. MONOCHROME1 is inverted, and
    colours become ITU-R BT.601 luma, which leaves grey as it is.

    Args:
        header: The elements of the file, checked by ``check_image``.

    Returns:
        A function of stored values H×W, or of RGB H×W×3, that gives H×W grey, uint8 or uint16.
    """
    mask = np.uint16((1 << int(header.BitsStored)) - 1)
    table = _table(header)

    def to_grey(samples: NDArray[Any]) -> NDArray[Any]:
        if samples.ndim == 3:
            samples = cv2.cvtColor(np.ascontiguousarray(samples), cv2.COLOR_RGB2GRAY)
        # Beyond the stored bits there may be overlays, and in the sign's bits nothing else than the sign.
        return np.take(table, samples.astype(np.uint16) & mask)

    return to_grey


def _table(header: Dataset) -> NDArray[Any]:
    """The grey level of every stored value, indexed by its stored bits."""
    bits = int(header.BitsStored)
    shares: NDArray[Any]
    stored = np.arange(1 << bits, dtype=np.int32)
    if header.get("PixelRepresentation", 0) == 1:
        stored = np.where(stored >= 1 << (bits - 1), stored - (1 << bits), stored).astype(np.int32)
    if header.PhotometricInterpretation == PALETTE:
        colours = apply_color_lut(stored.astype(np.uint16)[None], header)
        shares = cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY)[0] / np.iinfo(colours.dtype).max
    elif header.SamplesPerPixel == 1:
        shares = _shares(stored, header)
    else:
        shares = stored / max(1, stored[-1])
    if header.PhotometricInterpretation == "MONOCHROME1":
        shares = 1 - shares
    kind = np.uint8 if bits <= 8 else np.uint16
    return np.asarray(np.rint(shares * np.iinfo(kind).max), dtype=kind)


def _shares(stored: NDArray[np.int32], header: Dataset) -> NDArray[np.float64]:
    """The brightness of every stored value, 0 to 1."""
    if header.get("ModalityLUTSequence"):
        values: NDArray[Any] = np.asarray(apply_modality_lut(stored, header), dtype=np.float64)
        low, high = 0.0, float((1 << int(header.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    else:
        slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
        values = stored * slope + intercept
        low, high = float(values.min()), float(values.max())
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        return np.asarray(apply_voi(values.astype(np.int64), header)) / ((1 << int(table.LUTDescriptor[2])) - 1)
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is None or width is None or width <= 0:
        return np.asarray((values - low) / max(1.0, high - low), dtype=np.float64)
    return _windowed(values, centre, width, str(header.get("VOILUTFunction") or "LINEAR"))


def _windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """The functions of DICOM PS3.3, C.11.2.1."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _first(value: Any) -> float | None:
    if isinstance(value, MultiValue | list):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)
