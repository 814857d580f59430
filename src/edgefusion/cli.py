"""The program ``edgefusion VERB``: one function a verb, which reads the arguments and calls the Python API.

Only the parser of the verb that is called is built, and torch is imported inside the verbs, so that help is instant.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgefusion.config import UNSTATED_TERMS, ChannelRecipe, CompareConfig, SplitConfig, TrainConfig
from edgefusion.errors import EdgeFusionError, UsageError
from edgefusion.progress import say

_CONTINUE = "Interrupted. What was finished is kept."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: What follows the program's name; by default from the command line.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong use.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        import edgefusion

        print(edgefusion.__version__)
        return 0
    verb = VERBS.get(arguments[0])
    try:
        if verb is None:
            raise UsageError(f"There is no verb '{arguments[0]}'.", f"Choose one of: {', '.join(VERBS)}.")
        verb(list(arguments[1:]))
    except EdgeFusionError as error:
        say(f"edgefusion: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say(f"edgefusion: {_CONTINUE}")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (a pager was quit): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        name = f" ({error.filename})" if error.filename else ""
        say(f"edgefusion: {error.strerror or error}{name}")
        return 1
    return 0


def _overview() -> str:
    width = max(len(name) for name in VERBS)
    verbs = "\n".join(f"  {name:<{width}}  {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items())
    return (
        f"usage: edgefusion VERB ...\n\n{verbs}\n\nedgefusion VERB --help says more. For research, not for diagnosis."
    )


class _Arguments:
    """The parser of one verb; a mistake in the arguments becomes one line."""

    def __init__(self, verb: Callable[[list[str]], None]) -> None:
        from jsonargparse import ArgumentParser, set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        name = next(name for name, known in VERBS.items() if known is verb)
        self.parser = ArgumentParser(prog=f"edgefusion {name}", description=verb.__doc__, exit_on_error=False)
        self.add = self.parser.add_argument

    def add_json(self) -> None:
        """Add --json, for verbs whose answer a program may read."""
        self.add("--json", action="store_true", help="print the answer as JSON on stdout")

    def read(self, arguments: list[str]) -> Any:
        """Parse, or raise a ``UsageError``."""
        from jsonargparse import ArgumentError

        try:
            return self.parser.instantiate(self.parser.parse_args(arguments))
        except ArgumentError as error:
            message = " ".join(str(error).split())
            raise UsageError(message, f"See: {self.parser.prog} --help") from None


def _names(value: object) -> tuple[str, ...]:
    """Names separated by commas; a settings file may also give a list, or one number."""
    parts = value if isinstance(value, list | tuple) else ("" if value is None else str(value)).split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _integers(value: object) -> tuple[int, ...]:
    names = _names(value)
    if not all(name.isdecimal() for name in names):
        raise UsageError(f"'{value}' is not a list of numbers.", "Separate whole numbers by commas, such as 0,1,2.")
    return tuple(int(name) for name in names)


def _size(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise UsageError(f"'{text}' is not a size.", "Give rows x columns, such as 420x580.")
    return int(rows), int(columns)


def demo(arguments: list[str]) -> None:
    """The main job on built-in phantoms: make them, train four networks, compare, report."""
    parser = _Arguments(demo)
    parser.add("-o", "--output", type=Path, default=Path("demo"), help="folder for the study and the run")
    given = parser.read(arguments)
    from edgefusion.demo import run_demo

    print(run_demo(given.output))


def phantom(arguments: list[str]) -> None:
    """Make a study of simulated neck frames, with masks and clean images."""
    parser = _Arguments(phantom)
    parser.add("-o", "--output", type=Path, required=True, help="folder of the new study")
    parser.add("--patients", type=int, default=24)
    parser.add("--frames", type=int, default=12, help="frames of each patient")
    parser.add("--seed", type=int, default=0)
    parser.add("--size", default="420x580", help="rows x columns of a frame")
    given = parser.read(arguments)
    from edgefusion.data.phantom.study import make_phantom_study

    study = make_phantom_study(given.output, given.patients, given.frames, given.seed, _size(given.size))
    print(study.path)


def ingest(arguments: list[str]) -> None:
    """Make a study of a Kaggle folder, a folder of image and mask pairs, or of DICOM files."""
    parser = _Arguments(ingest)
    parser.add("source", type=Path, help="folder, image, DICOM file or DICOMDIR")
    parser.add("-o", "--output", type=Path, required=True, help="folder of the new study")
    parser.add("--patient-regex", type=str, help="its first group, searched in the file's name, is the patient")
    parser.add("--patients-csv", type=Path, help="table with the columns image and patient")
    parser.add("--labels", type=str, help="names of the mask values 1, 2, ..., separated by commas")
    parser.add("--name", type=str, help="name of the study; by default the output folder's")
    parser.add("--terms", default=UNSTATED_TERMS, help="terms of use, repeated in reports and model cards")
    parser.add(
        "--contradictions",
        choices=["keep", "drop", "propagate"],
        default="keep",
        help="near-identical frames, one with and one without a mask: keep both, drop the empty one, or copy the mask",
    )
    parser.add("--strict", action="store_true", help="stop at the first file that cannot be used")
    parser.add("--key", type=Path, help="file of the key of DICOM pseudonyms; by default in your configuration folder")
    parser.add("--deidentify", type=Path, help="folder for copies of the DICOM files without what identifies a person")
    given = parser.read(arguments)
    from edgefusion.data.ingest import ingest as make_study

    study = make_study(
        given.source,
        given.output,
        patient_regex=given.patient_regex,
        patients_csv=given.patients_csv,
        contradictions=given.contradictions,
        strict=given.strict,
        name=given.name,
        labels=_names(given.labels) or None,
        terms=given.terms,
        key=given.key,
    )
    print(study.path)
    if given.deidentify:
        from edgefusion.data.dicom.deidentify import deidentify

        deidentify(given.source, given.deidentify, key=given.key, strict=given.strict)
        print(given.deidentify)


def channels(arguments: list[str]) -> None:
    """Show the raw, denoised and edge channels of one image, and their quality."""
    parser = _Arguments(channels)
    parser.add("image", type=Path, help="an image file")
    parser.add("-o", "--output", type=Path, required=True, help="folder for the pictures")
    parser.add("--channels", default="raw,srad,dpad,edges", help="names, separated by commas")
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.channels.show import show_channels

    figures = show_channels(given.image, given.output, _names(given.channels))
    if given.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, values in figures.items():
            print(f"{name:<18}" + "  ".join(f"{measure} {value:.3f}" for measure, value in values.items()))


def train(arguments: list[str]) -> None:
    """Train one network on a study and save it as a bundle."""
    parser = _Arguments(train)
    parser.add("study", type=Path, help="folder of a study")
    parser.add("--model", default="edgefusion-unet", help="see edgefusion info")
    parser.add("-o", "--output", type=Path, required=True, help="folder of the bundle")
    parser.add("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add("--start", type=str, help="bundle of the same network and channels whose weights to start from")
    parser.add("--validation-patients", default="", help="hold out these patients; by default a fifth of them")
    parser.add("--config", action="config", help="YAML file with any of these settings")
    parser.add("--train", type=TrainConfig, default=TrainConfig())
    parser.add("--recipe", type=ChannelRecipe, default=ChannelRecipe())
    given = parser.read(arguments)
    from edgefusion.data.splits import make_splits
    from edgefusion.data.study import Study
    from edgefusion.models.zoo import check_name
    from edgefusion.training.train import train as train_network

    check_name(given.model)
    study = Study.load(given.study)
    split = make_splits(study, SplitConfig(folds=1, validation_patients=_names(given.validation_patients)))[0]
    train_network(study, given.model, given.output, given.train, given.recipe, split, given.resume, start=given.start)
    print(given.output)


def compare(arguments: list[str]) -> None:
    """Cross-validate networks on a study, by patient, test the differences, and write a report."""
    parser = _Arguments(compare)
    parser.add("study", type=Path, help="folder of a study")
    parser.add("-o", "--output", type=Path, required=True, help="folder of the run; an interrupted run goes on")
    parser.add("--models", default=",".join(CompareConfig().models), help="names, separated by commas")
    parser.add("--folds", type=int, default=5, help="folds by patient; 1 holds out a fifth of the patients")
    parser.add("--validation-patients", default="", help="hold out exactly these patients instead")
    parser.add("--without-patients", default="", help="neither train on these patients nor judge them")
    parser.add("--split-seed", type=int, default=0)
    parser.add("--baseline-channels", choices=["raw", "all"], default="raw", help="what the baselines see")
    parser.add("--flip-averaging", type=bool, default=False, help="average with the mirrored frame, for all models")
    parser.add("--seeds", default="", help="train every network once with each of these; by default with train.seed")
    parser.add("--pretrained", default="", help="folder of a comparison whose weights the networks start from")
    parser.add("--network", type=dict, default={}, help="arguments of EdgeFusion-UNet that differ from its defaults")
    parser.add("--jobs", type=int, default=1, help="trainings side by side; they share the cores")
    parser.add_json()
    parser.add("--config", action="config", help="YAML file with any of these settings")
    parser.add("--train", type=TrainConfig, default=TrainConfig())
    parser.add("--recipe", type=ChannelRecipe, default=ChannelRecipe())
    given = parser.read(arguments)
    from edgefusion.evaluation.answer import text_table
    from edgefusion.training.crossval import compare as compare_networks

    config = CompareConfig(
        models=_names(given.models),
        baseline_channels=given.baseline_channels,
        flip_averaging=given.flip_averaging,
        recipe=given.recipe,
        train=given.train,
        network=dict(given.network),
        pretrained=given.pretrained,
        seeds=_integers(given.seeds),
        split=SplitConfig(
            given.folds, _names(given.validation_patients), given.split_seed, _names(given.without_patients)
        ),
    )
    report = compare_networks(given.study, given.output, config, jobs=given.jobs)
    summary = json.loads((given.output / "summary.json").read_text(encoding="utf-8"))
    if given.json:
        print(json.dumps(summary, indent=2))
    else:
        print(text_table(summary))
        print(report)


def evaluate(arguments: list[str]) -> None:
    """Judge a bundle on a labelled study."""
    parser = _Arguments(evaluate)
    parser.add("bundle", type=str, help="folder of a bundle, or brachial-plexus or regional, which ship along")
    parser.add("study", type=Path, help="folder of a study")
    parser.add("-o", "--output", type=Path, required=True, help="folder for the tables")
    parser.add("--split", type=Path, help="a run's splits.json: judge on the held-out patients only")
    parser.add("--flip-averaging", action="store_true", help="average with the mirrored frame")
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.evaluation.answer import text_table
    from edgefusion.evaluation.evaluate import evaluate as evaluate_bundle

    summary = evaluate_bundle(given.bundle, given.study, given.output, given.split, given.flip_averaging)
    print(json.dumps(summary, indent=2) if given.json else text_table(summary))


def predict(arguments: list[str]) -> None:
    """Find the nerve in images, videos, DICOM files, folders of them, or what a camera sends."""
    parser = _Arguments(predict)
    parser.add(
        "inputs",
        nargs="+",
        type=str,
        help="images, videos, DICOM, folders, studies, /dev/videoN, or rtsp:// udp:// http://",
    )
    parser.add("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add("--model", type=str, default="brachial-plexus", help="that, or regional, or the folder of a bundle")
    parser.add(
        "--format",
        default="png,overlay,json",
        help="any of png,overlay,json,kaggle,video,dicom-seg,dicom-seg-probability,dicom-seg-placed,dicom-sc,dicom-sr",
    )
    parser.add("--crop", default="auto", help="where the image is: auto, none, or TOP,LEFT,HEIGHT,WIDTH in pixels")
    parser.add("--smoothing", type=float, default=0.0, help="of clips, in [0, 1): 0.5 lags behind by one frame")
    parser.add("--flip-averaging", action="store_true", help="average with the mirrored frame")
    parser.add("--strict", action="store_true", help="fail if any image could not be used")
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.inference.predict import predict_files
    from edgefusion.inference.predict_clip import read_crop
    from edgefusion.inference.predictor import load

    model = load(given.model)
    rows = predict_files(
        given.inputs,
        given.output,
        model.bundle,
        _names(given.format),
        given.flip_averaging,
        strict=given.strict,
        crop=read_crop(given.crop),
        smoothing=given.smoothing,
        backend=model.backend,
    )
    print(json.dumps(rows, indent=2) if given.json else given.output)


def export(arguments: list[str]) -> None:
    """Write a bundle as one ONNX file that takes a raw frame and gives its mask."""
    parser = _Arguments(export)
    parser.add("bundle", type=str, help="folder of a bundle, or brachial-plexus or regional, which ship along")
    parser.add("--onnx", action="store_true", required=True, help="the only format so far")
    parser.add("-o", "--output", type=Path, help="the file; by default model.onnx in the bundle, where it is used from")
    parser.add("--frame-size", type=str, help="rows x columns, for bundles that filter frames at their own size")
    given = parser.read(arguments)
    from edgefusion.bundles import find
    from edgefusion.inference.onnx import export_onnx

    size = None if given.frame_size is None else _size(given.frame_size)
    print(export_onnx(find(given.bundle), given.output, size))


def serve(arguments: list[str]) -> None:
    """Open the page and the API on this machine, for people and for programs."""
    parser = _Arguments(serve)
    parser.add("--model", default="", help="bundles to offer besides those that ship; the first one is the default")
    parser.add("--host", default="127.0.0.1", help="where to listen; any but this machine's own needs a token")
    parser.add("--port", type=int, default=8000)
    parser.add("--token", type=str, help="what clients must bring; also from EDGEFUSION_TOKEN, which others cannot see")
    given = parser.read(arguments)
    from edgefusion.serving.app import serve as run_server

    run_server(_names(given.model), given.host, given.port, given.token or os.environ.get("EDGEFUSION_TOKEN") or None)


def bench(arguments: list[str]) -> None:
    """Milliseconds a frame, stage by stage, on this machine."""
    parser = _Arguments(bench)
    parser.add("--frames", type=int, default=100, help="frames to time")
    parser.add("--size", default="420x580", help="rows x columns of a frame")
    parser.add("--model", type=str, help="folder of a bundle with its ONNX file; by default the one that ships")
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.bench import as_text, run_bench

    figures = run_bench(given.frames, _size(given.size), given.model)
    print(json.dumps(figures, indent=2) if given.json else as_text(figures))


def info(arguments: list[str]) -> None:
    """Versions, networks with their parameters and multiply-adds, channels and formats."""
    parser = _Arguments(info)
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.info import as_text, facts

    print(json.dumps(facts(), indent=2) if given.json else as_text(facts()))


VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "phantom": phantom,
    "ingest": ingest,
    "channels": channels,
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "serve": serve,
    "bench": bench,
    "info": info,
}
"""The verbs, in the order in which a new user meets them."""


if __name__ == "__main__":
    sys.exit(main())
