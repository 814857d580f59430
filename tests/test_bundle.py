from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from edgefusion.bundle import FORMAT, Bundle, Origin
from edgefusion.config import ChannelRecipe, PostProcessing
from edgefusion.errors import BundleError, EdgeFusionError, UsageError
from edgefusion.files import sha256_of_file
from edgefusion.models.zoo import build_model

SMALL = {"widths": (8, 8, 8, 8), "stem_widths": (4, 4, 4), "edge_channel": 1}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle(
        model=build_model("edgefusion-unet", 2, 2, **SMALL),
        model_name="edgefusion-unet",
        recipe=ChannelRecipe(channels=("raw", "edges"), height=32, width=48, resolution="network"),
        labels=["nerve", "vessel"],
        model_args=dict(SMALL),
        thresholds={"mask": 0.4, "presence": 0.3},
        temperatures={"nerve": 1.25},
        postprocessing={"nerve": PostProcessing(smallest_area=0.004, fill_holes=True)},
        study_name="Nackenstudie ä",
        study_sha256="ab" * 32,
        trained_on=["001", "7"],
        terms="CC BY 4.0",
        metrics={"dice": 0.75, "frames": 12},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made here") / "bundle"
    make_bundle().save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "bundle.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_a_bundle_survives_saving_and_loading(folder: Path) -> None:
    before, after = make_bundle(), Bundle.load(folder)
    names = ("model_name", "recipe", "labels", "thresholds", "postprocessing", "study_name", "study_sha256")
    for name in (*names, "trained_on", "terms"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.versions["torch"] == torch.__version__
    assert not after.model.training
    x = torch.randn(2, 2, 32, 48)
    with torch.no_grad():
        for one, other in zip(before.model.eval()(x), after.model(x), strict=True):
            assert torch.equal(one, other)


def test_a_loaded_bundle_can_be_saved_again(folder: Path, tmp_path: Path) -> None:
    Bundle.load(folder).save(tmp_path / "again")
    assert (tmp_path / "again" / "bundle.yaml").read_bytes() == (folder / "bundle.yaml").read_bytes()


def test_a_bundle_from_before_there_was_post_processing_has_none(folder: Path) -> None:
    edit(folder, lambda values: values.pop("postprocessing"))
    assert Bundle.load(folder).postprocessing == {}


@pytest.mark.parametrize(
    "steps",
    [
        None,
        [1],
        {"nerve": None},
        {"nerve": {"largest": True}},
        {"nerve": {"smallest_area": 2}},
        {"nerve": {"smallest_area": "small"}},
        {"bone": {"fill_holes": True}},
    ],
)
def test_post_processing_that_is_not_known_is_refused(folder: Path, steps: object) -> None:
    edit(folder, lambda values: values.update(postprocessing=steps))
    with pytest.raises(BundleError, match=r"bundle\.yaml"):
        Bundle.load(folder)


def test_channels_last_weights_are_saved(tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.model = bundle.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bundle.save(tmp_path / "b")
    for name, tensor in Bundle.load(tmp_path / "b").model.state_dict().items():
        assert torch.equal(tensor, bundle.model.state_dict()[name])


def test_half_the_room_holds_nearly_the_same_network(tmp_path: Path) -> None:
    bundle = make_bundle()
    with torch.no_grad():
        for layer in bundle.model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                # Beyond what 16 bits hold, above and below.
                layer.running_var.copy_(torch.logspace(-9, 6, layer.num_features))
                layer.num_batches_tracked.fill_(70_001)
    bundle.save(tmp_path / "whole")
    bundle.save(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    model = Bundle.load(tmp_path / "half").model
    before = bundle.model.state_dict()
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype, name
        torch.testing.assert_close(value, before[name], rtol=1e-3, atol=1e-7, msg=name)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_everyone_may_read_all_files_of_a_bundle_or_none(saved: Path) -> None:
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1


def test_weights_beyond_16_bits_are_not_halved_to_infinity(tmp_path: Path) -> None:
    bundle = make_bundle()
    with torch.no_grad():
        bundle.model.mask_head.bias.fill_(1e5)  # type: ignore[union-attr, operator]
    with pytest.raises(BundleError, match="16 bits"):
        bundle.save(tmp_path, half=True)


def test_it_names_no_path_and_holds_no_pickle(saved: Path) -> None:
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert sorted(files) == ["README.md", "bundle.yaml", "metrics.json", "model.safetensors"]
    for name, content in files.items():
        assert str(saved.parent).encode() not in content, name
        assert not content.startswith((b"PK", b"\x80")), name


def test_the_card_says_what_it_is_for(saved: Path) -> None:
    card = (saved / "README.md").read_text(encoding="utf-8")
    for part in ("nerve, vessel", "not for diagnosis", "raw, edges", "32×48", "2 patients", "CC BY 4.0", "0.7500"):
        assert part in card, part


def test_saving_over_a_bundle_replaces_it(folder: Path) -> None:
    bundle = make_bundle()
    bundle.labels = ["nerve", "artery"]
    with torch.no_grad():
        bundle.model.mask_head.bias += 1  # type: ignore[union-attr, operator]
    bundle.save(folder)
    again = Bundle.load(folder)
    assert again.labels == ["nerve", "artery"]
    assert torch.equal(again.model.mask_head.bias, bundle.model.mask_head.bias)  # type: ignore[union-attr]


@pytest.mark.parametrize("position", [10, 2000, -1])
def test_altered_weights_are_refused(folder: Path, position: int) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[position] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        Bundle.load(folder)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04N."])
def test_missing_empty_or_pickled_weights_are_refused(folder: Path, content: bytes | None) -> None:
    weights = folder / "model.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        Bundle.load(folder)


def test_damaged_weights_with_the_right_hash_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\xff" * 64)
    edit(folder, lambda values: values.update(weights_sha256=sha256_of_file(weights)))
    with pytest.raises(BundleError, match="does not fit"):
        Bundle.load(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(weights).items() if "gates" not in name}, weights)
    edit(folder, lambda values: values.update(weights_sha256=sha256_of_file(weights)))
    with pytest.raises(BundleError, match="does not fit"):
        Bundle.load(folder)


def test_a_newer_format_is_refused_with_the_way_out(folder: Path) -> None:
    edit(folder, lambda values: values.update(format=FORMAT + 1))
    with pytest.raises(BundleError, match=r"newer.*Upgrade"):
        Bundle.load(folder)


def test_an_older_format_is_refused_with_the_way_out(folder: Path) -> None:
    edit(folder, lambda values: values.update(format=FORMAT - 1))
    with pytest.raises(BundleError, match=r"older.*Train it again"):
        Bundle.load(folder)


def test_all_trainings_behind_the_weights_are_remembered(folder: Path, tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.started_from = [
        Origin("phantoms", "00", ["p1"], "free"),
        Origin("volunteers", "11", ["v1", "v2"], "CC-BY 4.0"),
    ]
    bundle.save(tmp_path / "b")
    history = Bundle.load(tmp_path / "b").history()
    assert history[:2] == bundle.started_from
    assert history[2] == Origin(bundle.study_name, bundle.study_sha256, bundle.trained_on, bundle.terms)
    assert bundle.seen("11") == {"v1", "v2", *bundle.trained_on}
    assert bundle.seen("22") == set(bundle.trained_on)
    assert "Started from: 2 patients of the study 'volunteers'" in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.parametrize("text", ["", "words", "[1, 2", "a: [", "format: x", "{}", "\x00", "- 1\n- 2", "format: 2"])
def test_garbage_is_refused(folder: Path, text: str) -> None:
    (folder / "bundle.yaml").write_text(text)
    with pytest.raises(BundleError, match=r"^[^\n]*bundle\.yaml[^\n]*$"):
        Bundle.load(folder)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "bundle.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(BundleError, match=r"bundle\.yaml"):
        Bundle.load(folder)


def test_yaml_that_wants_to_run_code_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "bundle.yaml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(BundleError, match=r"bundle\.yaml"):
        Bundle.load(folder)
    assert not (tmp_path / "made").exists()


REQUIRED = ("format", "model", "recipe", "labels", "thresholds", "study", "weights_sha256")
INNER = (("model", "name"), ("model", "arguments"), ("recipe", "channels"), ("study", "name"), ("study", "trained_on"))


@pytest.mark.parametrize("keys", [*((key,) for key in REQUIRED), *INNER])
@pytest.mark.parametrize("value", ["absent", None, 5, "x", [1]])
def test_a_missing_or_wrong_entry_never_ends_in_a_traceback(folder: Path, keys: tuple[str, ...], value: object) -> None:
    def change(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        if value == "absent":
            del values[keys[-1]]
        else:
            values[keys[-1]] = value

    edit(folder, change)
    try:
        Bundle.load(folder)
    except EdgeFusionError:
        return
    # What is only repeated to people may be anything.
    assert keys[0] == "study"
    assert value != "absent"


def test_arguments_that_the_network_does_not_take_are_refused(folder: Path) -> None:
    edit(folder, lambda values: values["model"]["arguments"].update(layers=7))
    with pytest.raises(BundleError):
        Bundle.load(folder)


def test_an_unknown_network_is_refused(folder: Path) -> None:
    edit(folder, lambda values: values["model"].update(name="edgefusion-unet-9"))
    with pytest.raises(EdgeFusionError, match="edgefusion-unet-9"):
        Bundle.load(folder)


def test_what_is_no_bundle_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UsageError, match=r"not a model bundle.*edgefusion train"):
            Bundle.load(path)


def remembering(folder: Path) -> Bundle:
    """The bundle in a folder, which now has a companion."""
    bundle = Bundle.load(folder)
    bundle.companions = {"drift": {"mean": torch.tensor([0.5, 2.0]), "bits": torch.arange(6, dtype=torch.uint8)[::2]}}
    bundle.save_description(folder)
    return bundle


def test_companions_survive_loading_and_saving_again(folder: Path, tmp_path: Path) -> None:
    remembering(folder)
    Bundle.load(folder).save(tmp_path / "again", half=True)
    for place in (folder, tmp_path / "again"):
        (name,), (tensors,) = zip(*Bundle.load(place).companions.items(), strict=True)
        assert name == "drift"
        assert set(tensors) == {"mean", "bits"}
        assert torch.equal(tensors["mean"], torch.tensor([0.5, 2.0]))
        assert torch.equal(tensors["bits"], torch.tensor([0, 2, 4], dtype=torch.uint8))


def test_companions_are_added_without_touching_the_other_files(folder: Path) -> None:
    (folder / "README.md").write_text("written by hand")
    (folder / "model.onnx").write_bytes(b"exported")
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "bundle.yaml"}
    remembering(folder)
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before == {name: after[name] for name in before}
    assert "drift.safetensors" in after
    assert Bundle.load(folder).weights_sha256 == sha256_of_file(folder / "model.safetensors")


def test_a_bundle_from_before_there_were_companions_has_none_and_other_files_are_no_error(folder: Path) -> None:
    edit(folder, lambda values: values.pop("files"))
    (folder / "stranger.safetensors").write_bytes(b"not ours")
    assert Bundle.load(folder).companions == {}


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"\0" * 99)])
def test_a_missing_or_altered_companion_is_refused(folder: Path, damage: Callable[[Path], object]) -> None:
    remembering(folder)
    damage(folder / "drift.safetensors")
    with pytest.raises(BundleError, match=r"drift\.safetensors is missing or not the file"):
        Bundle.load(folder)


