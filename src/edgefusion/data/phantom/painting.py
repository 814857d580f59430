"""From a neck in a pose to maps on the pixel grid: echo level, attenuation, bright interfaces, label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.phantom.anatomy import CONNECTIVE, Patient, Points, Pose, Structure, nerve_structures
from edgefusion.data.phantom.patient import GRAIN_SPAN

Image = NDArray[np.float32]

REVERBERATES = 0.5
"""Amplitude above which an interface throws echoes of itself below it."""


@dataclass(frozen=True)
class Scene:
    """What the probe looks at, on the pixel grid; every array is H×W."""

    level: Image
    """Diffuse echo, dB."""
    loss: Image
    """Attenuation beyond the expected, dB a frame height."""
    specular: Image
    """Amplitude of bright interfaces times their thickness in pixels."""
    mask: NDArray[np.uint8]
    """1 inside the nerve's sheath."""


def paint(patient: Patient, pose: Pose, frame: int, size: tuple[int, int], scale: float) -> Scene:
    """Paint a patient as seen in one pose.

    Args:
        patient: Who is seen.
        pose: How.
        frame: Number of the frame, by which the fascicles shift a little.
        size: Height and width, pixels.
        scale: Pixels a frame height.
    """
    nerve = nerve_structures(patient.nerve, pose, frame)
    structures = [s for s in patient.structures if s.strength(pose.plane) > 0.3] + (nerve or [patient.decoy])
    points = pose.to_frame(np.vstack([s.outline for s in structures])) * scale + ((size[1] - 1) / 2, 0)
    outlines = np.split(points, np.cumsum([len(s.outline) for s in structures])[:-1])

    # Regions are numbered in painting order; a line counts as part of the region painted last before it.
    ranks = np.cumsum([s.tissue is not None for s in structures])
    owner, mask = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for structure, outline, rank in zip(structures, outlines, ranks, strict=True):
        if structure.tissue is not None:
            _fill(owner, outline, int(rank))
    if nerve:
        _fill(mask, outlines[-len(nerve)], 1)

    tissues = [CONNECTIVE] + [s.tissue for s in structures if s.tissue]
    table = np.zeros((4, 256), np.float32)
    table[:, : len(tissues)] = np.array([(t.level, t.fibre, t.lump, t.loss) for t in tissues]).T
    level, fibre, lump, loss = (cv2.LUT(owner, column) for column in table)
    fibres, lumps = _textures(patient, pose, size, scale)
    level = cv2.GaussianBlur(level, (0, 0), 0.003 * scale) + fibre * fibres + lump * lumps
    walls = [
        (structure, outline, int(rank))
        for structure, outline, rank in zip(structures, outlines, ranks, strict=True)
        if structure.wall is not None
    ]
    specular = _interfaces(walls, owner, plane=pose.plane, echo_gap=patient.scanner.echo_gap, scale=scale)
    return Scene(level, loss, specular, mask)


def _fill(canvas: NDArray[np.uint8], outline: Points, value: int) -> None:
    """Fill a polygon, its corners rounded to sixteenths of a pixel."""
    cv2.fillPoly(canvas, [np.rint(outline * 16).astype(np.int32)], value, shift=4)


def _textures(patient: Patient, pose: Pose, size: tuple[int, int], scale: float) -> tuple[Image, Image]:
    """The patient's fibres and lumps, which move with the pose and follow the layers."""
    # The pose is smooth: work it out on every eighth pixel, with a rim that is cropped after interpolation.
    rows, columns = (np.arange(-8, length + 16, 8) + 3.5 for length in size)
    x, y = np.meshgrid((columns - (size[1] - 1) / 2) / scale, rows / scale)
    points = pose.to_patient(np.stack([x.ravel(), y.ravel()], axis=1))
    points[:, 1] -= np.clip(points[:, 1] / 0.3, 0, 1) * patient.layers.depth(points[:, 0])
    at = (points + np.array([GRAIN_SPAN[0] / 2, 0.2])).astype(np.float32).reshape(*x.shape, 2)
    at = cv2.resize(at, (8 * len(columns), 8 * len(rows)))[8 : 8 + size[0], 8 : 8 + size[1]]

    def seen(field: Image) -> Image:
        per_height = field.shape[0] / GRAIN_SPAN[1]
        return np.asarray(cv2.remap(field, at * per_height, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))

    return seen(patient.fibres), seen(patient.lumps)


