"""Compare the log with its peers, by turns, on one disk: ``make bench``.

Every contender runs in a process of its own and is asked for a slice of work, one after the other,
round after round (A B A B ...); what is printed is the median over the rounds, with the smallest
and the largest. The ratios at the end are what two runs can be compared by: one that became worse
by more than a third than the stored one (bench/results) is printed in red.

The disk under test is the one of the current directory, or of ``--dir``; memory filesystems are
refused. Everything that is written is removed again, after Ctrl-C too. README.md has the method.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import comparisons
from groups import LARGE, QUICK, TINY, Bench, Plan
from machine import describe, filesystem_of
from players import FIO, LIMIT, NATIVE
from report import print_report
from targets import ratios, regressions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
BUILT = ROOT / "build" / "bench"
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
FREE_BYTES_MIN = {"large": 30 * 10**9}
FREE_BYTES_MIN_USUAL = 12 * 10**9

RUST = ["okaywal", "raft-engine", "rivven-core"]
GO = ["etcd wal", "tidwall/wal", "raft-wal"]
BESIDE = ["walengine", "walengine direct_io", "LevelDB", LIMIT]
PEER_LEVELS = (1, 16, 32)
PLANS = {"compare": Plan(), "quick": QUICK, "large": LARGE, "rust": Plan(), "go": Plan()}


def groups(kind: str, plan: Plan) -> dict[str, Callable[[Bench], None]]:
    """Return the groups of a kind of run, by their names."""
    if kind in ("rust", "go"):
        names = [*(RUST if kind == "rust" else GO), *BESIDE]
        return {
            "puts": partial(comparisons.puts, names=names, levels=PEER_LEVELS),
            "batches": partial(comparisons.batches, names=names),
        }
    if kind == "large":
        return {"opening": comparisons.opening, "growth": comparisons.growth}
    batch_names = [*comparisons.THREADED, FIO]
    return {
        "puts": partial(comparisons.puts, names=comparisons.THREADED, levels=plan.concurrency),
        "tasks": comparisons.tasks,
        "batches": partial(comparisons.batches, names=batch_names),
        "batches-at-once": partial(
            comparisons.batches,
            names=comparisons.BATCHED_AT_ONCE,
            at_once=comparisons.BATCHES_AT_ONCE,
        ),
        "staging": comparisons.staging,
        "scans": comparisons.scans,
        "verifying": comparisons.verifying,
        "opening": comparisons.opening,
        "growth": comparisons.growth,
    }


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "kind", nargs="?", choices=sorted(PLANS), default="compare", help="default: compare"
    )
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk")
    parser.add_argument("--only", metavar="GROUP", action="append", help="repeatable; see --list")
    parser.add_argument("--list", action="store_true", help="print the groups, and no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: build/bench/KIND.json")
    parser.add_argument(
        "--store", action="store_true", help="keep the results in bench/results, to compare with"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="see that everything runs; the figures say nothing"
    )
    options = parser.parse_args()
    known = groups(options.kind, PLANS[options.kind])
    for name in options.only or []:
        if name not in known:
            parser.error(f"there is no group {name}; there are {', '.join(known)}")
    if options.store and (options.tiny or options.only):
        parser.error("--store takes whole runs only")
    if not options.dir.is_dir():
        parser.error(f"{options.dir} is no directory")
    if (kind := filesystem_of(options.dir)) in IN_MEMORY:
        parser.error(f"{options.dir} is on {kind}: give a directory on a disk with --dir")
    wanted = FREE_BYTES_MIN.get(options.kind, FREE_BYTES_MIN_USUAL)
    free = shutil.disk_usage(options.dir).free
    if free < wanted and not options.tiny:
        parser.error(f"{options.dir} has {free // 10**9} GB free and needs {wanted // 10**9} GB")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the groups; return what the JSON file has."""
    plan = TINY if options.tiny else PLANS[options.kind]
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    with tempfile.TemporaryDirectory(
        prefix="walengine-bench-", dir=options.dir, ignore_cleanup_errors=True
    ) as scratch:
        facts = describe(options.dir, command, crc_calibration())
        bench = Bench(Path(scratch), plan)
        begin = time.monotonic()
        for name, work in groups(options.kind, plan).items():
            if options.only and name not in options.only:
                continue
            print(f"{time.monotonic() - begin:4.0f} s  {name}", file=sys.stderr, flush=True)
            work(bench)
        facts["load_after"] = os.getloadavg()[0]
        facts["seconds"] = round(time.monotonic() - begin)
        facts["taken_at"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {
        "setting": facts,
        "versions": bench.versions,
        "rows": bench.rows,
        "ratios": ratios(bench.rows),
        "problems": bench.problems,
    }


def stored_ratios(kind: str) -> list[dict[str, Any]]:
    """Return what to compare with: a run of the same kind, or the ratios of make bench."""
    for name in (kind, "compare"):
        if (stored := RESULTS / f"{name}.json").exists():
            ratios_then: list[dict[str, Any]] = json.loads(stored.read_text())["ratios"]
            return ratios_then
    return []


def crc_calibration() -> dict[str, Any]:
    """Return what copying a record and computing its CRC costs in C."""
    done = subprocess.run(
        [str(BUILT / "limit"), "crc", "2000000", "256"], capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def interrupted_as_exit() -> None:
    """Let SIGTERM leave through the finally blocks, which remove the files."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


def main() -> int:
    """Measure, print, write JSON. A missed target is printed and is no failure."""
    options = parse()
    if options.list:
        print("\n".join(groups(options.kind, PLANS[options.kind])))
        return 0
    if not (BUILT / "limit").exists():
        print("build/bench/limit is not there: run make bench", file=sys.stderr)
        return 1
    if options.kind in ("rust", "go"):
        needed = NATIVE[(RUST if options.kind == "rust" else GO)[0]]
        if not needed.exists():
            print(f"{needed} is not built: run make bench-peers-{options.kind}", file=sys.stderr)
            return 1
    interrupted_as_exit()
    try:
        results = measure(options)
    except KeyboardInterrupt:
        print("interrupted; every file is removed", file=sys.stderr)
        return 130
    stored = RESULTS / f"{options.kind}.json"
    print_report(results, regressions(results["ratios"], stored_ratios(options.kind)))
    written = stored if options.store else options.json or BUILT / f"{options.kind}.json"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: {written}")
    return int(any(text.startswith("FAILED") for text in results["problems"].values()))


if __name__ == "__main__":
    sys.exit(main())
