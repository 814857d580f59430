"""The trained networks that ship: their names, and, where they are in this installation, what they hold."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import edgefusion
from edgefusion import bundles
from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import simulate_frame
from edgefusion.errors import UsageError
from edgefusion.info import as_text, facts
from edgefusion.models.zoo import build_model

MOST_BYTES = 10_000_000


@pytest.fixture
def shipped_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with ``regional`` and without the default."""
    monkeypatch.setattr(bundles, "FOLDER", tmp_path)
    bundle = Bundle(build_model("unet", 1, 2), "unet", ChannelRecipe(("raw",), 32, 48), ["nerve", "vessel"])
    bundle.terms = "CC BY 4.0"
    bundle.save(tmp_path / "regional", half=True)
    return tmp_path


@pytest.fixture(params=bundles.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Each shipped bundle, or a skip where this installation lacks it."""
    if request.param not in bundles.shipped():
        pytest.skip(f"the weights of {request.param} are not in this installation")
    return str(request.param)


def test_a_name_stands_for_a_folder_of_the_package(shipped_here: Path) -> None:
    assert bundles.find("regional") == shipped_here / "regional"
    assert edgefusion.load("regional").bundle.labels == ["nerve", "vessel"]
    for missing in (None, "brachial-plexus"):
        with pytest.raises(UsageError, match="'brachial-plexus' is not part of this installation"):
            bundles.find(missing)


@pytest.mark.parametrize("folder", ["./regional", Path("regional"), "my-bundle", Path("/some/where")])
def test_anything_else_is_a_folder(folder: str | Path) -> None:
    assert bundles.find(folder) == Path(folder)


def test_info_tells_what_ships(shipped_here: Path) -> None:
    assert facts()["bundles"] == {"regional": {"model": "unet", "labels": ["nerve", "vessel"], "terms": "CC BY 4.0"}}
    assert "nerve, vessel (CC BY 4.0)" in as_text(facts())
    for file in (shipped_here / "regional").iterdir():
        file.unlink()
    assert "none in this installation" in as_text(facts())


def test_info_needs_no_torch() -> None:
    code = "import sys; from edgefusion.info import facts; facts(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_shipped_bundle_is_small_described_and_finds_its_way(name: str) -> None:
    folder = bundles.find(name)
    model = edgefusion.load(name)
    companions = model.bundle.companions
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "bundle.yaml", "calibration.svg", "metrics.json", "model.onnx", "model.safetensors"),
        *(f"{companion}.safetensors" for companion in companions),
    }
    assert "training_frames" in companions
    assert all((folder / f"{companion}.safetensors").stat().st_size <= 300_000 for companion in companions)
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES
    assert model.bundle.trained_on
    assert not set(model.bundle.trained_on) & set(json.loads((folder / "metrics.json").read_text())["held_out"])
    prediction = model.predict(simulate_frame(seed=0, patient=0, frame=0, size=(185, 256)).image)
    assert prediction.mask.shape == (185, 256)
    assert np.isfinite(prediction.probability).all()
    noise = np.random.default_rng(0).integers(0, 256, (185, 256), dtype=np.uint8)
    assert model.predict(noise).unlike_training


def test_a_wheel_holds_what_ships() -> None:
    package = Path(edgefusion.__file__).parent
    project = package.parents[1] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("not a source tree")
    patterns = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]["edgefusion"]
    taken = {path for pattern in patterns for path in package.glob(pattern)}
    folders = [bundles.FOLDER / name for name in bundles.shipped()]
    assert {path for folder in folders for path in folder.iterdir()} <= taken
    assert any(Path("bundles/regional/model.safetensors").match(pattern) for pattern in patterns)
