"""Write the figures of bench/README.md from the stored results: ``make bench-report``.

A block between ``<!-- figures: KIND BLOCK -->`` and ``<!-- end -->`` is replaced by what
results/KIND.json has for it; nothing between the two is written by hand. ``--check`` changes
nothing and fails if the page is not what the results say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from percentiles import text_of

HERE = Path(__file__).resolve().parent
PAGE = HERE / "README.md"
RESULTS = HERE / "results"
MARKED = re.compile(r"(<!-- figures: (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
MISSING = "Not measured on this machine yet: `{command}` fills this in.\n"
COMMANDS = {
    "proof": "make bench-proof",
    "large": "make bench-large",
    "buffer": "make bench-buffer",
}
FACTS = ("machine", "device", "filesystem", "kernel", "python", "commit", "taken_at", "command")
PICTURES = {
    "throughput": "Durable puts per second over how many put at the same time",
    "latency": "How long one durable put takes, the whole distribution",
    "bulk": "Durable batches and scans, records per second",
    "growth": "What a durable put costs, and resident memory, while the store grows",
    "path": "The buffer: throughput, latency, and swaps of one manifest",
}

Row = dict[str, Any]
Results = dict[str, Any]


def table(heads: list[str], lines: list[list[str]]) -> str:
    """Return a table of Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def rows_of(results: Results, group: str) -> list[Row]:
    """Return the rows of a group."""
    return [row for row in results["rows"] if row["group"] == group]


def setting(results: Results) -> str:
    """Return where it was measured, and with which versions."""
    facts = results["setting"]
    lines = [[name.replace("_", " "), f"{facts[name]}"] for name in FACTS if name in facts]
    versions = "; ".join(sorted(set(results.get("versions", {}).values())))
    if versions:
        lines.append(["versions", versions])
    return table(["fact", "value"], lines)


def ratios(results: Results) -> str:
    """Return the ratios and their targets."""
    lines = []
    for row in results["ratios"]:
        target = "-"
        if row["target"] is not None:
            target = f"{'≥' if row['more_is_better'] else '≤'} {row['target']:.3g}"
        verdict = {None: "", True: "met", False: "**missed**"}[row["met"]]
        note = f" ({row['note']})" if row["note"] else ""
        lines.append([row["name"] + note, f"{text_of(row)} {row['unit']}", target, verdict])
    return table(["what", "median (smallest-largest)", "target", ""], lines)


def by_concurrency(group: str, what: str) -> Callable[[Results], str]:
    """Return what makes a table of puts per second, a column for each concurrency."""

    def make(results: Results) -> str:
        rows = rows_of(results, group)
        levels = sorted({row["concurrency"] for row in rows})
        names = list(dict.fromkeys(row["contender"] for row in rows))
        found = {(row["contender"], row["concurrency"]): row for row in rows}
        lines = []
        for name in names:
            cells = [found.get((name, level)) for level in levels]
            lines.append([name, *("-" if cell is None else text_of(cell, 0) for cell in cells)])
        heads = [f"{level:,} {what}{'s' if level > 1 else ''}" for level in levels]
        return table(["durable puts per second", *heads], lines)

    return make


def latency(results: Results) -> str:
    """Return the percentiles of one thread's puts."""
    rows = [row for row in rows_of(results, "puts") if row["concurrency"] == 1]
    heads = ["p50", "p90", "p99", "p99.9", "max"]
    lines = []
    for row in sorted(rows, key=lambda row: float(row["latency_us"]["p50"])):
        shown = [f"{row['latency_us'][h]:,.0f}" if h in row["latency_us"] else "-" for h in heads]
        lines.append([row["contender"], *shown, f"{row['samples']:,}"])
    return table(["one thread, µs", *heads, "samples"], lines)


def batches(results: Results) -> str:
    """Return the durable batches."""
    rows = sorted(rows_of(results, "batches"), key=lambda row: -float(row["median"]))
    rows += sorted(rows_of(results, "batches-at-once"), key=lambda row: -float(row["median"]))
    lines = [
        [
            row["contender"],
            "8 x 1 MiB" if row["contender"] == "fio" else str(row.get("concurrency", 1)),
            text_of(row, 0),
            f"{row['median'] * row['record_bytes'] / 1e6:,.0f}",
            f"{row['samples']:,}",
        ]
        for row in rows
    ]
    return table(["batches of 1,000", "at once", "records/s", "MB/s", "batches"], lines)


def reading(results: Results) -> str:
    """Return the scans, and checking."""
    lines = []
    groups = {
        "scan": "",
        "pairs-scan": ", pairs out of `batches()`",
        "batches-scan": ", `batches()`",
        "verify": ", `verify`",
    }
    for group, what in groups.items():
        for row in sorted(rows_of(results, group), key=lambda row: -float(row["median"])):
            threads = f" on {row['concurrency']} threads" if group == "verify" else ""
            is_records = row["unit"] == "records/s"
            figure = text_of(row, 0) if is_records else text_of(row)
            lines.append([row["contender"] + what + threads, f"{figure} {row['unit']}"])
    return table(["from the page cache", "median (smallest-largest)"], lines)


