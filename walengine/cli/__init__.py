"""The command line: one file per group of commands, one function per command, no logic."""

from importlib import import_module

import click

from walengine import __version__
from walengine.cli._run import EXIT_CODES, Commands, run

__all__ = ["main"]

# Which file holds which commands. A file is read when one of its commands is asked for: who appends
# a record does not wait for the doctor and the bench to be loaded.
FILES = {
    "records": ("append", "replay"),
    "log": ("inspect", "recover", "trim", "verify"),
    "doctor": ("doctor",),
    "bench": ("bench",),
    "buffer": ("buffer",),
    "demo": ("demo",),
}


class CommandsInFiles(Commands):
    """A group whose commands are the functions of their names in FILES."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return every command's name."""
        return sorted(name for names in FILES.values() for name in names)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where there is none of this name."""
        for file, names in FILES.items():
            if cmd_name in names:
                command: click.Command = getattr(import_module(f"{__name__}.{file}"), cmd_name)
                return command
        return None


@click.group(
    cls=CommandsInFiles,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="walengine", message="%(prog)s %(version)s")
def cli() -> None:
    """Append to, read, check and trim write-ahead logs; feed and drain queues in object stores."""


def main() -> None:
    """Run the command line and exit."""
    run(cli)
