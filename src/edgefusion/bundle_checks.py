"""What a bundle's files are held against before anything is built of them: it may come from a stranger.

Nothing here allocates what a file merely claims. The weights' header is read alone, and the network is first built on
torch's meta device, where tensors have shapes and no numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgefusion.errors import BundleError
from edgefusion.files import is_plain_name, sha256_of_file

MAX_WEIGHTS_BYTES = 4 * 1024**3
"""Of all tensors of a network, as 32-bit numbers: twenty times the largest of the zoo's kind."""

MAX_COMPANION_BYTES = 256 * 1024 * 1024
"""Of each table beside the weights."""

MAX_INPUT_PIXELS = 2048 * 2048
"""Of a network's input."""

_MAX_HEADER_BYTES = 16 * 1024 * 1024
_MAX_LABELS = 32
_MAX_CHANNELS = 32
_MAX_TIME = 1000.0
_MAX_ARGUMENTS = 32
_MAX_ARGUMENT = 65_536

_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib")
"""Endings of files that could run a program when they are loaded; none of them is part of a bundle."""

_FLOATS, _SIZES = ("F32", "F16"), {"F32": 4, "F16": 2, "I64": 8}


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds weights as pickles beside or instead of a bundle's own.

    Raises:
        BundleError: If there is such a file. It would not be read, but whoever put it there meant it to be.
    """
    found = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in _PICKLES)
    if found:
        raise BundleError(
            f"{folder} holds {', '.join(found[:3])}: files that can run a program when they are loaded.",
            "Only model.safetensors is read. Get the network as a bundle, or remove these files.",
        )


def check_labels(labels: Sequence[Any]) -> None:
    """Raise a ``ValueError`` unless these are 1 to 32 different names that can stand in the name of a file."""
    if not 1 <= len(labels) <= _MAX_LABELS or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels are 1 to {_MAX_LABELS} names")
    if len(set(labels)) < len(labels):
        raise ValueError("two labels have the same name")
    for label in labels:
        if not is_plain_name(label):
            raise ValueError(f"the label {label!r} cannot stand in the name of a file")


def check_recipe(channels: Sequence[str], height: int, width: int, time: float) -> None:
    """Raise a ``ValueError`` for an input that no machine could make, or a filter that would never end."""
    if not 1 <= len(channels) <= _MAX_CHANNELS or height * width > MAX_INPUT_PIXELS:
        raise ValueError(f"{len(channels)} channels of {height}×{width} are too large an input")
    if not 0 <= time <= _MAX_TIME:
        raise ValueError(f"filters for a time of {time}, which is not in 0 to {_MAX_TIME:g}")


def check_thresholds(thresholds: Mapping[str, float]) -> None:
    """Raise a ``ValueError`` for a threshold that is no probability."""
    for name, value in thresholds.items():
        if not 0 <= value <= 1:
            raise ValueError(f"the threshold of {name} is {value}, and not in 0 to 1")


def outline(build: Callable[..., nn.Module], *arguments: Any, **named: Any) -> dict[str, Tensor]:
    """The tensors that a network would have, with shapes and without numbers.

    Args:
        build: Makes the network of the other arguments.
        arguments: As they are.
        named: The ones that come out of a bundle.

    Returns:
        Its state by name, on the meta device.

    Raises:
        ValueError: If an argument is out of all proportion, or the network is.
    """
    if len(named) > _MAX_ARGUMENTS or not all(map(_is_modest, named.values())):
        raise ValueError("the network's arguments are out of proportion")
    with torch.device("meta"):
        state: dict[str, Tensor] = build(*arguments, **named).state_dict()
    if _bytes(state) > MAX_WEIGHTS_BYTES:
        raise ValueError(f"the network would take {_bytes(state)} bytes, more than the {MAX_WEIGHTS_BYTES} allowed")
    return state


def check_weights(file: Path, sha256: str, network: str, state: Mapping[str, Tensor]) -> None:
    """Hold a file of weights against its hash, and its header against the network.

    Args:
        file: A safetensors file.
        sha256: Of the file, as the description has it.
        network: Its name, for messages.
        state: Of the network, see ``outline``.

    Raises:
        BundleError: If the file is not there, is another one, or has other tensors than the network.
    """
    try:
        fits = file.is_file() and file.stat().st_size <= _bytes(state) + _MAX_HEADER_BYTES
        if not fits or sha256_of_file(file) != sha256:
            raise BundleError(f"{file} is missing or not the file that was saved.", "Copy the bundle again.")
        _check_header(file, state)
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        what = f"{file} does not fit the network '{network}' ({error})."
        raise BundleError(what, "Export the bundle again.") from error


def _check_header(file: Path, state: Mapping[str, Tensor]) -> None:
    """Format: https://huggingface.co/docs/safetensors, 8 bytes of length, a JSON header, the numbers."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(_MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(opened.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    header.pop("__metadata__", None)
    if strangers := header.keys() ^ state.keys():
        raise ValueError(f"{sorted(strangers)[0]!r} is only in one of file and network")
    end = 0
    for name, tensor in state.items():
        shape, kind = header[name]["shape"], header[name]["dtype"]
        fits = kind in _FLOATS if tensor.is_floating_point() else kind == "I64"
        if not fits or shape != list(tensor.shape):
            raise ValueError(f"{name} is {kind} {shape}, and not {list(tensor.shape)}")
        begin, stop = header[name]["data_offsets"]
        if stop - begin != math.prod(shape) * _SIZES[kind]:
            raise ValueError(f"{name} takes {stop - begin} bytes")
        end += stop - begin
    if 8 + length + end != size:
        raise ValueError(f"{size} bytes instead of {8 + length + end}")


def _bytes(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _is_modest(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= _MAX_ARGUMENTS and all(not isinstance(item, list) and _is_modest(item) for item in value)
    if isinstance(value, int | float):
        return abs(value) <= _MAX_ARGUMENT
    return value is None or (isinstance(value, str) and len(value) <= _MAX_ARGUMENTS)
