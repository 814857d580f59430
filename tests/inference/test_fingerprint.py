from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe, PostProcessing
from edgefusion.inference.fingerprint import fingerprint


def test_it_changes_with_whatever_changes_a_prediction_and_with_nothing_else() -> None:
    torch.manual_seed(0)
    bundle = Bundle(nn.Conv2d(1, 1, 3), "unet", ChannelRecipe(), ["nerve"])
    others = [
        replace(bundle, model=nn.Conv2d(1, 1, 3)),
        replace(bundle, model_name="resunet"),
        replace(bundle, recipe=ChannelRecipe(time=5)),
        replace(bundle, labels=["vessel"]),
        replace(bundle, thresholds={"mask": 0.4, "presence": 0.5}),
        replace(bundle, temperatures={"nerve": 1.5}),
        replace(bundle, postprocessing={"nerve": PostProcessing(largest_region=True)}),
        replace(bundle, companions={"drift": {"limit": torch.tensor(1.0)}}),
        replace(bundle, companions={"drift": {"limit": torch.tensor(2.0)}}),
    ]
    prints = [fingerprint(bundle), fingerprint(bundle, flip_averaging=True), *map(fingerprint, others)]
    assert len({*prints}) == len(prints)
    remembers = {"training_frames": {"bits": torch.zeros(2)}}
    assert fingerprint(replace(bundle, companions=remembers)) == fingerprint(bundle)
    assert fingerprint(replace(bundle, metrics={"dice": 0.9}, terms="free")) == fingerprint(bundle)
