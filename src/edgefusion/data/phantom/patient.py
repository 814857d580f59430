"""Drawing a patient from one random generator: neck, plexus, scanner settings, and the hand that scans."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.phantom.anatomy import (
    CONNECTIVE,
    FASCICLE,
    LUMEN,
    STROMA,
    Layers,
    Nerve,
    Patient,
    Scanner,
    Structure,
)
from edgefusion.data.phantom.neck import Build, draw_neck
from edgefusion.data.phantom.outlines import line, oval, region, varied

GRAIN_SPAN = (2.2, 1.4)
"""Width and height of the texture fields, frame heights; they start 0.2 above the skin."""


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw one patient; all that differs between patients is drawn here."""
    fat, sternomastoid = rng.uniform(0.045, 0.12), rng.uniform(0.05, 0.14)
    surface = fat + sternomastoid + rng.uniform(0.01, 0.04)
    nerve = _draw_nerve(float(np.clip(rng.normal(0.1, 0.08), -0.1, 0.27)), surface, rng)
    layers = Layers(nerve.centre[0], rng.uniform(0, 0.13), rng.uniform(0.25, 0.5), rng.normal(0, 0.07))
    # Septa and perimysium are bright and few: a skewed texture.
    even = _field(240, 0.03, 0.0035, rng)
    fibres = np.asarray((even + 0.4 * (even**2 - 1)) / 1.15, np.float32)
    return Patient(
        structures=draw_neck(Build(fat, sternomastoid, surface, layers, nerve), rng),
        layers=layers,
        nerve=nerve,
        decoy=_draw_decoy(nerve, rng),
        scanner=_draw_scanner(rng),
        mirrored=bool(rng.random() < 0.25),
        motion=np.stack([np.append(rng.uniform(6, 10), rng.uniform(9, 17, 9)), rng.uniform(0, 2 * np.pi, 10)], axis=1),
        fibres=fibres,
        lumps=_field(60, 0.07, 0.03, rng),
    )


def _draw_nerve(x: float, surface: float, rng: np.random.Generator) -> Nerve:
    """The plexus: 1.3-2.9 % of a 420×580 frame before it moves, about twice as long as wide."""
    area = rng.uniform(0.013, 0.0285) * 580 / 420
    ratio = float(np.clip(rng.normal(1.9, 0.3), 1.35, 2.6))
    across = float(np.sqrt(area / np.pi / ratio))
    angle = float(np.clip(rng.normal(np.radians(113), 0.24), 1.3, 2.6))
    # Few fascicles lie in a row like a traffic light, many in a zigzag.
    count = int(rng.integers(2, 6))
    along = np.linspace(-1, 1, count) * (0.5 if count == 2 else 0.64) + rng.normal(0, 0.03, count)
    aside = (0.36 if count > 3 else 0.12) * (-1.0) ** np.arange(count) + rng.normal(0, 0.06, count)
    widest = min(0.62 * ratio / (count - 1), 0.5 if count > 3 else 0.6)
    radius = np.clip(widest * rng.uniform(0.8, 1.1, count), 0.3, 0.66)
    return Nerve(
        centre=(x, surface + rng.uniform(0.015, 0.09) + across * ratio * np.sin(angle)),
        angle=angle,
        half=(across * ratio, across),
        wobble=np.stack([rng.normal(0, (0.03, 0.045, 0.025, 0.018)), rng.uniform(0, 2 * np.pi, 4)], axis=1),
        fascicles=np.stack([along, aside, radius], axis=1),
        fat=rng.uniform((-0.9, -0.75, 0.2, 2), (0.8, 0.75, 0.5, 11), (int(rng.integers(1, 6)), 4)),
        stroma=replace(STROMA, level=STROMA.level + rng.uniform(-8, 0)),
        fascicle=varied(FASCICLE, rng, 1.5),
        wall=rng.uniform(-25, -8),
        last_plane=rng.uniform(0.74, 0.88),
    )


def _draw_decoy(nerve: Nerve, rng: np.random.Generator) -> Structure:
    """What the groove holds without the plexus: a lobule of fat, a vessel, or just the fascia between the muscles."""
    groove = np.array([np.cos(nerve.angle), np.sin(nerve.angle)])
    x, y = np.array(nerve.centre) + rng.uniform(-0.06, 0.1) * groove
    match rng.choice(3, p=(0.4, 0.25, 0.35)):
        case 0:
            half = (rng.uniform(0.04, 0.09), rng.uniform(0.012, 0.028))
            return region(oval((x, y), half, nerve.angle, rng, 0.15), varied(CONNECTIVE, rng), -14, rng)
        case 1:
            size = rng.uniform(0.014, 0.03)
            return region(oval((x, y), (1.4 * size, size), nerve.angle, rng), LUMEN, rng.uniform(-16, -8), rng)
        case _:
            seam = np.array(nerve.centre) + np.linspace(-0.13, 0.17, 33)[:, None] * groove
            return line(seam, rng.uniform(-16, -8), rng)


def _draw_scanner(rng: np.random.Generator) -> Scanner:
    return Scanner(
        dynamic_range=rng.uniform(52, 62),
        gain=rng.normal(4, 2),
        looks=int(rng.integers(3, 5)),
        axial=rng.uniform(0.0034, 0.0048),
        lateral=rng.uniform(0.007, 0.011),
        focus=rng.uniform(0.25, 0.6),
        tgc_error=rng.normal(0, 2.2, 5),
        noise=rng.uniform(-62, -57),
        echo_gap=rng.uniform(0.018, 0.03),
        sharpening=rng.uniform(0.1, 0.7),
        depth_mm=rng.uniform(28, 38),
    )


def _field(per_height: int, along: float, across: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth random field of zero mean and unit variance over ``GRAIN_SPAN``, ``per_height`` points a frame height."""
    shape = (round(GRAIN_SPAN[1] * per_height), round(GRAIN_SPAN[0] * per_height))
    noise = rng.standard_normal(shape, np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), along * per_height, sigmaY=across * per_height)
    return np.asarray(field / field.std(), np.float32)
