"""Measure the log beside plain loops that do the same without it: ``make bench-core``.

Every figure stands beside a reference of its own, taken in the same round (A B A B ...), and beside
a calibration loop (a method that takes a lock, appends to a list and adds to a count), which tells
how fast the machine was at that moment. Absolute figures hold on a quiet machine; the ratio to the
reference is what two runs can be compared by. What is printed is the median over the rounds, with
the smallest and the largest. Rows that are to be compared with each other are measured by turns.

``--list`` prints the names of the rows; ``--only TEXT``, which may be repeated, takes those whose
name holds TEXT: ``--only "256 B, main"``, ``--only "depth 16" --only bulk``.

The disk under test is the one of the current directory, or of ``--dir``; memory filesystems are
refused, since a sync costs nothing there. At most 5 GB are there at a time, and everything that is
written is removed again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import traceback
from pathlib import Path
from statistics import median
from typing import Any

import configurations
from commits import commit_rows
from configurations import configuration_rows
from loops import CannotRunError
from machine import describe, filesystem_of
from percentiles import spread, text_of
from rows import Calibration, Row, Setting, single_rows

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
    parser.add_argument(
        "--only", metavar="TEXT", action="append", help="rows whose name holds TEXT; repeatable"
    )
    parser.add_argument(
        "--cpu",
        type=int,
        metavar="N",
        help="run everything, the C loops too, on this processor (docs/decisions/0015)",
    )
    parser.add_argument("--list", action="store_true", help="print the rows' names, and no more")
    parser.add_argument(
        "--limit",
        type=Path,
        default=ROOT / "build" / "bench" / "limit",
        help="the C loops, built by make",
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be from 1")
    if options.cpu is not None and options.cpu not in os.sched_getaffinity(0):
        parser.error(f"there is no processor {options.cpu} for this process")
    if not options.limit.exists():
        parser.error(f"{options.limit} is not there: run make bench-core")
    if (kind := filesystem_of(options.dir)) in IN_MEMORY:
        parser.error(f"{options.dir} is on {kind}: give a directory on a disk with --dir")
    return options


def measure(rows: list[Row], rounds: int, problems: dict[str, str]) -> list[dict[str, Any]]:
    """Measure the rows of a family: engine, reference, the next one's engine, reference, ...

    A row that this machine cannot run, or that fails, is put down among the problems.
    """
    running = [row for row in rows if _prepare(row, problems)]
    taken: dict[Row, Taken] = {row: Taken() for row in running}
    for number in range(rows[0].rounds(rounds)):
        # Each comes first as often as last: half of a drift goes one way and half the other.
        for row in list(running) if number % 2 == 0 else list(reversed(running)):
            try:
                taken[row].one_round(row, reverse=number % 2 == 1)
            except Exception as error:  # noqa: BLE001 (the other rows are worth having)
                _note_problem(row, error, problems)
                running.remove(row)
    cleaned = [row for row in taken if _clean(row, problems)]
    return [result_of(row, taken[row]) for row in running if row in cleaned]


class Taken:
    """What the rounds of one row came to."""

    def __init__(self) -> None:
        self.calibration = Calibration()
        self.engine: list[float] = []
        self.reference: list[float] = []
        self.loop: list[float] = []

    def one_round(self, row: Row, *, reverse: bool) -> None:
        """Take a round; the engine and its reference stand side by side in it."""
        if reverse:
            row.beside()
            self.reference.append(row.reference())
        self.engine.append(row.engine())
        if not reverse:
            self.reference.append(row.reference())
            row.beside()
        self.loop.append(self.calibration.ns())


def _prepare(row: Row, problems: dict[str, str]) -> bool:
    try:
        row.prepare()
    except Exception as error:  # noqa: BLE001 (see measure)
        _note_problem(row, error, problems)
        _clean(row, {})
        return False
    return True


def _clean(row: Row, problems: dict[str, str]) -> bool:
    try:
        row.clean()
    except Exception as error:  # noqa: BLE001 (see measure)
        _note_problem(row, error, problems)
        return False
    return True


def _note_problem(row: Row, error: Exception, problems: dict[str, str]) -> None:
    if isinstance(error, CannotRunError):
        problems[row.name] = f"left out: {error}"
        return
    traceback.print_exception(error)
    problems[row.name] = f"FAILED: {type(error).__name__}: {error}"


def result_of(row: Row, taken: Taken) -> dict[str, Any]:
    """Return what the table and the JSON file say of a row."""
    ratios = [mine / its for mine, its in zip(taken.engine, taken.reference, strict=True)]
    judged = median(ratios if row.target_is_ratio else taken.engine)
    met = None
    if row.bound is not None:
        met = judged >= row.bound if row.more_is_better else judged <= row.bound
    return {
        "name": row.name,
        "unit": row.unit,
        "figure": spread(taken.engine),
        "reference": spread(taken.reference),
        "reference_name": row.reference_name,
        "ratio": spread(ratios),
        "calibration_ns": spread(taken.loop),
        "rounds": len(ratios),
        "samples_per_round": row.samples,
        "target": row.target,
        "met": met,
        "notes": row.notes,
        "values": taken.engine,
        "reference_values": taken.reference,
        **row.more(),
    }


def cells(result: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    unit = result["unit"]
    return [
        result["name"],
        f"{text_of(result['figure'])} {unit}",
        f"{text_of(result['reference'])} {unit}",
        text_of(result["ratio"]),
        f"{text_of(result['calibration_ns'])} ns",
        f"{result['rounds']} x {result['samples_per_round']:,}",
        result["target"],
        {None: "", True: "met", False: "MISSED"}[result["met"]],
    ]


def print_table(lines: list[list[str]]) -> None:
    """Print aligned columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells_of_line = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells_of_line).rstrip())


