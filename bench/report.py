"""What a run prints: one table for each group, the ratios, and what became worse."""

from __future__ import annotations

import sys
from typing import Any

from percentiles import text_of

RED, PLAIN = "\033[31m", "\033[0m"
TITLES = {
    "puts": "Durable puts of 256 B from threads",
    "tasks": "Durable puts of 256 B from asyncio tasks",
    "batches": "Durable batches of 1,000 records of 256 B",
    "batches-at-once": "The same from 16 threads or tasks at once",
    "stage": "append_batched, without the flush",
    "stage-busy": "append_batched beside a busy Python thread",
    "scan": "Reading records of 256 B into a Python loop, from the page cache",
    "pairs-scan": "The same as pairs of LSN and bytes, out of batches",
    "batches-scan": "The same a block at a time",
    "verify": "Checking every frame, from the page cache",
    "open": "Opening after kill -9",
    "growth": "p50 of a durable put while the store grows",
}

Row = dict[str, Any]


def print_report(results: dict[str, Any], worse: list[str]) -> None:
    """Print everything."""
    for name, value in results["setting"].items():
        print(f"{name:<16} {value}")
    print(f"{'versions':<16} {'; '.join(sorted(set(results['versions'].values())))}")
    for group, title in TITLES.items():
        rows = [row for row in results["rows"] if row["group"] == group]
        if rows:
            print(f"\n{title}: median (smallest-largest) over the rounds\n")
            print_table([header(group), *(cells(row) for row in rows)])
    if results["ratios"]:
        print("\nRatios\n")
        print_table([["what", "ratio", "target", ""], *map(ratio_cells, results["ratios"])])
    if results["problems"]:
        print()
    for name, problem in results["problems"].items():
        print(f"{name}: {problem}")
    if worse:
        print("\nworse by more than a third than the stored ratio:")
    for sentence in worse:
        print(f"{RED}{sentence}{PLAIN}" if sys.stdout.isatty() else sentence)


def header(group: str) -> list[str]:
    """Return the names of a table's columns."""
    heads = {"puts": "threads", "tasks": "tasks", "verify": "threads", "open": "size"}
    return ["contender", heads.get(group, ""), "figure", "rounds", "samples", "latency, us"]


def cells(row: Row) -> list[str]:
    """Return a line of a table."""
    latency = row.get("latency_us", {})
    where = row.get("concurrency", "")
    if row["group"] == "open":
        where = f"{row['store_bytes'] / 1e9:g} GB"
    return [
        row["contender"],
        f"{where:,}" if isinstance(where, int) else where,
        f"{text_of(row)} {row['unit']}",
        str(row["rounds"]),
        f"{row['samples']:,}",
        "  ".join(f"{name} {value:,.0f}" for name, value in latency.items()),
    ]


def ratio_cells(row: Row) -> list[str]:
    """Return a line of the table of ratios."""
    target = ""
    if row["target"] is not None:
        sign = ">=" if row["more_is_better"] else "<="
        target = f"{sign} {row['target']:.3g}"
    verdict = {None: "", True: "met", False: "MISSED"}[row["met"]]
    note = f" ({row['note']})" if row["note"] else ""
    return [row["name"] + note, f"{text_of(row)} {row['unit']}", target, verdict]


def print_table(lines: list[list[str]]) -> None:
    """Print aligned columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        shown = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(shown).rstrip())
