"""How well a bundle's drift tells frames unlike its training frames, and whether it foretells the error.

python benchmarks/drift.py brachial-plexus runs/kaggle --others runs/usgra runs/kaggle-fullres runs/phantoms \
    --photographs PHOTOGRAPHS -o docs/results/drift/brachial-plexus.csv
python benchmarks/drift.py regional runs/usgra --others runs/kaggle runs/phantoms \
    --photographs PHOTOGRAPHS -o docs/results/drift/regional.csv
python docs/draw_drift.py docs/results/drift/brachial-plexus.csv docs/results/drift/regional.csv

PHOTOGRAPHS is a folder of pictures, here the `skimage/data` of scikit-image 0.24's wheel. Every kind is held against
the frames of the first study's patients whom the bundle was not trained on; nothing of what is judged here was used to
choose the statistics or the limit. Intervals draw patients (pictures, files), of both sides.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from scipy.stats import spearmanr

from edgefusion.data.phantom.screen import draw_screen
from edgefusion.data.sources import open_clip
from edgefusion.data.splits import patient_blocks
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.bootstrap import interval, patient_counts
from edgefusion.evaluation.metrics import frame_measures
from edgefusion.files import write_text
from edgefusion.inference.drift import Drift, plane_of
from edgefusion.inference.predictor import Predictor, load
from edgefusion.progress import say

HOME = "same study, new patients"
RESAMPLES = 1000
CROPS = 12
"""Of each photograph."""

ULTRASOUND = ("examples_rgb_color.dcm", "examples_palette.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm")
"""Ultrasound among pydicom's own test files: none of a nerve."""

Grey = NDArray[np.uint8]


class Shot(NamedTuple):
    """A picture to be told apart."""

    kind: str
    patient: str
    image: Grey
    truth: NDArray[np.bool_] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="its folder, or the name of one that ships along")
    parser.add_argument("study", type=Path, help="the study that it was trained on")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="further studies")
    parser.add_argument("--photographs", type=Path, help="folder of pictures that are no ultrasound")
    parser.add_argument("-o", "--output", type=Path, help="file for the drift of every frame, as CSV")
    given = parser.parse_args()
    predictor, home = load(given.bundle), Study.load(given.study)
    rng = np.random.default_rng(0)
    new = [shot for shot in of_study(home, HOME) if shot.patient not in predictor.bundle.seen(home.sha256())]
    say(f"{len(new)} frames of new patients")
    shots: list[Shot] = [*new, *(shot for path in given.others for shot in of_study(Study.load(path)))]
    shots += [*of_dicom(), *of_screens(new, rng), *damaged(new, rng), *noise(new[0].image.shape, rng)]
    if given.photographs:
        shots += of_photographs(given.photographs, rng)
    frames = pd.DataFrame([score(shot, predictor) for shot in shots])
    if given.output:
        write_text(given.output, frames.round(4).to_csv(index=False))
    print(told_apart(frames), foretold(frames), sep="\n\n")


def score(shot: Shot, predictor: Predictor) -> dict[str, Any]:
    """Its drift, and the nerve's Dice where there is a mask with one."""
    stack, dice = predictor.prepare(shot.image), np.nan
    if shot.truth is not None and shot.truth.any():
        prediction = predictor.finish(predictor.infer(stack[None])[0], shot.image.shape)
        dice = frame_measures(prediction.mask == 1 + prediction.labels.index("nerve"), shot.truth)["dice"]
    drift = Drift.of(predictor.bundle.companions)
    if drift is None:
        raise UsageError("The bundle has no drift.", "Fit it: python -m edgefusion.evaluation.fit_drift.")
    value = drift(plane_of(stack, predictor.bundle.recipe))
    return {"kind": shot.kind, "patient": shot.patient, "drift": value, "dice": dice}


def of_study(study: Study, kind: str = "") -> Iterator[Shot]:
    """All frames; patients tied by near-duplicates keep their own names at home, where they are left out by name."""
    blocks = study.frames["patient_id"] if kind else patient_blocks(study.frames)
    for frame_id, block in zip(study.frames["frame_id"], blocks, strict=True):
        mask = study.mask(frame_id)
        truth = None if mask is None else mask == 1 + study.labels.index("nerve")
        yield Shot(kind or f"study {study.name}", str(block), np.asarray(study.image(frame_id)), truth)


