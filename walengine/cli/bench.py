"""Measuring: the group bench, and its command fsync."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from walengine.cli._run import (
    FAILED,
    INTERRUPTED,
    TERMINATED,
    TerminatedError,
    complain,
    standard_output,
    terminable,
    write_output,
)
from walengine.cli._show import Drawing, Seconds, print_json
from walengine.errors import WalError
from walengine.fsync_bench import place
from walengine.fsync_bench.compare import comparison, comparison_table, read_run
from walengine.fsync_bench.plot_png import check_matplotlib, write_png
from walengine.fsync_bench.report_csv import write_csv
from walengine.fsync_bench.report_html import write_html
from walengine.fsync_bench.report_table import renderable
from walengine.fsync_bench.results import Run
from walengine.fsync_bench.rows import Row, rows_of
from walengine.fsync_bench.run import FULL_SECONDS, QUICK_SECONDS, Bench, Tick
from walengine.fsync_bench.verdict import Words, words_of

PIPE_WIDTH = 120

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure this machine."""


@bench.command(short_help="What a durable write costs on a disk, by every method.")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="About 15 seconds; without it about 3 minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.option("--csv", "csv_file", type=FILE, help="Write the table to FILE.")
@click.option("--html", "html_file", type=FILE, help="Write a page with plots to FILE.")
@click.option("--png", "png_file", type=FILE, help="Write the plots to FILE (needs matplotlib).")
@click.option(
    "--compare",
    "other_file",
    type=FILE,
    metavar="OTHER.json",
    help="Set an earlier run beside this one (a file made with --json).",
)
@click.option(
    "--seconds-per-row",
    type=Seconds(min=0.001, max=3600),
    help=f"Time of a row (default: {FULL_SECONDS:g}; with --quick {QUICK_SECONDS:g}).",
)
@click.option(
    "--only",
    "methods",
    multiple=True,
    metavar="TEXT",
    help="Only rows whose method, file state or part contains TEXT; may be repeated.",
)
@click.pass_context
def fsync(
    context: click.Context,
    directory: Path,
    quick: bool,
    as_json: bool,
    csv_file: Path | None,
    html_file: Path | None,
    png_file: Path | None,
    other_file: Path | None,
    seconds_per_row: float | None,
    methods: tuple[str, ...],
) -> None:
    """Measure what it costs to make a small write durable in DIR, and say what that means.

    Every way to sync on files in every state, with one writer and with many; then which
    configuration of walengine suits this disk, and whether its syncs look honest. Nothing is left
    in DIR. Ctrl-C ends it and prints what there is.
    """
    standard_output()
    other = read_run(other_file) if other_file else None
    _see_that_files_can_be_written(csv_file, html_file, png_file)
    rows = _chosen(methods, quick=quick)
    place.file_bytes_max(directory)  # complains before anything else does
    facts = place.facts_of(directory)
    runner = Bench(directory, rows, seconds_per_row or (QUICK_SECONDS if quick else FULL_SECONDS))
    code = _measure(runner)
    run = Run(facts, runner.seconds_per_row, quick, code == 0, tuple(runner.results))
    if not run.results:
        context.exit(code)
    words = words_of(run)
    problems = _write_all(
        (csv_file, lambda path: write_csv(run, path)),
        (html_file, lambda path: write_html(run, words, path)),
        (png_file, lambda path: write_png(run, path)),
    )
    if as_json:
        compared = {"comparison": comparison(run, other)} if other else {}
        print_json(run.as_dict() | words.as_dict() | compared)
    else:
        _print(run, words, other, other_file)
    for problem in problems:
        code = complain(problem, code or FAILED)
    context.exit(code)


def _chosen(texts: tuple[str, ...], *, quick: bool) -> list[Row]:
    rows = [
        row
        for row in rows_of(quick=quick)
        if not texts or any(text in f"{row.label}, {row.state}, {row.section}" for text in texts)
    ]
    if not rows:
        raise click.UsageError(
            f"no row's method, file state or part contains {' or '.join(texts)!r}"
        )
    return rows


# ---- measuring -----------------------------------------------------------------------------------


def _measure(runner: Bench) -> int:
    """Measure; 0, or the exit code of the signal that ended it."""
    try:
        with terminable(), _progress(runner) as tick:
            runner.run(tick)
    except TerminatedError:
        return complain(_what_there_is(runner, "terminated"), TERMINATED)
    except KeyboardInterrupt:
        return complain(_what_there_is(runner, "interrupted"), INTERRUPTED)
    return 0


def _what_there_is(runner: Bench, how: str) -> str:
    measured = f"{len(runner.results)} of {len(runner.rows)} rows were measured"
    return f"{how}: {measured}" + ("; this is what there is" if runner.results else "")


@contextmanager
def _progress(runner: Bench) -> Iterator[Tick]:
    """Show the row and the time left on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _row, _share: None
        return
    bar = Progress(
        TextColumn("{task.fields[row]}"),
        BarColumn(),
        TextColumn("{task.fields[number]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,  # what it costs, the rows would measure
    )
    task = bar.add_task("", total=runner.seconds, row="", number="")
    count = len(runner.rows)

    def tick(row: Row, share: float) -> None:
        number = min(int(share * count) + 1, count)
        name = f"{row.label}, {row.state}, {row.concurrency} at once"
        bar.update(task, completed=share * runner.seconds, row=name, number=f"{number}/{count}")

    with bar:
        yield tick


# ---- writing down --------------------------------------------------------------------------------


def _see_that_files_can_be_written(*paths: Path | None) -> None:
    """Complain before three minutes are spent on figures that have nowhere to go."""
    if paths[-1] is not None:
        check_matplotlib()
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise WalError(f"{path}: there is no such directory to write to. Make it first.")


def _write_all(*files: tuple[Path | None, Callable[[Path], None]]) -> list[str]:
    """Write the files that were asked for; return what went wrong, for behind the figures."""
    problems = []
    for path, write in files:
        try:
            if path is not None:
                write(path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}. The figures are not in this file.")
    return problems


def _print(run: Run, words: Words, other: Run | None, other_file: Path | None) -> None:
    terminal = standard_output().isatty()
    text = Drawing()
    console = Console(
        file=text, force_terminal=terminal, highlight=False, width=None if terminal else PIPE_WIDTH
    )
    console.print(renderable(run, words, console.width))
    if other is not None:
        console.print(comparison_table(run, other, str(other_file)))
    lines = text.getvalue().splitlines()
    write_output("".join(f"{line if terminal else line.rstrip()}\n" for line in lines))
