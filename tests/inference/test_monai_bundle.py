from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from PIL import Image

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe, PostProcessing
from edgefusion.data.phantom import simulate_frame
from edgefusion.errors import UsageError
from edgefusion.inference.monai_bundle import area_weights, export_monai_bundle
from edgefusion.inference.predictor import Predictor
from edgefusion.models.zoo import build_model


def save(
    folder: Path, name: str, presence: bool = True, channels: tuple[str, ...] = ("raw",), threshold: float = 0.5
) -> Path:
    torch.manual_seed(0)
    arguments = {} if presence or name != "edgefusion-unet" else {"presence": False}
    model = build_model(name, len(channels), 2, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # fresh weights say the same everywhere
    recipe = ChannelRecipe(channels=channels, height=48, width=64)
    thresholds = {"mask": 0.5, "presence": threshold}
    heat = {"nerve": 1.7, "vessel": 0.8}
    Bundle(model, name, recipe, ["nerve", "vessel"], arguments, thresholds, heat).save(folder)
    return folder


def answer(bundle: Path, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    network = torch.jit.load(str(bundle / "models" / "model.ts"))
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(image / np.float32(255))[None, None])[0])


@pytest.mark.parametrize("name", ["edgefusion-unet", "unet", "resunet", "attention-unet"])
def test_the_network_answers_as_the_predictor_does(name: str, tmp_path: Path) -> None:
    exported = export_monai_bundle(save(tmp_path / "bundle", name), tmp_path / "monai")
    predictor = Predictor(Bundle.load(tmp_path / "bundle"))
    for size in ((105, 145), (64, 64), (48, 100)):
        image = simulate_frame(0, 1, 2, (128, 160)).image[: size[0], : size[1]]
        found = predictor.predict(np.ascontiguousarray(image))
        expected = found.probability * (np.array(found.presence) >= 0.5)[:, None, None]
        np.testing.assert_allclose(answer(exported, image), expected, atol=1e-4)


def test_a_label_under_its_presence_threshold_is_not_there(tmp_path: Path) -> None:
    exported = export_monai_bundle(save(tmp_path / "bundle", "edgefusion-unet", threshold=1.0), tmp_path / "monai")
    assert not answer(exported, simulate_frame(0, 1, 2, (105, 145)).image).any()


@pytest.mark.parametrize("pixels", [(48, 48), (97, 48), (580, 128), (48, 96)])
def test_area_weights_average_what_lies_in_a_cell(pixels: tuple[int, int]) -> None:
    weights = area_weights(*pixels)
    torch.testing.assert_close(weights.sum(1), torch.ones(pixels[1]))
    torch.testing.assert_close(weights.sum(0), torch.full((pixels[0],), pixels[1] / pixels[0]), atol=1e-5, rtol=1e-5)
    if pixels[0] > pixels[1]:
        line = np.random.default_rng(0).random(pixels[0])
        frame = np.repeat(line[:, None], 64, axis=1)
        stack = build_stack(frame, ChannelRecipe(channels=("raw",), height=pixels[1], width=64))
        np.testing.assert_allclose(stack[0, :, 0], weights @ torch.tensor(line, dtype=torch.float32), atol=1e-5)


def test_metadata_has_what_monais_schema_asks_for(tmp_path: Path) -> None:
    """The required names of meta_schema_20240725; MONAI's own verifier needs packages that are not installed here."""
    exported = export_monai_bundle(save(tmp_path / "bundle", "unet"), tmp_path / "monai")
    metadata = json.loads((exported / "configs" / "metadata.json").read_text(encoding="utf-8"))
    texts = {"schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description"}
    assert all(isinstance(metadata[name], str) for name in texts | {"authors", "copyright"})
    assert isinstance(metadata["required_packages_version"], dict)
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    for tensor in (image, pred):
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= tensor.keys()
    assert (image["num_channels"], pred["num_channels"]) == (1, 2)
    assert pred["channel_def"] == {"0": "nerve", "1": "vessel"}
    assert "not for diagnosis" in metadata["intended_use"]
    assert "not for diagnosis" in (exported / "docs" / "README.md").read_text(encoding="utf-8")


def test_monais_parser_builds_the_pipeline_and_it_runs(tmp_path: Path) -> None:
    exported = export_monai_bundle(save(tmp_path / "bundle", "edgefusion-unet"), tmp_path / "monai")
    image = simulate_frame(0, 1, 2, (105, 145)).image
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    parser = ConfigParser()
    parser.read_config(exported / "configs" / "inference.json")
    parser.read_meta(exported / "configs" / "metadata.json")
    parser["bundle_root"], parser["dataset_dir"] = str(exported), str(tmp_path / "images")
    (batch,) = list(parser.get_parsed_content("dataloader"))
    network = parser.get_parsed_content("network")
    with torch.inference_mode():
        prediction = parser.get_parsed_content("inferer")(
            batch["image"].to(parser.get_parsed_content("device")), network
        )
    found = Predictor(Bundle.load(tmp_path / "bundle")).predict(image)
    expected = found.probability * (np.array(found.presence) >= 0.5)[:, None, None]
    np.testing.assert_allclose(np.asarray(prediction.cpu())[0], expected, atol=1e-4)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    bundle = save(tmp_path / "bundle", "unet", channels=("raw", "dpad"))
    with pytest.raises(UsageError, match="raw, dpad"):
        export_monai_bundle(bundle, tmp_path / "monai")
    assert not (tmp_path / "monai").exists()
    cleaning = Bundle.load(save(tmp_path / "cleaning", "unet"))
    cleaning.postprocessing = {"nerve": PostProcessing(largest_region=True)}
    cleaning.save(tmp_path / "cleaning")
    with pytest.raises(UsageError, match="cleans its masks"):
        export_monai_bundle(tmp_path / "cleaning", tmp_path / "monai")
    with pytest.raises(UsageError, match="not a new or empty folder"):
        export_monai_bundle(save(tmp_path / "other", "unet"), bundle)
