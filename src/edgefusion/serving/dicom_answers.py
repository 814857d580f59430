"""What the DICOM service answers: the objects of a prediction for each file that it receives."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread

from edgefusion.data.dicom import open_dicom
from edgefusion.errors import UsageError
from edgefusion.inference.dicom_write import dicom_writer
from edgefusion.inference.predictor import Predictor, load
from edgefusion.inference.writers import DICOM_FORMATS, output_path
from edgefusion.progress import say
from edgefusion.serving.dicom_server import run_dicom_server
from edgefusion.serving.forwarder import Peer


def serve_dicom(
    bundle: str | None, formats: Sequence[str], ae_title: str, host: str, port: int, peer: str, spool: Path
) -> None:
    """Receive ultrasound by C-STORE and send predictions on, until interrupted.

    Args:
        bundle: See ``load``.
        formats: Of ``writers.DICOM_FORMATS``.
        ae_title: Our title.
        host: The address to listen at.
        port: The port to listen at.
        peer: Who gets the answers, as TITLE@HOST:PORT.
        spool: The folder in which objects wait; what is in it when the service ends is sent when it starts again.

    Raises:
        UsageError: If a format or the peer is none, or the address cannot be listened at.
    """
    for name in formats:
        if name not in DICOM_FORMATS:
            raise UsageError(f"There is no DICOM format '{name}'.", f"Choose from {', '.join(DICOM_FORMATS)}.")
    receiver = Peer.parse(peer)
    model = load(bundle)
    say("For research, not for diagnosis.")
    run_dicom_server(lambda path: answer(path, model, formats), ae_title, host, port, receiver, spool)


def answer(path: Path, model: Predictor, formats: Sequence[str]) -> list[Dataset]:
    """Predict all frames of a DICOM file.

    Args:
        path: The file.
        model: The network.
        formats: Of ``writers.DICOM_FORMATS``.

    Returns:
        One object a format, in their order, each with its file header.

    Raises:
        DataError: If the file cannot be read, or lacks what is needed to refer to it.
    """
    clip = open_dicom(path)
    about = {"spacing": clip.spacing, "region": clip.region}
    with tempfile.TemporaryDirectory(prefix="edgefusion-") as scratch:
        folder = Path(scratch)
        with (
            dicom_writer(formats, path, model.bundle, folder, "answer", rate=clip.rate, **about) as add,  # type: ignore[arg-type]
            model.stream(clip.read(), **about) as stream,  # type: ignore[arg-type]
        ):
            for prediction in stream:
                assert stream.last is not None
                add(prediction, stream.last.image)
        return [dcmread(output_path(name, folder, "answer")) for name in formats]
