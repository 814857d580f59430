"""From frames to predictions with the network of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.bundle import ONNX_FILE, Bundle
from edgefusion.bundles import find
from edgefusion.channels.recipe import build_stack
from edgefusion.data.clip import Region, Spacing
from edgefusion.errors import BundleError, UsageError
from edgefusion.inference.backends import BACKENDS, Backend, OnnxBackend, TorchBackend
from edgefusion.inference.drift import Drift, plane_of
from edgefusion.inference.postprocess import clean
from edgefusion.inference.stream import Policy, Stream
from edgefusion.inference.temperature import factors, scale

BATCH = 16
"""Frames that pass through the network together."""


class Maps(NamedTuple):
    """What is known of one frame at the network's size h×w, for L labels."""

    probability: NDArray[np.float32]
    """L×h×w in [0, 1]."""
    edge_probability: NDArray[np.float32]
    """L×h×w in [0, 1]."""
    presence: NDArray[np.float32] | None
    """L, what the presence head says, if there is one."""
    drift: float | None = None
    """See ``Prediction``."""


@dataclass(frozen=True)
class Prediction:
    """What a network says about one frame, at that frame's own size H×W, for L labels."""

    mask: NDArray[np.uint8]
    """H×W label mask: 0 is background, k is ``labels[k - 1]``. Where labels overlap, the more probable one stands."""
    probability: NDArray[np.float32]
    """L×H×W in [0, 1]: how probable each label is at each pixel, also of labels that count as absent."""
    edge_probability: NDArray[np.float32]
    """L×H×W in [0, 1]: how probable a border of each label is. Networks without a boundary head show how steeply
    ``probability`` changes instead: 1 where it steps from 0 to 1 between two of the network's pixels."""
    presence: tuple[float, ...]
    """L values in [0, 1]: how probable it is that the label is in the frame at all. Networks without a presence head
    give the greatest ``probability``. A label below the bundle's presence threshold is not in the mask."""
    area_px: tuple[int, ...]
    """L areas in the mask, in pixels."""
    area_mm2: tuple[float, ...] | None
    """L areas in the mask, in mm², or None where the spacing is not known."""
    contours: list[list[NDArray[np.float32]]]
    """For each label the outer outlines of its regions, each N×2 as (x, y): columns and rows of pixel centres, from 0.
    An outline runs through the outermost pixels of the region."""
    labels: list[str]
    """Names of the L labels."""
    drift: float | None = None
    """How far the frame is from the frames that the network was trained on, see ``inference.drift``: 1 is what 99 of
    100 frames of unseen patients of the same study stay below. None where the bundle does not carry it."""

    @property
    def unlike_training(self) -> bool | None:
        """Whether the frame is unlike what the network knows, so that nothing that it says can be relied on.

        That a frame is not, does not make the prediction right. None where the bundle cannot tell.
        """
        return None if self.drift is None else self.drift > 1


