"""One ONNX file of a bundle that takes a raw frame and gives its mask: an integrator needs nothing of ours.

Resizing, the channels, standardising, the network, its thresholds and resizing back are all inside the graph.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import torch
from onnx import external_data_helper, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

import edgefusion
from edgefusion.bundle import ONNX_FILE, Bundle
from edgefusion.errors import BundleError, UsageError
from edgefusion.files import atomic_path, sha256_of_bytes
from edgefusion.inference.graph import AfterNetwork, BeforeNetwork, Network

OUTPUTS = ("mask", "probability", "edge_probability", "presence")
"""What the graph gives, in this order."""

STACK, MAPS = "network_stack", ("network_probability", "network_edges", "network_presence")
"""Names inside the graph: what enters the network, and what leaves it. The last only where there is a presence head."""

MAX_BYTES = 2**31 - 1
"""Of a file: protobuf holds no more."""

_OPSET = 18
_FRAME = (420, 580)


def export_onnx(folder: Path, output: Path | None = None, frame_size: tuple[int, int] | None = None) -> Path:
    """Write the ONNX file of a bundle.

    Its input is ``frame``, H×W uint8 grey. Its outputs are those of ``Prediction``: ``mask``, H×W uint8;
    ``probability`` and ``edge_probability``, L×H×W float32; ``presence``, L float32. Its metadata say whose it is:
    ``labels``, ``network_size``, ``recipe``, ``thresholds``, ``temperatures``, ``terms`` (JSON where they are not
    text), ``model``, ``version``, ``weights_sha256``, ``graph_sha256``, ``notice``. H and W are free, unless the recipe
    filters at the frame's size: how many steps a filter takes depends on the frame's width, so such a file is for
    ``frame_size`` alone.

    Args:
        folder: Of the bundle.
        output: The file; by default ``model.onnx`` in the bundle's folder, where ``load`` finds it.
        frame_size: Height and width of the frames, where the file is to be for one size.

    Returns:
        The file.

    Raises:
        UsageError: If the folder is not a bundle, its recipe has a channel without a form in ONNX, or filters at the
            frame's size and no ``frame_size`` was given.
        BundleError: If the bundle is damaged.
    """
    folder = Path(folder)
    bundle = Bundle.load(folder)
    recipe = bundle.recipe
    filtered = recipe.resolution == "frame" and set(recipe.channels) != {"raw"}
    if filtered and frame_size is None:
        raise UsageError(
            f"{folder} filters frames at their own size, so its ONNX file is for frames of one size.",
            "Give it: --frame-size 420x580.",
        )
    model = _whole_graph(bundle, frame_size)
    model.producer_name, model.producer_version = "edgefusion", edgefusion.__version__
    _halve(model)
    helper.set_model_props(model, _metadata(bundle, frame_size) | {"graph_sha256": _hash(model)})
    onnx.checker.check_model(model, full_check=True)
    output = folder / ONNX_FILE if output is None else Path(output)
    with atomic_path(output) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return output


def network_graph(path: Path, weights_sha256: str) -> onnx.ModelProto:
    """The network alone, stack to maps, cut out of an exported file.

    Args:
        path: The file.
        weights_sha256: Of the bundle that it is used for.

    Raises:
        BundleError: If it is not such a file, was made from other weights or altered, or refers to other files.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        # Tensors of a graph can lie in other files, at any path: none of ours do.
        model = onnx.load(path, load_external_data=False)
        _check_self_contained(model)
        inner = {name for node in model.graph.node for name in node.output}
        maps = [name for name in MAPS if name in inner]
        network = onnx.utils.Extractor(model).extract_model([STACK], maps)
    # A damaged file fails in any of these ways.
    except Exception as error:
        raise BundleError(f"{path} is not an ONNX file of a bundle ({error}).", "Export it again.") from error
    facts = {prop.key: prop.value for prop in model.metadata_props}
    # Files that were made before there was a hash have none.
    if facts.get("graph_sha256") not in (None, _hash(model)):
        raise BundleError(f"{path} is not the file that was exported.", "Export it again.")
    if facts.get("weights_sha256") != weights_sha256:
        raise BundleError(f"{path} was made from other weights.", "Export it again: edgefusion export BUNDLE --onnx")
    return network


def _hash(model: onnx.ModelProto) -> str:
    return sha256_of_bytes(model.graph.SerializeToString(deterministic=True))


