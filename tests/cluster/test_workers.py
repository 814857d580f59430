from __future__ import annotations

import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefusion.cluster import tasks, workers
from edgefusion.cluster.connection import connected
from edgefusion.cluster.tasks import Tasks, run_one
from edgefusion.data.study import Study
from edgefusion.errors import DataError, EdgeFusionError, UsageError
from edgefusion.locking import sole_use


def test_the_study_has_to_be_there_and_the_same(few_discs: Study, tmp_path: Path) -> None:
    assert len(workers.load_study(few_discs.path, few_discs.sha256()).frames) == 16
    with pytest.raises(DataError, match="sees at the same path"):
        workers.load_study(tmp_path / "nowhere", few_discs.sha256())
    with pytest.raises(DataError, match="another study"):
        workers.load_study(few_discs.path, "0" * 64)


def test_a_folder_is_recognised_by_the_word_left_in_it(tmp_path: Path) -> None:
    word = workers.mark(tmp_path / "run")
    assert workers.sees(tmp_path / "run", word)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    again = workers.mark(tmp_path / "run")
    assert not workers.sees(tmp_path / "copy", again)
    assert not workers.sees(tmp_path / "nowhere", again)


def test_an_installation_that_differs_is_named() -> None:
    workers.check_installation(workers.installation())
    with pytest.raises(UsageError, match=r"torch .* and not 0\.1, edgefusion's source .* and not abc"):
        workers.check_installation({**workers.installation(), "torch": "0.1", "edgefusion's source": "abc"})


def test_a_former_worker_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()

    def at_work() -> None:
        with sole_use(tmp_path / "unit"):
            entered.set()
            leave.wait(20)

    former = threading.Thread(target=at_work)
    former.start()
    assert entered.wait(20)
    monkeypatch.setattr(workers, "_FORMER_RUN_S", 0.0)
    with pytest.raises(UsageError, match="Another run is at work"):
        workers.wait_for_former_run(tmp_path / "unit")
    monkeypatch.setattr(workers, "_FORMER_RUN_S", 20.0)
    monkeypatch.setattr(workers.time, "sleep", lambda seconds: (leave.set(), former.join()))
    workers.wait_for_former_run(tmp_path / "unit")


def test_a_packed_folder_arrives_whole_in_the_place_of_what_was_there(tmp_path: Path) -> None:
    made, place = tmp_path / "made", tmp_path / "run" / "unet" / "fold_0"
    for name in ("metrics.csv", "predictions/a.png", "checkpoints/last.ckpt"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    (place / "checkpoints").mkdir(parents=True)
    (place / "checkpoints" / "last.ckpt").write_text("of a local run before")
    content = workers.pack(made)
    with pytest.raises(tarfile.ReadError):
        workers.unpack(content[:1540], place)
    assert [path.name for path in place.parent.iterdir()] == ["fold_0"]
    assert (place / "checkpoints" / "last.ckpt").exists()
    (place.parent / ".fold_0.0123456789abcdef" / "predictions").mkdir(parents=True)
    workers.unpack(content, place)
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert files == {"metrics.csv", "predictions/a.png"}
    assert [path.name for path in place.parent.iterdir()] == ["fold_0"]


@pytest.fixture(scope="module")
def driver(cluster_address: str) -> Iterator[str]:
    with connected(cluster_address):
        yield cluster_address


def test_more_cores_than_any_machine_has_are_refused(driver: str) -> None:
    with pytest.raises(UsageError, match="cannot have 64 cores: the largest machine of the cluster has 1"):
        Tasks(len, 64)


def test_a_task_that_loses_every_worker_says_so(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_LIVES", 0)
    with pytest.raises(EdgeFusionError, match="started 1 times, and each time its worker was lost"):
        run_one(lambda: os._exit(1), 1, ())


def test_a_package_that_a_machine_lacks_is_named(driver: str) -> None:
    def needs() -> None:
        import there_is_no_such_package  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises(UsageError, match=r"lacks a package.*there_is_no_such_package"):
        run_one(needs, 1, ())


def test_the_first_error_ends_the_other_tasks(driver: str) -> None:
    def wait_or_fail(fail: bool) -> None:
        if fail:
            raise DataError("broken frame")
        threading.Event().wait(100)

    import ray

    both = Tasks(wait_or_fail, 1)
    both.start("waits", False)
    both.start("fails", True)
    with pytest.raises(DataError, match="broken frame"):
        list(both.finished())
    # Both cores are free again long before it would have ended.
    on_each = [ray.remote(num_cpus=1, resources={node: 0.1})(lambda: "done").remote() for node in ("first", "second")]
    assert ray.get(on_each, timeout=30) == ["done", "done"]
