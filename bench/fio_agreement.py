"""Does walengine bench fsync agree with fio on the same work? By turns, on one directory.

    python bench/fio_agreement.py [--dir DIRECTORY] [--seconds S] [--rounds N] [--json FILE]

For each kind of work: fio, then the row of the bench, and again, so that both meet the same noise.
They agree where the medians of commits/s differ by less than either one's own rounds do, or by less
than a third. fio is a program of its own (apt-get install fio); the exit code is 1 where they do
not agree.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from machine import describe
from percentiles import spread, text_of
from rich.console import Console
from rich.table import Table

from walengine._native_bench import NativeBench
from walengine._native_ring import liburing_problem

FILE_BYTES = 512 << 20
A_THIRD = 1.33
WIDTH = 110


@dataclass(frozen=True)
class Work:
    """One kind of work, as a row of the bench and as options of fio."""

    name: str
    method: str
    state: str
    write_bytes: int
    at_once: int
    options: tuple[str, ...]


OVERWRITE = ("--overwrite=1",)
GROW = ("--fallocate=none", "--create_on_open=1")
DIRECT = ("--direct=1", "--sync=dsync")

WORKS = (
    Work("fdatasync, recycled", "fdatasync", "recycled", 4096, 1, ("--fdatasync=1", *OVERWRITE)),
    Work("fdatasync, growing", "fdatasync", "growing", 4096, 1, ("--fdatasync=1", *GROW)),
    Work("fsync, recycled", "fsync", "recycled", 4096, 1, ("--fsync=1", *OVERWRITE)),
    Work("O_DSYNC, recycled", "O_DSYNC", "recycled", 4096, 1, ("--sync=dsync", *OVERWRITE)),
    Work("direct, recycled", "O_DIRECT+O_DSYNC", "recycled", 4096, 1, (*DIRECT, *OVERWRITE)),
    Work("ring, direct, 1", "io_uring direct", "recycled", 4096, 1,
         ("--ioengine=io_uring", *DIRECT, *OVERWRITE)),
    Work("ring, direct, 16", "io_uring direct", "recycled", 4096, 16,
         ("--ioengine=io_uring", "--iodepth=16", *DIRECT, *OVERWRITE)),
    Work("direct, 1 MiB", "O_DIRECT+O_DSYNC", "recycled", 1 << 20, 1, (*DIRECT, *OVERWRITE)),
)  # fmt: skip


def main() -> int:
    """Run both by turns and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path.cwd())
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only works whose name contains this")
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    fio = shutil.which("fio")
    if fio is None:
        raise SystemExit("fio_agreement: there is no fio (apt-get install fio)")
    liburing_problem()
    with tempfile.TemporaryDirectory(prefix="walengine-bench-", dir=options.dir) as place:
        lines = [
            compare(fio, work, Path(place), options.seconds, options.rounds)
            for work in WORKS
            if options.only in work.name
        ]
    show(lines)
    facts = describe(options.dir, " ".join(sys.argv), {"ns": 0.0, "crc32c": "not used"})
    if options.json_file:
        text = json.dumps({"machine": facts, "works": lines}, indent=2)
        options.json_file.write_text(text, encoding="utf-8")
    return 0 if all(line["agrees"] for line in lines) else 1


def compare(fio: str, work: Work, place: Path, seconds: float, rounds: int) -> dict:
    """Return the commits a second of both, round by round."""
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(run_fio(fio, work, place, seconds))
        ours.append(run_bench(work, place, seconds))
    ratio = median(ours) / median(theirs)
    overlap = min(ours) <= max(theirs) and min(theirs) <= max(ours)
    agrees = overlap or 1 / A_THIRD < ratio < A_THIRD
    return {"name": work.name, "fio": theirs, "bench": ours, "ratio": ratio, "agrees": agrees}


def run_fio(fio: str, work: Work, place: Path, seconds: float) -> float:
    """Return fio's writes a second; each is durable before the next one of its slot begins."""
    engine = () if any("ioengine" in option for option in work.options) else ("--ioengine=psync",)
    command = [
        fio, "--name=work", "--rw=write", f"--directory={place}", f"--bs={work.write_bytes}",
        f"--size={FILE_BYTES}", f"--runtime={seconds:g}", "--unlink=1",
        "--output-format=json", *engine, *work.options,
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return float(job["write"]["iops"])


def run_bench(work: Work, place: Path, seconds: float) -> float:
    """Return the bench's commits a second."""
    with NativeBench(str(place)) as native:
        measured = native.run(
            work.method,
            work.state,
            write_bytes=work.write_bytes,
            concurrency=work.at_once,
            group=False,
            provider="auto",
            seconds=seconds,
            file_bytes_max=FILE_BYTES,
        )
    if measured.problem:
        raise SystemExit(f"fio_agreement: {work.name}: {measured.problem}")
    return measured.commits / measured.elapsed_us * 1e6


def show(lines: list[dict]) -> None:
    """Print the table: medians, and the rounds' ranges."""
    table = Table(title="commits/s: median (least to most of the rounds)", title_justify="left")
    for column in ("work", "fio", "bench", "bench / fio", ""):
        table.add_column(column, justify="left" if column in {"work", ""} else "right")
    for line in lines:
        word = "agrees" if line["agrees"] else "DIFFERS"
        table.add_row(
            line["name"],
            text_of(spread(line["fio"])),
            text_of(spread(line["bench"])),
            f"{line['ratio']:.2f}",
            word,
        )
    Console(width=WIDTH).print(table)


if __name__ == "__main__":
    sys.exit(main())
