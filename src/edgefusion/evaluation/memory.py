"""What a bundle remembers of the frames that it was trained on, and which frames of a study it has seen.

Remembered are two hashes a frame: SHA-256 of its pixels, which finds the same frame, and a fingerprint, which finds
nearly the same one (``data.simhash``). No picture is kept.

A bundle that was trained before there was such a memory gets it from the studies that it was trained on:

python -m edgefusion.evaluation.memory BUNDLE STUDY [STUDY ...] [--split SPLITS]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgefusion.bundle import Bundle
from edgefusion.bundles import find
from edgefusion.data.duplicates import describe
from edgefusion.data.simhash import BITS, NEAR, distances, simhash
from edgefusion.data.splits import read_splits
from edgefusion.data.study import Study
from edgefusion.errors import BundleError, EdgeFusionError, UsageError
from edgefusion.progress import say, track

COMPANION = "training_frames"
"""Name of the bundle's companion: of N frames ``sha256`` and ``simhash``, N×32 uint8 each, ``stage``, N int32, the
place of their training in ``Bundle.history``, and ``patient``, N int32, their patient's place in ``trained_on``."""

KINDS = SEEN, IDENTICAL, NEARLY = ("patient", "identical", "near-duplicate")
"""How a frame can be known: its patient was trained on, its pixels were, or others nearly like them were."""

_BLOCK = 256


@dataclass(frozen=True)
class Overlap:
    """What a study shares with the trainings behind a bundle."""

    frames: pd.DataFrame
    """A row a shared frame: ``frame_id``, ``patient_id``, each of ``KINDS`` as bool (never both of the last two),
    ``bits`` (in which its fingerprint differs from the nearest one that is remembered), ``of_study`` and ``of_patient``
    (whose frame that is); the last three are missing where only the patient is known."""
    forgotten: list[str]
    """Studies behind the bundle of whose frames it remembers nothing."""

    def patients(self, *kinds: str) -> list[str]:
        """Patients with a frame that is shared in one of these ways, in the study's order."""
        return [str(name) for name in self.frames["patient_id"][self.frames[list(kinds)].any(axis=1)].unique()]


@dataclass(frozen=True)
class FrameHashes:
    """What is remembered of N frames."""

    sha256: Tensor
    """N×32 uint8, of the pixels."""
    simhash: Tensor
    """N×32 uint8, the fingerprints."""
    patients: list[str]
    """N patient ids."""


def hash_frames(study: Study, frame_ids: Sequence[str]) -> FrameHashes:
    """Hashes of frames of a study.

    Raises:
        DataError: If a frame cannot be read.
    """
    frames = study.frames.set_index("frame_id").loc[list(frame_ids)]
    return FrameHashes(
        torch.from_numpy(_digests(frames["sha256"])),
        torch.from_numpy(simhash(_descriptions(study, frame_ids))),
        [str(patient) for patient in frames["patient_id"]],
    )


def remember(bundle: Bundle, hashes: FrameHashes, stage: int = -1) -> None:
    """Keep the hashes of training frames in ``bundle.companions``, in place of what is kept of that training.

    Args:
        bundle: The trained network.
        hashes: Of the frames that it was trained on.
        stage: The training's place in ``bundle.history()``; by default the last one.
    """
    history = bundle.history()
    stage = range(len(history))[stage]
    places = {patient: place for place, patient in enumerate(history[stage].trained_on)}
    new = {
        "sha256": hashes.sha256,
        "simhash": hashes.simhash,
        "stage": torch.full((len(hashes.patients),), stage, dtype=torch.int32),
        "patient": torch.tensor([places[patient] for patient in hashes.patients], dtype=torch.int32),
    }
    old = _memory(bundle)
    if old is not None:
        others = old["stage"] != stage
        new = {key: torch.cat([old[key][others], value]) for key, value in new.items()}
    bundle.companions[COMPANION] = new


def find_overlap(bundle: Bundle, study: Study, frame_ids: Sequence[str]) -> Overlap:
    """Which frames of a study are not new to a bundle.

    Args:
        bundle: The trained network.
        study: The study.
        frame_ids: Frames of it.

    Raises:
        BundleError: If what the bundle remembers is not in the form of ``COMPANION``.
    """
    history, memory = bundle.history(), _memory(bundle)
    frames = study.frames.set_index("frame_id").loc[list(frame_ids)].reset_index()
    found = frames[["frame_id", "patient_id"]].assign(**dict.fromkeys(KINDS, False))
    origins: dict[int, tuple[int, str, str]] = {}
    if memory is not None:
        nearest, bits, identical = _nearest(study, frames, memory)
        found[IDENTICAL], found[NEARLY] = identical, (bits <= NEAR) & ~identical
        for row in np.flatnonzero(found[[IDENTICAL, NEARLY]].any(axis=1)):
            origin = history[int(memory["stage"][nearest[row]])]
            patient = origin.trained_on[int(memory["patient"][nearest[row]])]
            origins[int(row)] = (int(bits[row]), origin.study, patient)
    for place, column in enumerate(("bits", "of_study", "of_patient")):
        found[column] = pd.Series({row: values[place] for row, values in origins.items()}, dtype=object)
    for origin in history:
        if study.sha256() == origin.sha256 or study.name == origin.study:
            found[SEEN] |= frames["patient_id"].isin(origin.trained_on)
    kept = set() if memory is None else set(memory["stage"].tolist())
    forgotten = [origin.study for stage, origin in enumerate(history) if stage not in kept and origin.trained_on]
    return Overlap(found[found[list(KINDS)].any(axis=1)].reset_index(drop=True), forgotten)


