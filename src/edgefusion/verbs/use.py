"""Verbs that use a network: in files, in a graph of its own, in a browser."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgefusion.errors import UsageError
from edgefusion.verbs.arguments import Arguments, names, size


def predict(arguments: list[str]) -> None:
    """Find the nerve in images, videos, DICOM files, folders of them, or what a camera sends."""
    parser = Arguments(predict)
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
        default="",
        help="any of png,overlay,json,kaggle,video,dicom-seg,dicom-seg-probability,dicom-seg-placed,dicom-sc,dicom-sr; "
        "by default png,overlay,json, with --ray png; none for only the table",
    )
    parser.add("--crop", default="auto", help="where the image is: auto, none, or TOP,LEFT,HEIGHT,WIDTH in pixels")
    parser.add("--smoothing", type=float, default=0.0, help="of clips, in [0, 1): 0.5 lags behind by one frame")
    parser.add("--flip-averaging", action="store_true", help="average with the mirrored frame")
    parser.add("--strict", action="store_true", help="fail if any image could not be used")
    parser.add(
        "--ray", type=str, help="stills on a Ray cluster, into Parquet: HOST:PORT, auto, or local for this machine"
    )
    parser.add("--workers", type=int, help="with --ray: networks side by side; by default one a core")
    parser.add_json()
    given = parser.read(arguments)
    if given.ray:
        _predict_on_cluster(given)
        return
    from edgefusion.channels.bands import cores
    from edgefusion.inference.predict import predict_files
    from edgefusion.inference.predict_clip import read_crop
    from edgefusion.inference.predictor import load

    # Reading and writing go on beside the network.
    model = load(given.model, threads=max(1, cores() - 1))
    rows = predict_files(
        given.inputs,
        given.output,
        model.bundle,
        names(given.format or "png,overlay,json"),
        given.flip_averaging,
        strict=given.strict,
        crop=read_crop(given.crop),
        smoothing=given.smoothing,
        backend=model.backend,
    )
    print(json.dumps(rows, indent=2) if given.json else given.output)


def _predict_on_cluster(given: Any) -> None:
    from edgefusion.cluster.predict import predict_on_cluster
    from edgefusion.inference.predict_clip import read_crop

    summary = predict_on_cluster(
        given.inputs,
        given.output,
        given.model,
        given.ray,
        () if given.format == "none" else names(given.format or "png"),
        given.flip_averaging,
        strict=given.strict,
        crop=read_crop(given.crop),
        workers=given.workers,
    )
    print(json.dumps(summary, indent=2) if given.json else given.output)


def export(arguments: list[str]) -> None:
    """Write a bundle for other programs: one ONNX file from raw frame to mask, or a MONAI bundle."""
    parser = Arguments(export)
    parser.add("bundle", type=str, help="folder of a bundle, or brachial-plexus or regional, which ship along")
    parser.add("--onnx", action="store_true", help="as one ONNX file")
    parser.add(
        "-o", "--output", type=Path, help="that file; by default model.onnx in the bundle, where it is used from"
    )
    parser.add("--frame-size", type=str, help="rows x columns, for bundles that filter frames at their own size")
    parser.add("--monai-bundle", type=Path, help="as a MONAI bundle, in this new folder")
    given = parser.read(arguments)
    if not (given.onnx or given.monai_bundle):
        raise UsageError("Nothing was chosen to write.", "Give --onnx, or --monai-bundle DIR.")
    from edgefusion.bundles import find

    if given.onnx:
        from edgefusion.inference.onnx import export_onnx

        frame_size = None if given.frame_size is None else size(given.frame_size)
        print(export_onnx(find(given.bundle), given.output, frame_size))
    if given.monai_bundle:
        from edgefusion.inference.monai_bundle import export_monai_bundle

        print(export_monai_bundle(given.bundle, given.monai_bundle))


def serve(arguments: list[str]) -> None:
    """Open the page and the API on this machine; or answer ultrasound that comes by DICOM."""
    parser = Arguments(serve)
    parser.add("--model", default="", help="bundles to offer besides those that ship; the first one is the default")
    parser.add("--host", default="127.0.0.1", help="where to listen; for the page any but this machine needs a token")
    parser.add("--port", type=int, help="by default 8000, with --dicom 11112; 0 takes a free one")
    parser.add("--token", type=str, help="what clients must bring; also from EDGEFUSION_TOKEN, which others cannot see")
    parser.add("--dicom", action="store_true", help="no page: take ultrasound by C-STORE, send segmentations to --peer")
    parser.add("--peer", type=str, help="with --dicom: who gets the answers, as TITLE@HOST:PORT")
    parser.add("--ae-title", default="EDGEFUSION", help="with --dicom: how others call this service")
    parser.add("--spool", type=Path, default=Path("edgefusion-spool"), help="with --dicom: where objects wait")
    parser.add("--format", default="dicom-seg", help="with --dicom: any of dicom-seg,dicom-sr,dicom-sc ...")
    given = parser.read(arguments)
    if given.dicom:
        if given.peer is None:
            raise UsageError("The answers have nowhere to go.", "Give --peer TITLE@HOST:PORT.")
        from edgefusion.serving.dicom_answers import serve_dicom

        chosen = names(given.model)
        serve_dicom(
            chosen[0] if chosen else None,
            names(given.format),
            given.ae_title,
            given.host,
            11112 if given.port is None else given.port,
            given.peer,
            given.spool,
        )
        return
    from edgefusion.serving.app import serve as run_server

    token = given.token or os.environ.get("EDGEFUSION_TOKEN") or None
    run_server(names(given.model), given.host, 8000 if given.port is None else given.port, token)


def bench(arguments: list[str]) -> None:
    """Milliseconds a frame, stage by stage, on this machine."""
    parser = Arguments(bench)
    parser.add("--frames", type=int, default=100, help="frames to time")
    parser.add("--size", default="420x580", help="rows x columns of a frame")
    parser.add("--model", type=str, help="folder of a bundle with its ONNX file; by default the one that ships")
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.bench import as_text, run_bench

    figures = run_bench(given.frames, size(given.size), given.model)
    print(json.dumps(figures, indent=2) if given.json else as_text(figures))


def info(arguments: list[str]) -> None:
    """Versions, networks with their parameters and multiply-adds, channels and formats."""
    parser = Arguments(info)
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.info import as_text, facts

    print(json.dumps(facts(), indent=2) if given.json else as_text(facts()))