def test_a_companion_that_holds_no_tensors_is_refused(folder: Path) -> None:
    (folder / "drift.safetensors").write_bytes(b"no tensors")
    digest = sha256_of_file(folder / "drift.safetensors")
    edit(folder, lambda values: values.update(files={"drift.safetensors": digest}))
    with pytest.raises(BundleError, match="holds no tensors"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    "name", ["../drift.safetensors", "/tmp/drift.safetensors", "model.safetensors", "drift.pt", "a/b.safetensors", 7]
)
def test_a_companion_outside_the_folder_or_with_the_name_of_another_file_is_refused(folder: Path, name: str) -> None:
    edit(folder, lambda values: values.update(files={name: "00"}))
    with pytest.raises(BundleError, match="cannot have companion files named"):
        Bundle.load(folder)


def test_a_companion_is_not_saved_under_such_a_name(tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.companions = {"model": {}}
    with pytest.raises(BundleError, match="cannot have companion files named"):
        bundle.save(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "bundle.yaml").exists()


def test_a_bundle_from_before_there_were_temperatures_has_none(folder: Path) -> None:
    assert Bundle.load(folder).temperatures == {"nerve": 1.25}
    edit(folder, lambda values: values.pop("temperatures"))
    assert Bundle.load(folder).temperatures == {}


@pytest.mark.parametrize(
    "values", [{"muscle": 1.0}, {"nerve": 0}, {"nerve": -2}, {"nerve": float("inf")}, {"nerve": "hot"}]
)
def test_temperatures_that_are_none_are_refused(folder: Path, values: object) -> None:
    edit(folder, lambda description: description.update(temperatures=values))
    with pytest.raises(BundleError, match="not a valid description"):
        Bundle.load(folder)
