"""A stream gives what ``predict`` gives, in order, holds few frames, and leaves no thread behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgefusion.bundle import Bundle
from edgefusion.data.clip import Region
from edgefusion.errors import BundleError, UsageError
from edgefusion.inference import stream as module
from edgefusion.inference.predictor import Maps, Predictor
from edgefusion.inference.smoothing import Smoothing
from edgefusion.inference.stream import AHEAD, Stream
from edgefusion.models.blocks import SegmentationOutput

MakeBundle = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert ours() == []


def ours() -> list[str]:
    """Threads of streams, by what they do."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.removeprefix("edgefusion-") in ("read", "prepare", "infer", "finish")]


def frame(number: int) -> NDArray[np.uint8]:
    """50×70 with a bright rectangle that is larger in every frame."""
    image = np.full((50, 70), 30, np.uint8)
    image[10:40, 10 : 20 + number % 40] = 200
    return image


def numbers(count: int) -> Iterator[NDArray[np.uint8]]:
    for number in range(count):
        yield frame(number)


class Slow(nn.Module):
    """Takes its time, and fails where it is told to."""

    def __init__(self, seconds: float = 0.01, fails_at: int | None = None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))
        self.seconds, self.fails_at, self.calls = seconds, fails_at, 0

    def forward(self, x: Tensor) -> SegmentationOutput:
        time.sleep(self.seconds)
        if self.calls == self.fails_at:
            x = x * float("nan")
        self.calls += 1
        return SegmentationOutput(x[:, :1] * self.gain, None, None)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_all_gives_what_predict_gives_in_order(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, count: int, batch: int
) -> None:
    monkeypatch.setattr(module, "BATCH", batch)
    predictor = Predictor(make_bundle())
    stream = predictor.stream(numbers(count), spacing=(0.1, 0.2))
    seen = 0
    for seen, prediction in enumerate(stream, start=1):
        expected = predictor.predict(frame(seen - 1), spacing=(0.1, 0.2))
        np.testing.assert_array_equal(prediction.mask, expected.mask)
        np.testing.assert_allclose(prediction.probability, expected.probability, atol=1e-6)
        assert prediction.area_mm2 == expected.area_mm2
        step = stream.last
        assert step is not None
        assert step.index == seen - 1
        np.testing.assert_array_equal(step.image, frame(seen - 1))
        assert 0 < step.prepare_s + step.infer_s / batch + step.finish_s < 1.001 * step.latency_s
    assert seen == count
    assert stream.dropped == 0
    assert list(stream) == []


def test_a_region_is_kept_to(make_bundle: MakeBundle) -> None:
    region = Region(0, 0, 30, 70)
    predictor = Predictor(make_bundle())
    (prediction,) = predictor.stream([frame(5)], region=region)
    np.testing.assert_array_equal(prediction.mask, predictor.predict(frame(5), region=region).mask)
    assert not prediction.mask[30:].any()


@pytest.mark.parametrize("batch", [1, 4])
def test_only_few_frames_are_read_ahead_however_long_the_clip(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(module, "BATCH", batch)
    read = 0

    def source() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for read in range(1, 1_000_001):  # noqa: B007
            yield frame(0)

    furthest = 0
    with Predictor(make_bundle()).stream(source()) as stream:
        for taken, _ in enumerate(stream, start=1):
            if taken % 20 == 0:
                # Whoever takes the predictions is slow: the threads have all the time to read on.
                time.sleep(0.05)
            furthest = max(furthest, read - taken)
            if taken == 100:
                break
    assert furthest <= AHEAD["all"]
    assert read <= 100 + AHEAD["all"] + 1


def test_stages_overlap(make_bundle: MakeBundle) -> None:
    def slow_source() -> Iterator[NDArray[np.uint8]]:
        for number in range(20):
            time.sleep(0.03)
            yield frame(number)

    started = time.perf_counter()
    for _ in Predictor(make_bundle(model=Slow(0.03))).stream(slow_source()):
        time.sleep(0.03)
    # One after the other they would take 1.8 s, and 0.6 s at best.
    assert time.perf_counter() - started < 1.3


def test_latest_keeps_the_newest_and_counts_what_it_drops(make_bundle: MakeBundle) -> None:
    def camera() -> Iterator[NDArray[np.uint8]]:
        for number in range(60):
            time.sleep(0.002)
            yield frame(number)

    predictor = Predictor(make_bundle(model=Slow(0.02)))
    stream = predictor.stream(camera(), policy="latest")
    seen = []
    for prediction in stream:
        assert stream.last is not None
        seen.append(stream.last.index)
        np.testing.assert_array_equal(prediction.mask, predictor.predict(frame(seen[-1])).mask)
    assert seen == sorted(set(seen))
    assert seen[-1] == 59
    assert stream.dropped == 60 - len(seen)
    assert 2 < len(seen) < 40


def test_latest_is_never_long_behind(make_bundle: MakeBundle) -> None:
    sent = 0

    def camera() -> Iterator[NDArray[np.uint8]]:
        nonlocal sent
        for sent in range(1000):
            time.sleep(0.001)
            yield frame(sent)

    behind = []
    with Predictor(make_bundle(model=Slow(0.03))).stream(camera(), policy="latest") as stream:
        for _ in stream:
            assert stream.last is not None
            behind.append(stream.last.latency_s)
            if len(behind) == 8:
                break
    # At most two frames are under way, so one waits for the other.
    assert float(np.median(behind)) < 0.12


def test_latest_drops_nothing_where_there_is_time(make_bundle: MakeBundle) -> None:
    def camera() -> Iterator[NDArray[np.uint8]]:
        for number in range(10):
            yield frame(number)
            time.sleep(0.05)

    stream = Predictor(make_bundle()).stream(camera(), policy="latest")
    assert len(list(stream)) == 10
    assert stream.dropped == 0


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("policy", ["all", "latest"])
@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt])
def test_an_error_of_the_source_comes_after_the_frames_before_it(
    make_bundle: MakeBundle, policy: module.Policy, error: type[BaseException]
) -> None:
    def source() -> Iterator[NDArray[np.uint8]]:
        for number in range(5):
            yield frame(number)
            time.sleep(0.05 * (policy == "latest"))
        raise error("no more")

    stream = Predictor(make_bundle()).stream(source(), policy=policy)
    for _ in range(5):
        next(stream)
    with pytest.raises(error, match="no more"):
        next(stream)
    assert ours() == []
    with pytest.raises(StopIteration):
        next(stream)