def families(rows: list[Row], only: list[str]) -> list[list[Row]]:
    """Return the chosen rows, those that are measured by turns together."""
    chosen: dict[str, list[Row]] = {}
    for row in rows:
        if not only or any(text in row.name for text in only):
            chosen.setdefault(row.family or row.name, []).append(row)
    return list(chosen.values())


def report(facts: dict[str, Any], results: list[dict[str, Any]], problems: dict[str, str]) -> None:
    """Print everything."""
    for name, value in facts.items():
        print(f"{name:<16} {value}")
    if results:
        print("\nmedian (smallest-largest) over the rounds\n")
        print_table([list(COLUMNS), *map(cells, results)])
        print()
    for result in results:
        notes = "; ".join([f"reference: {result['reference_name']}", *result["notes"]])
        print(f"{result['name']}: {notes}")
    for name, problem in problems.items():
        print(f"{name}: {problem}")
    if lines := configurations.table(results):
        print(f"\n{configurations.TABLE_NOTE}\n")
        print_table(lines)


def main() -> int:
    """Measure, print, write JSON. A missed target is printed and is no failure."""
    options = parse()
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    if options.cpu is not None:  # before any thread: the kernel's workers for us inherit it too
        os.sched_setaffinity(0, {options.cpu})
    with tempfile.TemporaryDirectory(prefix="walengine-bench-", dir=options.dir) as scratch:
        setting = Setting(Path(scratch), options.limit)
        rows = [*single_rows(setting), *commit_rows(setting), *configuration_rows(setting)]
        chosen = families(rows, options.only or [])
        if options.list:
            print("\n".join(row.name for family in chosen for row in family))
            return 0
        facts = describe(options.dir, command, setting.limit("crc", 2_000_000, 256))
        results: list[dict[str, Any]] = []
        problems: dict[str, str] = {}
        try:
            for family in chosen:
                print(f"... {family[0].family or family[0].name}", file=sys.stderr, flush=True)
                results += measure(family, options.rounds, problems)
        finally:
            setting.loops.close()
    facts["load_after"] = os.getloadavg()[0]
    report(facts, results, problems)
    if options.json:
        everything = {"setting": facts, "rows": results, "problems": problems}
        options.json.write_text(json.dumps(everything, indent=2) + "\n")
    return int(any(problem.startswith("FAILED") for problem in problems.values()))


if __name__ == "__main__":
    sys.exit(main())
