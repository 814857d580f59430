"""Simulated frames, and studies made of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.phantom.anatomy import Patient, pose_in_frame
from edgefusion.data.phantom.painting import paint
from edgefusion.data.phantom.patient import draw_patient
from edgefusion.data.phantom.physics import take_picture
from edgefusion.data.staging import publish, staged
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import UsageError
from edgefusion.progress import track
from edgefusion.threads import thread_pool

ORIGIN = "edgefusion phantom"
"""Origin of every phantom study."""


@dataclass(frozen=True)
class PhantomFrame:
    """One simulated frame; all arrays H×W uint8."""

    image: NDArray[np.uint8]
    """The B-mode picture."""
    mask: NDArray[np.uint8]
    """1 inside the nerve's sheath, else 0; all 0 where the nerve is out of the plane."""
    clean: NDArray[np.uint8]
    """The picture without speckle: the log-compressed expected power of the echo and the noise."""
    spacing_mm: float
    """Side of a pixel, mm."""


def simulate_frame(seed: int, patient: int, frame: int, size: tuple[int, int] = (420, 580)) -> PhantomFrame:
    """Simulate the frame that a study of this seed and size has for this patient under this number."""
    who = draw_patient(np.random.default_rng([seed, patient]))
    return simulate(who, frame, np.random.default_rng([seed, patient, frame]), size)


def simulate(
    patient: Patient, frame: int, rng: np.random.Generator, size: tuple[int, int] = (420, 580)
) -> PhantomFrame:
    """Simulate one frame of a patient.

    Args:
        patient: From ``draw_patient``.
        frame: Number of the frame, from 0; frames with close numbers show nearly the same plane.
        rng: Source of the frame's speckle, noise, tremor and coupling.
        size: Height and width, pixels; any size shows the same neck, a wider frame more of its sides.
    """
    scale = float(np.sqrt(size[0] * size[1] * 420 / 580))
    pose = pose_in_frame(patient, frame, rng)
    scene = paint(patient, pose, frame, size, scale)
    image, clean = take_picture(scene, patient.scanner, scale, rng)
    return PhantomFrame(image, scene.mask, clean, patient.scanner.depth_mm / scale)


def make_phantom_study(
    output: Path | str, patients: int = 24, frames: int = 12, seed: int = 0, size: tuple[int, int] = (420, 580)
) -> Study:
    """Simulate patients and write them as a study with the label "nerve".

    Frame ``p03_f07`` of patient ``p03`` depends on the seed, its two numbers and the size alone, so a larger study
    contains the smaller one.

    Args:
        output: The study's folder: new, empty, or an earlier study of phantoms, which is replaced at the very end.
        patients: Number of patients.
        frames: Frames of each; about a quarter shows no nerve.
        seed: 0 or more; another seed draws other patients.
        size: Height and width of the frames, pixels.

    Returns:
        The study, complete on disk; its column ``clean`` names every frame's picture without speckle.

    Raises:
        UsageError: If a number is out of range, or the output folder holds something else.
    """
    if min(patients, frames) < 1 or seed < 0 or min(size) < 64:
        raise UsageError(
            f"A phantom study of {patients} patients, {frames} frames of {size[0]}x{size[1]}, seed {seed}.",
            "Ask for at least 1 patient, 1 frame and 64x64 pixels, and a seed of 0 or more.",
        )
    output = Path(output)

    def examine(folder: Path, number: int) -> list[dict[str, Any]]:
        patient = draw_patient(np.random.default_rng([seed, number]))
        rows = []
        for index in range(frames):
            shot = simulate(patient, index, np.random.default_rng([seed, number, index]), size)
            row = store_frame(
                folder,
                frame_id=f"p{number:02d}_f{index:02d}",
                patient_id=f"p{number:02d}",
                image=shot.image,
                mask=shot.mask,
                spacing=(shot.spacing_mm, shot.spacing_mm),
                source=f"phantom, seed {seed}",
                clean=shot.clean,
            )
            rows.append(row)
        return rows

    # Numpy, OpenCV and scipy let go of the interpreter while they compute: threads are enough.
    with staged(output, ORIGIN) as folder, thread_pool(os.cpu_count()) as pool:
        examinations = pool.map(lambda number: examine(folder, number), range(patients))
        rows = [row for rows in track(examinations, "Simulating patients", total=patients) for row in rows]
        study = Study(
            path=folder,
            name=output.resolve().name,
            labels=["nerve"],
            origin=ORIGIN,
            terms="simulated, free to use",
            frames=frames_table(rows),
        )
        study = publish(study, output)
    return study
