"""Who is scanned: the anatomy of one synthetic neck, and how the probe meets it in each frame.

Lengths are in frame heights: x runs to the patient's lateral side with 0 in the middle of the frame, y runs
from the skin into depth. Echo levels are in dB below full white. A neck is a list of structures in painting
order, the later ones lying in front; medial is left, as in the interscalene view of a right-hand probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""N×2 (x, y), frame heights."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Tissue:
    """What fills an outline."""

    level: float
    """Mean echo, dB."""
    fibre: float
    """Standard deviation of the striation along the fibres, dB."""
    lump: float = 1.5
    """Standard deviation of the slow unevenness, dB."""
    loss: float = 0.0
    """Two-way attenuation beyond what the time-gain compensation expects, dB per frame height."""


FAT = Tissue(-35, 4, 2.5, 4)
CONNECTIVE = Tissue(-35, 5, 3)
MUSCLE = Tissue(-40, 4, 2.2, 2)
SKIN = Tissue(-33, 2, 1)
LUMEN = Tissue(-62, 0, 1, -28)
NODE = Tissue(-45, 0.8, 1, -4)
BONE = Tissue(-46, 1, 1, 170)
STROMA = Tissue(-27, 4, 2)
FASCICLE = Tissue(-43, 1, 0.8)


@dataclass(frozen=True)
class Structure:
    """One outline: a closed region when it has a tissue, otherwise a bright line."""

    outline: Points
    """N×2 (x, y), evenly spaced; the first point is repeated at the end of a closed outline."""
    tissue: Tissue | None = None
    """What it is filled with."""
    wall: float | None = None
    """Peak of its specular echo where it faces the probe, dB; none where absent."""
    plane: float = 0.5
    """Where along the neck it is thickest, 0-1."""
    reach: float = 9.0
    """How far along the neck it goes."""
    phase: float = 0.0
    """Places the gaps of its wall."""

    def strength(self, plane: float) -> float:
        """How much of it lies in the scanned plane, 0-1."""
        return float(np.exp(-(((plane - self.plane) / self.reach) ** 2)))


@dataclass(frozen=True)
class Layers:
    """The lie of the deep layers: they sink from the groove between the scalenes to both sides."""

    apex: float
    """Where the groove is."""
    rise: float
    """How far they sink in the distance ``width``, about; frame heights."""
    width: float
    slope: float
    """Tilt of the whole, frame heights of depth a frame height to the side."""

    def depth(self, x: Points | float) -> Points:
        """How much deeper than at the groove a layer lies at x, frame heights."""
        away = np.asarray(x) - self.apex
        return np.asarray(self.rise * np.log(np.cosh(away / self.width)) + self.slope * away)


@dataclass(frozen=True)
class Nerve:
    """The brachial plexus between the scalenes: round dark fascicles in a bright sheath."""

    centre: Point
    angle: float
    """Direction of its long axis, radians, from lateral-superficial to medial-deep."""
    half: Point
    """Half length and half width."""
    wobble: Points
    """n×2: size and phase of the harmonics of the sheath's outline, from the second on."""
    fascicles: Points
    """n×3: position along and across in half lengths and half widths, and radius in half widths."""
    fat: Points
    """n×4: lobules of bright fat among the fascicles, place as theirs, size, and level above the stroma, dB."""
    stroma: Tissue
    fascicle: Tissue
    wall: float
    """Peak of the sheath's specular echo, dB."""
    last_plane: float
    """The plane beyond which the plexus has left the picture."""


@dataclass(frozen=True)
class Scanner:
    """Settings that stay the same through one examination."""

    dynamic_range: float
    """From black to white, dB."""
    gain: float
    """Added to all echoes, dB."""
    looks: int
    """Independent speckle patterns averaged by spatial compounding."""
    axial: float
    """Standard deviation of the pulse, frame heights."""
    lateral: float
    """Standard deviation of the beam at its focus, frame heights."""
    focus: float
    """Depth of the focus, frame heights."""
    tgc_error: Points
    """Error of the time-gain compensation at 5 depths, dB."""
    noise: float
    """Electronic noise at the skin, dB; the time-gain compensation raises it with depth."""
    echo_gap: float
    """Distance of the reverberations below a bright interface, frame heights."""
    sharpening: float
    """Strength of the edge enhancement in depth, 0 for none."""
    depth_mm: float
    """Depth that one frame height shows."""


@dataclass(frozen=True)
class Patient:
    """Everything that all frames of one patient share."""

    structures: list[Structure]
    layers: Layers
    nerve: Nerve
    decoy: Structure
    """What lies in the groove where the plexus has left it: fat or a small vessel."""
    scanner: Scanner
    mirrored: bool
    """Seen from the other side: lateral is left."""
    motion: Points
    """Period (frames) and phase of each slow movement of probe and tissue."""
    fibres: NDArray[np.float32]
    """Striation along the layers, a field of unit variance over the neck."""
    lumps: NDArray[np.float32]
    """Slow unevenness, the same at a coarser grid."""


