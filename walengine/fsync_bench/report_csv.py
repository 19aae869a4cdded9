"""A run as CSV: one line a row of the table, figures unrounded."""

from __future__ import annotations

import csv
from pathlib import Path

from walengine.fsync_bench.results import Run

COLUMNS = (
    "section",
    "method",
    "state",
    "write_bytes",
    "concurrency",
    "group",
    "commits",
    "syncs",
    "elapsed_us",
    "p50_us",
    "p90_us",
    "p99_us",
    "p999_us",
    "max_us",
    "commits_per_second",
    "mb_per_second",
    "problem",
)


def write_csv(run: Run, path: Path) -> None:
    """Write the file; an empty field is a figure that there is not.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for result in run.results:
            facts = result.as_dict()
            writer.writerow(facts[name] for name in COLUMNS)
