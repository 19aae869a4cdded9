"""The command line: one file per group of commands, one function per command, no logic."""

import click

from walengine import __version__
from walengine.cli import bench, buffer, demo, doctor, log, records
from walengine.cli._run import EXIT_CODES, Commands, run

__all__ = ["main"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="walengine", message="%(prog)s %(version)s")
def cli() -> None:
    """Append to, read, check and trim write-ahead logs; feed and drain queues in object stores."""


for _command in (
    *records.COMMANDS,
    *log.COMMANDS,
    *doctor.COMMANDS,
    *bench.COMMANDS,
    *buffer.COMMANDS,
    *demo.COMMANDS,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit."""
    run(cli)
