"""nnU-Net as a peer in ``edgefusion bench``, where ``nnunetv2`` is installed; EdgeFusion does not depend on it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_MULTIPLE = 64
_WIDTHS = (32, 64, 128, 256, 512, 512, 512)


def installed() -> bool:
    """Whether nnU-Net can be imported."""
    return find_spec("nnunetv2") is not None


def whole_way(image: NDArray[np.uint8]) -> Callable[[], NDArray[Any]]:
    """A call that segments a frame with nnU-Net's own predictor on the CPU.

    The network is the one that nnU-Net 2.8 plans for grey frames of 420×580 (``nnUNetv2_plan_and_preprocess``, 2D): 7
    stages, 32 to 512 features, on the whole frame. Its weights are fresh, which cost what trained ones do. Without
    mirroring, which is nnU-Net's default and takes four passes.

    Args:
        image: H×W grey.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(_plans(image.shape))
    configuration = plans.get_configuration("2d")
    architecture = plans.plans["configurations"]["2d"]["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        2,
        deep_supervision=False,
    )
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    labels = {"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "nerve": 1}, "file_ending": ".png"}
    weights = [network.state_dict()]
    predictor.manual_initialization(network, plans, configuration, weights, labels, "nnUNetTrainer", None)
    frame = image[None, None].astype(np.float32)
    return lambda: predictor.predict_single_npy_array(frame, {"spacing": (999.0, 1.0, 1.0)}, None, None, False)


def _plans(size: tuple[int, ...]) -> dict[str, Any]:
    """What nnU-Net's planner writes, for frames of one size."""
    resample = "resample_data_or_seg_to_shape"
    stages = len(_WIDTHS)
    network = {
        "n_stages": stages,
        "features_per_stage": list(_WIDTHS),
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1]] + [[2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [-(-side // _MULTIPLE) * _MULTIPLE for side in size],
        "median_image_size_in_voxels": list(size),
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resample,
        "resampling_fn_seg": resample,
        "resampling_fn_probabilities": resample,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    return {
        "dataset_name": "frames",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NaturalImage2DIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }
