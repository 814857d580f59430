"""Predictions for frames that keep coming: the stages overlap in threads, and memory does not grow with the clip."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgefusion.errors import UsageError
from edgefusion.inference.smoothing import Smoothing

if TYPE_CHECKING:
    from edgefusion.data.clip import Region, Spacing
    from edgefusion.inference.predictor import Prediction, Predictor

Policy = Literal["all", "latest"]

AHEAD: dict[str, int] = {"all": 8, "latest": 2}
"""Frames that may be under way, from being read (with "latest" from being prepared) to being taken as a prediction."""

BATCH = 4
"""Frames that pass through the network together at most, if they wait for it anyway: that saves a sixth of the
processor's time for a clip (``benchmarks/video.py``). With "latest" there is one."""

_PATIENCE_S = 10.0
"""How long closing waits for a source that is just waiting for a frame itself."""


@dataclass(frozen=True)
class Step:
    """A frame on its way, and how long each stage took, in seconds."""

    index: int
    """Number of the frame in the source, from 0; dropped frames count."""
    image: NDArray[Any]
    """The frame as the source gave it."""
    started: float
    """When it was read, on the clock of ``time.perf_counter``."""
    prepare_s: float = 0.0
    infer_s: float = 0.0
    finish_s: float = 0.0
    latency_s: float = 0.0
    """From being read to being predicted, waiting included."""


class Stream(Iterator["Prediction"]):
    """Iterates over the predictions of frames, in their order. Made by ``Predictor.stream``.

    Threads read, prepare, infer and finish ahead of who takes the predictions. They end with the frames, on an error,
    with ``close`` or the end of a ``with`` block, and when nobody holds the stream any more, such as after a ``break``.
    An exception of the source comes out here, after the predictions of all frames before it.
    """

    def __init__(
        self,
        predictor: Predictor,
        frames: Iterable[NDArray[Any]],
        *,
        policy: Policy = "all",
        smoothing: float = 0.0,
        spacing: Spacing | None = None,
        region: Region | None = None,
    ) -> None:
        if policy not in get_args(Policy):
            raise UsageError(f"There is no policy '{policy}'.", f"Choose from {', '.join(get_args(Policy))}.")
        self.last: Step | None = None
        """What the last prediction was made of."""
        self._pipeline = _Pipeline(predictor, frames, policy, Smoothing(smoothing), spacing, region)
        # The threads know the pipeline, not the stream, so that a stream which nobody holds can go.
        self.close: Callable[[], None] = weakref.finalize(self, self._pipeline.close)
        """End all threads; the source is closed, if it is a generator. May be called again."""

    @property
    def dropped(self) -> int:
        """Frames so far that gave way to newer ones; always 0 with the policy "all"."""
        return self._pipeline.dropped

    def __next__(self) -> Prediction:
        try:
            self.last, prediction = self._pipeline.take()
        except BaseException:
            self.close()
            raise
        return prediction

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _End:
    """The last thing in a queue, with what went wrong."""

    error: BaseException | None = None


_END = _End()


class _Newest:
    """Looks like a queue and keeps one item: the next replaces it. An end replaces nothing and is kept, too."""

    def __init__(self) -> None:
        self.dropped = 0
        self._item: Any = None
        self._end: _End | None = None
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        with self._changed:
            if isinstance(item, _End):
                self._end = item
            else:
                self.dropped += self._item is not None
                self._item = item
            self._changed.notify()

    def get(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._end is not None)
            if self._item is None:
                return self._end
            item, self._item = self._item, None
            return item


