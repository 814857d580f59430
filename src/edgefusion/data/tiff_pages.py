"""Counting the pages of a TIFF file without decoding any.

Source: TIFF 6.0, section 2 (image file directories), and the design of BigTIFF, https://libtiff.gitlab.io/libtiff/.
"""

from __future__ import annotations

from typing import BinaryIO

MAX_PAGES = 10_000
"""More pages are refused: 1 MB can list 50,000, and Pillow compares each with all before it."""

_BIG = 43


def count_directories(file: BinaryIO) -> int:
    """Pages of a TIFF or BigTIFF file; 1 for what is none, of which the decoder will say what is wrong.

    Args:
        file: Open at its start.

    Raises:
        OverflowError: If there are more than ``MAX_PAGES``.
        ValueError: If the list of pages is cut off or runs in a circle.
    """
    head = file.read(4)
    order = {b"II": "little", b"MM": "big"}.get(head[:2])
    if order is None:
        return 1

    def number(size: int) -> int:
        content = file.read(size)
        if len(content) < size:
            raise ValueError("its list of pages is cut off")
        return int.from_bytes(content, order)  # type: ignore[arg-type]

    big = int.from_bytes(head[2:], order) == _BIG  # type: ignore[arg-type]
    if big:
        file.seek(8)
    seen: set[int] = set()
    while at := number(8 if big else 4):
        if at in seen:
            raise ValueError("its list of pages runs in a circle")
        if len(seen) == MAX_PAGES:
            raise OverflowError(f"it has more than {MAX_PAGES} pages")
        seen.add(at)
        file.seek(at)
        # Behind the entries stands where the next page is.
        file.seek(number(8 if big else 2) * (20 if big else 12), 1)
    return max(1, len(seen))
