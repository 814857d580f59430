"""Fuzz all readers in turn: ``python fuzz/run.py --seconds 300 [--readers png dicom] [-o runs/fuzz]``.

Each reader runs in a child of its own with limits. What is found lies in OUTPUT/findings, what was tried in
OUTPUT/corpus/READER (the next run goes on from there), and the figures of every reader in OUTPUT/table.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LARGEST = 1_000_000
"""Bytes of a content at most."""
ADDRESS_SPACE = 8 << 30
"""Bytes that a child may map; torch alone maps some."""
HANG_S = 30
"""Seconds by the wall clock after which a content counts as hanging, on a machine that has other work too."""
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
"""Large pieces go back to the system at once: otherwise glibc keeps them, and memory says nothing of one content."""
COLUMNS = ("reader", "seconds", "executions", "edges", "corpus", "findings")


def main() -> None:
    """Parse the command line and fuzz."""
    sys.path.insert(0, str(HERE))
    from readers import READERS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="for each reader")
    parser.add_argument("--readers", nargs="*", default=[reader.name for reader in READERS])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/fuzz"))
    arguments = parser.parse_args()
    for reader in READERS:
        if reader.name in arguments.readers:
            row = fuzz(reader, arguments.seconds, arguments.output)
            print(row, flush=True)
            _add(arguments.output / "table.csv", row)


def fuzz(reader, seconds: int, output: Path) -> dict[str, object]:
    """Fuzz one reader; its child is started again after a crash, until the time is over."""
    corpus, findings = output / "corpus" / reader.name, output / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(reader.seeds()):
        (corpus / f"seed-{number}").write_bytes(content)
    words = output / f"{reader.name}.dict"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in reader.words))
    executions = edges = 0
    ends = time.monotonic() + seconds
    while (left := round(ends - time.monotonic())) > 5:
        log = output / f"{reader.name}.log"
        with log.open("w") as file:
            subprocess.run(
                [
                    sys.executable, str(HERE / "harness.py"), reader.name, str(findings), str(corpus),
                    f"-max_total_time={left}", f"-max_len={LARGEST}", f"-timeout={HANG_S}", "-rss_limit_mb=3000",
                    f"-dict={words}", f"-artifact_prefix={findings}/{reader.name}-", "-print_final_stats=1",
                    "-close_fd_mask=2", "-len_control=20", "-reload=0",
                ],
                stdout=file, stderr=file, check=False, timeout=left + 120, env=os.environ | MALLOC,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)),
            )  # fmt: skip
        text = log.read_text(errors="replace")
        lines = re.findall(r"^#(\d+)\s.*?cov: (\d+)", text, re.MULTILINE)
        executions += int(lines[-1][0]) if lines else 0
        edges = max(edges, int(lines[-1][1]) if lines else 0)
        if not lines:
            print(text[-2000:], file=sys.stderr)
            break
    found = [path for path in findings.glob(f"{reader.name}-*") if path.suffix != ".txt"]
    row = (reader.name, seconds, executions, edges, len(list(corpus.iterdir())), len(found))
    return dict(zip(COLUMNS, row, strict=True))


def _add(table: Path, row: dict[str, object]) -> None:
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
