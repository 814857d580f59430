"""The region is found on screens of every kind, and nothing is made up where nothing can be told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefusion.data.clip import Region
from edgefusion.data.phantom import simulate_frame
from edgefusion.data.phantom.screen import draw_screen
from edgefusion.data.region import find_region


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    return [simulate_frame(5, 0, number, (120, 166)).image for number in range(2)]


def overlap(one: Region, other: Region) -> float:
    masks = np.zeros((2, 1000, 1000), bool)
    for mask, region in zip(masks, (one, other), strict=True):
        region.crop(mask)[...] = True
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


@pytest.mark.parametrize("seed", range(500, 516))
def test_the_image_is_found_on_a_screen(images: list[NDArray[np.uint8]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    screen = draw_screen((120, 166), rng)
    size = screen.region.height, screen.region.width
    frames = screen.frames([image[: size[0], : size[1]] for image in images], 40, rng)
    found = find_region(frames)
    assert found is not None
    assert overlap(found, screen.region) > 0.9


def grainy(count: int, size: tuple[int, int] = (120, 160), low: int = 0, high: int = 60) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [rng.integers(low, high, size, dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_without_a_border_it_is_the_whole_frame(dtype: type) -> None:
    frames = [frame.astype(dtype) * (257 if dtype == np.uint16 else 1) for frame in grainy(10)]
    assert find_region(frames) == Region(0, 0, 120, 160)


def test_a_grabber_that_adds_noise_everywhere_does_no_harm() -> None:
    frames = grainy(20, low=10, high=13)
    for frame, tissue in zip(frames, grainy(20, (70, 90)), strict=True):
        frame[30:100, 40:130] = tissue
    found = find_region(frames)
    assert found is not None
    assert overlap(found, Region(30, 40, 70, 90)) > 0.9


def test_one_frame_tells_nothing() -> None:
    assert find_region(grainy(1)) is None
    assert find_region(grainy(1) * 30) is None
    assert find_region([]) is None


def test_a_frozen_screen_with_a_clock_tells_nothing() -> None:
    frames = []
    for second in range(20):
        frame = grainy(1)[0]
        cv2.putText(frame, f"12:00:{second:02d}", (50, 110), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
        frames.append(frame)
    assert find_region(frames) is None


def test_repeated_frames_do_not_hide_the_motion() -> None:
    frames = [frame for frame in grainy(6) for _ in range(10)]
    assert find_region(frames) == Region(0, 0, 120, 160)


def test_only_the_beginning_is_read() -> None:
    read = 0

    def endless() -> object:
        nonlocal read
        for frame in grainy(2) * 1000:
            read += 1
            yield frame

    find_region(endless())  # type: ignore[arg-type]
    assert read <= 65
