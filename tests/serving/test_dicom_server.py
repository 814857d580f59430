"""What ultrasound scanners send is answered, once it is on disk, and every answer reaches the peer in the end."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    SegmentationStorage,
    UltrasoundImageStorage,
    generate_uid,
)
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification

from edgefusion.data.dicom import open_dicom
from edgefusion.errors import DataError, UsageError
from edgefusion.serving import dicom_server, forwarder
from edgefusion.serving import spool as spool_module
from edgefusion.serving.dicom_server import DicomServer
from edgefusion.serving.forwarder import Peer
from edgefusion.serving.spool import Spool

Write = Callable[..., Path]
OUT_OF_RESOURCES = 0xA700
needs_dcmtk = pytest.mark.skipif(
    shutil.which("storescu") is None or shutil.which("storescp") is None, reason="Debian's dcmtk is not installed"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(forwarder, "LONGEST_WAIT_S", 0.2)


@pytest.fixture
def object_file(tmp_path: Path, write_ultrasound: Write) -> Callable[..., Path]:
    def write(name: str = "Doe_Jane", count: int = 1, syntax: str = ExplicitVRLittleEndian) -> Path:
        frames = np.random.default_rng(0).integers(0, 255, (count, 64, 64), dtype=np.uint8)
        return write_ultrasound(tmp_path / "scanner" / name, frames, syntax)

    return write


def segmentation(path: Path) -> list[Dataset]:
    """The least object that a peer takes for a segmentation, which tells what it is an answer to."""
    source = dcmread(path, stop_before_pixels=True)
    answer = Dataset()
    answer.SOPClassUID, answer.SOPInstanceUID = SegmentationStorage, generate_uid()
    answer.SeriesDescription = source.SOPInstanceUID
    answer.PatientID = source.PatientID
    answer.file_meta = FileMetaDataset()
    answer.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    answer.file_meta.MediaStorageSOPInstanceUID = answer.SOPInstanceUID
    answer.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return [answer]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Archive:
    """A peer of pynetdicom's, which keeps what it takes in memory, and answers with a status of choice."""

    def __init__(self, port: int) -> None:
        self.port, self.status, self.taken = port, 0, []
        self._ae = AE("ARCHIVE")
        self._ae.add_supported_context(SegmentationStorage)

    def _store(self, event: evt.Event) -> int:
        if self.status == 0:
            self.taken.append(str(event.request.AffectedSOPInstanceUID))
        return self.status

    @contextmanager
    def open(self) -> Iterator[Archive]:
        handlers = [(evt.EVT_C_STORE, self._store)]
        server = self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()


@pytest.fixture
def archive() -> Archive:
    return Archive(free_port())


@pytest.fixture
def serve(tmp_path: Path, archive: Archive) -> Iterator[Callable[..., DicomServer]]:
    servers: list[DicomServer] = []

    def start(handle: Callable[[Path], list[Dataset]] = segmentation, capacity: int = 50) -> DicomServer:
        peer = Peer("ARCHIVE", "127.0.0.1", archive.port)
        server = DicomServer(handle, "EDGEFUSION", "127.0.0.1", 0, peer, tmp_path / "spool", capacity)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def send(server: DicomServer, *paths: Path) -> list[int]:
    ae = AE("SCANNER")
    for path in paths:
        meta = dcmread(path, stop_before_pixels=True).file_meta
        ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", server.port)
    assert association.is_established
    statuses = [int(association.send_c_store(path).Status) for path in paths]
    association.release()
    return statuses


def waiting(tmp_path: Path) -> dict[str, int]:
    folder = tmp_path / "spool"
    return {part: len(list((folder / part).iterdir())) for part in ("received", "outgoing", "failed")}


EMPTY = {"received": 0, "outgoing": 0, "failed": 0}


def test_an_object_is_answered_and_the_answer_sent_on(
    serve: Callable[..., DicomServer], archive: Archive, object_file: Callable[..., Path], tmp_path: Path
) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def handle(path: Path) -> list[Dataset]:
        seen.append((path.name, next(open_dicom(path).read()).shape))
        return segmentation(path)

    with archive.open():
        server = serve(handle)
        assert send(server, object_file(), object_file("cine", 3, JPEG2000Lossless)) == [0, 0]
        until(lambda: len(archive.taken) == 2 and waiting(tmp_path) == EMPTY)
    assert [shape for _, shape in seen] == [(64, 64), (64, 64)]
    assert not [name for name, _ in seen if "Doe" in name]


