"""Kill a verb at random moments, start it again, and hold what it makes against an undisturbed run.

python benchmarks/kills.py --kills 20
python benchmarks/kills.py --kills 20 --signal INT

Every kill is a SIGKILL of the whole process group, at a moment drawn evenly over the undisturbed run; or a SIGINT, as
Ctrl-C sends it, which must end it with exit status 130 and without a traceback. After every fourth the command runs to
its end, and its results must be those of the undisturbed run, bit for bit. A markdown table is printed; the exit status
is 1 if anything differs.
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
    "cache": ("{here}/fill_cache.py {study} {out}", ["**/*"]),
    "train": ("train {study} --model unet -o {out} --resume " + _TRAINING, ["bundle.yaml", "model.safetensors"]),
    "compare": (
        "compare {study} --models unet --folds 2 --jobs 2 -o {out} " + _TRAINING,
        ["splits.json", "frames.csv", "*/*/model.safetensors", "*/*/predictions/*.png"],
    ),
}
"""Of every verb (and of filling the cache alone) its command, and what of its output must be the same; times and costs
in the rest may differ."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="for every verb")
    parser.add_argument("--only", default=",".join(VERBS), help="verbs")
    parser.add_argument("--signal", choices=["KILL", "INT"], default="KILL")
    given = parser.parse_args()
    print("| verb | kills | of these before it ended | results compared | different | slowest end, s |")
    print("|---|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for verb in given.only.split(","):
            number = signal.Signals[f"SIG{given.signal}"]
            ends, results, different = torment(verb, given.kills, Path(folder) / verb, number)
            print(f"| {verb} | {given.kills} | {len(ends)} | {results} | {different} | {max(ends, default=0):.1f} |")
            wrong += different
    sys.exit(bool(wrong))


def torment(
    verb: str, kills: int, folder: Path, number: signal.Signals = signal.SIGKILL, seed: int = 0
) -> tuple[list[float], int, int]:
    """Kill one verb.

    Returns:
        For each kill that met a running process how many seconds it lived on, how many results were compared, and how
        many of them differed.
    """
    command, kept = VERBS[verb]
    study = folder / "study"
    run("phantom -o {out} --patients 4 --frames 2 --seed 0 --size 105x145", study, study)
    whole, cut = folder / "whole" / "out", folder / "cut" / "out"
    run(command, study, folder / "warm" / "out")  # compiles what later runs find compiled
    started = time.monotonic()
    run(command, study, whole)
    duration = time.monotonic() - started
    expected = contents(whole, kept)
    assert expected, f"{verb} left nothing to compare"
    moments = random.Random(seed)
    ends, results, different = [], 0, 0
    for kill in range(1, kills + 1):
        lived_on = run(command, study, cut, moments.uniform(0, duration), number)
        ends += [] if lived_on is None else [lived_on]
        if kill % KILLS_A_RESULT == 0 or kill == kills:
            run(command, study, cut)
            results += 1
            different += contents(cut, kept) != expected
            shutil.rmtree(cut)
    return ends, results, different


def run(
    command: str, study: Path, out: Path, kill_after: float | None = None, number: signal.Signals = signal.SIGKILL
) -> float | None:
    """Run a command to its end, or kill it and say how many seconds it lived on; None if it had ended before.

    Raises:
        RuntimeError: If it fails, or does not end as Ctrl-C should end it.
    """
    words = [word.format(here=Path(__file__).parent, study=study, out=out) for word in command.split()]
    program = words if words[0].endswith(".py") else ["-m", "edgefusion", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number)
            started = time.monotonic()
            process.wait()
            seconds = time.monotonic() - started
            _, said = process.communicate()
            # By the signal itself it ends before Python has come to our program, or after that is done, and a script
            # without our program's end always.
            ended_well = process.returncode in (0, 130, -signal.SIGINT) and "Traceback" not in said
            if number == signal.SIGINT and program[0] == "-m" and not ended_well:
                raise RuntimeError(f"{command} ended with {process.returncode}:\n{said}") from None
            return seconds
    if process.returncode:
        raise RuntimeError(f"edgefusion {' '.join(words)} failed:\n{said}")
    return None


def contents(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every file that a pattern names, by its path in ``folder``."""
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}


if __name__ == "__main__":
    main()
