"""Sending DICOM objects on to a peer, again and again until it has them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association

from edgefusion.errors import UsageError
from edgefusion.progress import say
from edgefusion.serving.spool import Spool

FIRST_WAIT_S = 1.0
"""Seconds until a second attempt; every further one takes twice as long."""

LONGEST_WAIT_S = 60.0
"""Seconds between attempts at most."""

_BATCH = 50
_CONNECT_S = 10
_TIMEOUT_S = 30
_DUPLICATE = 0x0111
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = range(0xB000, 0xC000)


@dataclass(frozen=True)
class Peer:
    """A DICOM application that takes objects."""

    ae_title: str
    """Its title, up to 16 characters."""
    host: str
    """Its name or address."""
    port: int
    """Its port."""

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Read ``TITLE@HOST:PORT``.

        Raises:
            UsageError: If the text has another form.
        """
        title, _, address = text.partition("@")
        host, _, port = address.rpartition(":")
        if not (0 < len(title) <= 16 and host and port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(f"'{text}' is not a DICOM peer.", "Give TITLE@HOST:PORT, such as ORTHANC@localhost:4242.")
        return cls(title, host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


class Forwarder(threading.Thread):
    """Sends what is outgoing in a spool to a peer. What the peer did not confirm stays, and is sent again.

    Args:
        spool: Where the objects wait.
        ae_title: Our own title.
        peer: Where they go.
    """

    def __init__(self, spool: Spool, ae_title: str, peer: Peer) -> None:
        super().__init__(name="dicom-forwarder", daemon=True)
        self._spool = spool
        self._peer = peer
        self._ae = AE(ae_title)
        self._ae.connection_timeout = _CONNECT_S
        self._ae.acse_timeout = self._ae.dimse_timeout = _TIMEOUT_S
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def wake(self) -> None:
        """Something new is outgoing."""
        self._wake.set()

    def stop(self) -> None:
        """End after the object that is being sent."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Send until stopped."""
        wait = FIRST_WAIT_S
        while not self._stopping.is_set():
            self._wake.clear()
            paths = self._spool.outgoing[:_BATCH]
            if not paths:
                self._wake.wait()
                continue
            try:
                problem = self._send(paths)
            # Nothing may end the sending: what waits would wait until the next start.
            except Exception as error:
                problem = f"was not served ({type(error).__name__})"
            if not problem:
                wait = FIRST_WAIT_S
                continue
            say(f"{self._peer} {problem}; {len(self._spool.outgoing)} objects are kept, next attempt in {wait:.0f} s.")
            self._stopping.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _send(self, paths: list[Path]) -> str:
        """Send objects over one association; what the peer did not take is left, and why is returned."""
        classes: dict[UID, set[UID]] = {}
        for path in paths:
            try:
                meta = dcmread(path, stop_before_pixels=True).file_meta
                classes.setdefault(meta.MediaStorageSOPClassUID, set()).add(meta.TransferSyntaxUID)
            except (InvalidDicomError, AttributeError):
                say(f"{path.name} is damaged; it is put aside.")
                self._spool.fail(path)
                return ""
        self._ae.requested_contexts = []
        for sop_class, syntaxes in classes.items():
            for syntax in sorted(syntaxes):
                self._ae.add_requested_context(sop_class, syntax)
        association = self._ae.associate(self._peer.host, self._peer.port, ae_title=self._peer.ae_title)
        if not association.is_established:
            return "cannot be reached, or refuses to talk to us"
        try:
            for path in paths:
                problem = self._send_one(association, path)
                if problem or self._stopping.is_set():
                    return problem
        finally:
            association.release()
        return ""

    def _send_one(self, association: Association, path: Path) -> str:
        try:
            status = association.send_c_store(path)
        except (RuntimeError, ValueError) as error:
            # No presentation context, or the association has ended.
            return f"does not take {path.name} ({error})"
        code = status.get("Status")
        if code is None:
            return "has broken the connection"
        if code in _OUT_OF_RESOURCES:
            return "is out of resources"
        if code in (0, _DUPLICATE) or code in _WARNINGS:
            path.unlink()
        else:
            say(f"{self._peer} refuses {path.name} with status 0x{code:04X}; it is put aside.")
            self._spool.fail(path)
        return ""