def opening(results: Results) -> str:
    """Return the openings, a column for each size."""
    rows = rows_of(results, "open")
    sizes = sorted({row["store_bytes"] for row in rows})
    names = list(dict.fromkeys(row["contender"] for row in rows))
    found = {(row["contender"], row["store_bytes"]): row for row in rows}
    lines = []
    for name in names:
        cells = [found.get((name, size)) for size in sizes]
        lines.append([name, *("-" if cell is None else text_of(cell) for cell in cells)])
    return table(["ms to open after kill -9", *(f"{size / 1e9:g} GB" for size in sizes)], lines)


def growth(results: Results) -> str:
    """Return the first and the last step of each."""
    lines = []
    for row in rows_of(results, "growth"):
        memory = [f"{row['memory_bytes'][at] / 2**20:.0f}" for at in (0, -1)]
        times = [f"{row['values'][at]:.0f}" for at in (0, -1)]
        sizes = [f"{row['store_bytes'][at] / 1e9:.2f}" for at in (0, -1)]
        lines.append([row["contender"], *(" → ".join(pair) for pair in (sizes, times, memory))])
    return table(["contender", "payload, GB", "p50 of a put, µs", "resident, MiB"], lines)


def proof(results: Results) -> str:
    """Return the counts of syncs."""
    heads = ["puts", "sync_calls", "ring_syncs", "device_flushes"]
    lines = [
        [row["contender"], *("-" if row[head] is None else f"{row[head]:,}" for head in heads)]
        for row in results["rows"]
    ]
    shown = ["durable puts", "sync calls (strace)", "syncs given to the ring", "disk's flushes"]
    return table(["one thread", *shown], lines)


def path(results: Results) -> str:
    """Return the throughput of the buffer, and what the disk allows."""
    lines = []
    for row in rows_of(results, "throughput"):
        used = [text_of(each, 0) for each in row.get("cpu_ns", {}).values()] or ["-"] * 4
        lines.append(
            [f"{row['store']}: {row['contender']}", text_of(row, 0), text_of(row["mb_s"], 0), *used]
        )
    parts = [f"{role}, {part}" for role in ("producer", "consumer") for part in ("user", "system")]
    heads = ["entries/s", "MB/s", *(f"{part}, ns an entry" for part in parts)]
    return table(["entries of 1 KiB", *heads], lines)


def path_latency(results: Results) -> str:
    """Return how long calls took on their way through the buffer."""
    lines = []
    for row in rows_of(results, "latency"):
        shown = [f"{row['latency_us'][name] / 1000:,.1f}" if name in row["latency_us"] else "-"
                 for name in ("p50", "p90", "p99", "p99.9", "max")]  # fmt: skip
        what = [f"{row['store']}: {row['contender']}", f"{row['flush_interval_ms']} ms"]
        lines.append([*what, *shown, f"{row['samples']:,}"])
    heads = ["p50, ms", "p90", "p99", "p99.9", "max", "calls"]
    return table(["10 entries a call", "flush_interval", *heads], lines)


def swaps(results: Results) -> str:
    """Return how many appends one manifest took."""
    lines = [
        [row["store"], f"{row['producers']}", text_of(row, 0),
         f"{text_of(row['conflict_percent'], 0)} %", text_of(row["batches_s"], 0)]
        for row in rows_of(results, "swaps")
    ]  # fmt: skip
    return table(["store", "producers", "swaps/s", "conflicts", "batches listed/s"], lines)


def codecs(results: Results) -> str:
    """Return how fast batches are encoded and decoded."""
    lines = [[row["contender"], text_of(row)] for row in rows_of(results, "codecs")]
    return table(["one thread, in memory", "GB/s"], lines)


BLOCKS: dict[str, Callable[[Results], str]] = {
    "setting": setting,
    "ratios": ratios,
    "puts": by_concurrency("puts", "thread"),
    "tasks": by_concurrency("tasks", "task"),
    "latency": latency,
    "batches": batches,
    "reading": reading,
    "opening": opening,
    "growth": growth,
    "proof": proof,
    "path": path,
    "path_latency": path_latency,
    "swaps": swaps,
    "codecs": codecs,
}


def pictures(kind: str) -> str:
    """Return the pictures of a kind of run that are there."""
    lines = [
        f"![{text}](results/{kind}-{name}.png)\n"
        for name, text in PICTURES.items()
        if (RESULTS / f"{kind}-{name}.png").exists()
    ]
    return "\n".join(lines)


def filled(page: str) -> str:
    """Return the page with every block as the results have it.

    Raises:
        KeyError: The page asks for a block that nobody makes.
    """

    def replace(match: re.Match[str]) -> str:
        head, kind, block, end = match.groups()
        source = RESULTS / f"{kind}.json"
        if not source.exists():
            default = f"make bench-peers-{kind}" if kind in ("rust", "go") else "make bench"
            command = f"{COMMANDS.get(kind, default)} BENCH_ARGUMENTS=--store"
            body = MISSING.format(command=command)
        elif block == "pictures":
            body = pictures(kind)
        else:
            body = BLOCKS[block](json.loads(source.read_text(encoding="utf-8")))
        return f"{head}\n{body}\n{end}"

    return MARKED.sub(replace, page)


def main() -> int:
    """Write the page, or check it."""
    now = PAGE.read_text(encoding="utf-8")
    new = filled(now)
    if "--check" in sys.argv[1:]:
        if now != new:
            print("bench/README.md is not what bench/results say: run make bench-report")
        return int(now != new)
    PAGE.write_text(new, encoding="utf-8")
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
