"""A region lies in its frame, or says that it does not."""

from __future__ import annotations

import numpy as np
import pytest

from edgefusion.data.clip import Region
from edgefusion.errors import UsageError


def test_a_crop_is_a_view_of_the_rectangle() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(6, 10)
    part = Region(top=1, left=2, height=3, width=4).crop(image)
    np.testing.assert_array_equal(part, image[1:4, 2:6])
    assert np.shares_memory(part, image)


@pytest.mark.parametrize("region", [Region(-1, 0, 3, 3), Region(0, 8, 3, 3), Region(4, 0, 3, 3), Region(0, 0, 0, 3)])
def test_a_region_outside_the_frame_is_refused(region: Region) -> None:
    with pytest.raises(UsageError, match="6×10"):
        region.crop(np.zeros((6, 10), np.uint8))
