"""A bundle in MONAI's form, for MONAI's own tools and what is built on them; it needs nothing of this package."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from torch import Tensor, nn

import edgefusion
from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.errors import BundleError, UsageError
from edgefusion.files import atomic_path, write_json, write_text
from edgefusion.inference.fingerprint import fingerprint
from edgefusion.inference.predictor import load_bundle
from edgefusion.inference.temperature import factors, scale_tensor
from edgefusion.inference.writers import NOTICE
from edgefusion.models.blocks import standardise

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""What ``configs/metadata.json`` keeps to."""


def export_monai_bundle(bundle: Path | str, output: Path) -> Path:
    """Write a bundle as a MONAI bundle.

    Its network, ``models/model.ts`` (TorchScript), takes B×C×H×W float32 in [0, 1] of any size and gives B×L×H×W
    probabilities of that size, which are 0 where a label is under its presence threshold. ``configs/inference.json``
    runs it on PNG files with ``python -m monai.bundle run``.

    Args:
        bundle: Folder of the bundle, or the name of one that ships with the package.
        output: Folder to write, new or empty.

    Returns:
        ``output``.

    Raises:
        UsageError: If the folder holds something else, or the bundle needs what only this package has: denoised or edge
            channels, post-processing.
        BundleError: If the bundle is damaged, or what was written does not answer as it does.
    """
    loaded = load_bundle(bundle)
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is not a new or empty folder.", "Choose another one.")
    if loaded.recipe.channels != ("raw",):
        raise UsageError(
            f"This network sees {', '.join(loaded.recipe.channels)}, which MONAI cannot make.",
            "Export a bundle that sees the raw frame alone, or export to ONNX.",
        )
    if loaded.postprocessing:
        raise UsageError(f"{bundle} cleans its masks, which MONAI would not do.", "Export one without post-processing.")
    script = _script(loaded)
    with atomic_path(output / "models" / "model.ts") as temporary:
        script.save(str(temporary))
    write_json(output / "configs" / "inference.json", _inference(loaded))
    write_text(output / "docs" / "README.md", _readme(loaded, _card(bundle, loaded)))
    # The description comes last: a folder that has one is whole.
    write_json(output / "configs" / "metadata.json", _metadata(loaded))
    return output


def area_weights(pixels: int, cells: int) -> Tensor:
    """How much of each pixel lies in each cell, as a share of the cell: cells×pixels, rows sum to 1."""
    size = float(pixels) / float(cells)
    start = torch.arange(cells, dtype=torch.float64)[:, None] * size
    left = torch.arange(pixels, dtype=torch.float64)[None]
    overlap = torch.minimum(start + size, left + 1) - torch.maximum(start, left)
    weights: Tensor = (overlap.clamp(min=0) / size).to(torch.float32)
    return weights


class _Portable(nn.Module):
    """A frame of any size in, probabilities of that size out; written so that TorchScript takes it."""

    def __init__(self, network: nn.Module, recipe: ChannelRecipe, thresholds: dict[str, float], by: Tensor) -> None:
        super().__init__()
        self.register_buffer("by", by)
        self.network = network
        self.height, self.width = recipe.height, recipe.width
        self.presence_threshold = thresholds["presence"]

    def forward(self, image: Tensor) -> Tensor:
        rows = area_weights(image.size(2), self.height).to(image.device)
        columns = area_weights(image.size(3), self.width).to(image.device)
        small = torch.matmul(torch.matmul(rows, image), columns.t())
        probability, presence = self.network(small)
        present = (presence >= self.presence_threshold).to(probability.dtype)[:, :, None, None]
        size = [image.size(2), image.size(3)]
        full = nn.functional.interpolate(probability, size, mode="bilinear", align_corners=False)
        full = scale_tensor(full, self.by)  # type: ignore[arg-type]
        answer: Tensor = full * present
        return answer


