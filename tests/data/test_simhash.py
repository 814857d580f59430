from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgefusion.data.duplicates import CONTRADICTION_SIMILARITY, GROUP_SIMILARITY, describe, similar_pairs
from edgefusion.data.phantom import simulate_frame
from edgefusion.data.readers import read_frame
from edgefusion.data.simhash import BITS, NEAR, distances, simhash
from edgefusion.files import sha256_of_bytes


def test_the_number_of_differing_bits_measures_the_angle() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 1024)).astype(np.float32)
    for angle in (0.0, 0.2, 0.5, 0.785, 1.2, np.pi / 2, np.pi):
        other = rng.normal(size=base.shape).astype(np.float32)
        other -= base * (other * base).sum(1, keepdims=True) / (base * base).sum(1, keepdims=True)
        other *= np.linalg.norm(base, axis=1, keepdims=True) / np.linalg.norm(other, axis=1, keepdims=True)
        turned = (np.cos(angle) * base + np.sin(angle) * other).astype(np.float32)
        between = np.diag(distances(simhash(base), simhash(turned)))
        assert abs(between.mean() / BITS - angle / np.pi) < 0.02, angle


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_distances_count_bits(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 256, (count, BITS // 8), dtype=np.uint8) for count in (rows, columns))
    expected = (np.unpackbits(first, axis=1)[:, None] != np.unpackbits(second, axis=1)[None]).sum(2)
    assert np.array_equal(distances(first, second), expected)


def test_the_projections_are_the_same_everywhere_and_for_ever() -> None:
    # A bundle's fingerprints mean something only as long as these bits stay as they are.
    ramp = np.linspace(-1, 1, 1024, dtype=np.float32)[None] ** 3 + np.float32(0.2)
    assert sha256_of_bytes(simhash(ramp).tobytes())[:16] == "28b6562d91b4c7bb"


def test_the_same_view_is_near_and_another_patient_is_not() -> None:
    frames = [simulate_frame(seed=0, patient=patient, frame=0, size=(105, 145)).image for patient in (0, 1)]
    changed = cv2.resize(np.pad((frames[0] * 0.8).astype(np.uint8), ((9, 0), (4, 30))), (300, 200))
    first, other, again = (simhash(describe(frame)[None]) for frame in (*frames, changed))
    assert distances(first, again)[0, 0] <= NEAR // 2
    assert distances(first, other)[0, 0] > NEAR


def test_it_finds_the_near_duplicates_of_real_frames(data_root: Path) -> None:
    """On patients who did not choose the threshold; 17 and 18 are one person, scanned twice."""
    files = [file for name in (17, 18, 19) for file in sorted((data_root / "kaggle-nerve" / "train").glob(f"{name}_*"))]
    files = [file for file in files if "_mask" not in file.name]
    persons = np.array([file.name.startswith("19_") for file in files])
    descriptions = np.stack([describe(read_frame(file)) for file in files])
    bits = distances(simhash(descriptions), simhash(descriptions))
    for similarity, recall in ((GROUP_SIMILARITY, 0.97), (CONTRADICTION_SIMILARITY, 1.0)):
        pairs = similar_pairs(descriptions, similarity)
        assert len(pairs.first) > 50
        assert (bits[pairs.first, pairs.second] <= NEAR).mean() >= recall
    assert bits[persons][:, ~persons].min() > NEAR