def of_dicom() -> Iterator[Shot]:
    """Other organs, from other scanners."""
    for name in ULTRASOUND:
        path = Path(str(get_testdata_file(name)))
        for image in open_clip(path).read():
            yield Shot("ultrasound of other organs", name, np.asarray(image, np.uint8))


def of_screens(new: list[Shot], rng: np.random.Generator) -> Iterator[Shot]:
    """A scanner's whole screen around a frame, not cut to the image."""
    for shot in new[::4]:
        screen = draw_screen((480, 640), rng)
        image = cv2.resize(shot.image, screen.shape.shape[::-1], interpolation=cv2.INTER_AREA)
        yield Shot("whole screen, not cropped", shot.patient, screen.frames([np.asarray(image)], 1, rng)[0])


def of_photographs(folder: Path, rng: np.random.Generator) -> Iterator[Shot]:
    """Crops, at least a third of the picture each way; pictures too small for that are left out."""
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".png", ".jpg"):
            continue
        picture = np.asarray(Image.open(path).convert("L"))
        if min(picture.shape) < 128:
            continue
        for _ in range(CROPS):
            height, width = (int(side * rng.uniform(1 / 3, 1)) for side in picture.shape)
            top, left = (int(rng.integers(a - b + 1)) for a, b in zip(picture.shape, (height, width), strict=True))
            yield Shot("photographs", path.name, picture[top : top + height, left : left + width])


def damaged(new: list[Shot], rng: np.random.Generator) -> Iterator[Shot]:
    """Frames of the new patients, spoilt: their image is a frame's no more, but their patient is."""
    for shot in new[::2]:
        image, (height, width) = shot.image, shot.image.shape
        unit = image / np.float32(255)
        spoilt = {
            "quarter of a frame": image[height // 4 : -height // 4, width // 4 : -width // 4],
            "mirrored": image[:, ::-1],
            "upside down": image[::-1],
            "turned by 90°": np.rot90(image),
            "inverted": 255 - image,
            "gain × 0.4": unit * 0.4,
            "gain × 1.6": unit * 1.6,
            "gamma 0.4": unit**0.4,
            "blurred, 1 % of the width": cv2.GaussianBlur(unit, (0, 0), 0.01 * width),
            "blurred, 3 % of the width": cv2.GaussianBlur(unit, (0, 0), 0.03 * width),
            "noise, 10 %": unit + rng.normal(0, 0.1, unit.shape),
            "JPEG, quality 10": cv2.imdecode(cv2.imencode(".jpg", image, [1, 10])[1], cv2.IMREAD_GRAYSCALE),
            "right half black": np.where(np.arange(width) < width // 2, image, 0),
        }
        for name, other in spoilt.items():
            grey = np.rint(np.clip(other, 0, 1) * 255) if other.dtype.kind == "f" else other
            yield Shot(f"frame, {name}", shot.patient, np.ascontiguousarray(grey, dtype=np.uint8))


def noise(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Shot]:
    """Without any anatomy: grey, black and white, ramps, white noise, and speckle of 1 to 8 pixels."""
    height, width = shape
    for level in range(0, 256, 15):
        yield Shot("noise, flat", f"flat {level}", np.full((height, width), level, np.uint8))
    for number in range(30):
        start, end = rng.integers(0, 256, 2)
        ramp = np.linspace(start, end, height)[:, None].repeat(width, 1)
        yield Shot("noise, ramp", f"ramp {number}", ramp.astype(np.uint8))
        yield Shot("noise, white", f"white {number}", rng.integers(0, 256, (height, width), dtype=np.uint8))
        grain = rng.uniform(1, 8)
        parts = [cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), grain) for _ in range(2)]
        speckle = np.log(np.hypot(*parts) / np.hypot(*parts).max() + 1e-3)
        level = np.clip(255 * (1 + speckle / rng.uniform(3, 7)), 0, 255)
        yield Shot("noise, speckle", f"speckle {number}", level.astype(np.uint8))


