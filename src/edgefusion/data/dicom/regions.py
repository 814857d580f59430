"""Where the ultrasound image lies in a DICOM frame, and how large its pixels are (DICOM PS3.3, C.8.5.5)."""

from __future__ import annotations

import math
from typing import Any

from pydicom import Dataset

from edgefusion.data.clip import Region, Spacing

_TWO_DIMENSIONAL = 1
_TISSUE = 1
_CENTIMETRES = 3
_MM_IN_CM = 10.0


def tissue_regions(header: Dataset) -> list[tuple[Region, Spacing | None]]:
    """The rectangles of a frame that hold a 2D image of tissue, the largest first, each with its pixels' size.

    Colour flow, M-mode, Doppler spectra and measurements are left out. A rectangle that does not lie in the frame tells
    that the frame was cut or scaled after the scanner had written it, so that neither place nor spacing is believed.

    Args:
        header: The elements of the file; Rows and Columns are known to be sound.

    Returns:
        Rectangles and spacings (mm, None where the unit is not centimetres).
    """
    found = []
    for item in header.get("SequenceOfUltrasoundRegions") or []:
        if item.get("RegionSpatialFormat") != _TWO_DIMENSIONAL or item.get("RegionDataType") != _TISSUE:
            continue
        region = _region(item, int(header.Rows), int(header.Columns))
        if region is not None:
            found.append((region, _spacing(item)))
    return sorted(found, key=lambda pair: -pair[0].height * pair[0].width)


def region_and_spacing(header: Dataset) -> tuple[Region | None, Spacing | None]:
    """The largest 2D image of tissue and its spacing.

    A file without any ultrasound region may still state the spacing of the whole frame (Pixel Spacing).
    """
    regions = tissue_regions(header)
    if regions:
        return regions[0]
    if not header.get("SequenceOfUltrasoundRegions"):
        return None, _valid(header.get("PixelSpacing"), 1.0)
    return None, None


def _region(item: Dataset, rows: int, columns: int) -> Region | None:
    try:
        left, top = int(item.RegionLocationMinX0), int(item.RegionLocationMinY0)
        right, bottom = int(item.RegionLocationMaxX1), int(item.RegionLocationMaxY1)
    except (AttributeError, TypeError, ValueError):
        return None
    # The corners are pixels of the region; some scanners give the first pixels beyond it instead.
    if not (0 <= left < right <= columns and 0 <= top < bottom <= rows):
        return None
    right, bottom = min(right, columns - 1), min(bottom, rows - 1)
    return Region(top, left, bottom - top + 1, right - left + 1)


def _spacing(item: Dataset) -> Spacing | None:
    if item.get("PhysicalUnitsXDirection") != _CENTIMETRES or item.get("PhysicalUnitsYDirection") != _CENTIMETRES:
        return None
    return _valid([item.get("PhysicalDeltaY"), item.get("PhysicalDeltaX")], _MM_IN_CM)


def _valid(sides: Any, unit_mm: float) -> Spacing | None:
    try:
        height, width = (abs(float(side)) * unit_mm for side in sides)
    except (TypeError, ValueError):
        return None
    if not (math.isfinite(height) and math.isfinite(width) and height > 0 and width > 0):
        return None
    return height, width
