"""What a killed process was writing: gone with the next run, and never an input."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edgefusion.channels.recipe import cached_stacks
from edgefusion.config import ChannelRecipe, CompareConfig, TrainConfig
from edgefusion.data.dicom.folder import dicom_files
from edgefusion.data.layouts import recognise
from edgefusion.data.signature import holds_dicom
from edgefusion.data.splits import Split
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.files import TEMPORARY, atomic_folder, atomic_path, remove_leftovers
from edgefusion.inference.inputs import find_frames
from edgefusion.locking import sole_use
from edgefusion.training.crossval import run_unit

_WRITER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from edgefusion.files import atomic_folder, atomic_path
    folder = Path(sys.argv[1])
    with atomic_path(folder / "a.png") as file, atomic_folder(folder / "b") as pictures:
        file.write_bytes(b"half")
        (pictures / "000001.png").write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
""")


def _leftovers(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob(f"{TEMPORARY}*"))


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        remove_leftovers(tmp_path)
        assert len(_leftovers(tmp_path)) == 2
        writer.send_signal(signal.SIGKILL)
    assert len(_leftovers(tmp_path)) == 2
    with sole_use(tmp_path):
        assert not list(tmp_path.iterdir())


def test_the_cleaning_leaves_this_process_and_links_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / f"{TEMPORARY}link").symlink_to(kept)
    with atomic_path(tmp_path / "x.txt") as file, atomic_folder(tmp_path / "y") as folder:
        file.write_text("x")
        remove_leftovers(tmp_path)
        assert file.exists()
        assert folder.exists()
    assert (tmp_path / "x.txt").read_text() == "x"
    assert (tmp_path / "y").is_dir()
    assert (kept / "file").exists()


def _kill_in_the_middle(folder: Path) -> None:
    """Leave what ``atomic_path``, ``atomic_folder`` and a killed ingest leave, each with a picture that can be read."""
    picture = next(path for path in sorted(folder.rglob("*.png")))
    shutil.copy(picture, folder / f"{TEMPORARY}0123456789abcdef.png")
    for name in (f"{TEMPORARY}0123456789abcdee", ".incoming"):
        (folder / name / "images").mkdir(parents=True)
        shutil.copy(picture, folder / name / "images" / "000001.png")


def test_leftovers_are_no_inputs(phantoms: Path, tmp_path: Path, write_ultrasound) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(phantoms / "images", folder)
    frames = [frame.path for frame in find_frames([folder], tmp_path / "out")]
    entries = [entry.image for entry in recognise(folder).entries]
    _kill_in_the_middle(folder)
    assert [frame.path for frame in find_frames([folder], tmp_path / "out")] == frames
    layout = recognise(folder)
    assert [entry.image for entry in layout.entries] == entries
    assert not layout.problems
    for picture in folder.glob("[!.]*"):
        picture.unlink()
    shutil.copy(folder / ".incoming" / "images" / "000001.png", folder / ".incoming")
    with pytest.raises(UsageError, match="Give the folder that holds them"):  # and not: did you mean .incoming?
        recognise(folder)
    dicom = tmp_path / "dicom"
    whole = write_ultrasound(dicom / "a.dcm", np.zeros((1, 64, 64), np.uint8))
    shutil.copy(whole, dicom / f"{TEMPORARY}0123456789abcdef.dcm")
    assert dicom_files(dicom) == [whole]
    whole.unlink()
    assert not holds_dicom(dicom)


def test_the_cache_is_cleaned_by_whoever_fills_it(phantoms: Path, tmp_path: Path) -> None:
    recipe = ChannelRecipe(("raw",), 24, 32)
    folder = tmp_path / recipe.key()
    folder.mkdir()
    (folder / f"{TEMPORARY}0123456789abcdef").write_bytes(b"half")
    study = Study.load(phantoms)
    cached_stacks(study, list(study.frames["frame_id"]), recipe, tmp_path)
    assert not _leftovers(tmp_path)
    assert len(list(folder.iterdir())) == len(study.frames)


@pytest.mark.parametrize("verb", ["compare", "predict", "evaluate"])
def test_every_file_of_a_run_is_renamed_to_its_place(verb, phantoms, run, contents, tmp_path, monkeypatch):
    # A kill can come between any two system calls: only what a rename puts there is whole or absent.
    renamed, replace = set(), os.replace

    def noting(source, target):
        renamed.add(str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", noting)
    out = tmp_path / "out"
    if verb == "compare":
        config = CompareConfig(("unet",), train=TrainConfig(epochs=1), recipe=ChannelRecipe(("raw",), 32, 48))
        run_unit(phantoms, out, config, ("unet", Split("fold_0", ("p00", "p01"), ("p02", "p03")), 0))
    else:
        words = {
            "predict": [phantoms, "--format", "png,overlay,json,kaggle"],
            "evaluate": ["brachial-plexus", phantoms],
        }
        assert run(verb, *words[verb], "-o", out)[0] == 0
    written = {str(out / name) for name in contents(out)}
    assert len(written) > 1
    assert written <= renamed
