"""How well the fingerprints of ``data.simhash`` find near-duplicates, and what can be rebuilt from them.

python benchmarks/memory.py runs/kaggle runs/usgra runs/phantoms

The first study's patients are halved: one half chose ``NEAR``, the other reports. The other studies chose nothing. Two
patients who share near-duplicates (similarity of the descriptions 0.75 or more) count as one person.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.duplicates import CONTRADICTION_SIMILARITY, GROUP_SIMILARITY, describe
from edgefusion.data.simhash import BITS, NEAR, _projections, distances, simhash
from edgefusion.data.splits import patient_blocks
from edgefusion.data.study import Study


@dataclass
class Frames:
    """Descriptions N×1024 and persons N of some frames."""

    descriptions: NDArray[np.float32]
    persons: NDArray[np.int64]

    def part(self, chosen: NDArray[np.bool_]) -> Frames:
        """Some of the frames."""
        return Frames(self.descriptions[chosen], self.persons[chosen])


def load(path: str) -> Frames:
    """All frames of a study."""
    study = Study.load(path)
    descriptions = np.stack([describe(study.image(frame)) for frame in study.frames["frame_id"]])
    return Frames(descriptions, patient_blocks(study.frames).to_numpy())


def halves(frames: Frames) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The half of the persons that chose ``NEAR``, and the rest."""
    persons = np.unique(frames.persons)
    chosen = np.isin(frames.persons, np.random.default_rng(0).permutation(persons)[: len(persons) // 2])
    return chosen, ~chosen


def report(name: str, frames: Frames) -> str:
    """A row of the table."""
    similarity = frames.descriptions @ frames.descriptions.T
    bits = distances(simhash(frames.descriptions), simhash(frames.descriptions))
    once = np.triu(np.ones(bits.shape, dtype=bool), 1)
    strangers = once & (frames.persons[:, None] != frames.persons[None])
    cells = [f"{name} | {len(frames.persons)} of {len(np.unique(frames.persons))}"]
    for least in (GROUP_SIMILARITY, CONTRADICTION_SIMILARITY):
        pairs = once & (similarity >= least)
        both = pairs | pairs.T
        found = (both & (bits <= NEAR)).any(1).sum() / max(1, both.any(1).sum())
        cells.append(f"{(bits[pairs] <= NEAR).mean():.3f} of {pairs.sum()} ({found:.3f})")
    cells.append(f"{(bits[strangers] <= NEAR).sum()} of {strangers.sum():,} | {bits[strangers].min()}")
    return f"| {' | '.join(cells)} |"


def rebuilt(known: Frames, others: Frames) -> NDArray[np.float64]:
    """Correlation of the descriptions with what the best linear map makes of the bits, learned from other persons."""
    signs = [np.where(part.descriptions @ _projections().T >= 0, 1.0, -1.0) for part in (known, others)]
    weights = np.linalg.solve(signs[0].T @ signs[0] + 300 * np.eye(BITS), signs[0].T @ known.descriptions)
    pictures = signs[1] @ weights
    return np.asarray((pictures * others.descriptions).sum(1) / np.linalg.norm(pictures, axis=1))


def main() -> None:
    """Print the table, and what an attacker gets."""
    print("| study | frames of persons | found, similar by .75 | by .95 | strangers taken for near | least bits |")
    print("|---|---|---|---|---|---|")
    first, *others = sys.argv[1:]
    frames = load(first)
    chose, reports = (frames.part(half) for half in halves(frames))
    print(report(f"{first}, chose", chose))
    print(report(f"{first}, rest", reports))
    for path in others:
        print(report(path, load(path)))
    low, middle, high = np.quantile(rebuilt(chose, reports), (0.05, 0.5, 0.95))
    mean = chose.descriptions.mean(0)
    alone = np.median(reports.descriptions @ (mean / np.linalg.norm(mean)))
    nearest = np.median((reports.descriptions @ chose.descriptions.T).max(1))
    print(f"Rebuilt from the bits: correlation {middle:.2f} ({low:.2f} to {high:.2f})")
    print(f"Without the bits: mean picture {alone:.2f}, most similar frame of another person {nearest:.2f}")


if __name__ == "__main__":
    main()
