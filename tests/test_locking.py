import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

import edgefusion as ef
from edgefusion.config import CompareConfig, SplitConfig
from edgefusion.data.phantom import make_phantom_study
from edgefusion.errors import UsageError
from edgefusion.inference.predict import predict_files
from edgefusion.inference.predictor import load_bundle
from edgefusion.locking import sole_use

HOLDER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from edgefusion.locking import sole_use
    with sole_use(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
""")


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="Another run is at work"), sole_use(tmp_path):
            pass
        holder.kill()
    with sole_use(tmp_path):
        pass


def test_nothing_is_left_in_the_folder(tmp_path):
    with sole_use(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_failed_run_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_use(tmp_path):
        raise ZeroDivisionError
    with sole_use(tmp_path):
        pass


def test_the_folder_is_made_and_stays_if_something_came_into_it(tmp_path):
    for name in ("empty", "used"):
        with sole_use(tmp_path / "new" / name):
            assert (tmp_path / "new" / name).is_dir()
            if name == "used":
                (tmp_path / "new" / name / "file").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["used"]


def test_every_run_that_writes_a_folder_keeps_it_to_itself(tmp_path):
    study = make_phantom_study(tmp_path / "study", patients=2, frames=1)
    pictures, taken = tmp_path / "study" / "images", tmp_path / "taken"
    runs: dict[str, Callable[[], object]] = {
        "phantom": lambda: make_phantom_study(taken, patients=1, frames=1),
        "ingest": lambda: ef.ingest(pictures, taken),
        "predict": lambda: predict_files([pictures], taken, load_bundle("brachial-plexus"), ["png"]),
        "train": lambda: ef.train(study, "unet", taken),
        "compare": lambda: ef.compare(study, taken, CompareConfig(models=("unet",), split=SplitConfig(folds=2))),
        "evaluate": lambda: ef.evaluate("brachial-plexus", study, taken),
    }
    for run in runs.values():
        with sole_use(taken), pytest.raises(UsageError, match="Another run is at work"):
            run()
        assert not taken.exists() or not any(path.suffix == ".png" for path in taken.rglob("*"))
        shutil.rmtree(taken, ignore_errors=True)