def test_the_folder_is_closed_to_others(serve: Callable[..., DicomServer], tmp_path: Path) -> None:
    serve()
    assert [(tmp_path / "spool" / part).stat().st_mode & 0o077 for part in (".", "received", "outgoing", "failed")] == [
        0
    ] * 4


def test_nothing_is_lost_while_the_peer_is_down(
    serve: Callable[..., DicomServer],
    archive: Archive,
    object_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve()
    assert send(server, object_file("a"), object_file("b")) == [0, 0]
    until(lambda: waiting(tmp_path) == EMPTY | {"outgoing": 2})
    until(lambda: "cannot be reached" in capsys.readouterr().err)
    server.stop()
    # Not even by a restart, nor by a peer that comes up but is full at first.
    archive.status = OUT_OF_RESOURCES
    with archive.open():
        serve()
        until(lambda: "out of resources" in capsys.readouterr().err)
        assert waiting(tmp_path) == EMPTY | {"outgoing": 2}
        archive.status = 0
        until(lambda: len(archive.taken) == 2 and waiting(tmp_path) == EMPTY)


def test_what_was_received_before_a_crash_is_answered_after_it(
    serve: Callable[..., DicomServer], archive: Archive, object_file: Callable[..., Path], tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", 5)
    assert spool.receive(object_file())
    (tmp_path / "spool" / "received" / ".half.dcm").write_bytes(b"half")
    with archive.open():
        serve()
        until(lambda: len(archive.taken) == 1 and waiting(tmp_path) == EMPTY)


def test_what_a_peer_refuses_for_good_does_not_hold_up_the_rest(
    serve: Callable[..., DicomServer], archive: Archive, object_file: Callable[..., Path], tmp_path: Path
) -> None:
    archive.status = 0xC000
    with archive.open():
        server = serve()
        send(server, object_file("a"))
        until(lambda: waiting(tmp_path) == EMPTY | {"failed": 1})
        archive.status = 0
        send(server, object_file("b"))
        until(lambda: len(archive.taken) == 1)


def test_a_damaged_answer_in_the_spool_does_not_hold_up_the_rest(
    serve: Callable[..., DicomServer], archive: Archive, object_file: Callable[..., Path], tmp_path: Path
) -> None:
    Spool(tmp_path / "spool", 5)
    (tmp_path / "spool" / "outgoing" / "0.dcm").write_bytes(b"not DICOM")
    with archive.open():
        server = serve()
        send(server, object_file())
        until(lambda: len(archive.taken) == 1 and waiting(tmp_path) == EMPTY | {"failed": 1})


def test_echo(serve: Callable[..., DicomServer]) -> None:
    ae = AE()
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", serve().port)
    assert association.send_c_echo().Status == 0
    association.release()


def test_what_failed_is_kept_within_bounds(
    tmp_path: Path, object_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_KEPT_FAILURES", 2)
    spool = Spool(tmp_path / "spool", 9)
    for _ in range(4):
        assert spool.receive(object_file())
    received = spool.received
    for path in received:
        spool.fail(path)
    assert [path.name for path in spool.failed] == [path.name for path in received[2:]]


@pytest.mark.parametrize("error", [DataError("It is blank."), ValueError("Doe^Jane")])
def test_what_cannot_be_answered_is_put_aside(
    serve: Callable[..., DicomServer],
    archive: Archive,
    object_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    first = threading.Event()

    def handle(path: Path) -> list[Dataset]:
        if not first.is_set():
            first.set()
            raise error
        return segmentation(path)

    with archive.open():
        server = serve(handle)
        send(server, object_file("a"), object_file("b"))
        until(lambda: len(archive.taken) == 1 and waiting(tmp_path) == EMPTY | {"failed": 1})
    said = capsys.readouterr().err
    assert ("It is blank." in said) or ("ValueError" in said and "Doe" not in said)


def test_a_full_queue_refuses_and_takes_again(
    serve: Callable[..., DicomServer], archive: Archive, object_file: Callable[..., Path], tmp_path: Path
) -> None:
    go_on = threading.Event()

    def handle(path: Path) -> list[Dataset]:
        assert go_on.wait(30)
        return segmentation(path)

    paths = [object_file(str(number)) for number in range(5)]
    with archive.open():
        server = serve(handle, capacity=3)
        assert send(server, *paths) == [0, 0, 0, OUT_OF_RESOURCES, OUT_OF_RESOURCES]
        go_on.set()
        until(lambda: waiting(tmp_path) == EMPTY)
        assert send(server, *paths[3:]) == [0, 0]
        until(lambda: len(archive.taken) == 5)


def test_other_objects_are_refused_at_negotiation(serve: Callable[..., DicomServer]) -> None:
    ae = AE()
    ae.add_requested_context(CTImageStorage)
    association = ae.associate("127.0.0.1", serve().port)
    assert not association.is_established
    ae.add_requested_context(UltrasoundImageStorage)
    association = ae.associate("127.0.0.1", serve().port)
    assert [context.abstract_syntax for context in association.accepted_contexts] == [UltrasoundImageStorage]
    association.release()


def test_a_broken_association_leaves_nothing(
    serve: Callable[..., DicomServer],
    object_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    server = serve()
    path = object_file("long", 40)
    association = half_sent(server, path, path.stat().st_size // 2, folder)
    association.close()
    until(lambda: not list(folder.iterdir()))
    assert waiting(tmp_path) == EMPTY
    # The service goes on.
    assert send(server, object_file("b")) == [0]


def test_an_object_without_end_is_cut_off(
    serve: Callable[..., DicomServer],
    object_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dicom_server, "MAX_BYTES", 50_000)
    server = serve()
    path = object_file("long", 40)
    meta = dcmread(path, stop_before_pixels=True).file_meta
    ae = AE()
    ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", server.port)
    association.send_c_store(path)
    until(lambda: association.is_aborted)
    assert waiting(tmp_path) == EMPTY


def test_a_piece_that_would_fill_the_memory_is_not_awaited(
    serve: Callable[..., DicomServer], object_file: Callable[..., Path]
) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        # An association request, by whomever, that says it is 4 GiB long.
        connection.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1) + bytes(4096))
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert send(server, object_file("b")) == [0]


def test_a_disk_that_is_nearly_full_takes_no_more(
    serve: Callable[..., DicomServer], object_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    with monkeypatch.context() as patch:
        # Room for what is being received, and not for a copy of it.
        patch.setattr(spool_module, "RESERVE_BYTES", shutil.disk_usage(tmp_path).total)
        patch.setattr(dicom_server, "has_room", lambda _: True)
        assert send(server, object_file("a")) == [OUT_OF_RESOURCES]
        assert waiting(tmp_path) == EMPTY
    assert send(server, object_file("b")) == [0]


def test_an_object_that_fills_the_disk_is_cut_off(
    serve: Callable[..., DicomServer], object_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_server, "has_room", lambda _: False)
    server = serve()
    path = object_file("long", 40)
    meta = dcmread(path, stop_before_pixels=True).file_meta
    ae = AE()
    ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", server.port)
    association.send_c_store(path)
    until(lambda: association.is_aborted)
    assert waiting(tmp_path) == EMPTY


@needs_dcmtk
class TestDcmtk:
    @pytest.fixture
    def storescp(self, tmp_path: Path) -> Iterator[tuple[int, Path]]:
        folder, port = tmp_path / "peer", free_port()
        folder.mkdir()
        process = subprocess.Popen(["storescp", "-od", folder, str(port)], stderr=subprocess.DEVNULL)
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield port, folder
        process.terminate()
        process.wait(10)

    @pytest.fixture
    def server(self, tmp_path: Path, storescp: tuple[int, Path]) -> Iterator[DicomServer]:
        peer = Peer("STORESCP", "127.0.0.1", storescp[0])
        with DicomServer(segmentation, "EDGEFUSION", "127.0.0.1", 0, peer, tmp_path / "spool") as server:
            yield server

    def storescu(self, server: DicomServer, *arguments: str | Path) -> subprocess.Popen[bytes]:
        command = ["storescu", "-aec", "EDGEFUSION", *arguments[:-1], "127.0.0.1", str(server.port), arguments[-1]]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def test_there_and_back(
        self, server: DicomServer, storescp: tuple[int, Path], object_file: Callable[..., Path]
    ) -> None:
        path = object_file("x", 3)
        assert self.storescu(server, path).wait(30) == 0
        until(lambda: len(list(storescp[1].iterdir())) == 1)
        (answer,) = storescp[1].iterdir()
        assert dcmread(answer, force=True).SeriesDescription == dcmread(path).SOPInstanceUID

    def test_compressed_objects_arrive_as_they_are(
        self, server: DicomServer, storescp: tuple[int, Path], object_file: Callable[..., Path]
    ) -> None:
        assert self.storescu(server, "-xv", object_file("x", 3, JPEG2000Lossless)).wait(30) == 0
        until(lambda: len(list(storescp[1].iterdir())) == 1)

    def test_a_wrong_class_is_refused(
        self, server: DicomServer, object_file: Callable[..., Path], tmp_path: Path
    ) -> None:
        path = object_file()
        dataset = dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.save_as(path)
        assert self.storescu(server, path).wait(30) != 0
        assert waiting(tmp_path) == EMPTY

    def test_ten_senders_at_once(
        self, server: DicomServer, storescp: tuple[int, Path], object_file: Callable[..., Path]
    ) -> None:
        paths = [object_file(f"x{number}", 5) for number in range(10)]
        senders = [self.storescu(server, path) for path in paths]
        assert [sender.wait(60) for sender in senders] == [0] * 10
        until(lambda: len(list(storescp[1].iterdir())) == 10, 60)
        answered = {dcmread(path, force=True).SeriesDescription for path in storescp[1].iterdir()}
        assert answered == {dcmread(path).SOPInstanceUID for path in paths}

    def test_a_killed_sender_leaves_nothing(
        self, server: DicomServer, object_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "temporary"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        sender = self.storescu(server, "--max-send-pdu", "4096", object_file("long", 4000))
        until(lambda: bool(list(folder.iterdir())))
        sender.kill()
        sender.wait(10)
        until(lambda: not list(folder.iterdir()))
        assert waiting(tmp_path)["received"] == 0


class TestPeer:
    def test_a_peer_is_read_and_written(self) -> None:
        assert Peer.parse("ORTHANC@pacs.local:4242") == Peer("ORTHANC", "pacs.local", 4242)
        assert Peer.parse("A@[::1]:104").host == "::1"
        assert str(Peer("A", "h", 104)) == "A@h:104"

    @pytest.mark.parametrize(
        "text", ["", "A", "A@h", "A@h:", "A@h:x", "@h:104", f"{'A' * 17}@h:104", "A@h:0", "A@:104"]
    )
    def test_other_texts_are_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="TITLE@HOST:PORT"):
            Peer.parse(text)


def test_a_taken_port_is_said(serve: Callable[..., DicomServer], archive: Archive, tmp_path: Path) -> None:
    port = serve().port
    peer = Peer("A", "127.0.0.1", archive.port)
    other = DicomServer(segmentation, "OTHER", "127.0.0.1", port, peer, tmp_path / "other")
    with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be listened at"):
        other.start()


def half_sent(server: DicomServer, path: Path, size: int, folder: Path) -> socket.socket:
    """A connection over which the beginning of an object was sent, in the bytes of the protocol."""
    recorded: list[bytes] = []
    dataset = dcmread(path)
    ae = AE("SCANNER")
    ae.add_requested_context(dataset.SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate(
        "127.0.0.1", server.port, evt_handlers=[(evt.EVT_DATA_SENT, lambda event: recorded.append(event.data))]
    )
    request = b"".join(recorded)
    association.abort()
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(request)
    assert connection.recv(4)[0] == 2  # A-ASSOCIATE-AC
    time.sleep(0.1)
    connection.setblocking(False)
    connection.recv(100_000)
    connection.setblocking(True)
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 1, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    primitive.DataSet = BytesIO(encode(dataset, False, True))
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    sent = 0
    for part in message.encode_msg(1, 4096):
        pdu = P_DATA_TF()
        pdu.from_primitive(part)
        connection.sendall(pdu.encode())
        sent += 4096
        if sent > size:
            break
    until(lambda: bool(list(folder.iterdir())))
    return connection