class Predictor:
    """Runs the network of a bundle on frames of any size.

    Args:
        bundle: The network, its channels and its thresholds.
        flip_averaging: Average with the prediction for the mirrored frame. Takes twice as long.
        device: Where the network runs, as PyTorch names it.
        backend: What runs the network; None takes PyTorch, which sets the bundle's network to evaluation mode and
            moves it to ``device``.
    """

    def __init__(
        self, bundle: Bundle, flip_averaging: bool = False, device: str = "cpu", backend: Backend | None = None
    ) -> None:
        self.bundle = bundle
        self.flip_averaging = flip_averaging
        self.backend = TorchBackend(bundle, device) if backend is None else backend
        self._factors = factors(bundle.temperatures, bundle.labels)
        self._drift = Drift.of(bundle.companions)

    def predict(self, image: NDArray[Any], spacing: Spacing | None = None, region: Region | None = None) -> Prediction:
        """Segment one frame: ``prepare``, ``infer`` and ``finish``, one after the other.

        Args:
            image: H×W grey or H×W×3 red, green, blue; uint8, uint16, or float in [0, 1].
            spacing: Height and width of a pixel in mm; gives the areas in mm².
            region: Where the ultrasound image lies in the frame; None takes all of the frame. Nothing is found outside.

        Raises:
            UsageError: If the array is not a frame, or the region does not lie in it.
            BundleError: If the network answers with values that are not numbers.
        """
        (maps,) = self.infer(self.prepare(image, region)[None])
        return self.finish(maps, np.shape(image)[:2], spacing, region)

    def prepare(
        self, image: NDArray[Any], region: Region | None = None, *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """The first stage, without the network: the channels of a frame, C×height×width in [0, 1].

        Args:
            image: As for ``predict``.
            region: As for ``predict``.
            threads: Threads for this one frame; None takes all cores.

        Raises:
            UsageError: If the array is not a frame, or the region does not lie in it.
        """
        return build_stack(image if region is None else region.crop(image), self.bundle.recipe, threads=threads)

    def stream(
        self,
        frames: Iterable[NDArray[Any]],
        *,
        policy: Policy = "all",
        smoothing: float = 0.0,
        spacing: Spacing | None = None,
        region: Region | None = None,
    ) -> Stream:
        """Segment frames as they come: ``predict`` for each, but the stages overlap in threads.

        Args:
            frames: Frames as ``predict`` takes them, of any number; only a few are read ahead. They must not be changed
                afterwards. A generator is closed at the end.
            policy: "all" predicts every frame; "latest" predicts the newest one whenever the network is free, and drops
                those before it.
            smoothing: In [0, 1): how much of the frames before is in the probabilities, see ``Smoothing``; what moves
                is shown smoothing / (1 - smoothing) frames late.
            spacing: Height and width of a pixel in mm; gives the areas in mm².
            region: Where the ultrasound image lies in the frames; None takes all.

        Returns:
            An iterator over the predictions, which also counts dropped frames and knows the times of each stage.

        Raises:
            UsageError: If the policy or the smoothing does not exist.
        """
        return Stream(self, frames, policy=policy, smoothing=smoothing, spacing=spacing, region=region)

    def predict_batch(
        self, images: Sequence[NDArray[Any]], spacings: Sequence[Spacing | None] | None = None
    ) -> list[Prediction]:
        """Segment frames, which may differ in size: ``predict`` for each, but sharing passes of the network."""
        if not images:
            return []
        stacks = np.stack([self.prepare(image) for image in images])
        return list(self.predict_stacks(stacks, [np.shape(image)[:2] for image in images], spacings))

    def predict_stacks(
        self,
        stacks: NDArray[np.floating[Any]],
        sizes: Sequence[tuple[int, ...]],
        spacings: Sequence[Spacing | None] | None = None,
    ) -> Iterator[Prediction]:
        """Segment frames whose channels are already there.

        Predictions come one by one, because at the frames' own size those of a whole study would fill the memory.

        Args:
            stacks: N×C×height×width in [0, 1], as ``channels.recipe`` makes them for the bundle's recipe.
            sizes: Height and width of each of the N frames.
            spacings: Height and width of a pixel in mm of each of the N frames, or None where not known.

        Yields:
            N predictions, in order.

        Raises:
            UsageError: If the stacks are not those of the bundle's recipe.
            BundleError: If the network answers with values that are not numbers.
        """
        recipe = self.bundle.recipe
        expected = (len(recipe.channels), recipe.height, recipe.width)
        if stacks.shape[1:] != expected:
            raise UsageError(f"This network takes N stacks of shape {expected}, but got {stacks.shape}.")
        spacings = spacings or [None] * len(sizes)
        if not len(stacks) == len(sizes) == len(spacings):
            raise UsageError(f"{len(stacks)} stacks came with {len(sizes)} sizes and {len(spacings)} spacings.")
        for start in range(0, len(stacks), BATCH):
            part = slice(start, start + BATCH)
            for maps, size, spacing in zip(self.infer(stacks[part]), sizes[part], spacings[part], strict=True):
                yield self.finish(maps, size, spacing)

    def infer(self, stacks: NDArray[np.floating[Any]]) -> list[Maps]:
        """The second stage, the network: what it says of each of N stacks, at its own size, and how far they drift.

        Raises:
            BundleError: If the network answers with values that are not numbers.
        """
        maps = self.backend(stacks)
        if self.flip_averaging:
            mirrored = self.backend(np.ascontiguousarray(stacks[..., ::-1]))
            # Maps have columns that must be mirrored back; what the presence head says has none.
            maps = [_mean(a, b[..., ::-1] if b.ndim == 4 else b) for a, b in zip(maps, mirrored, strict=True)]
        for values in maps:
            # Compared with a threshold, NaN is False: the frame would silently be called empty.
            if not np.isfinite(values).all():
                raise BundleError("The network answers with values that are not numbers.", "Train it again.")
        probability, edges, *head = maps
        heads = head[0] if head else [None] * len(stacks)
        return list(map(Maps, probability, edges, heads, map(self._drift_of, stacks)))

    def _drift_of(self, stack: NDArray[np.floating[Any]]) -> float | None:
        return None if self._drift is None else self._drift(plane_of(stack, self.bundle.recipe))

    def finish(
        self, maps: Maps, size: tuple[int, ...], spacing: Spacing | None = None, region: Region | None = None
    ) -> Prediction:
        """The last stage: the prediction at the frame's own size.

        Args:
            maps: Of ``infer``.
            size: Height and width of the frame.
            spacing: Height and width of a pixel in mm, where known.
            region: The one that ``prepare`` was given.
        """
        thresholds, labels = self.bundle.thresholds, self.bundle.labels
        small, small_edges, presence, drift = maps
        probability, edges = (_resized(planes, size, region) for planes in (small, small_edges))
        if self._factors is not None:
            probability = scale(probability, self._factors)
        if presence is None:
            presence = probability.max((1, 2))
        there = (probability >= thresholds["mask"]) & (presence >= thresholds["presence"])[:, None, None]
        winner = np.where(there, probability, -1).argmax(0) + 1
        frame_area = size[0] * size[1] if region is None else region.height * region.width
        mask = np.where(there.any(0), winner, 0).astype(np.uint8)
        mask = clean(mask, labels, self.bundle.postprocessing, frame_area)
        areas = tuple(int(np.count_nonzero(mask == label)) for label in range(1, len(labels) + 1))
        return Prediction(
            mask=mask,
            probability=probability,
            edge_probability=edges,
            presence=tuple(float(value) for value in presence),
            area_px=areas,
            area_mm2=None if spacing is None else tuple(area * spacing[0] * spacing[1] for area in areas),
            contours=[_contours(mask == label) for label in range(1, len(labels) + 1)],
            labels=list(labels),
            drift=drift,
        )


def load_bundle(bundle: Path | str | None = None) -> Bundle:
    """Read a bundle: None or a name for one that ships with the package, see ``bundles.find``, else its folder.

    Raises:
        UsageError: If the folder is not a bundle, or the named one does not ship with this installation.
        BundleError: If the bundle is damaged, altered, or newer than this program.
    """
    return Bundle.load(find(bundle))


def load(
    bundle: Path | str | None = None,
    flip_averaging: bool = False,
    device: str = "cpu",
    backend: Literal["auto", "torch", "onnx"] = "auto",
    threads: int | None = None,
) -> Predictor:
    """Load a network that is ready to use.

    Args:
        bundle: Folder of the bundle, or the name of one that ships with the package, "brachial-plexus" or "regional";
            None takes the former.
        flip_averaging: See ``Predictor``.
        device: See ``Predictor``.
        backend: What runs the network. ``"onnx"`` is ONNX Runtime on the CPU, which needs ``model.onnx`` in the bundle
            (``edgefusion export BUNDLE --onnx``); ``"auto"`` takes it where that is there and ``device`` is the CPU,
            because it is the faster one, and PyTorch elsewhere. The masks are the same.
        threads: For one pass of the network in ONNX Runtime; None takes all cores, which is best for a frame now and
            then. In a stream the other stages want a core, too.

    Raises:
        UsageError: If the folder is not a bundle, the named one does not ship with this installation, there is no such
            backend, or the bundle has no ``model.onnx`` for it.
        BundleError: If the bundle is damaged, altered, or newer than this program, or its ``model.onnx`` was made from
            other weights.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"There is no backend '{backend}'.", f"Choose auto, {' or '.join(BACKENDS)}.")
    folder = find(bundle)
    loaded = Bundle.load(folder)
    file = folder / ONNX_FILE
    if backend == "onnx" and not file.is_file():
        raise UsageError(f"{folder} has no {ONNX_FILE}.", f"Write it: edgefusion export {bundle or folder} --onnx")
    if backend == "onnx" or (backend == "auto" and device == "cpu" and file.is_file()):
        return Predictor(loaded, flip_averaging, device, OnnxBackend(file, loaded.weights_sha256, threads))
    return Predictor(loaded, flip_averaging, device)


def _mean(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((a + b) * np.float32(0.5))


def _resized(planes: NDArray[np.float32], size: tuple[int, ...], region: Region | None) -> NDArray[np.float32]:
    """Planes at the size of the frame, 0 outside the region."""
    region = region or Region(0, 0, size[0], size[1])
    frames = np.zeros((len(planes), size[0], size[1]), np.float32)
    for frame, plane in zip(frames, planes, strict=True):
        inside = cv2.resize(plane, (region.width, region.height), interpolation=cv2.INTER_LINEAR)
        region.crop(frame)[...] = inside
    return frames


def _contours(region: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    found, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.reshape(-1, 2).astype(np.float32) for contour in found]
