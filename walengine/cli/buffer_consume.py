"""Entries out of a queue: buffer consume."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from walengine.buffer import ConsumerConfig
from walengine.cli._consuming import Request, run_consumer
from walengine.cli._formats_queue import FORMATS
from walengine.cli._queue_options import configuration, queue_options
from walengine.cli._run import standard_output
from walengine.cli._show import json_option, print_json
from walengine.cli._target import ROWS, target_of

ROWS_HELP = (
    "text: the entry without its last newline; bytes: as it is; json: an object, a key for each "
    "column."
)


@click.command(short_help="Take batches off a queue: to standard output or into a database.")
@queue_options
@click.option("--into", metavar="DATABASE", help="A SQLite file, or postgresql://HOST/NAME.")
@click.option("--table", metavar="NAME", help="With --into: the table.")
@click.option("--columns", metavar="A,B", help="With --into: the columns that are filled.")
@click.option("--rows", type=click.Choice(ROWS), default="text", show_default=True, help=ROWS_HELP)
@click.option("--create", is_flag=True, help="With --into: make the table if there is none.")
@click.option(
    "--name", metavar="TEXT", help="With --into: which stored position (default: the table's name)."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="On standard output; raw: entries back to back (default).",
)
@click.option("--drain", is_flag=True, help="End when the queue is empty.")
@click.option("--take-over", is_flag=True, help="Fence the consumer that is active.")
@click.option(
    "--skip",
    "skips",
    metavar="SEQUENCE",
    type=click.IntRange(0),
    multiple=True,
    help="Pass over this batch for good: one that is missing or broken. May be repeated.",
)
@click.option(
    "--allow-gap", is_flag=True, help="Begin even if batches behind the stored position are gone."
)
@json_option
def consume(
    url: str | None,
    config_file: Path | None,
    manifest_path: str | None,
    data_path_prefix: str | None,
    into: str | None,
    table: str | None,
    columns: str | None,
    rows: str,
    create: bool,
    name: str | None,
    form: str | None,
    drain: bool,
    take_over: bool,
    skips: Iterable[int],
    allow_gap: bool,
    as_json: bool,
) -> None:
    """Take batches off a queue, in order, until Ctrl-C: to standard output or into a database.

    Into a database every entry goes exactly once: its row and the position in the queue are one
    transaction. To standard output it goes at least once: a batch is taken off the queue after it
    was written, and a kill in between brings it again.
    """
    if into is None and (table or columns or create or name):
        raise click.UsageError("--table, --columns, --create and --name go with --into")
    if into is not None and form is not None:
        raise click.UsageError("--format is for standard output, and --into goes elsewhere")
    if as_json and into is None:
        raise click.UsageError("--json and the entries cannot both have standard output")
    config = configuration(ConsumerConfig, url, config_file, manifest_path, data_path_prefix)
    target = None if into is None else target_of(into, table, columns, rows, create=create)
    if target is None:
        standard_output()
    request = Request(
        config, target, name, FORMATS[form or "raw"], drain, take_over, frozenset(skips), allow_gap
    )
    tally = run_consumer(request)
    if as_json:
        print_json(vars(tally))
    else:
        click.echo(tally, err=True)


COMMANDS = (consume,)