class _Probabilities(nn.Module):
    """The network of a bundle with tensors out, as tracing asks for."""

    def __init__(self, network: nn.Module, by: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("by", by)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.network(standardise(x))
        probability = out.mask.sigmoid()
        if out.presence is None:
            return probability, scale_tensor(probability, self.by).amax((2, 3))  # type: ignore[arg-type]
        return probability, out.presence.sigmoid()


def _script(bundle: Bundle) -> torch.jit.ScriptModule:
    recipe = bundle.recipe
    by = torch.tensor(factors(bundle.temperatures, bundle.labels) or (1.0,) * len(bundle.labels))[:, None, None]
    network = _Probabilities(bundle.model, by).eval()
    example = torch.rand(2, 1, recipe.height, recipe.width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), warnings.catch_warnings():
        # It says that TorchScript will not be developed further, and that sizes become constants, which they are.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, example)  # type: ignore[no-untyped-call]
        script: torch.jit.ScriptModule = torch.jit.script(_Portable(traced, recipe, bundle.thresholds, by).eval())
        other = torch.rand(3, 1, recipe.height, recipe.width, generator=torch.Generator().manual_seed(1))
        for answer, truth in zip(traced(other), network(other), strict=True):
            if not torch.allclose(answer, truth, atol=1e-5):
                raise BundleError("The network does not answer the same as TorchScript.", "Report this, please.")
    return script


def _inference(bundle: Bundle) -> dict[str, Any]:
    return {
        "imports": ["$import glob", "$import os", "$import torch", "$import monai"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/predictions'",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.png')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "LoadImaged",
                    "keys": "image",
                    "reader": "$monai.data.PILReader(converter=lambda x: x.convert('L'), reverse_indexing=False)",
                },
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": 0,
                    "a_max": 255,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        # Frames may differ in size, so they go one by one.
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "threshold": bundle.thresholds["mask"]},
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "mask",
                    "output_ext": ".nii.gz",
                    "output_dtype": "$torch.uint8",
                    "separate_folder": False,
                    "resample": False,
                    "squeeze_end_dims": False,
                },
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def _metadata(bundle: Bundle) -> dict[str, Any]:
    labels = {str(index): name for index, name in enumerate(bundle.labels)}
    any_size = {"type": "image", "num_channels": 1, "spatial_shape": ["*", "*"], "dtype": "float32"}
    return {
        "schema": SCHEMA,
        "version": edgefusion.__version__,
        "changelog": {edgefusion.__version__: f"exported from the EdgeFusion bundle {fingerprint(bundle)}"},
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__).split("+", maxsplit=1)[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"pytorch-ignite": "0.5", "nibabel": "5", "pillow": "10"},
        "name": f"EdgeFusion {bundle.model_name} for {', '.join(bundle.labels)}",
        "task": f"Segmentation of {', '.join(bundle.labels)} in B-mode ultrasound frames",
        "description": f"{bundle.model_name} trained on the study '{bundle.study_name}'. For {NOTICE}.",
        "authors": "The EdgeFusion authors",
        "copyright": bundle.terms or "not stated",
        "data_source": f"study '{bundle.study_name}', {len(bundle.trained_on)} patients",
        "data_type": "png",
        "image_classes": "one channel, grey level from 0 (black) to 1 (white)",
        "pred_classes": f"one channel a label ({', '.join(bundle.labels)}), probability",
        "eval_metrics": {name: value for name, value in bundle.metrics.items() if isinstance(value, float)},
        "intended_use": f"For {NOTICE}. Not a medical device.",
        "network_data_format": {
            "inputs": {
                "image": {
                    **any_size,
                    "format": "magnitude",
                    "modality": "US",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {"0": "grey"},
                }
            },
            "outputs": {
                "pred": {
                    **any_size,
                    "format": "probabilities",
                    "num_channels": len(labels),
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": labels,
                }
            },
        },
    }


def _card(bundle: Path | str, loaded: Bundle) -> str:
    from edgefusion.bundles import find

    card = find(bundle) / "README.md"
    return card.read_text(encoding="utf-8") if card.is_file() else f"# {loaded.model_name}\n"


def _readme(bundle: Bundle, card: str) -> str:
    return (
        f"This MONAI bundle was exported by EdgeFusion {edgefusion.__version__}. "
        f"The card of what was exported follows. For {NOTICE}.\n\n"
        "Put 8-bit PNG frames into `images/` and run, in this folder:\n\n"
        "    python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json\n\n"
        f"`predictions/` then holds a NIfTI file a frame, with one channel a label ({', '.join(bundle.labels)}).\n\n"
        f"{card}"
    )
