"""The exported file does alone what the Predictor does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from edgefusion.bundle import ONNX_FILE, Bundle
from edgefusion.bundles import FOLDER, NAMES
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import simulate_frame
from edgefusion.errors import BundleError, UsageError
from edgefusion.inference.onnx import OUTPUTS, export_onnx, network_graph
from edgefusion.inference.predictor import Predictor, load
from edgefusion.models.zoo import build_model

DOC = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-onnx-file.md"
SIZES = [(185, 256), (64, 96), (97, 131), (40, 300), (30, 41)]


def make_bundle(folder: Path, name: str, recipe: ChannelRecipe, labels: list[str]) -> Path:
    """Untrained, but with thresholds in the midst of what it says, so that its masks are not empty."""
    torch.manual_seed(0)
    network = build_model(name, len(recipe.channels), len(labels)).eval()
    bundle = Bundle(network, name, recipe, labels, temperatures={labels[0]: 1.7})
    found = Predictor(bundle).predict(frame((185, 256)))
    bundle.thresholds = {"mask": float(np.quantile(found.probability, 0.8)), "presence": min(found.presence) / 2}
    bundle.save(folder)
    return folder


def frame(size: tuple[int, int], patient: int = 0) -> NDArray[np.uint8]:
    return simulate_frame(seed=0, patient=patient, frame=0, size=size).image


def dice(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero((one == other) & (one > 0)) / total if total else 1.0


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every channel that has a form in ONNX, two labels and all heads, and its file."""
    recipe = ChannelRecipe(("raw", "srad", "dpad", "edges"), 64, 96, resolution="network")
    folder = make_bundle(tmp_path_factory.mktemp("onnx"), "edgefusion-unet", recipe, ["nerve", "vessel"])
    export_onnx(folder)
    return folder


def agrees(file: Path, predictor: Predictor, size: tuple[int, int], tolerance: float) -> None:
    image = frame(size)
    values = onnxruntime.InferenceSession(file).run(None, {"frame": image})
    expected = predictor.predict(image)
    for name, value in zip(OUTPUTS[1:], values[1:], strict=True):
        np.testing.assert_allclose(value, getattr(expected, name), atol=tolerance, err_msg=name)
    assert values[0].dtype == np.uint8
    assert dice(values[0], expected.mask) > 0.998
    assert (expected.mask > 0).any()


@pytest.mark.parametrize("size", SIZES)
def test_it_gives_what_the_predictor_gives(exported: Path, size: tuple[int, int]) -> None:
    agrees(exported / ONNX_FILE, Predictor(Bundle.load(exported)), size, 2e-4)


def test_it_is_valid_and_says_what_it_is(exported: Path) -> None:
    model = onnx.load(exported / ONNX_FILE)
    onnx.checker.check_model(model, full_check=True)
    said = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(said["labels"]) == ["nerve", "vessel"]
    assert json.loads(said["network_size"]) == [64, 96]
    assert json.loads(said["recipe"])["channels"] == ["raw", "srad", "dpad", "edges"]
    assert json.loads(said["thresholds"]) == Bundle.load(exported).thresholds
    assert json.loads(said["temperatures"]) == {"nerve": 1.7}
    assert said["weights_sha256"] == Bundle.load(exported).weights_sha256
    assert "not for diagnosis" in said["notice"]
    sides = [[side.dim_param for side in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert sides == [["height", "width"]]


def test_a_baseline_filtering_at_the_frames_size(tmp_path: Path) -> None:
    recipe = ChannelRecipe(("dpad", "raw"), 32, 48, resolution="frame")
    folder = make_bundle(tmp_path, "unet", recipe, ["nerve"])
    with pytest.raises(UsageError, match="--frame-size"):
        export_onnx(folder)
    file = export_onnx(folder, tmp_path / "elsewhere.onnx", frame_size=(105, 145))
    agrees(file, Predictor(Bundle.load(folder)), (105, 145), 2e-4)
    assert not (folder / ONNX_FILE).exists()


def test_channels_without_a_form_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, "unet", ChannelRecipe(("raw", "canny"), 32, 48, "network"), ["nerve"])
    with pytest.raises(UsageError, match="'canny' has no form"):
        export_onnx(folder)


def test_onnx_runtime_as_a_backend(exported: Path) -> None:
    slow, fast = load(exported, backend="torch"), load(exported)
    assert (slow.backend.name, fast.backend.name) == ("torch", "onnx")
    images = [frame(size) for size in SIZES]
    for one, other in zip(slow.predict_batch(images), fast.predict_batch(images), strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-4)
        np.testing.assert_allclose(one.presence, other.presence, atol=1e-4)
    mirrored = load(exported, flip_averaging=True).predict(images[0])
    np.testing.assert_allclose(
        mirrored.probability, load(exported, True, backend="torch").predict(images[0]).probability, atol=1e-4
    )


def test_a_file_of_other_weights_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, "unet", ChannelRecipe(("raw",), 32, 48), ["nerve"])
    (folder / ONNX_FILE).write_bytes((exported / ONNX_FILE).read_bytes())
    with pytest.raises(BundleError, match="other weights"):
        load(folder)
    assert load(folder, backend="torch").backend.name == "torch"
    (folder / ONNX_FILE).write_bytes(b"no graph")
    with pytest.raises(BundleError, match="not an ONNX file"):
        load(folder)
    make_bundle(folder, "unet", ChannelRecipe(("raw",), 32, 48), ["nerve"])
    assert load(folder).backend.name == "torch", "a bundle that is saved again must not keep the old file"
    with pytest.raises(UsageError, match=r"export .* --onnx"):
        load(folder, backend="onnx")
    with pytest.raises(UsageError, match="no backend 'tensorrt'"):
        load(folder, backend="tensorrt")  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["graph", "subgraph"])