def _check_self_contained(model: onnx.ModelProto) -> None:
    if any(model.functions) or {entry.domain for entry in model.opset_import} - {"", "ai.onnx"}:
        raise ValueError("it has operators that are not ONNX's own")
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            raise ValueError("it keeps tensors in other files")


def _metadata(bundle: Bundle, frame_size: tuple[int, int] | None) -> dict[str, str]:
    return {
        "notice": "For research. Not a medical device, not for diagnosis.",
        "model": bundle.model_name,
        "labels": json.dumps(bundle.labels),
        "network_size": json.dumps([bundle.recipe.height, bundle.recipe.width]),
        "frame_size": json.dumps(frame_size and list(frame_size)),
        "recipe": json.dumps(dataclasses.asdict(bundle.recipe)),
        "thresholds": json.dumps(bundle.thresholds),
        "temperatures": json.dumps(bundle.temperatures),
        "terms": bundle.terms,
        "version": edgefusion.__version__,
        "weights_sha256": bundle.weights_sha256,
    }


def _whole_graph(bundle: Bundle, frame_size: tuple[int, int] | None) -> onnx.ModelProto:
    recipe, labels = bundle.recipe, len(bundle.labels)
    size = (recipe.height, recipe.width)
    free: Any = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} if frame_size is None else None
    frame = torch.zeros(frame_size or _FRAME, dtype=torch.uint8)
    # One frame at a time: some networks' normalisation cannot be exported for any number of them.
    stack = torch.zeros(1, len(recipe.channels), *size)
    network = Network(bundle.model)
    with torch.inference_mode():
        maps = MAPS[: len(network(stack))]
    planes = [torch.zeros(1, labels, *size), torch.zeros(1, labels, *size), torch.zeros(1, labels)][: len(maps)]
    parts = (
        _export(BeforeNetwork(recipe), {"frame": frame}, (free,), [STACK]),
        # Not optimised, batch normalisation stays apart from the convolutions and their weights as they were saved;
        # what runs the file folds it all the same.
        _export(network, {STACK: stack}, (None,), maps, optimize=False),
        _export(
            AfterNetwork(bundle),
            dict(zip(("frame_size_of", *(f"{name}_in" for name in maps)), (frame, *planes), strict=True)),
            (free, *[None] * len(maps)),
            OUTPUTS,
        ),
    )
    before, middle, after = (
        onnx.compose.add_prefix(part, f"{name}/", rename_inputs=False, rename_outputs=False, rename_edges=True)
        for name, part in zip(("before", "network", "after"), parts, strict=True)
    )
    # The frame enters the last part too, for its size; joined, it is one input.
    joined = onnx.compose.merge_models(before, middle, [(STACK, STACK)], outputs=[STACK, *maps])
    joined = onnx.compose.merge_models(joined, after, [(name, f"{name}_in") for name in maps], outputs=[*OUTPUTS])
    for node in joined.graph.node:
        node.input[:] = ["frame" if name == "frame_size_of" else name for name in node.input]
        del node.metadata_props[:]  # where in our source a node came from: a fifth of the file
    inputs = [value for value in joined.graph.input if value.name != "frame_size_of"]
    del joined.graph.input[:], joined.graph.value_info[:]
    joined.graph.input.extend(inputs)
    for value in (*joined.graph.input, *joined.graph.output):
        for name, side in zip(("width", "height"), reversed(value.type.tensor_type.shape.dim), strict=False):
            if side.dim_param:
                side.dim_param = name
    # Shapes inside were noted for the example's size. Those around the network hold, and let it be cut out again.
    shapes = {STACK: stack.shape} | {name: part.shape for name, part in zip(maps, planes, strict=True)}
    joined.graph.value_info.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()
    )
    del joined.opset_import[:]  # one entry for each part
    joined.opset_import.append(helper.make_opsetid("", _OPSET))
    joined.graph.name = bundle.model_name
    return joined


def _export(
    module: nn.Module, inputs: Mapping[str, Tensor], free: Sequence[Any], outputs: Sequence[str], optimize: bool = True
) -> onnx.ModelProto:
    # The exporter reports every step, and that it found no torchvision, which nothing here needs.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=tuple(free),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=_OPSET,
            optimize=optimize,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _halve(model: onnx.ModelProto) -> None:
    """Store weights in 16 bits where that loses nothing: a published bundle's were rounded to 16 bits already."""
    casts = []
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.size < 64:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(half, f"{name}/half"))
            casts.append(helper.make_node("Cast", [f"{name}/half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