def _interfaces(
    walls: Sequence[tuple[Structure, Points, int]],
    owner: NDArray[np.uint8],
    *,
    plane: float,
    echo_gap: float,
    scale: float,
) -> Image:
    """Walls and fasciae, bright where they face the probe; the brightest throw echoes ``echo_gap`` below themselves."""
    along = _points_along([outline for _, outline, _ in walls], 2.0)
    column, row = np.rint(along.points).astype(int).T
    seen = (row >= 0) & (row < owner.shape[0]) & (column >= 0) & (column < owner.shape[1])
    # What lies behind a region painted later is hidden.
    seen[seen] = owner[row[seen], column[seen]] <= np.array([rank for _, _, rank in walls])[along.curve[seen]]

    curve, points, way = along.curve[seen], along.points[seen], along.way[seen] / scale
    peak = np.array([10 ** ((wall.wall or 0) / 20) * wall.strength(plane) for wall, _, _ in walls])[curve]
    phase = np.array([wall.phase for wall, _, _ in walls])[curve]
    is_free = np.array([wall.tissue is None for wall, _, _ in walls])[curve]
    taper = np.where(is_free, np.sqrt(np.sin(np.pi * along.part[seen]).clip(0)), 1)
    amplitude = peak * taper * (0.06 + 0.94 * along.facing[seen] ** 4) * along.length[seen]
    strong = peak > REVERBERATES
    echo = np.array([0, echo_gap * scale])
    places, shares = [], []
    for strand in range(3):
        # A fascia is a bundle of wavy strands, each with gaps of its own.
        turn = phase * (1 + 0.7 * strand) + 2 * strand
        gaps = 7 * np.sin(way / 0.055 + turn) + 5 * np.sin(way / 0.019 + 2 * turn) + 3 * np.sin(way / 0.0083 + 3 * turn)
        share = amplitude * 10 ** (np.minimum(gaps - 3 - 4 * strand, 2) / 20)
        wave = 0.003 * np.sin(way / 0.025 + turn) + 0.0018 * np.sin(way / 0.0095 + 2 * turn) + 0.004 * strand
        at = points + np.stack([np.zeros_like(wave), wave * scale], axis=1)
        places += [at, at[strong] + echo, at[strong] + 2 * echo]
        shares += [share, 0.22 * share[strong], 0.07 * share[strong]]
    return _splat(np.vstack(places), np.concatenate(shares), owner.shape)


@dataclass(frozen=True)
class _Along:
    """Points along several curves, all N."""

    points: Points
    curve: NDArray[np.int64]
    way: NDArray[np.float64]
    """Distance from the curve's beginning, pixels."""
    part: NDArray[np.float64]
    """The same as a part of the curve's length, 0-1."""
    length: NDArray[np.float64]
    """Length of curve that the point stands for, pixels."""
    facing: NDArray[np.float64]
    """Cosine between the curve's normal and the beam, 0-1."""


def _points_along(curves: Sequence[Points], spacing: float) -> _Along:
    """Points along curves, at most ``spacing`` pixels apart."""
    steps = np.vstack([np.diff(curve, axis=0) for curve in curves])
    lengths = np.hypot(*steps.T)
    curve = np.repeat(np.arange(len(curves)), [len(c) - 1 for c in curves])
    whole = np.bincount(curve, lengths)
    before = np.cumsum(lengths) - lengths - (np.cumsum(whole) - whole)[curve]
    pieces = np.ceil(lengths / spacing).astype(int).clip(1)
    step = np.repeat(np.arange(len(steps)), pieces)
    inside = (np.arange(len(step)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + 0.5) / pieces[step]
    way = before[step] + inside * lengths[step]
    starts = np.vstack([c[:-1] for c in curves])
    return _Along(
        points=starts[step] + inside[:, None] * steps[step],
        curve=curve[step],
        way=way,
        part=way / whole[curve[step]],
        length=(lengths / pieces)[step],
        facing=(np.abs(steps[:, 0]) / np.maximum(lengths, 1e-6))[step],
    )


def _splat(points: Points, values: NDArray[np.float64], size: tuple[int, ...]) -> Image:
    """Add up values at points, each shared between two rows; the beam is too wide to share columns as well."""
    height, width = size
    column, top = np.rint(points[:, 0]).astype(int), np.floor(points[:, 1]).astype(int)
    inside = (column >= 0) & (column < width) & (top >= 0) & (top < height - 1)
    below = (points[:, 1] - top)[inside]
    at, values = (top * width + column)[inside], values[inside]
    total = np.bincount(at, values * (1 - below), height * width)
    total += np.bincount(at + width, values * below, height * width)
    return total.reshape(height, width).astype(np.float32)
