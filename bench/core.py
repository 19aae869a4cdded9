"""Measure the log beside plain loops that do the same without it: ``make bench-core``.

Every figure stands beside a reference of its own, taken in the same round (A B A B ...), and beside
a calibration loop (a method that takes a lock, appends to a list and adds to a count), which tells
how fast the machine was at that moment. Absolute figures hold on a quiet machine; the ratio to the
reference is what two runs can be compared by. What is printed is the median over the rounds, with
the smallest and the largest.

The disk under test is the one of the current directory, or of ``--dir``; memory filesystems are
refused, since a sync costs nothing there. Everything that is written is removed again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from machine import describe, filesystem_of
from rows import Calibration, Row, Setting, all_rows

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 9
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")

COLUMNS = ("what", "figure", "reference", "ratio", "calibration", "samples", "target", "")


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows whose name holds TEXT")
    parser.add_argument(
        "--limit",
        type=Path,
        default=ROOT / "build" / "bench" / "limit",
        help="the C loops, built by make",
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be from 1")
    if not options.limit.exists():
        parser.error(f"{options.limit} is not there: run make bench-core")
    if (kind := filesystem_of(options.dir)) in IN_MEMORY:
        parser.error(f"{options.dir} is on {kind}: give a directory on a disk with --dir")
    return options


def measure(row: Row, rounds: int) -> dict[str, Any]:
    """Run one row: engine, reference, calibration, engine, ..."""
    calibration = Calibration()
    engine, reference, loop = [], [], []
    row.prepare()
    try:
        for _ in range(rounds):
            engine.append(row.engine())
            reference.append(row.reference())
            loop.append(calibration.ns())
    finally:
        row.clean()
    ratios = [mine / its for mine, its in zip(engine, reference, strict=True)]
    judged = median(ratios if row.target_is_ratio else engine)
    return {
        "name": row.name,
        "unit": row.unit,
        "figure": spread(engine),
        "reference": spread(reference),
        "reference_name": row.reference_name,
        "ratio": spread(ratios),
        "calibration_ns": spread(loop),
        "rounds": rounds,
        "samples_per_round": row.samples,
        "target": row.target,
        "met": judged >= row.bound if row.more_is_better else judged <= row.bound,
        "notes": row.notes,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def cells(result: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    unit = result["unit"]
    return [
        result["name"],
        f"{text(result['figure'])} {unit}",
        f"{text(result['reference'])} {unit}",
        text(result["ratio"]),
        f"{text(result['calibration_ns'])} ns",
        f"{result['rounds']} x {result['samples_per_round']:,}",
        result["target"],
        "met" if result["met"] else "MISSED",
    ]


def text(value: dict[str, float]) -> str:
    """Return a spread as the table shows it: median (smallest to largest)."""
    digits = 2 if value["median"] < 10 else 1 if value["median"] < 100 else 0
    shown = [f"{value[key]:.{digits}f}" for key in ("median", "min", "max")]
    return f"{shown[0]} ({shown[1]}-{shown[2]})"


def print_table(lines: list[list[str]]) -> None:
    """Print aligned columns."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)))


def main() -> int:
    """Measure, print, write JSON. A missed target is printed and is no failure."""
    options = parse()
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    with tempfile.TemporaryDirectory(prefix="walengine-bench-", dir=options.dir) as scratch:
        setting = Setting(Path(scratch), options.limit)
        facts = describe(options.dir, command, setting.limit("crc", 2_000_000, 256))
        results = []
        for row in all_rows(setting):
            if options.only in row.name:
                print(f"... {row.name}", file=sys.stderr, flush=True)
                results.append(measure(row, options.rounds))
    facts["load_after"] = os.getloadavg()[0]
    for name, value in facts.items():
        print(f"{name:<16} {value}")
    print("\nmedian (smallest-largest) over the rounds\n")
    print_table([list(COLUMNS), *map(cells, results)])
    print()
    for result in results:
        notes = "; ".join([f"reference: {result['reference_name']}", *result["notes"]])
        print(f"{result['name']}: {notes}")
    if options.json:
        options.json.write_text(json.dumps({"setting": facts, "rows": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