def told_apart(frames: pd.DataFrame) -> str:
    """A row a kind: how well its drift is told from that of the new patients' frames, and how many are flagged."""
    home = frames[frames["kind"] == HOME]
    share = flagged(home)
    lines = [
        "| frames | number | patients or pictures | median drift | AUROC (95 %) | flagged (95 %) |",
        "|---|---|---|---|---|---|",
        f"| {HOME} | {len(home)} | {home['patient'].nunique()} | {home['drift'].median():.2f} | – | {share} |",
    ]
    for kind, other in frames[frames["kind"] != HOME].groupby("kind", sort=False):
        lines.append(
            f"| {kind} | {len(other)} | {other['patient'].nunique()} | {other['drift'].median():.2f} "
            f"| {auroc(home, other)} | {flagged(other)} |"
        )
    by_patient = home.groupby("patient")["drift"].agg(lambda drift: (drift > 1).mean())
    worst = ", ".join(f"{name} {value:.0%}" for name, value in by_patient.nlargest(5).items() if value)
    return "\n".join([*lines, "", f"False alarms by patient, the most: {worst or 'none'}."])


def flagged(frames: pd.DataFrame) -> str:
    """Share with a drift above 1."""
    return _with_interval(frames, lambda drawn: float((drawn["drift"] > 1).mean()))


def foretold(frames: pd.DataFrame) -> str:
    """Rank correlation of drift and Dice on each study with masks, and Dice of flagged and other frames."""
    lines = [
        "| study | frames with a nerve | Spearman, drift and Dice (95 %) | Dice where not flagged | where flagged |",
        "|---|---|---|---|---|",
    ]
    for kind, study in frames[frames["dice"].notna()].groupby("kind", sort=False):
        rank = _with_interval(study, lambda drawn: float(spearmanr(drawn["drift"], drawn["dice"]).statistic))
        unlike = study["drift"] > 1
        shares = (
            f"{study['dice'][part].mean():.3f} ({part.sum()})" if part.any() else "–" for part in (~unlike, unlike)
        )
        lines.append(f"| {kind} | {len(study)} | {rank} | {' | '.join(shares)} |")
    return "\n".join(lines)


def auroc(home: pd.DataFrame, other: pd.DataFrame) -> str:
    """Probability that a frame of the other kind has the greater drift, ties counting half."""
    # Spoilt frames of a patient are drawn with that patient; of anything else both sides are drawn on their own.
    paired = set(other["patient"]) <= set(home["patient"])
    greater = np.zeros((home["patient"].nunique(), other["patient"].nunique()))
    rows, columns = (list(frames.groupby("patient", sort=False)["drift"]) for frames in (home, other))
    for i, (_, ours) in enumerate(rows):
        for j, (_, theirs) in enumerate(columns):
            difference = np.subtract.outer(theirs.to_numpy(), ours.to_numpy())
            greater[i, j] = (difference > 0).sum() + 0.5 * (difference == 0).sum()
    ours, theirs = (np.array([len(drift) for _, drift in side]) for side in (rows, columns))
    a = patient_counts(len(rows), RESAMPLES, seed=0)
    b = patient_counts(len(columns), RESAMPLES, seed=1)
    if paired:
        places = {name: number for number, (name, _) in enumerate(rows)}
        b = a[:, [places[name] for name, _ in columns]]
    pairs = (a @ ours) * (b @ theirs)
    draws = np.divide(((a @ greater) * b).sum(1), pairs, out=np.full(len(a), np.nan), where=pairs > 0)
    low, high = interval(draws, min(len(rows), len(columns)))
    value = greater.sum() / (ours.sum() * theirs.sum())
    return f"{value:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {min(high, 1):.3f})")


def _with_interval(frames: pd.DataFrame, statistic: Any) -> str:
    groups = [group for _, group in frames.groupby("patient", sort=False)]
    counts = patient_counts(len(groups), RESAMPLES, seed=0).astype(int)
    columns = {key: np.concatenate([group[key].to_numpy() for group in groups]) for key in ("drift", "dice")}
    lengths = np.array([len(group) for group in groups])
    starts = np.concatenate([[0], lengths.cumsum()[:-1]])
    draws = []
    for count in counts:
        chosen = np.repeat(np.arange(len(groups)), count)
        rows = np.concatenate([np.arange(starts[place], starts[place] + lengths[place]) for place in chosen])
        draws.append(statistic({key: values[rows] for key, values in columns.items()}))
    low, high = interval(np.array(draws), len(groups))
    value = statistic(columns)
    return f"{value:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
