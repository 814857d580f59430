"""Predictions as files: label mask, overlay, JSON, and the answer to Kaggle's competition."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from edgefusion.arrays import as_unit
from edgefusion.data.clip import Region, Spacing
from edgefusion.data.kaggle import encode_rle
from edgefusion.data.study import write_png
from edgefusion.errors import DataError, UsageError
from edgefusion.files import atomic_path, write_text
from edgefusion.inference.measure import measure

if TYPE_CHECKING:
    from edgefusion.bundle import Bundle
    from edgefusion.inference.predictor import Prediction

STILL_FORMATS = ("png", "overlay", "json", "kaggle")
"""Formats that hold still pictures."""

DICOM_FORMATS = ("dicom-seg", "dicom-seg-probability", "dicom-seg-placed", "dicom-sc", "dicom-sr")
"""Formats that ``dicom_write.write_dicom`` writes, of frames of a DICOM file."""

FORMATS = (*STILL_FORMATS, "video", "measures", *DICOM_FORMATS)
"""Names of the formats, as ``edgefusion predict --format`` takes them."""

NOTICE = "research use, not for diagnosis"
"""Stands in every JSON file."""

COLOURS = ((255, 0, 255), (240, 228, 66), (86, 180, 233), (230, 159, 0), (255, 255, 255))
"""Red, green, blue of each label's outline, from the first label on, then over again. Magenta, which no grey is taken
for, then colours of Okabe and Ito's palette ("Color Universal Design", 2008), which the colour-blind tell apart."""


_REGION = (128, 128, 128)
"""Grey, since it is not about tissue."""


class Result(NamedTuple):
    """A frame and what was found in it."""

    name: str
    """Unique in its output folder, and fit to begin the name of a file."""
    image: NDArray[Any]
    """The frame, H×W or H×W×3, uint8, uint16, or float in [0, 1]."""
    prediction: Prediction
    """What the network says, at the frame's size."""
    spacing: Spacing | None = None
    """Height and width of a pixel in mm, where known."""
    region: Region | None = None
    """Where the ultrasound image lies, and was looked at, in the frame; None is all of it."""


def check_formats(formats: Sequence[str], labels: Sequence[str]) -> None:
    """Raise a UsageError for a format that does not exist, or cannot hold ``labels``."""
    if not formats:
        raise UsageError("No output format was chosen.", f"Choose from {', '.join(FORMATS)}.")
    for name in formats:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(FORMATS)}."
            raise UsageError(f"There is no output format '{name}'.", hint)
    if "kaggle" in formats and len(labels) > 1:
        raise UsageError(f"Kaggle's format holds one label, this network finds {', '.join(labels)}.", "Leave it out.")


def output_path(format_: str, folder: Path, name: str) -> Path:
    """The file that holds frame ``name`` in a format; all frames share the one of ``kaggle``, as those of a DICOM file
    share its DICOM formats."""
    match format_:
        case "png":
            return folder / f"{name}_mask.png"
        case "overlay":
            return folder / f"{name}_overlay.png"
        case "json":
            return folder / f"{name}.json"
        case "kaggle":
            return folder / "submission.csv"
        case "dicom-seg" | "dicom-seg-probability" | "dicom-seg-placed" | "dicom-sc" | "dicom-sr":
            return folder / f"{name}_{format_.removeprefix('dicom-')}.dcm"
    raise UsageError(f"There is no output format '{format_}' for stills.", f"Choose from {', '.join(STILL_FORMATS)}.")


def write_results(format_: str, folder: Path, results: Sequence[Result], bundle: Bundle) -> None:
    """Write results in one format, each file atomically; existing ones of the same frames are replaced.

    - ``png``: H×W grey PNG whose pixel value is the label.
    - ``overlay``: H×W RGB PNG of the frame with each label's outline, and a legend where there are several labels.
    - ``json``: presence, areas, drift, and outlines to a tenth of a pixel.
    - ``kaggle``: one CSV with the run lengths of all frames, in natural order; other frames' rows stay.

    Args:
        format_: One of ``STILL_FORMATS``.
        folder: Where to write; made when absent.
        results: Frames with their predictions.
        bundle: What made the predictions.

    Raises:
        UsageError: If there is no such format.
        DataError: If the submission that is already there cannot be read.
    """
    paths = [output_path(format_, folder, result.name) for result in results]
    match format_:
        case "png":
            for path, result in zip(paths, results, strict=True):
                with atomic_path(path) as temporary:
                    write_png(temporary, result.prediction.mask)
        case "overlay":
            for path, result in zip(paths, results, strict=True):
                picture = Image.fromarray(draw_overlay(result.image, result.prediction, result.region))
                with atomic_path(path) as temporary:
                    picture.save(temporary, format="PNG")
        case "json":
            for path, result in zip(paths, results, strict=True):
                write_text(path, json.dumps(describe(result, bundle), ensure_ascii=False, allow_nan=False) + "\n")
        case "kaggle" if paths:
            found = {result.name: encode_rle(result.prediction.mask) for result in results}
            _write_submission(paths[0], _read_submission(paths[0]) | found)


