"""A bundle from a stranger: what it claims is held against bounds before anything is read or built."""

from __future__ import annotations

import ast
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import edgefusion
from edgefusion import bundle_checks
from edgefusion.bundle import Bundle
from edgefusion.bundle_checks import check_labels, outline
from edgefusion.config import ChannelRecipe
from edgefusion.data import bounds
from edgefusion.data.bounds import read_yaml
from edgefusion.errors import BundleError, DataError, UsageError
from edgefusion.files import sha256_of_file
from edgefusion.models.names import MODELS
from edgefusion.models.zoo import build_model

SMALL = {"widths": [8, 8, 8, 8], "stem_widths": [4, 4, 4]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "bundle"
    recipe = ChannelRecipe(channels=("raw",), height=32, width=48)
    network = build_model("edgefusion-unet", 1, 1, **SMALL)
    Bundle(network, "edgefusion-unet", recipe, ["nerve"], dict(SMALL)).save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(folder: Path, *keys: str, value: Any) -> None:
    file = folder / "bundle.yaml"
    values = inner = yaml.safe_load(file.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def hashed_anew(folder: Path) -> None:
    edit(folder, "weights_sha256", value=sha256_of_file(folder / "model.safetensors"))


class TestDescription:
    def test_references_are_refused_before_they_are_followed(self, folder: Path) -> None:
        bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
        (folder / "bundle.yaml").write_text(bomb)
        with pytest.raises(BundleError, match="has an alias"):
            Bundle.load(folder)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[" * 500, "too deeply"),
            ("a: 1" + ":59" * 100_000, "a value of more than"),  # a number of base 60
            ("a: x" + " " * bounds.MAX_YAML, "more than"),
        ],
    )
    def test_what_would_take_for_ever_is_refused(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(DataError, match=words):
            read_yaml(tmp_path / "x.yaml")

    def test_metrics_are_bounded_too(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "MAX_JSON", 10)
        (folder / "metrics.json").write_text("{}" + " " * 10)
        with pytest.raises(BundleError, match="more than 10 bytes"):
            Bundle.load(folder)

    @pytest.mark.parametrize(
        ("keys", "value", "words"),
        [
            (("labels",), ["../../nerve"], "cannot stand in the name of a file"),
            (("labels",), ["nerve\nvessel"], "cannot stand"),
            (("labels",), ["nerve", "nerve"], "same name"),
            (("labels",), [f"n{n}" for n in range(33)], "1 to 32 names"),
            (("labels",), [7], "1 to 32 names"),
            (("recipe", "width"), 2**20, "too large an input"),
            (("recipe", "channels"), ["raw"] * 33, "too large an input"),
            (("recipe", "time"), 1e12, "time of"),
            (("recipe", "time"), float("nan"), "time of"),
            (("thresholds", "mask"), float("nan"), "threshold of mask"),
            (("model", "arguments", "widths"), [10**9] * 4, "out of proportion"),
            (("model", "arguments", "widths"), [1] * 1000, "out of proportion"),
            (("model", "arguments", "dropout"), float("nan"), "out of proportion"),
            (("model", "arguments", "widths"), [65_536] * 4, "more than the"),
        ],
    )
    def test_claims_out_of_proportion_are_refused(self, folder: Path, keys: Any, value: Any, words: str) -> None:
        edit(folder, *keys, value=value)
        with pytest.raises(BundleError, match=words):
            Bundle.load(folder)


class TestWeights:
    def test_nothing_is_built_for_weights_that_do_not_fit(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        edit(folder, "model", "arguments", "widths", value=[8, 8, 8, 4096])
        built: list[str] = []

        def build(*given: Any, **named: Any) -> nn.Module:
            network = build_model(*given, **named)
            built.append(next(network.parameters()).device.type)
            return network

        monkeypatch.setattr("edgefusion.bundle.build_model", build)
        with pytest.raises(BundleError, match="does not fit the network"):
            Bundle.load(folder)
        assert built == ["meta"]

    @pytest.mark.parametrize("change", ["missing", "more", "shape", "type"])
    def test_tensors_are_those_of_the_network(self, folder: Path, change: str) -> None:
        tensors = load_file(folder / "model.safetensors")
        first = sorted(name for name in tensors if tensors[name].ndim == 4)[0]
        match change:
            case "missing":
                del tensors[first]
            case "more":
                tensors["more"] = torch.zeros(1)
            case "shape":
                tensors[first] = tensors[first].transpose(0, 1).reshape(tensors[first].shape[::-1]).contiguous()
            case "type":
                tensors[first] = tensors[first].to(torch.int32)
        save_file(tensors, folder / "model.safetensors")
        hashed_anew(folder)
        with pytest.raises(BundleError, match=r"does not fit the network.*(more|only in one|is I32|is F32)"):
            Bundle.load(folder)

    @pytest.mark.parametrize("header", [2**60, 10**7])
    def test_the_length_of_the_header_is_bounded(self, folder: Path, header: int) -> None:
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", header) + b"{}")
        hashed_anew(folder)
        with pytest.raises(BundleError, match=f"a header of {header} bytes"):
            Bundle.load(folder)

    @pytest.mark.parametrize("change", [{"data_offsets": [0, 2**60]}, {"data_offsets": [0]}, {"shape": 3}, None])
    def test_headers_that_lie_are_refused(self, folder: Path, change: dict[str, Any] | None) -> None:
        content = (folder / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        name = next(name for name in header if name != "__metadata__")
        header[name] = header[name] | change if change else None
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        hashed_anew(folder)
        with pytest.raises(BundleError, match="does not fit"):
            Bundle.load(folder)

    def test_a_file_longer_than_the_network_is_not_even_hashed(self, folder: Path, monkeypatch: Any) -> None:
        with (folder / "model.safetensors").open("r+b") as file:
            file.truncate(2**40)  # a hole, which takes no room
        monkeypatch.setattr(bundle_checks, "sha256_of_file", lambda _: pytest.fail("hashed"))
        with pytest.raises(BundleError, match="not the file that was saved"):
            Bundle.load(folder)

    def test_a_huge_companion_is_not_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_file({"x": torch.zeros(9)}, folder / "known.safetensors")
        edit(folder, "files", value={"known.safetensors": sha256_of_file(folder / "known.safetensors")})
        assert Bundle.load(folder).companions["known"]["x"].shape == (9,)
        monkeypatch.setattr(bundle_checks, "MAX_COMPANION_BYTES", 36)
        with pytest.raises(BundleError, match="not the file that was saved"):
            Bundle.load(folder)

    @pytest.mark.parametrize("name", MODELS)
    def test_the_outline_is_that_of_the_real_network(self, name: str) -> None:
        real = build_model(name, 2, 3).state_dict()
        blank = outline(build_model, name, 2, 3)
        assert {key: (value.shape, value.dtype) for key, value in blank.items()} == {
            key: (value.shape, value.dtype) for key, value in real.items()
        }
        assert all(value.is_meta for value in blank.values())


@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "last.ckpt", "model.PKL", "pytorch_model.bin"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_with_pickles_is_refused(folder: Path, name: str, whole: bool) -> None:
    if not whole:
        (folder / "bundle.yaml").unlink()
    (folder / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(BundleError, match=rf"{name}: files that can run a program"):
        Bundle.load(folder)
    (folder / name).unlink()
    if not whole:
        with pytest.raises(UsageError, match="not a model bundle"):
            Bundle.load(folder)


@pytest.mark.parametrize("name", ["", ".nerve", "a/b", "a\\b", "a\0b", "a\nb", "a:b", "x" * 101])
def test_labels_that_are_no_file_names(name: str) -> None:
    check_labels(["nerve", "Nervus medianus", "Größe 2"])
    with pytest.raises(ValueError, match="name of a file"):
        check_labels([name])


_FORBIDDEN = {
    *("pickle", "cPickle", "dill", "joblib", "marshal", "shelve"),
    *("os.system", "os.popen", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "shutil.unpack_archive"),
    *("pd.read_pickle", "pandas.read_pickle", "torch.hub"),
}


def _calls() -> list[tuple[str, ast.Call | ast.Import | ast.ImportFrom, str]]:
    found: list[tuple[str, Any, str]] = []
    for file in sorted(Path(edgefusion.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((f"{file.name}:{node.lineno}", node, ast.unparse(node.func)))
            elif isinstance(node, ast.Import):
                found += [(f"{file.name}:{node.lineno}", node, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found.append((f"{file.name}:{node.lineno}", node, str(node.module)))
    return found


def test_nothing_in_the_source_runs_what_a_file_says() -> None:
    for place, node, name in _calls():
        assert not {name, name.split(".")[0]} & _FORBIDDEN, f"{place} uses {name}"
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        match name:
            case "eval" | "exec" | "compile" | "__import__":
                pytest.fail(f"{place} calls {name}")
            case "torch.load" | "pl_load":
                assert given.get("weights_only") == "True", f"{place}: torch.load of a pickle"
            case "np.load" | "numpy.load":
                assert given.get("allow_pickle") == "False", f"{place}: np.load of a pickle"
            case _ if name.endswith((".extractall", ".extract")):
                assert given.get("filter") == "'data'", f"{place}: an archive could write outside its folder"
            case "yaml.load":
                assert given.get("Loader") == "_LOADER", f"{place}: yaml.load of anything"
        assert given.get("shell") in (None, "False"), f"{place}: a shell"
    assert issubclass(bounds._LOADER, yaml.SafeLoader | getattr(yaml, "CSafeLoader", yaml.SafeLoader))