def _memory(bundle: Bundle) -> dict[str, Tensor] | None:
    memory = bundle.companions.get(COMPANION)
    if memory is None:
        return None
    frames, trainings = len(memory.get("sha256", ())), [len(origin.trained_on) for origin in bundle.history()]
    form = {key: (tuple(value.shape), value.dtype) for key, value in memory.items()}
    hashes, places = ((frames, 32), torch.uint8), ((frames,), torch.int32)
    sound = frames and form == {"sha256": hashes, "simhash": hashes, "stage": places, "patient": places}
    if not sound or not all(
        0 <= stage < len(trainings) and 0 <= patient < trainings[stage]
        for stage, patient in zip(memory["stage"].tolist(), memory["patient"].tolist(), strict=True)
    ):
        raise BundleError("What the bundle remembers of its training frames is damaged.", "Export the bundle again.")
    return memory


def _nearest(
    study: Study, frames: pd.DataFrame, memory: dict[str, Tensor]
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.bool_]]:
    """Of every frame the place of the remembered one that is most like it, the bits between, and if it is the same."""
    descriptions = _descriptions(study, list(frames["frame_id"]))
    hashes, remembered = simhash(descriptions), memory["simhash"].numpy()
    nearest, bits = np.zeros(len(frames), dtype=np.intp), np.zeros(len(frames), dtype=np.int64)
    for start in range(0, len(frames), _BLOCK):
        block = distances(hashes[start : start + _BLOCK], remembered)
        nearest[start : start + _BLOCK], bits[start : start + _BLOCK] = block.argmin(1), block.min(1)
    # The fingerprint of a picture without structure means nothing.
    bits[~descriptions.any(1)] = BITS
    place = {digest.tobytes(): number for number, digest in enumerate(memory["sha256"].numpy())}
    same = np.array([place.get(digest.tobytes(), -1) for digest in _digests(frames["sha256"])])
    identical = same >= 0
    nearest[identical], bits[identical] = same[identical], 0
    return nearest, bits, identical


def _descriptions(study: Study, frame_ids: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([describe(study.image(str(frame_id))) for frame_id in frame_ids])


def _digests(sha256: pd.Series) -> NDArray[np.uint8]:
    return np.stack([np.frombuffer(bytes.fromhex(digest), dtype=np.uint8) for digest in sha256])


def remember_studies(folder: Path | str, studies: Sequence[Path | str], split: Path | str | None = None) -> None:
    """Give a bundle, in place, the memory of trainings that were before there was one.

    Args:
        folder: Of the bundle, or the name of one that ships with the package.
        studies: Studies that it was trained on, at any stage, unchanged since.
        split: ``splits.json`` of those trainings, where frames of training patients were left out because they are
            near-duplicates of validation patients' frames; without it all labelled frames of the patients count.

    Raises:
        UsageError: If it was not trained on one of the studies.
        BundleError: If the bundle is damaged.
    """
    folder = find(folder)
    bundle = Bundle.load(folder)
    left_out = {frame for part in read_splits(split) for frame in part.excluded_frames} if split else set()
    for study in track([Study.load(path) for path in studies], "Remembering", len(studies)):
        stages = [stage for stage, origin in enumerate(bundle.history()) if origin.sha256 == study.sha256()]
        if not stages:
            raise UsageError(f"{folder} was not trained on {study.path}, or the study has changed since.")
        for stage in stages:
            labelled = study.labelled()
            trained = labelled["patient_id"].isin(bundle.history()[stage].trained_on)
            trained &= ~labelled["frame_id"].isin(left_out)
            frame_ids = [str(frame) for frame in labelled["frame_id"][trained]]
            remember(bundle, hash_frames(study, frame_ids), stage)
    bundle.save_description(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder of the bundle, or the name of one that ships with the package")
    parser.add_argument("studies", nargs="+", type=Path, help="studies that it was trained on")
    parser.add_argument("--split", type=Path, help="splits.json of the training, where it left frames out")
    given = parser.parse_args(arguments)
    try:
        remember_studies(given.bundle, given.studies, given.split)
    except EdgeFusionError as error:
        say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
