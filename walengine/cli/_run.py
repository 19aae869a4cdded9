"""How a command ends: exit codes, and messages instead of tracebacks for users' mistakes."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, NoReturn

import click

from walengine.errors import LockedError, WalCorruptionError, WalError

CLEAN = 0
FAILED = 1
USAGE = 2
TORN = 3
CORRUPT = 4
LOCKED = 5
INTERRUPTED = 130

EXIT_CODES = (
    "Exit codes: 0 clean, 1 operating error, 2 wrong usage, 3 torn end (verify, recover), "
    "4 corruption, 5 locked by another writer, 130 interrupted."
)


class OutputClosed(Exception):  # noqa: N818 (nothing went wrong)
    """Whoever read our output has seen enough."""


class Commands(click.Group):
    """A group whose broken pipes reach run(): click would make them exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosed from error


def run(command: click.Command) -> NoReturn:
    """Run a command line to its end and exit with its code."""
    logging.basicConfig(format="walengine: %(message)s", stream=sys.stderr)
    try:
        code = command.main(standalone_mode=False)
        _flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except OutputClosed:
        # What is left in the buffer goes nowhere, or the interpreter would complain about it at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLEAN
    except (KeyboardInterrupt, click.Abort):
        code = complain("interrupted", INTERRUPTED)
    except LockedError as error:
        code = complain(error, LOCKED)
    except WalCorruptionError as error:
        code = complain(error, CORRUPT)
    except (WalError, OSError) as error:
        code = complain(error, FAILED)
    sys.exit(code or CLEAN)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error


def complain(problem: object, code: int) -> int:
    """Say on standard error what went wrong; return the exit code."""
    click.echo(f"walengine: {problem}", err=True)
    return code