def test_a_file_that_refers_to_other_files_is_refused(exported: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    model = onnx.load(exported / ONNX_FILE)
    weights = model.graph.initializer[0]
    if place == "subgraph":
        inner = onnx.GraphProto(name="inner")
        weights = inner.initializer.add()
        weights.CopyFrom(model.graph.initializer[0])
        model.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
        weights = model.graph.node[-1].attribute[0].g.initializer[0]
    onnx.external_data_helper.set_external_data(weights, "../secret")
    weights.ClearField("raw_data")
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="keeps tensors in other files"):
        network_graph(tmp_path / "x.onnx", Bundle.load(exported).weights_sha256)


def test_foreign_operators_and_huge_files_are_refused(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported / ONNX_FILE)
    model.opset_import.append(onnx.helper.make_opsetid("my.operators", 1))
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="not ONNX's own"):
        network_graph(tmp_path / "x.onnx", "")
    del model.opset_import[-1]
    model.functions.add(name="Conv")  # another operator under the name of one of ONNX's own
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="not ONNX's own"):
        network_graph(tmp_path / "x.onnx", "")
    with (tmp_path / "x.onnx").open("r+b") as file:
        file.truncate(2**40)  # a hole, which takes no room
    with pytest.raises(BundleError, match="more than"):
        network_graph(tmp_path / "x.onnx", "")


def test_a_flipped_bit_in_its_weights_is_found(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported / ONNX_FILE)
    weights = max((tensor for tensor in model.graph.initializer), key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = weights.raw_data[:-1] + bytes([weights.raw_data[-1] ^ 1])
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="not the file that was exported"):
        network_graph(tmp_path / "x.onnx", Bundle.load(exported).weights_sha256)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_files_belong_to_the_shipped_weights(name: str) -> None:
    network_graph(FOLDER / name / ONNX_FILE, Bundle.load(FOLDER / name).weights_sha256)
    said = {prop.key: prop.value for prop in onnx.load(FOLDER / name / ONNX_FILE).metadata_props}
    assert json.loads(said["thresholds"]) == Bundle.load(FOLDER / name).thresholds
    assert sum(file.stat().st_size for file in (FOLDER / name).iterdir()) < 10e6


def test_backends_agree_on_a_hundred_frames() -> None:
    one, other = load(backend="torch"), load(backend="onnx")
    images = [frame((140, 193), patient) for patient in range(100)]
    pairs = list(zip(one.predict_batch(images), other.predict_batch(images), strict=True))
    assert np.mean([dice(a.mask, b.mask) for a, b in pairs]) >= 0.999
    assert sum(bool(a.mask.any()) for a, _ in pairs) > 50


def test_backends_agree_on_real_frames(data_root: Path) -> None:
    files = [path for path in sorted((data_root / "kaggle-nerve" / "train").glob("*.png")) if "_mask" not in path.name]
    images = [np.asarray(Image.open(path)) for path in files[::19][:100]]
    pairs = zip(load(backend="torch").predict_batch(images), load(backend="onnx").predict_batch(images), strict=True)
    assert np.mean([dice(a.mask, b.mask) for a, b in pairs]) >= 0.999


def test_the_script_in_the_docs_needs_nothing_of_ours(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in script.splitlines() if line]) <= 11
    image = frame((420, 580))
    Image.fromarray(image).save(tmp_path / "frame.png")
    (tmp_path / "script.py").write_text(script + "\nassert 'edgefusion' not in sys.modules\n", encoding="utf-8")
    file = FOLDER / "brachial-plexus" / ONNX_FILE
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "script.py", file, tmp_path / "frame.png", tmp_path / "mask.png"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nerve" in done.stdout
    expected = load(backend="torch").predict(image)
    assert expected.mask.any()
    assert dice(np.asarray(Image.open(tmp_path / "mask.png")), expected.mask) >= 0.999