@dataclass(frozen=True)
class Pose:
    """How one frame's probe meets the neck: the plane along the neck, and a small smooth deformation."""

    plane: float
    """Place along the neck, 0-1."""
    shift: Points
    tilt: float
    stretch: Points
    bend: Points
    """Amplitude (x, y), wave vector (x, y) and phase of each bending mode."""
    mirrored: bool

    def displacement(self, points: Points) -> Points:
        """Movement of N×2 points, N×2; nothing moves up or down at the skin, which touches the probe."""
        x, y = points[:, 0], points[:, 1] - 0.4
        moved = np.stack([self.shift[0] - self.tilt * y, self.shift[1] + self.tilt * x], axis=1)
        moved += points * self.stretch
        for ax, ay, kx, ky, phase in self.bend:
            wave = np.sin(kx * x + ky * y + phase)
            moved[:, 0] += ax * wave
            moved[:, 1] += ay * wave
        moved[:, 1] *= np.clip(points[:, 1] / 0.2, 0, 1)
        return moved

    def to_frame(self, points: Points) -> Points:
        """Take points of the patient to the frame."""
        moved = points + self.displacement(points)
        return moved * (-1, 1) if self.mirrored else moved

    def to_patient(self, points: Points) -> Points:
        """Take points of the frame back to the patient, to first order, which is enough for textures."""
        points = points * (-1, 1) if self.mirrored else points
        return points - self.displacement(points)


def pose_in_frame(patient: Patient, frame: int, rng: np.random.Generator) -> Pose:
    """Pose of a frame: slow waves through the examination, and a little tremor of the hand."""
    waves = np.sin(2 * np.pi * frame / patient.motion[:, 0] + patient.motion[:, 1])
    waves = waves + rng.normal(0, 0.12, len(waves))
    bend = np.array([(0.012 * waves[6 + i], 0.009 * waves[8 + i], 4 + 3 * i, 3 - 4 * i, i) for i in range(2)])
    return Pose(
        plane=0.5 + 0.5 * float(np.clip(waves[0], -1, 1)),
        shift=np.array([0.055 * waves[1], 0.018 * waves[2]]),
        tilt=0.05 * waves[3],
        stretch=np.array([0.02 * waves[4], 0.025 * waves[5]]),
        bend=bend,
        mirrored=patient.mirrored,
    )


def place(local: Points, centre: Point, half: Point, angle: float) -> Points:
    """Scale N×2 local coordinates by the half axes, turn them, and move them to the centre."""
    along, across = local[:, 0] * half[0], local[:, 1] * half[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + cos * along - sin * across, centre[1] + sin * along + cos * across], axis=1)


def nerve_structures(nerve: Nerve, pose: Pose, frame: int) -> list[Structure]:
    """Sheath first, then the fascicles, in one frame; empty where the plexus is out of the plane."""
    ahead = nerve.last_plane - pose.plane
    if ahead <= 0:
        return []
    # Near the end of its course the plexus is cut obliquely: it fades before it is gone.
    contrast = 0.6 + 0.4 * min(ahead / 0.25, 1)
    sway = np.sin(0.9 * frame + np.arange(4) * 1.7 + nerve.angle * 20)
    centre = (nerve.centre[0] + 0.02 * (pose.plane - 0.4) + 0.008 * sway[0], nerve.centre[1] + 0.008 * sway[1])
    half = (nerve.half[0] * (1 + 0.04 * sway[2]), nerve.half[1] * (1 + 0.04 * sway[3]))
    angle = nerve.angle + 0.08 * sway[1]
    turns = np.linspace(0, 2 * np.pi, 97)
    radius = 1 + sum(size * np.cos(order * turns + at) for order, (size, at) in enumerate(nerve.wobble, start=2))
    sheath = place(np.stack([radius * np.cos(turns), radius * np.sin(turns)], axis=1), centre, half, angle)
    level = FASCICLE.level + contrast * (nerve.stroma.level - FASCICLE.level)
    parts = [Structure(sheath, replace(nerve.stroma, level=level), nerve.wall - 8 * (1 - contrast), phase=nerve.angle)]
    ring = np.stack([np.cos(turns[::4]), np.sin(turns[::4])], axis=1)

    def inside(along: float, across: float, size: float, aspect: float) -> Points:
        middle = place(np.array([(along, across)]), centre, half, angle)[0]
        reach = size * half[1]
        return place(ring, (middle[0], middle[1]), (reach * aspect, reach / aspect), 0.2 * along)

    for along, across, size, brighter in nerve.fat:
        outline = inside(along, across + 0.04 * np.sin(frame + 5 * along), size, 1.35)
        parts.append(Structure(outline, replace(nerve.stroma, level=level + contrast * brighter)))
    for index, (along, across, size) in enumerate(nerve.fascicles):
        sway_along, sway_across = 0.03 * np.sin(frame + index), 0.05 * np.sin(1.3 * frame + 2 * index)
        outline = inside(along + sway_along, across + sway_across, size, 1.06)
        parts.append(Structure(outline, nerve.fascicle, nerve.wall - 6, phase=index + nerve.angle))
    return parts
