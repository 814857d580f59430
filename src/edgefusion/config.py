"""Settings of every verb, as dataclasses whose fields carry their own documentation. No torch here."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from edgefusion.errors import UsageError

CHANNELS = ("raw", "srad", "dpad", "osrad", "perona-malik", "edges", "icov", "roewa", "feature-asymmetry", "canny")
"""Every name that a channel recipe may use, in the order in which the docs describe them."""


UNSTATED_TERMS = "not stated by the source"
"""The terms of use of a study whose maker gave none."""


@dataclass(frozen=True)
class ChannelRecipe:
    """How a frame becomes the stack of channels that a network sees. It travels with the weights."""

    channels: tuple[str, ...] = ("raw",)
    """Names from ``CHANNELS``, in the order of the stack. The raw frame alone, since on real frames no other channel
    helped: ``docs/decisions/0008``."""
    height: int = 96
    """Rows of the network's input."""
    width: int = 128
    """Columns of the network's input."""
    resolution: Literal["frame", "network"] = "frame"
    """Where the filters run: on the frame as it is, before it is resized, or after, at the network's size."""
    time: float = 10.0
    """Diffusion time in px² of a frame 580 columns wide; a frame of W columns is filtered for time (W / 580)²."""

    def key(self) -> str:
        """A short hash that changes when anything about the recipe does; caches are keyed by it."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ChannelRecipe:
        """Rebuild a recipe from its YAML or JSON form."""
        return cls(**{**values, "channels": tuple(values["channels"])})


@dataclass(frozen=True)
class PostProcessing:
    """What is done to the mask of one label, see ``inference.postprocess``. Without arguments: nothing."""

    smallest_area: float = 0.0
    """Smaller regions go; as a share of the frame, in [0, 1]."""
    largest_region: bool = False
    """Only the largest region stays."""
    fill_holes: bool = False
    """Background that a region encloses becomes part of it."""

    def __post_init__(self) -> None:
        if not 0 <= self.smallest_area <= 1:
            raise UsageError(f"The smallest area is a share of the frame, in [0, 1], and not {self.smallest_area}.")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Every model of a comparison gets the same."""

    epochs: int = 14
    """Passes over the training frames."""
    batch_size: int = 16
    """Frames a step."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay."""
    boundary_weight: float = 0.3
    """Weight of the border-band loss, for networks that have a boundary head."""
    presence_weight: float = 0.1
    """Weight of the presence loss, for networks that have a presence head."""
    boundary_target: Literal["band", "distance"] = "band"
    """What the boundary head learns: the band one pixel to each side of the border, or how far inside or outside of it
    every pixel lies. What this and the next six fields are worth is in ``docs/results/ablation.md``."""
    border_emphasis: float = 0.0
    """Extra weight of the band's pixels in the mask's cross-entropy, in multiples of the weight of the others."""
    border_softness: float = 0.0
    """Standard deviation, in pixels of the network's input, by which the borders of the masks are blurred: two people
    draw a border a pixel or two apart."""
    average_decay: float = 0.0
    """Keep an exponential moving average of the weights with this decay a step, in [0, 1); 0 keeps the last."""
    reshuffle: bool = True
    """Divide the frames into batches anew in every epoch. Without it every epoch has those of the first, as had, by a
    mistake, all trainings before this option: the published ones."""
    distinct_patients: bool = False
    """No two frames of a batch show the same patient, as far as there are patients: neighbouring frames are near
    copies."""
    texture: bool = False
    """Speckle of another grain and haze on half of the frames each."""
    flip: bool = True
    """Mirror frames left to right in half of the cases."""
    affine: bool = True
    """Random rotation, stretch and shift of every frame."""
    intensity: bool = True
    """Random gain and gamma of every frame, gain that changes over it, and acoustic shadows."""
    negatives: float = 0.0
    """Where every training frame shows every label, EdgeFusion-UNet is trained without a presence head. Above 0, one is
    fitted to the finished network, on views of the frames of which this share is made to lose the labels (at most
    0.5), as many are changed alike without losing them, and the others stay; see ``training.negatives``. The rest of
    the network is not touched. 0.25 is what ``docs/results/presence.md`` judges."""
    patience: int = 0
    """Stop after so many epochs without a better validation Dice; 0 trains to the end."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Number format; ``auto`` times one step of each on this machine and takes the faster."""
    seed: int = 0
    """Seeds the weights, the order of frames and the augmentation."""


@dataclass(frozen=True)
class SplitConfig:
    """Which patients are trained on and which are judged. Always whole patients, never frames."""

    folds: int = 5
    """Number of folds of a cross-validation by patient; 1 makes one hold-out of a fifth of the patients."""
    validation_patients: tuple[str, ...] = ()
    """Hold out exactly these patients, and train on all others; overrides ``folds``."""
    seed: int = 0
    """Seeds the assignment of patients to folds."""
    without_patients: tuple[str, ...] = ()
    """Neither train on these patients nor judge them: who is to judge the final result stays out of all choices
    before it."""


@dataclass(frozen=True)
class CompareConfig:
    """A comparison of several networks on one study."""

    models: tuple[str, ...] = ("edgefusion-unet", "unet", "resunet", "attention-unet")
    """Names of networks, see ``edgefusion info``. A trailing ``-matched`` widens a baseline to
    EdgeFusion-UNet's multiply-adds."""
    baseline_channels: Literal["raw", "all"] = "raw"
    """What the baselines see: the raw frame, or all channels of the recipe, concatenated."""
    flip_averaging: bool = False
    """Average each prediction with the mirrored frame's; all models get it or none."""
    recipe: ChannelRecipe = field(default_factory=ChannelRecipe)
    """The channels that EdgeFusion-UNet sees."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How every network is trained."""
    network: dict[str, Any] = field(default_factory=dict)
    """Arguments of EdgeFusion-UNet that differ from its own defaults, see ``models.edgefusion_unet``."""
    pretrained: str = ""
    """Folder of another comparison of the same networks on the same channels, such as one on phantoms: every network
    starts from the weights that it has there in the first fold."""
    seeds: tuple[int, ...] = ()
    """Train every network once with each of these seeds; by default once, with ``train.seed``."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """How patients are divided."""


SEARCH_SPACE: dict[str, dict[str, Any]] = {
    "train": {
        "learning_rate": {"low": 0.0003, "high": 0.01, "log": True},
        "weight_decay": {"low": 0.0001, "high": 0.1, "log": True},
        "batch_size": {"choices": [8, 16, 32]},
    }
}
"""What is searched where nobody says otherwise: settings that every network has."""


@dataclass(frozen=True)
class SearchConfig:
    """A search for the settings with which one network is best on a study's validation patients."""

    base: CompareConfig
    """The network (``models`` has one name), how patients are divided, and every setting that is not searched."""
    space: dict[str, dict[str, Any]] = field(default_factory=lambda: copy.deepcopy(SEARCH_SPACE))
    """What is searched: under ``train``, ``network`` or ``recipe`` the name of a setting, and its ``choices`` (a list)
    or its range, ``low`` to ``high`` (both included; whole numbers if both are), with ``log`` true for a logarithmic
    scale."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are proposed: Tree-structured Parzen Estimator (Bergstra et al., NeurIPS 2011), which learns from
    the trials before, or drawn at random."""
    seed: int = 0
    """Seeds the proposals."""
