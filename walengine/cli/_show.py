"""What commands print: one JSON object, a table, a progress bar; and the arguments they share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from math import isfinite
from time import monotonic
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from walengine.cli._run import CLEAN, CORRUPT, TORN, complain, standard_output, write_output
from walengine.errors import WalError
from walengine.reader import WalReader
from walengine.types import LSN_MAX, Lsn, Verdict

LSN = click.IntRange(1, LSN_MAX)
PROGRESS_AFTER_SECONDS = 1.0

Advance = Callable[[float], None]


def not_empty(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuse an empty path (a callback of an argument)."""
    if not value:
        raise click.BadParameter("the path is empty")
    return value


class Seconds(click.FloatRange):
    """Seconds within limits; a NaN is within all of them."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        seconds: float = super().convert(value, param, ctx)
        if not isfinite(seconds):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return seconds


# Not readable=True: whether a log can be read is for the log to say, and no mistake in the usage.
log_argument = click.argument("log", type=click.Path(readable=False), callback=not_empty)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)


def print_json(value: dict[str, Any]) -> None:
    """Print one object."""
    write_output(json.dumps(value, indent=2) + "\n")


def print_facts(title: str, facts: dict[str, Any]) -> None:
    """Print names and values as a table of two columns."""
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(words(name), cell(value))
    print_renderable(table, title)


def print_rows(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(cell, row))
    print_renderable(table, title)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, like "1 entry" or "2 batches"."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}{'es' if noun.endswith('ch') else 's'}"


def words(name: str) -> str:
    """Return a field's name as a table shows it."""
    return name.replace("_", " ")


def lsns(ends: list[Lsn]) -> str:
    """Return a report's [first, last] as a range."""
    return " to ".join(f"{lsn:,}" for lsn in ends)


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:,.1f}"
    elif isinstance(value, list | tuple):
        text = "; ".join(map(cell, value))
    elif isinstance(value, dict):
        text = ", ".join(f"{name} {cell(count)}" for name, count in value.items())
    else:
        text = "" if value is None else str(value)
    return text or "-"


class Drawing(StringIO):
    """What rich draws on; given standard output itself, it would end us on a broken pipe."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of standard output: where it is not UTF-8, rich draws tables in ASCII."""
        return standard_output().encoding


def print_renderable(what: RenderableType, title: str = "") -> None:
    """Print what rich can draw; a title is never broken, it may be a path."""
    # In a pipe a table is as wide as it needs to be: who reads it there cuts columns.
    terminal = standard_output().isatty()
    text = Drawing()
    console = Console(
        file=text,
        force_terminal=terminal,
        markup=False,
        highlight=False,
        width=None if terminal else 200,
    )
    if title:
        console.print(Text(title, style="italic"), soft_wrap=True)
    console.print(what)
    write_output(text.getvalue())


def exit_code(verdict: Verdict) -> int:
    """Return the exit code of a verdict, for verify and recover."""
    return {Verdict.TORN: TORN, Verdict.CORRUPT: CORRUPT}.get(verdict, CLEAN)


def complain_of_damage(log: str, lsn: Lsn | None = None) -> None:
    """Say on standard error what replay would: where the damage is, and what is missing.

    Args:
        log: Directory of the log.
        lsn: Where the damage begins; None: at the end of what can be read.
    """
    try:
        with WalReader(log) as reader:
            begin = min(lsn or reader.last_lsn, reader.last_lsn)
            for _ in reader.records(begin if begin >= reader.first_lsn else None):
                pass
    except WalError as error:
        complain(error, CORRUPT)


@contextmanager
def progress(what: str, total: float | None) -> Iterator[Advance]:
    """Show a bar on standard error, if that is a terminal, once the work has taken a second."""
    if not sys.stderr.isatty():
        yield lambda _amount: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=total)
    begin = monotonic()
    started = False

    def advance(amount: float) -> None:
        nonlocal started
        bar.advance(task, amount)
        if not started and monotonic() - begin > PROGRESS_AFTER_SECONDS:
            started = True
            bar.start()

    try:
        yield advance
    finally:
        if started:
            bar.stop()
