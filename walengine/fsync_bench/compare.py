"""Two runs beside each other: which rows became faster or slower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from walengine.errors import WalError
from walengine.fsync_bench.report_table import TEXT_COLUMNS, microseconds
from walengine.fsync_bench.results import RowResult, Run, run_from_dict
from walengine.fsync_bench.rows import size_text

NOISE = 1.33  # runs of one disk differ by as much: see docs/GUIDE.md


def read_run(path: Path) -> Run:
    """Return the run that ``--json`` wrote into a file.

    Raises:
        WalError: There is none in it.
    """
    try:
        return _checked(run_from_dict(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise WalError(f"{path}: {error.strerror}.", path=str(path), errno=error.errno) from None
    except (ValueError, OverflowError, RecursionError) as error:
        text = f"{path}: {error}. Give a file made with: walengine bench fsync --json > FILE"
        raise WalError(text, path=str(path)) from None


def _checked(run: Run) -> Run:
    """Return the run if what is computed from its figures can be; raises ValueError."""
    for result in run.results:
        for name in ("commits", "bytes", "elapsed_us", "p50_us", "p99_us"):
            value = getattr(result, name)
            is_missing = value is None and name in {"p50_us", "p99_us"}
            if not is_missing and type(value) not in {int, float}:
                raise ValueError(f"{name} of {result.row.key} is no number")
    return run


def comparison(this: Run, other: Run) -> list[dict[str, Any]]:
    """Return the rows that both have; times_as_fast is by p50, above 1: this run was faster."""
    theirs = {result.row.key: result for result in other.results}
    found = []
    for result in this.results:
        before = theirs.get(result.row.key)
        if before is None or not before.p50_us or not result.p50_us:
            continue
        found.append(
            {
                "key": result.row.key,
                "p50_us": result.p50_us,
                "other_p50_us": before.p50_us,
                "p99_us": result.p99_us,
                "other_p99_us": before.p99_us,
                "commits_per_second": result.commits_per_second,
                "other_commits_per_second": before.commits_per_second,
                "times_as_fast": before.p50_us / result.p50_us,
            }
        )
    return found


def comparison_table(this: Run, other: Run, name: str) -> Table:
    """Return the comparison as a table; the other run comes from the file of that name."""
    title = f"beside {name} ({other.place.get('directory')}, {other.place.get('time')})"
    table = Table(
        title=escape(title),  # names of files are no markup
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    columns = ("method", "file", "write", "at once", "p50 here", "p50 there", "p99 here",
               "p99 there", "")  # fmt: skip
    for number, column in enumerate(columns):
        is_text = number < TEXT_COLUMNS
        table.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text)
    rows = {result.row.key: result for result in this.results}
    for line in comparison(this, other):
        word, style = _change(line["times_as_fast"])
        table.add_row(*_names(rows[line["key"]]), *_times(line), word, style=style)
    return table


def _names(result: RowResult) -> list[str]:
    row = result.row
    return [row.label, row.state, size_text(row.write_bytes), str(row.concurrency)]


def _times(line: dict[str, Any]) -> list[str]:
    names = ("p50_us", "other_p50_us", "p99_us", "other_p99_us")
    return [microseconds(line[name]) for name in names]


def _change(times: float) -> tuple[str, str]:
    """Return the change in words, and a colour where it is more than noise."""
    if times >= NOISE:
        return f"{times:.1f} times as fast", "green"
    if times <= 1 / NOISE:
        return f"{1 / times:.1f} times as slow", "red"
    return "alike", ""
