"""A DICOM storage service for ultrasound: what it receives is answered, and the answers are sent on to a peer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from pydicom import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MPEGTransferSyntaxes,
    RLELossless,
)
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification

from edgefusion.data.dicom.folder import CAPTURE_CLASSES, ULTRASOUND_CLASSES
from edgefusion.errors import EdgeFusionError, UsageError
from edgefusion.progress import say
from edgefusion.serving.forwarder import Forwarder, Peer
from edgefusion.serving.spool import Spool, has_room

Handle = Callable[[Path], list[Dataset]]
"""Answers a DICOM file, by objects with the file header that they are to be sent with."""

CAPACITY = 200
"""So many objects may wait; beyond, senders are told to come again (status 0xA700)."""

MAX_BYTES = 4 * 1024**3
"""The association that sends a larger object is aborted."""

MAX_PDU_BYTES = 1024 * 1024
"""A connection that announces a longer piece of a message is closed: pynetdicom would take up to 4 GiB of it into
memory, before it knows who sends it. Objects come in pieces of 16 KiB, as is agreed upon when an association begins."""

_SENDERS = 32
_TIMEOUT_S = 30
_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700
_SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
    *MPEGTransferSyntaxes,
]


class DicomServer:
    """Receives ultrasound by C-STORE, has it answered one by one, and sends the answers on.

    An object counts as received, and the sender is told so, when it is on disk. It is answered at least once, and every
    answer is kept until the peer has confirmed it, over restarts too. Other objects than ultrasound and captured
    screens are refused when the association is negotiated. Use it as a context, or ``start`` and ``stop`` it.

    Args:
        handle: Answers a received file; what it raises puts the file aside.
        ae_title: Our title, up to 16 characters.
        host: The address to listen at.
        port: The port to listen at, 0 for a free one.
        peer: Where the answers go.
        spool: The folder in which objects wait.
        capacity: So many objects may wait.
    """

    def __init__(
        self,
        handle: Handle,
        ae_title: str,
        host: str,
        port: int,
        peer: Peer,
        spool: Path | str,
        capacity: int = CAPACITY,
    ) -> None:
        self._handle = handle
        self._address = (host, port)
        self._spool = Spool(Path(spool), capacity)
        self._forwarder = Forwarder(self._spool, ae_title, peer)
        self._worker = threading.Thread(target=self._work, name="dicom-worker", daemon=True)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ae = AE(ae_title)
        self._ae.maximum_associations = _SENDERS
        self._ae.network_timeout = self._ae.acse_timeout = self._ae.dimse_timeout = _TIMEOUT_S
        self._ae.add_supported_context(Verification)
        for sop_class in (*ULTRASOUND_CLASSES, *CAPTURE_CLASSES):
            self._ae.add_supported_context(UID(sop_class), _SYNTAXES)

    @property
    def port(self) -> int:
        """The port that is listened at."""
        return self._address[1]

    def start(self) -> None:
        """Begin to listen, and take up what an earlier run left.

        Raises:
            UsageError: If the address cannot be listened at.
        """
        # Objects are received into a file, so that many long clips at once do not fill the memory.
        _config.STORE_RECV_CHUNKED_DATASET = True
        handlers = [
            (evt.EVT_CONN_OPEN, _bound_pieces),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_PDU_RECV, self._limit),
            (evt.EVT_CONN_CLOSE, self._forget),
        ]
        try:
            server = self._ae.start_server(self._address, block=False, evt_handlers=handlers)
        except OSError as error:
            place = f"{self._address[0]}:{self._address[1]}"
            raise UsageError(
                f"{place} cannot be listened at: {error.strerror or error}.", "Use another port."
            ) from error
        self._address = (self._address[0], server.server_address[1])
        self._worker.start()
        self._forwarder.start()

    def stop(self) -> None:
        """End the associations, and return when the object that is being answered is done."""
        self._stopping.set()
        self._wake.set()
        self._ae.shutdown()
        self._forwarder.stop()
        for thread in (self._worker, self._forwarder):
            thread.join()

    def __enter__(self) -> DicomServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _store(self, event: evt.Event) -> int:
        try:
            taken = self._spool.receive(event.dataset_path)
        except OSError as error:
            say(f"A received object cannot be kept: {error.strerror or error}.")
            return _OUT_OF_RESOURCES
        if not taken:
            return _OUT_OF_RESOURCES
        self._wake.set()
        return _SUCCESS

    def _limit(self, event: evt.Event) -> None:
        """Abort an association whose object grows too large, for the service or for the disk."""
        partial = _partial(event)
        if partial is None:
            return
        if partial.stat().st_size > MAX_BYTES or not has_room(partial.parent):
            say("An object is refused: it is too large, or the disk is nearly full.")
            event.assoc.abort(block=False)

    def _forget(self, event: evt.Event) -> None:
        """Remove what of an object had come when its association broke."""
        partial = _partial(event)
        if partial is not None:
            partial.unlink(missing_ok=True)

    def _work(self) -> None:
        self._forwarder.wake()
        while not self._stopping.is_set():
            self._wake.clear()
            for path in self._spool.received:
                if self._stopping.is_set():
                    return
                self._answer(path)
                self._forwarder.wake()
            self._wake.wait()

    def _answer(self, path: Path) -> None:
        try:
            self._spool.answer(path, self._handle(path))
        # Whatever is wrong with one object must not end the service for the others.
        except Exception as error:
            # Other messages than our own may contain values of the object's elements.
            own = isinstance(error, EdgeFusionError) and error.__cause__ is None
            say(f"{path.name} is put aside: {error if own else type(error).__name__}")
            self._spool.fail(path)


def run_dicom_server(handle: Handle, ae_title: str, host: str, port: int, peer: Peer, spool: Path | str) -> None:
    """Serve as ``DicomServer`` does, until interrupted (Ctrl-C).

    Args:
        handle: Answers a received file.
        ae_title: Our title.
        host: The address to listen at.
        port: The port to listen at.
        peer: Where the answers go.
        spool: The folder in which objects wait.

    Raises:
        UsageError: If the address cannot be listened at.
    """
    with DicomServer(handle, ae_title, host, port, peer, spool) as server:
        say(f"DICOM: {ae_title} listens at {host}:{server.port} for ultrasound, and sends to {peer}. Ctrl-C ends it.")
        threading.Event().wait()


def _bound_pieces(event: evt.Event) -> None:
    """Let a new connection read no more than ``MAX_PDU_BYTES`` at a time."""
    connection = event.assoc.dul.socket
    receive = connection.recv

    def bounded(count: int) -> bytearray:
        if count > MAX_PDU_BYTES:
            raise OSError(f"a piece of {count} bytes is announced")
        received: bytearray = receive(count)
        return received

    connection.recv = bounded


def _partial(event: evt.Event) -> Path | None:
    """The file that an incomplete object is being received into."""
    message = event.assoc.dimse.message
    path = getattr(message, "_data_set_path", None)
    return Path(path) if path is not None and Path(path).exists() else None
