"""Fuzz one reader in this process: ``python fuzz/harness.py READER FINDINGS CORPUS... [options of libFuzzer]``.

What is not an ``EdgeFusionError``, takes too long or too much memory is written to FINDINGS, each kind once, and the
fuzzing goes on. A crash of the process, or a hang, is libFuzzer's to note.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from pathlib import Path

import atheris

LIMIT_S = 5.0
"""Seconds of the processor that one content may take."""

LIMIT_KB = 1024 * 1024
"""Memory that one content may take beyond what the process had before."""

FULL_KB = 2 * LIMIT_KB
"""The process ends where it holds that much, and is started again: what atheris puts into the code keeps some pictures
for ever. The same files, read three times, add as much each time with it and nothing without."""

INSTRUMENTED = ["edgefusion", "pydicom", "PIL", "nibabel", "yaml", "json"]
"""Python code of which the fuzzer sees which branches are taken. Code in C it does not see."""

with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
    sys.path.insert(0, str(Path(__file__).parent))
    from readers import READERS


def main() -> None:
    """Run until libFuzzer's options say stop."""
    name, findings = sys.argv[1], Path(sys.argv[2])
    reader = next(reader for reader in READERS if reader.name == name)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    reader.prepare(folder)
    warnings.simplefilter("ignore")

    def test_one_input(content: bytes) -> None:
        before_kb = _begin_peak()
        started = time.process_time()
        try:
            reader.feed(folder, content)
        except Exception as error:
            _note(findings, name, _place(error), content, traceback.format_exc())
        seconds = time.process_time() - started
        if seconds > LIMIT_S:
            _note(findings, name, "slow", content, f"{seconds:.1f} s")
        taken_kb = _peak_kb() - before_kb
        if taken_kb > LIMIT_KB:
            _note(findings, name, "memory", content, f"{taken_kb} KB")
        if before_kb > FULL_KB:
            os._exit(0)

    # Progress and FFmpeg's words would be most of the work; libFuzzer keeps a copy for its own.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    options = {"custom_mutator": _mended_png} if name == "png" else {}
    atheris.Setup([sys.argv[0], *sys.argv[3:]], test_one_input, **options)
    atheris.Fuzz()


def _mended_png(content: bytes, largest: int, seed: int) -> bytes:
    """A mutation whose checksums are right again, without which hardly one would get beyond them."""
    mutated = atheris.Mutate(content, largest)
    if seed % 8 == 0:
        return mutated
    parts, at = [mutated[:8]], 8
    while at + 12 <= len(mutated):
        end = at + 8 + int.from_bytes(mutated[at : at + 4], "big")
        parts += [mutated[at:end], zlib.crc32(mutated[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join(parts)[:largest]


def _begin_peak() -> int:
    """From now on, the process's peak is counted anew; what it holds, in KB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_kb()


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _place(error: BaseException) -> str:
    """Kind of an exception and where it was raised: the same for the same fault."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "edgefusion" in frame.filename][-1:]
    places = "-".join(f"{Path(frame.filename).stem}.{frame.lineno}" for frame in [*own, last])
    return f"{type(error).__name__}-{places}"


def _note(findings: Path, name: str, kind: str, content: bytes, text: str) -> None:
    path = findings / f"{name}-{kind}"
    if not path.exists() or path.stat().st_size > len(content):
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()[:12]
        path.with_name(f"{path.name}.txt").write_text(f"{digest} {len(content)} bytes\n{text}")


if __name__ == "__main__":
    main()
