"""What the server says about a frame: numbers, words and pictures."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.arrays import as_unit
from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.data.clip import Clip
from edgefusion.inference.predictor import Prediction, Predictor
from edgefusion.inference.writers import NOTICE, Result, describe, draw_overlay
from edgefusion.serving.problems import Problem

Layer = Literal["image", "denoised", "edges", "probability", "border", "mask", "overlay"]

LAYERS: tuple[str, ...] = get_args(Layer)
"""Pictures of a frame: as it is, two channels of it, and what the network says."""

_CHANNELS = {"denoised": "dpad", "edges": "edges"}


def predict_frame(index: int, image: NDArray[Any], clip: Clip, predictor: Predictor) -> dict[str, Any]:
    """Segment one frame and say what was found.

    Returns:
        ``index``, ``size``, ``drift``, ``unlike_training``, ``labels`` as ``writers.describe`` gives them, each with
        ``found`` and ``measures`` (see ``inference.measure``, None where it was not found), and ``summary``, a sentence
        or two. A label that is not found has no contours.
    """
    prediction = predictor.predict(image, clip.spacing, clip.region)
    return describe_frame(index, image, prediction, clip, predictor.bundle)


def describe_frame(
    index: int, image: NDArray[Any], prediction: Prediction, clip: Clip, bundle: Bundle
) -> dict[str, Any]:
    """The words and numbers of ``predict_frame`` for a prediction that is already there."""
    result = Result(str(index), image, prediction, spacing=clip.spacing, region=clip.region)
    described = describe(result, bundle)
    for label in described["labels"]:
        label["found"] = label["area_px"] > 0
        if not label["found"]:
            label["measures"] = None
    warning = ["This frame is unlike what this model knows."] if described["unlike_training"] else []
    return {
        "index": index,
        "size": described["size"],
        "drift": described["drift"],
        "unlike_training": described["unlike_training"],
        "labels": described["labels"],
        "summary": " ".join([*warning, *(_sentence(label) for label in described["labels"])]),
    }


def describe_clip(clip: Clip, model: str, bundle: Bundle) -> dict[str, Any]:
    """What holds for all frames: notice, network, thresholds, spacing, rate, and the region that is looked at."""
    return {
        "notice": NOTICE,
        "model": model,
        "bundle": {
            "model": bundle.model_name,
            "study": bundle.study_name,
            "version": bundle.versions.get("edgefusion", ""),
        },
        "thresholds": bundle.thresholds,
        "spacing_mm": None if clip.spacing is None else list(clip.spacing),
        "rate": clip.rate,
        "region": None if clip.region is None else asdict(clip.region),
    }


def picture_of(layer: str, image: NDArray[Any], clip: Clip, predictor: Predictor, label: int = 0) -> bytes:
    """One of ``LAYERS`` as a PNG of the frame's size; probabilities from 0 to 1 are grey from 0 to 255.

    Raises:
        Problem: 422 where the network has no such label.
    """
    if layer == "image":
        return png(_grey(as_unit(image)))
    if layer in _CHANNELS:
        recipe = ChannelRecipe(channels=(_CHANNELS[layer],), height=image.shape[0], width=image.shape[1])
        return png(_grey(build_stack(image, recipe, threads=1)[0]))
    if label >= len(predictor.bundle.labels):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"The network has no label {label}.")
    prediction = predictor.predict(image, clip.spacing, clip.region)
    match layer:
        case "probability":
            return png(_grey(prediction.probability[label]))
        case "border":
            return png(_grey(prediction.edge_probability[label]))
        case "mask":
            return png(prediction.mask)
    return png(draw_overlay(image, prediction)[..., ::-1])


def png(picture: NDArray[Any]) -> bytes:
    """Encode H×W uint8 or uint16, or H×W×3 blue, green, red, fast rather than small."""
    _, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def _grey(unit: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(unit * 255).astype(np.uint8)


def _sentence(label: dict[str, Any]) -> str:
    if not label["found"]:
        return f"No {label['name']} found with confidence."
    millimetres = label["area_mm2"]
    area = f"{label['area_px']} px" if millimetres is None else f"{millimetres:.1f} mm²"
    return f"{label['name'].capitalize()} found, area {area}."