def prune_submission(folder: Path, keep: Collection[str]) -> None:
    """Take the rows of all frames but ``keep`` out of the submission in ``folder``, if there is one."""
    path = output_path("kaggle", folder, "")
    rows = _read_submission(path)
    if not rows.keys() <= set(keep):
        _write_submission(path, {name: pixels for name, pixels in rows.items() if name in keep})


def draw_overlay(image: NDArray[Any], prediction: Prediction, region: Region | None = None) -> NDArray[np.uint8]:
    """Draw the outlines on the frame; nothing is filled, so that the tissue stays visible.

    Args:
        image: The frame, H×W or H×W×3, uint8, uint16, or float in [0, 1].
        prediction: Of that frame.
        region: Where it was looked for, drawn as a thin grey rectangle; None is all of the frame.

    Returns:
        H×W×3 uint8: red, green, blue.
    """
    is_plain = image.dtype == np.uint8 and image.ndim == 2
    grey = image if is_plain else np.rint(as_unit(image) * 255).astype(np.uint8)
    canvas = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    if region is not None and (region.height, region.width) != grey.shape:
        corner = (region.left + region.width - 1, region.top + region.height - 1)
        cv2.rectangle(canvas, (region.left, region.top), corner, _REGION, 1)
    # cv2 draws at whole pixels unless given fixed-point numbers, here with 4 binary places.
    for label, contours in enumerate(prediction.contours):
        points = [np.rint(contour * 16).astype(np.int32) for contour in contours]
        cv2.polylines(canvas, points, True, _colour(label), thickness=1, lineType=cv2.LINE_AA, shift=4)
    if len(prediction.labels) > 1:
        for label, name in enumerate(prediction.labels):
            place = (6, 16 * (label + 1))
            for colour, thickness in (((0, 0, 0), 2), (_colour(label), 1)):
                cv2.putText(canvas, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)
    return canvas


def _colour(label: int) -> tuple[int, int, int]:
    return COLOURS[label % len(COLOURS)]


def measures(prediction: Prediction) -> dict[str, float]:
    """The numbers of a frame for a table.

    Returns:
        For each label ``presence_LABEL``, ``area_px_LABEL``, and where the spacing is known ``area_mm2_LABEL``; where
        the bundle can tell, ``drift`` and ``unlike_training`` (0 or 1), see ``Prediction``.
    """
    values: dict[str, float] = {}
    for index, label in enumerate(prediction.labels):
        values[f"presence_{label}"] = round(prediction.presence[index], 6)
        values[f"area_px_{label}"] = prediction.area_px[index]
        if prediction.area_mm2 is not None:
            values[f"area_mm2_{label}"] = round(prediction.area_mm2[index], 4)
    if prediction.drift is not None:
        values |= {"drift": round(prediction.drift, 4), "unlike_training": int(prediction.drift > 1)}
    return values


def describe(result: Result, bundle: Bundle) -> dict[str, Any]:
    """A prediction in plain words and numbers, as the JSON format holds it.

    Returns:
        ``notice``, ``frame`` (its name), ``size`` (``height``, ``width`` in pixels), ``bundle`` (``model``, ``study``,
        ``version``), ``drift`` and ``unlike_training`` (see ``Prediction``), and ``labels``: for each its ``name``,
        ``presence`` in [0, 1], ``area_px``, ``area_mm2`` or None, ``contours``, lists of [x, y] in pixels, and
        ``measures``, see ``NerveMeasures.as_dict``.
    """
    prediction = result.prediction
    height, width = prediction.mask.shape
    labels = [
        {
            "name": name,
            "presence": round(prediction.presence[index], 6),
            "area_px": prediction.area_px[index],
            "area_mm2": None if prediction.area_mm2 is None else round(prediction.area_mm2[index], 4),
            "contours": [contour.astype(np.float64).round(1).tolist() for contour in prediction.contours[index]],
            "measures": measure(prediction, result.image, result.spacing, index, result.region).as_dict(),
        }
        for index, name in enumerate(prediction.labels)
    ]
    return {
        "notice": NOTICE,
        "frame": result.name,
        "size": {"height": height, "width": width},
        "bundle": {
            "model": bundle.model_name,
            "study": bundle.study_name,
            "version": bundle.versions.get("edgefusion", ""),
        },
        "drift": None if prediction.drift is None else round(prediction.drift, 4),
        "unlike_training": prediction.unlike_training,
        "labels": labels,
    }


def _read_submission(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return dict(zip(table["img"], table["pixels"], strict=True))
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} is not a submission that can be continued ({error}).", "Move it away.") from error


def _write_submission(path: Path, rows: Mapping[str, str]) -> None:
    names = sorted(rows, key=_natural)
    table = pd.DataFrame({"img": names, "pixels": [rows[name] for name in names]})
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def _natural(name: str) -> tuple[list[Any], str]:
    """Sorts frame 2 before frame 10."""
    parts: list[Any] = re.split(r"(\d+)", name)
    parts[1::2] = map(int, parts[1::2])
    return parts, name
