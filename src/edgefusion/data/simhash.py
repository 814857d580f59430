"""Fingerprints that find near-duplicates of frames which are not there any more.

The description of a frame (``duplicates.describe``) is itself a small picture of a patient, so it must not be passed
on. Kept are the signs of 256 projections of it, 32 bytes a frame. Two descriptions at an angle a differ in a share
a / pi of such signs (Charikar, "Similarity estimation techniques from rounding algorithms", 2002), so the number of
differing bits measures the similarity; grey levels, contrast, margins and size are gone. The projections are rows of a
Hadamard matrix with random signs: at right angles to each other, which makes the estimate sharper than independent ones
(Ji et al., "Super-bit locality-sensitive hashing", 2012), and made of whole numbers, so they are the same on every
machine. What can be rebuilt from the bits, and how many near-duplicates they find, is in docs/results/memory.md.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

BITS = 256
"""Bits of a fingerprint."""

NEAR = 64
"""Frames whose fingerprints differ in at most this many bits, a quarter, are near-duplicates.

Chosen on half of the persons of the Kaggle competition, where frames of different ones differ in 76 bits or more.
"""

_SIZE = 1024
_SEED = b"edgefusion simhash 1"
_COUNT = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)


def simhash(descriptions: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Fingerprints of frames.

    Args:
        descriptions: N×1024, a row a frame, from ``duplicates.describe``.

    Returns:
        N×32 bytes. Those of a picture without structure (all zero) mean nothing.
    """
    return np.packbits(descriptions @ _projections().T >= 0, axis=1)


def distances(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Number of bits, N×M, in which N×32 and M×32 fingerprints differ."""
    differing = np.zeros((len(first), len(second)), dtype=np.uint16)
    # Byte by byte: the whole N×M×32 of a large study would not fit into memory.
    for left, right in zip(first.T, second.T, strict=True):
        differing += _COUNT[left[:, None] ^ right[None]]
    return differing


@cache
def _projections() -> NDArray[np.float32]:
    """BITS×1024."""
    from scipy.linalg import hadamard

    digest = np.frombuffer(hashlib.shake_256(_SEED).digest(_SIZE // 8 + 8 * _SIZE), dtype=np.uint8)
    signs = np.unpackbits(digest[: _SIZE // 8]) * np.float32(2) - np.float32(1)
    order = np.argsort(digest[_SIZE // 8 :].copy().view("<u8"), kind="stable")
    return np.asarray(hadamard(_SIZE)[order[:BITS]] * signs, dtype=np.float32)
