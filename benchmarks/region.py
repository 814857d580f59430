"""How well the image region is found on simulated scanner screens: intersection over union with the truth.

python benchmarks/region.py --screens 300 --first 1000

Seeds below 1000 were looked at while the method was made; the figures are for those from 1000 on. Half of the screens
go through H.264, as a recorder's do.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgefusion.data.clip import Region
from edgefusion.data.phantom import simulate_frame
from edgefusion.data.phantom.screen import draw_screen
from edgefusion.data.region import find_region
from edgefusion.data.video import open_video
from edgefusion.data.video_writer import VideoWriter

PATIENTS, SIZES = 24, ((210, 290), (260, 300), (300, 260))


def overlap(one: Region, other: Region) -> float:
    height = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    width = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    both = max(0, height) * max(0, width)
    return both / (one.height * one.width + other.height * other.width - both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screens", type=int, default=300)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--worst", type=int, default=5)
    given = parser.parse_args()
    pool = [
        [simulate_frame(given.first, patient, frame, SIZES[patient % len(SIZES)]).image for frame in range(2)]
        for patient in range(PATIENTS)
    ]
    rows = []
    for seed in range(given.first, given.first + given.screens):
        rng = np.random.default_rng(seed)
        images = pool[seed % PATIENTS]
        screen = draw_screen((images[0].shape[0], images[0].shape[1]), rng)
        height, width = screen.region.height, screen.region.width
        frames = screen.frames([image[:height, :width] for image in images], given.frames, rng)
        if seed % 2:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "x.mp4"
                with VideoWriter(path, 25) as writer:
                    for frame in frames:
                        writer.write(frame)
                found = find_region(open_video(path).read())
        else:
            found = find_region(frames)
        whole = Region(0, 0, *frames[0].shape)
        rows.append((overlap(found or whole, screen.region), seed, found, screen))
    values = np.array([row[0] for row in rows])
    bare = np.array([row[3].region.height == row[3].still.shape[0] for row in rows])
    fan = np.array([not row[3].shape.all() for row in rows])
    print(
        "| screens | number | mean IoU | median | 5th percentile | least | IoU >= .9 |\n|---|---|---|---|---|---|---|"
    )
    for name, which in (("all", values >= 0), ("no border", bare), ("rectangle", ~bare & ~fan), ("fan", fan)):
        part = values[which]
        low = np.percentile(part, 5)
        share = (part >= 0.9).mean()
        print(
            f"| {name} | {len(part)} | {part.mean():.3f} | {np.median(part):.3f} | {low:.3f} | {part.min():.3f} "
            f"| {100 * share:.1f} % |"
        )
    for value, seed, found, screen in sorted(rows, key=lambda row: row[0])[: given.worst]:
        print(f"{seed}: {value:.3f}, found {found}, true {screen.region}, noise {screen.noise:.1f}, pan {screen.pan}")


if __name__ == "__main__":
    main()