def test_an_error_of_the_network_comes_out(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    stream = Predictor(make_bundle(model=Slow(fails_at=7))).stream(numbers(1000))
    with pytest.raises(BundleError, match="not numbers"):
        for _ in stream:
            pass
    assert stream.last is not None
    assert stream.last.index == 6
    assert ours() == []


def test_a_frame_that_is_none_comes_out(make_bundle: MakeBundle) -> None:
    with pytest.raises(UsageError, match="A frame is"):
        list(Predictor(make_bundle()).stream([frame(0), np.zeros(4, np.uint8)]))


def test_an_error_of_the_consumer_ends_the_threads_and_the_source(make_bundle: MakeBundle) -> None:
    closed = threading.Event()

    def source() -> Iterator[NDArray[np.uint8]]:
        try:
            yield from numbers(1000)
        finally:
            closed.set()

    def consume() -> None:
        with Predictor(make_bundle()).stream(source()) as stream:
            next(stream)
            assert len(ours()) == 4
            raise BrokenError

    with pytest.raises(BrokenError):
        consume()
    assert ours() == []
    assert closed.is_set()


@pytest.mark.parametrize("policy", ["all", "latest"])
def test_a_break_ends_the_threads(make_bundle: MakeBundle, policy: module.Policy) -> None:
    predictor = Predictor(make_bundle())
    for _ in predictor.stream(numbers(100_000), policy=policy):
        break
    gc.collect()
    assert ours() == []


def test_closing_twice_and_after_the_end_is_fine(make_bundle: MakeBundle) -> None:
    stream = Predictor(make_bundle()).stream(numbers(1000))
    next(stream)
    stream.close()
    stream.close()
    assert list(stream) == []
    ended = Predictor(make_bundle()).stream(numbers(1))
    assert len(list(ended)) == 1
    ended.close()


def test_a_stream_that_nobody_takes_from_can_go(make_bundle: MakeBundle) -> None:
    stream: Stream | None = Predictor(make_bundle()).stream(numbers(1000))
    time.sleep(0.05)
    assert ours()
    del stream
    gc.collect()
    assert ours() == []


def test_smoothing_is_the_exponential_average(make_bundle: MakeBundle) -> None:
    predictor = Predictor(make_bundle(presence=(0.3,)))
    plain = [predictor.infer(predictor.prepare(image)[None])[0][0] for image in numbers(6)]
    smoothed = [p.probability for p in predictor.stream(numbers(6), smoothing=0.6)]
    average = plain[0]
    for number, expected in enumerate(plain):
        average = expected if number == 0 else 0.4 * expected + 0.6 * average
        resized = predictor.finish(Maps(average, average, np.ones(1, np.float32)), (50, 70)).probability
        np.testing.assert_allclose(smoothed[number], resized, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.8])
def test_a_steady_motion_lags_behind_by_the_stated_delay(alpha: float) -> None:
    smoothing = Smoothing(alpha)
    for t in range(200):
        maps = smoothing(Maps(np.full((1, 2, 2), t, np.float32), np.zeros((1, 2, 2), np.float32), None))
    assert 199 - maps[0][0, 0, 0] == pytest.approx(smoothing.delay, abs=1e-3)
    assert smoothing.delay == pytest.approx(alpha / (1 - alpha))


def test_wrong_options_start_nothing(make_bundle: MakeBundle) -> None:
    predictor = Predictor(make_bundle())
    with pytest.raises(UsageError, match="newest"):
        predictor.stream([], policy="newest")  # type: ignore[arg-type]
    for alpha in (-0.1, 1.0):
        with pytest.raises(UsageError, match="smoothing"):
            predictor.stream([], smoothing=alpha)
