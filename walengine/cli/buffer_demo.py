"""The buffer's demonstration: buffer demo."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import click

from walengine.buffer.demo import run
from walengine.cli._run import CLEAN, FAILED, terminable
from walengine.cli._show import json_option, print_facts, print_json, progress
from walengine.errors import WalError

KILLS = 4
END_SECONDS_MAX = 10.0


@click.command(short_help="Move a file through a queue into SQLite, killing both ends.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Whose lines (default: this package's own source, some tens of thousands).",
)
@click.option(
    "--kills",
    type=click.IntRange(0, 100),
    default=KILLS,
    show_default=True,
    help="Of the producer, and as many of the consumer.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where store and database are made for the time of the demo.",
)
@json_option
@click.pass_context
def demo(
    context: click.Context, file: Path | None, kills: int, directory: Path | None, as_json: bool
) -> None:
    """Move the lines of a file through a queue into SQLite, and compare.

    The producer's process and the consumer's are killed with SIGKILL in mid-stream and started
    again. In the end every line must be in the table, once, in order.
    """
    place = directory or Path(tempfile.gettempdir())
    try:
        scratch = tempfile.TemporaryDirectory(
            prefix="walengine-demo-", dir=place, ignore_cleanup_errors=True
        )
    except OSError as error:
        text = f"the demo needs some space in {place}: {error.strerror}"
        raise WalError(text, errno=error.errno) from None
    with terminable(), scratch as path, _ended():
        source = file or _own_source(Path(path))
        with source.open("rb") as lines:
            total = sum(1 for _ in lines)
        with progress("producing and consuming", total) as advance:
            outcome = run(Path(path), source, kills, advance)
    if as_json:
        print_json(outcome.as_dict())
    else:
        print_facts("walengine buffer demo", outcome.as_dict())
    context.exit(CLEAN if outcome.is_good else FAILED)


@contextmanager
def _ended() -> Iterator[None]:
    """Let the demo's processes end before their directory goes; Ctrl-C reaches them as well."""
    before = set(threading.enumerate())
    try:
        yield
    finally:
        for thread in set(threading.enumerate()) - before:
            thread.join(END_SECONDS_MAX)


def _own_source(directory: Path) -> Path:
    """Write the package's source into one file: text with lines of every kind."""
    collected = directory / "source.txt"
    root = Path(str(resources.files("walengine")))
    with collected.open("wb") as out:
        for source in sorted(root.rglob("*.py")):
            out.write(source.read_bytes())
    return collected


COMMANDS = (demo,)