class _Pipeline:
    """Four threads, a queue before each but the first, and one behind the last."""

    def __init__(
        self,
        predictor: Predictor,
        frames: Iterable[NDArray[Any]],
        policy: Policy,
        smoothing: Smoothing,
        spacing: Spacing | None,
        region: Region | None,
    ) -> None:
        self._predictor, self._smoothing, self._spacing, self._region = predictor, smoothing, spacing, region
        self._source = iter(frames)
        self._live = policy == "latest"
        self._stopped = threading.Event()
        # It bounds what is in the queues, all together: they need no bounds of their own.
        self._room = threading.Semaphore(AHEAD[policy])
        self._read_queue: Any = _Newest() if self._live else SimpleQueue()
        self._prepared: SimpleQueue[Any] = SimpleQueue()
        self._inferred: SimpleQueue[Any] = SimpleQueue()
        self._finished: SimpleQueue[Any] = SimpleQueue()
        stages = (
            (self._read, self._read_queue),
            (self._prepare, self._prepared),
            (self._infer, self._inferred),
            (self._finish, self._finished),
        )
        self._threads = [
            threading.Thread(target=self._run, args=stage, daemon=True, name=f"edgefusion-{stage[0].__name__[1:]}")
            for stage in stages
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dropped(self) -> int:
        return self._read_queue.dropped if self._live else 0

    def take(self) -> tuple[Step, Prediction]:
        """The next result; raises what a stage raised, or StopIteration at the end."""
        item = _END if self._stopped.is_set() else self._finished.get()
        if isinstance(item, _End):
            raise item.error or StopIteration
        self._room.release()
        step, prediction = item
        return replace(step, latency_s=perf_counter() - step.started), prediction

    def close(self) -> None:
        self._stopped.set()
        self._room.release()
        for queue in (self._read_queue, self._prepared, self._inferred, self._finished):
            queue.put(_END)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_PATIENCE_S)

    def _run(self, stage: Callable[[], Iterator[Any]], output: Any) -> None:
        """Hand on what a stage yields, and at last how it ended."""
        error = None
        try:
            for item in stage():
                output.put(item)
        # Whoever takes the predictions is told, whatever it is.
        except BaseException as problem:
            error = problem
        output.put(_End(error))

    def _items(self, queue: Any) -> Iterator[Any]:
        """What comes through a queue until its end; raises what the stage before raised."""
        while not self._stopped.is_set():
            item = queue.get()
            if self._stopped.is_set():
                return
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _enter(self) -> bool:
        self._room.acquire()
        return not self._stopped.is_set()

    def _read(self) -> Iterator[Step]:
        try:
            index = 0
            while self._live or self._enter():
                image: Any = next(self._source, _END)
                if image is _END or self._stopped.is_set():
                    return
                yield Step(index, image, perf_counter())
                index += 1
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()

    def _prepare(self) -> Iterator[tuple[Step, NDArray[np.float32]]]:
        steps = self._items(self._read_queue)
        while not self._live or self._enter():
            step: Any = next(steps, _END)
            if step is _END:
                return
            started = perf_counter()
            stack = self._predictor.prepare(step.image, self._region)
            yield replace(step, prepare_s=perf_counter() - started), stack

    def _infer(self) -> Iterator[tuple[Step, Any]]:
        for first in self._items(self._prepared):
            batch = [first, *self._waiting()]
            started = perf_counter()
            answers = self._predictor.infer(np.stack([stack for _, stack in batch]))
            seconds = (perf_counter() - started) / len(batch)
            for (step, _), maps in zip(batch, answers, strict=True):
                yield replace(step, infer_s=seconds), self._smoothing(maps)

    def _waiting(self) -> Iterator[Any]:
        """Frames that can go along with the next one."""
        for _ in range(0 if self._live else BATCH - 1):
            try:
                item = self._prepared.get_nowait()
            except Empty:
                return
            if isinstance(item, _End):
                self._prepared.put(item)
                return
            yield item

    def _finish(self) -> Iterator[tuple[Step, Prediction]]:
        for step, maps in self._items(self._inferred):
            started = perf_counter()
            prediction = self._predictor.finish(maps, np.shape(step.image)[:2], self._spacing, self._region)
            yield replace(step, finish_s=perf_counter() - started), prediction
