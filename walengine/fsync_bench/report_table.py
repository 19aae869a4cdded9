"""A run as text: the table, and the words below it."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from walengine.fsync_bench.results import RowResult, Run
from walengine.fsync_bench.rows import BULK, SECTIONS, size_text
from walengine.fsync_bench.verdict import SETTLE_FIRST, Words

COLUMNS = ("method", "file", "write", "at once", "count", "p50", "p90", "p99", "p99.9", "max",
           "commits/s", "MB/s", "")  # fmt: skip
TEXT_COLUMNS = 2
NARROW = 100
NOTHING = "\N{EN DASH}"
LEGEND = f"times in µs; {NOTHING}: too few samples (p99 wants 100, p99.9 1,000)"
BEST = "best"
TOO_FAST = "too fast?"


def renderable(run: Run, words: Words, width: int) -> RenderableType:
    """Return everything that is printed after a run, for a terminal of so many columns."""
    parts: list[RenderableType] = [Text(place_line(run.place), style="dim")]
    parts += [_table(run, words, section, width) for section in SECTIONS if _rows(run, section)]
    parts.append(Text(LEGEND, style="dim"))
    parts += [Text(line, style="yellow") for line in problems(run)]
    parts += _chapter("What this disk can do", words.summary)
    parts += _advice(words)
    parts += _chapter("For comparison", [words.etcd, words.postgres])
    parts += _chapter("Can its syncs be trusted?", words.trust, "red" if words.suspicions else "")
    return Group(*parts)


def place_line(place: dict[str, Any]) -> str:
    """Return where the figures come from, in a line or two."""
    devices = ", ".join(
        " ".join(filter(None, (device["name"], device["kind"], device["write_cache"])))
        for device in place.get("devices", ())
    )
    on = f"{place.get('filesystem') or 'unknown filesystem'}" + (
        f" on {devices}" if devices else ""
    )
    return (
        f"{place.get('directory')}: {on}; {place.get('kernel')}; {place.get('processors')} x "
        f"{place.get('processor')}; load {place.get('load_before')}; walengine "
        f"{place.get('walengine')}"
    )


def cells(result: RowResult, best: list[str]) -> list[str]:
    """Return a row of the table."""
    row = result.row
    percentiles = (result.p50_us, result.p90_us, result.p99_us, result.p999_us, result.max_us)
    return [
        row.label,
        row.state,
        size_text(row.write_bytes),
        str(row.concurrency),
        f"{result.commits:,}",
        *map(microseconds, percentiles),
        _number(result.commits_per_second),
        _number(result.mb_per_second),
        remark(result, best),
    ]


def remark(result: RowResult, best: list[str]) -> str:
    """Return what is to be said of a row in a word."""
    if result.problem:
        return "failed" if result.commits else "not here"
    if result.is_too_fast:
        return TOO_FAST
    if result.row.key in best:
        return BEST
    return "cut short" if result.stopped else ""


def microseconds(value: float | None) -> str:
    """Return a latency as a table shows it."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004


def problems(run: Run) -> list[str]:
    """Return a line for each thing that could not be measured: rows with one reason share it."""
    reasons: dict[str, list[RowResult]] = {}
    for result in run.results:
        if result.problem:
            reasons.setdefault(f"{result.row.method}: {result.problem}", []).append(result)
    return [
        f"not measured ({len(rows)} {'row' if len(rows) == 1 else 'rows'}): {reason}"
        for reason, rows in reasons.items()
    ]


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004


def _rows(run: Run, section: str) -> list[RowResult]:
    return [result for result in run.results if result.row.section == section]


def _table(run: Run, words: Words, section: str, width: int) -> Table:
    table = Table(
        title=section,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    shown = [n for n, name in enumerate(COLUMNS) if name not in _dropped(section, width)]
    for number in shown:
        is_text = number < TEXT_COLUMNS
        table.add_column(
            COLUMNS[number],
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
        )
    for result in _rows(run, section):
        row = cells(result, words.best)
        style = {BEST: "bold green", TOO_FAST: "red"}.get(row[-1], "dim" if result.problem else "")
        table.add_row(*(escape(row[number]) for number in shown), style=style)
    return table


def _dropped(section: str, width: int) -> set[str]:
    """Return the columns that say least: in this section, and where there is little room."""
    dropped = {"commits/s"} if section == BULK else {"MB/s"}
    return dropped | ({"p90", "max"} if width < NARROW else set())


def _chapter(title: str, lines: list[str], style: str = "") -> list[RenderableType]:
    return [Text(f"\n{title}", style="bold"), *(_indented(line, style) for line in lines)]


def _indented(text: str, style: str = "", columns: int = 2) -> Padding:
    return Padding(Text(text, style=style), (0, 0, 0, columns), expand=False)


def _advice(words: Words) -> list[RenderableType]:
    title = Text("\nWhich configuration of walengine to use on it", style="bold")
    if not words.choices:
        return [title, _indented("Too little was measured to say.")]
    parts: list[RenderableType] = [title]
    if words.suspicions:
        parts.append(_indented(SETTLE_FIRST, "red"))
    for choice in words.choices:
        parts.append(_indented(f"For {choice.need}: {choice.config}"))
        parts.append(_indented(choice.why))
        parts.append(_indented(choice.code.rstrip(), "cyan", columns=4))
    return parts
