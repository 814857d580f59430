"""Outlines of structures: smooth closed curves, ovals, layers and streaks, drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgefusion.data.phantom.anatomy import Layers, Point, Points, Structure, Tissue, place

SPAN = 1.3
"""Layers reach this far to either side, well beyond any frame after any movement."""


def layer(depth: float, waviness: float, rng: np.random.Generator) -> Points:
    """A wavy line across the whole frame, 181×2."""
    x = np.linspace(-SPAN, SPAN, 181)
    wave = sum(waviness / order * np.sin(order * 2.1 * x + rng.uniform(0, 2 * np.pi)) for order in (1, 2, 3, 5))
    return np.stack([x, depth + wave], axis=1)


def between(upper: Points, lower: Points) -> Points:
    """Closed outline of what lies between two lines that run the same way."""
    return np.vstack([upper, lower[::-1], upper[:1]])


def lowered(points: Points, depth: float) -> Points:
    """The same curve, ``depth`` further down."""
    return np.asarray(points + np.array([0, depth]))


def closed(corners: Points, rng: np.random.Generator, roughness: float = 0.005) -> Points:
    """Smooth curve along a polygon, gently roughened, 129×2: a quadratic B-spline by Chaikin's corner cutting."""
    points = corners
    for _ in range(4):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    points = np.vstack([points, points[:1]])
    arc = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    even = np.linspace(0, arc[-1], 129)
    points = np.stack([np.interp(even, arc, points[:, axis]) for axis in (0, 1)], axis=1)
    turns, order = np.linspace(0, 2 * np.pi, 129)[:, None], np.arange(3, 15)
    waves = np.cos(turns * order + rng.uniform(0, 2 * np.pi, 12)) / np.sqrt(order) * rng.normal(0, 1, 12)
    normal = np.gradient(points, axis=0)[:, ::-1] * (1, -1)
    normal /= np.maximum(np.hypot(*normal.T)[:, None], 1e-9)
    return np.asarray(points + roughness * normal * waves.sum(axis=1, keepdims=True))


def oval(centre: Point, half: Point, angle: float, rng: np.random.Generator, uneven: float = 0.08) -> Points:
    """Uneven closed oval, 65×2."""
    turns = np.linspace(0, 2 * np.pi, 65)
    radius = 1 + sum(
        uneven / order * rng.normal() * np.cos(order * turns + rng.uniform(0, 2 * np.pi)) for order in range(2, 6)
    )
    return place(np.stack([radius * np.cos(turns), radius * np.sin(turns)], axis=1), centre, half, angle)


def region(
    outline: Points,
    tissue: Tissue,
    wall: float | None,
    rng: np.random.Generator,
    *,
    plane: float = 0.5,
    reach: float = 9.0,
) -> Structure:
    """A closed structure whose wall has its gaps somewhere."""
    return Structure(outline, tissue, wall, plane, reach, phase=rng.uniform(0, 2 * np.pi))


def line(points: Points, wall: float, rng: np.random.Generator, *, plane: float = 0.5, reach: float = 9.0) -> Structure:
    """A bright line that has its gaps somewhere."""
    return Structure(points, None, wall, plane, reach, phase=rng.uniform(0, 2 * np.pi))


def streak(centre: Point, length: float, layers: Layers, wall: float, rng: np.random.Generator) -> Structure:
    """A short bright line that follows the layers, more or less; the shortest are faint."""
    t = np.linspace(-1, 1, 25)
    x = centre[0] + length * t
    y = centre[1] + layers.depth(x) - layers.depth(centre[0])
    y += length * (rng.normal(0, 0.16) * t + rng.normal(0, 0.1) * t**2 + rng.normal(0, 0.05) * np.sin(4 * t))
    wall -= 5 * max(0.0, 1 - length / 0.05)
    return line(np.stack([x, y], axis=1), wall, rng, plane=rng.uniform(0, 1), reach=rng.uniform(0.4, 1))


def varied(tissue: Tissue, rng: np.random.Generator, spread: float = 2.0) -> Tissue:
    """The same tissue elsewhere: its echo a little stronger or weaker."""
    return replace(tissue, level=tissue.level + rng.normal(0, spread))
