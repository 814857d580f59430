"""The structures of a neck around the plexus, from the skin to the spine, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgefusion.data.phantom.anatomy import (
    BONE,
    CONNECTIVE,
    FASCICLE,
    FAT,
    LUMEN,
    MUSCLE,
    NODE,
    SKIN,
    Layers,
    Nerve,
    Structure,
)
from edgefusion.data.phantom.outlines import SPAN, between, closed, layer, line, lowered, oval, region, streak, varied


@dataclass(frozen=True)
class Build:
    """What the parts of one neck have to agree on."""

    fat: float
    """Depth of the lower border of the subcutaneous fat."""
    sternomastoid: float
    """Thickness of the sternocleidomastoid."""
    surface: float
    """Depth of the fascia that covers the scalenes."""
    layers: Layers
    nerve: Nerve


def draw_neck(build: Build, rng: np.random.Generator) -> list[Structure]:
    """Everything but the plexus, in painting order: what comes later lies in front."""
    return [
        *_pads(8, build.surface, build, rng),
        *_superficial(build, rng),
        *_scalenes(build, rng),
        *_pads(int(rng.integers(0, 4)), build.surface + 0.3, build, rng),
        *_streaks(build, rng),
        *_bones(build, rng),
        *_vessels(build, rng),
        *_lookalikes(build, rng),
    ]


def _pads(count: int, top: float, build: Build, rng: np.random.Generator) -> list[Structure]:
    """Patches of fat, loose tissue and small muscle bundles, which make every neck uneven."""
    layers = build.layers
    parts = []
    for _ in range(count):
        x = rng.uniform(-0.9, 0.9)
        centre = (x, rng.uniform(top, 1.05) + float(layers.depth(x)))
        half = (rng.uniform(0.06, 0.22), rng.uniform(0.02, 0.07))
        lie = float(layers.depth(x + 0.05) - layers.depth(x - 0.05)) / 0.1
        outline = oval(centre, half, np.arctan(lie) + rng.normal(0, 0.15), rng, 0.3)
        tissue = (FAT, CONNECTIVE, MUSCLE)[rng.choice(3, p=(0.3, 0.35, 0.35))]
        plane, reach = rng.uniform(0, 1), rng.uniform(0.5, 1.2)
        tissue = replace(varied(tissue, rng), loss=0)
        parts.append(region(outline, tissue, rng.uniform(-38, -16), rng, plane=plane, reach=reach))
    return parts


def _superficial(build: Build, rng: np.random.Generator) -> list[Structure]:
    """Skin, subcutaneous fat, sternocleidomastoid and the fascia below it."""
    skin = rng.uniform(0.018, 0.032)
    skin_line, fat_line = layer(skin, 0.0008, rng), layer(build.fat, 0.006, rng)
    deep_line = layer(build.surface, 0.011, rng)
    deep_line[:, 1] += rng.uniform(0.3, 1) * build.layers.depth(deep_line[:, 0])
    deep_line[:, 1] = np.maximum(deep_line[:, 1], fat_line[:, 1] + 0.02)
    probe = np.array([[-SPAN, -0.05], [SPAN, -0.05]])
    parts = [
        region(between(skin_line, deep_line), varied(FAT, rng), None, rng),
        region(between(probe, skin_line), varied(SKIN, rng), None, rng),
        *(line(layer(depth, 0.0004, rng), -21, rng) for depth in (0.004, 0.6 * skin, skin)),
    ]
    # The sternocleidomastoid comes from the medial side and tapers off above the groove.
    x = fat_line[:, 0]
    taper = np.clip((build.layers.apex + rng.uniform(-0.25, 0.35) - x) / 0.5, 0, 1) ** 0.6
    room = np.maximum(deep_line[:, 1] - fat_line[:, 1] - 0.012, 0.02)
    wavy = 1 + 0.12 * np.sin(4 * x + rng.uniform(0, 2 * np.pi))
    under = np.stack([x, fat_line[:, 1] + np.minimum(build.sternomastoid * taper * wavy, room)], axis=1)
    belly = taper > 0
    parts += [
        region(between(fat_line[belly], under[belly]), varied(MUSCLE, rng), None, rng),
        line(under[belly], rng.uniform(-12, -4), rng),
        line(fat_line, rng.uniform(-14, -6), rng),
    ]
    # A fascia is a sheet of several laminae: one strong line and fainter companions.
    strong = rng.uniform(-19, -3)
    parts += [
        line(lowered(deep_line, offset), strong + weaker, rng) for offset, weaker in ((0, 0), (0.007, -5), (-0.008, -9))
    ]
    if rng.random() < 0.5:  # omohyoid: a flat dark belly between the fascia and the scalenes
        centre = (build.layers.apex + rng.uniform(-0.45, 0.1), build.surface + rng.uniform(-0.015, 0.02))
        flat = oval(centre, (rng.uniform(0.08, 0.16), rng.uniform(0.018, 0.035)), rng.normal(0, 0.12), rng)
        parts.append(region(flat, varied(MUSCLE, rng), -14, rng, plane=rng.uniform(0, 1), reach=0.7))
    return parts


def _scalenes(build: Build, rng: np.random.Generator) -> list[Structure]:
    """Anterior and middle scalene, which touch along the groove, the muscles below them, and their perimysium."""
    nerve, layers = build.nerve, build.layers
    apex = np.array(nerve.centre)
    groove = np.array([np.cos(nerve.angle), np.sin(nerve.angle)])
    head, foot = apex - 0.15 * groove, apex + rng.uniform(0.14, 0.26) * groove
    head[1] = max(head[1], build.surface + 0.015)
    seam = [head, apex + rng.normal(0, 0.01, 2), foot]
    top = build.surface - apex[1]
    anterior = [(-0.12, 0.24), (-0.38, 0.19), (-0.58, 0.1), (-0.5, -0.01), (-0.24, top + 0.03)]
    middle = [(0.22, top + 0.045), (0.5, top + 0.12), (0.72, 0.1), (0.62, 0.26), (0.3, 0.3)]
    person = varied(MUSCLE, rng)
    parts = []
    for corners, near in ((anterior, seam), (middle, seam[::-1])):
        free = np.array(corners) * (rng.uniform(0.8, 1.2), 1) + rng.normal(0, 0.035, (5, 2))
        free[:, 1] += 0.6 * layers.depth(apex[0] + free[:, 0])
        outline = closed(np.vstack([*near, free + apex]), rng)
        parts.append(region(outline, varied(person, rng, 1.3), rng.uniform(-32, -14), rng))
    for aside, deeper in ((-0.28, 0.38), (0.45, 0.47)):
        if rng.random() < 0.8:
            middle_of = (apex[0] + aside + rng.normal(0, 0.06), apex[1] + deeper + rng.normal(0, 0.04))
            half = (rng.uniform(0.12, 0.24), rng.uniform(0.05, 0.1))
            belly = oval(middle_of, half, rng.normal(0, 0.2), rng, 0.18)
            parts.append(region(belly, varied(MUSCLE, rng), rng.uniform(-30, -16), rng))
    # Perimysium: bright lines inside the bellies, along the fibres, some as long as the muscle.
    for _ in range(int(rng.integers(8, 30))):
        x = apex[0] + rng.uniform(-0.5, 0.65)
        y = build.surface + 0.04 + float(layers.depth(x)) + rng.uniform(0, 0.26)
        length = rng.uniform(0.02, 0.07) * rng.choice((1, 1, 1, 3))
        parts.append(streak((x, y), length, layers, min(-25 + rng.exponential(6), -8), rng))
    return parts


def _streaks(build: Build, rng: np.random.Generator) -> list[Structure]:
    """Septa of the fat and loose connective tissue around the muscles; they come and go as the probe slides."""
    layers, surface = build.layers, build.surface
    brightest = rng.uniform(-12, -2)
    parts = []
    for _ in range(int(rng.integers(10, 30))):  # in the fat
        centre = (rng.uniform(-0.75, 0.75), rng.uniform(0.035, build.fat))
        parts.append(streak(centre, rng.uniform(0.05, 0.2), layers, rng.uniform(-28, brightest - 4), rng))
    for _ in range(int(rng.integers(3, 9))):  # in bundles over and between the muscles
        x = rng.uniform(-0.75, 0.75)
        y = surface + 0.7 * float(layers.depth(x)) + rng.exponential(0.04)
        for _ in range(int(rng.integers(2, 8))):
            at = (x + rng.normal(0, 0.07), y + rng.normal(0, 0.018))
            parts.append(streak(at, rng.uniform(0.02, 0.11), layers, rng.uniform(-20, brightest + 4), rng))
    for _ in range(int(rng.integers(6, 16))):  # in the depth
        x = rng.uniform(-0.8, 0.8)
        y = rng.uniform(build.nerve.centre[1] + 0.12, 1.05) + float(layers.depth(x))
        for _ in range(int(rng.integers(1, 7))):
            at = (x + rng.normal(0, 0.08), y + rng.normal(0, 0.03))
            parts.append(streak(at, rng.uniform(0.015, 0.1), layers, min(-26 + rng.exponential(7), -5), rng))
    return parts


def _bones(build: Build, rng: np.random.Generator) -> list[Structure]:
    """Transverse processes with their shadows, now and then the first rib."""
    gx, gy = build.nerve.centre
    parts = []
    for _ in range(int(rng.choice((0, 0, 0, 1, 1, 2)))):
        width, height = rng.uniform(0.06, 0.12), rng.uniform(0.03, 0.07)
        x, y = gx + rng.uniform(-0.5, 0.25), gy + rng.uniform(0.27, 0.42)
        across = np.linspace(-1, 1, 41)
        hump = (1 - across**2) * (1 + 0.25 * np.sin(5 * across + rng.uniform(0, 2 * np.pi)))
        cap = np.stack([x + width * across, y - height * hump], axis=1)
        base = np.stack([cap[:, 0], np.full(41, y + 0.06)], axis=1)
        plane = rng.uniform(0, 1)
        parts += [
            region(between(lowered(cap, 0.006), base), BONE, None, rng, plane=plane, reach=0.8),
            line(cap, rng.uniform(-3, 4), rng, plane=plane, reach=0.8),
            line(lowered(cap, 0.006), -7, rng, plane=plane, reach=0.8),
        ]
    if rng.random() < 0.35:
        rib = layer(gy + rng.uniform(0.4, 0.5), 0.015, rng)
        start = int(rng.integers(20, 110))
        piece = rib[start : start + int(rng.integers(25, 60))]
        parts.append(line(piece, rng.uniform(-6, 2), rng, plane=rng.uniform(0, 1), reach=0.7))
    return parts


def _vessels(build: Build, rng: np.random.Generator) -> list[Structure]:
    """Carotid artery and jugular vein medially, small arteries and veins near the plexus."""
    gx, gy = build.nerve.centre
    parts = []
    x, y = gx - rng.uniform(0.45, 0.85), gy + rng.uniform(0.05, 0.3)
    radius = rng.uniform(0.05, 0.11)
    if rng.random() < 0.4:  # the vein lies anywhere over the artery, and the probe has flattened it
        towards = rng.uniform(-2.4, -0.6)
        middle = (x + 1.9 * radius * np.cos(towards), max(y + 1.9 * radius * np.sin(towards), build.surface))
        wide = (radius * rng.uniform(1, 1.9), radius * rng.uniform(0.35, 0.9))
        vein = oval(middle, wide, rng.normal(0, 0.3), rng, 0.15)
        parts.append(region(vein, LUMEN, rng.uniform(-30, -16), rng))
    if rng.random() < 0.5:
        artery = oval((x, y), (radius, radius * rng.uniform(0.75, 1)), rng.normal(0, 0.3), rng, 0.06)
        parts.append(region(artery, LUMEN, rng.uniform(-20, -9), rng))
    for _ in range(int(rng.integers(1, 5))):
        size = rng.uniform(0.011, 0.028)
        centre = (gx + rng.uniform(-0.3, 0.5), rng.uniform(build.surface, gy + 0.3))
        small = oval(centre, (size * rng.uniform(1, 1.6), size), rng.normal(0, 0.5), rng)
        parts.append(region(small, LUMEN, rng.uniform(-22, -8), rng, plane=rng.uniform(0, 1), reach=0.5))
    return parts


def _lookalikes(build: Build, rng: np.random.Generator) -> list[Structure]:
    """Things that are taken for a plexus: a lymph node with its hilum, rows of dark dots in bright tissue."""
    gx, gy = build.nerve.centre
    parts = []
    if rng.random() < 0.45:
        centre = (gx + rng.uniform(0.2, 0.5), rng.uniform(build.fat + 0.03, build.surface + 0.08))
        half = (rng.uniform(0.045, 0.075), rng.uniform(0.025, 0.04))
        angle, plane = rng.normal(0, 0.2), rng.uniform(0, 1)
        hilum = oval(centre, (half[0] * 0.55, half[1] * 0.3), angle, rng)
        parts.append(region(oval(centre, half, angle, rng), NODE, -14, rng, plane=plane, reach=0.6))
        parts.append(region(hilum, replace(FAT, loss=0), None, rng, plane=plane, reach=0.6))
    for _ in range(int(rng.integers(0, 3))):
        start = np.array([gx + rng.choice((-1, 1)) * rng.uniform(0.22, 0.5), gy + rng.uniform(-0.02, 0.3)])
        step = np.array([rng.normal(0, 0.03), rng.uniform(0.035, 0.06)])
        plane, wall, size = rng.uniform(0, 1), rng.uniform(-18, -9), rng.uniform(0.05, 0.08)
        x, y = start + step
        cushion = oval((x, y), (1.3 * size, size), np.arctan2(step[1], step[0]), rng)
        parts.append(region(cushion, varied(CONNECTIVE, rng), wall - 4, rng, plane=plane, reach=0.6))
        for index in range(int(rng.integers(1, 4))):
            x, y = start + index * step + rng.normal(0, 0.006, 2)
            radius = rng.uniform(0.018, 0.032)
            dot = oval((x, y), (radius, radius), 0, rng)
            parts.append(region(dot, varied(FASCICLE, rng), wall, rng, plane=plane, reach=0.6))
    return parts
