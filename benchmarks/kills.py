"""Kill a verb at random moments, start it again, and hold what it makes against an undisturbed run.

python benchmarks/kills.py --kills 20

Every kill is a SIGKILL of the whole process group, at a moment drawn evenly over the undisturbed run. After every
fourth the command runs to its end, and its results must be those of the undisturbed run, bit for bit. A markdown table
is printed; the exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from edgefusion.files import sha256_of_file

KILLS_A_RESULT = 4
_TRAINING = "--train.epochs 3 --train.batch_size 4 --train.precision 32 --recipe.height 32 --recipe.width 48"

VERBS: dict[str, tuple[str, Sequence[str]]] = {
    "phantom": ("phantom -o {out} --patients 3 --frames 3 --seed 1", ["**/*"]),
    "ingest": ("ingest {study}/images -o {out}", ["**/*"]),
    "predict": ("predict {study}/images -o {out} --format png,overlay,json", ["**/*"]),
    "train": ("train {study} --model unet -o {out} --resume " + _TRAINING, ["bundle.yaml", "model.safetensors"]),
    "compare": (
        "compare {study} --models unet --folds 2 --jobs 2 -o {out} " + _TRAINING,
        ["splits.json", "frames.csv", "*/*/model.safetensors", "*/*/predictions/*.png"],
    ),
}
"""Of every verb its command, and what of its output must be the same (times and costs in the rest may differ)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="for every verb")
    parser.add_argument("--only", default=",".join(VERBS), help="verbs")
    given = parser.parse_args()
    print("| verb | kills | of these before it ended | results held against the undisturbed run | different |")
    print("|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for verb in given.only.split(","):
            hits, results, different = torment(verb, given.kills, Path(folder) / verb)
            print(f"| {verb} | {given.kills} | {hits} | {results} | {different} |", flush=True)
            wrong += different
    sys.exit(bool(wrong))


def torment(verb: str, kills: int, folder: Path, seed: int = 0) -> tuple[int, int, int]:
    """Kill one verb.

    Returns:
        How many kills met a running process, how many results were compared, and how many of them differed.
    """
    command, kept = VERBS[verb]
    study = folder / "study"
    run("phantom -o {out} --patients 4 --frames 2 --seed 0 --size 105x145", study, study)
    whole, cut = folder / "whole" / "out", folder / "cut" / "out"
    started = time.monotonic()
    run(command, study, whole)
    duration = time.monotonic() - started
    expected = contents(whole, kept)
    assert expected, f"{verb} left nothing to compare"
    moments = random.Random(seed)
    hits = results = different = 0
    for number in range(1, kills + 1):
        hits += run(command, study, cut, kill_after=moments.uniform(0, duration))
        if number % KILLS_A_RESULT == 0 or number == kills:
            run(command, study, cut)
            results += 1
            different += contents(cut, kept) != expected
            shutil.rmtree(cut)
    return hits, results, different


def run(command: str, study: Path, out: Path, kill_after: float | None = None) -> bool:
    """Run a command to its end, or kill it and say whether it was still at work.

    Raises:
        RuntimeError: If it fails.
    """
    words = [word.format(study=study, out=out) for word in command.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "edgefusion", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    if process.returncode:
        raise RuntimeError(f"edgefusion {' '.join(words)} failed:\n{said}")
    return False


def contents(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every file that a pattern names, by its path in ``folder``."""
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}


if __name__ == "__main__":
    main()
