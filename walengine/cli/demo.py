"""The demonstration: demo."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from walengine.cli._run import CLEAN, FAILED, terminable, write_output
from walengine.cli._show import Seconds, json_option, print_json, print_rows, progress, words
from walengine.demo import Outcome, run
from walengine.errors import WalError

DEFAULT_SECONDS = 14.0


@click.command(short_help="Kill a writer again and again and count losses.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, readable=False, path_type=Path),
    help="Where the log is made for the time of the demo (default: a place for temporary files).",
)
@click.option(
    "--seconds",
    type=Seconds(min=0.1, max=3600),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="How long to go on, all backends together.",
)
@json_option
@click.pass_context
def demo(context: click.Context, directory: Path | None, seconds: float, as_json: bool) -> None:
    """Kill a writer with SIGKILL again and again; show that nothing acknowledged is lost.

    With io_uring and with pwrite, each on a log of its own; a backend that does not work here is
    skipped, and the output says why.
    """
    place = directory or _place()
    with (
        terminable(),
        _scratch(place) as scratch,
        progress("killing and recovering", seconds) as advance,
    ):
        outcomes, skipped = run(Path(scratch), seconds, advance)
    lost = sum(outcome.lost for outcome in outcomes)
    if as_json:
        backends = [outcome.as_dict() for outcome in outcomes]
        print_json({"lost": lost, "backends": backends, "skipped": skipped})
    else:
        _print_outcomes(outcomes)
        for reason in skipped.values():
            write_output(f"skipped: {reason}\n")
    context.exit(FAILED if lost else CLEAN)


def _print_outcomes(outcomes: list[Outcome]) -> None:
    """Print a column for each backend."""
    columns = [outcome.as_dict() for outcome in outcomes]
    names = [column.pop("backend") for column in columns]
    rows = [[words(name), *(each[name] for each in columns)] for name in columns[0]]
    print_rows("walengine demo", ["", *names], rows)


def _scratch(place: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="walengine-demo-", dir=place)
    except OSError as error:
        text = f"the demo needs about 64 MiB in {place}: {error.strerror}"
        raise WalError(text, errno=error.errno) from None


def _place() -> Path:
    """Return a directory that is on a disk: /tmp is often in memory, /var/tmp is not."""
    persistent = Path("/var/tmp")  # noqa: S108 (a private directory is made in it)
    return persistent if persistent.is_dir() else Path(tempfile.gettempdir())
