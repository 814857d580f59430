"""Smoothing what the network says over the frames of a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgefusion.errors import UsageError

if TYPE_CHECKING:
    from edgefusion.inference.predictor import Maps


class Smoothing:
    """An exponential moving average of probability maps, at the network's size: s(t) = (1 - alpha) x(t) + alpha s(t-1).

    It knows nothing of motion: what moves is blurred along its way, and the mask lags behind it by ``delay`` frames.
    (R. G. Brown, "Exponential Smoothing for Predicting Demand", 1956.)

    Args:
        alpha: Share of what was before, in [0, 1); 0 changes nothing.

    Raises:
        UsageError: If alpha is out of range.
    """

    def __init__(self, alpha: float) -> None:
        if not 0 <= alpha < 1:
            raise UsageError(f"A smoothing of {alpha} is not in [0, 1).", "Try 0.5, which lags behind by one frame.")
        self.alpha = alpha
        self._state: Maps | None = None

    @property
    def delay(self) -> float:
        """Mean age of what is shown, in frames: alpha / (1 - alpha). A steady motion is shown that much later."""
        return self.alpha / (1 - self.alpha)

    def __call__(self, maps: Maps) -> Maps:
        """The average up to and with the maps of the next frame."""
        if not self.alpha:
            return maps
        if self._state is None:
            self._state = maps
        else:
            mask, edges, presence, _ = maps
            old_mask, old_edges, old_presence, _ = self._state
            new, old = np.float32(1 - self.alpha), np.float32(self.alpha)
            # A strange frame is strange whatever was before it: its drift is its own.
            self._state = maps._replace(
                probability=new * mask + old * old_mask,
                edge_probability=new * edges + old * old_edges,
                presence=None if presence is None or old_presence is None else new * presence + old * old_presence,
            )
        return self._state
