"""How a command ends: exit codes, and messages instead of tracebacks for users' mistakes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import click

from walengine.buffer.errors import FormatError, QueueError
from walengine.errors import LockedError, WalCorruptionError, WalError

CLEAN = 0
FAILED = 1
USAGE = 2
TORN = 3
CORRUPT = 4
LOCKED = 5
INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM

EXIT_CODES = (
    "Exit codes: 0 clean, 1 operating error, 2 wrong usage, 3 torn end (verify, recover), "
    "4 corruption, 5 locked by another writer, 130 interrupted, 143 terminated."
)


class OutputClosed(Exception):  # noqa: N818 (nothing went wrong)
    """Whoever read our output has seen enough."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, with another exit code."""


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
    _hold_standard_descriptors()
    logging.basicConfig(format="walengine: %(message)s", stream=sys.stderr)
    try:
        code = command.main(standalone_mode=False)
        if sys.stdout is not None:
            write_output(b"")  # what click wrote (help, the version)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except OutputClosed:
        _discard_output()
        code = CLEAN
    except (KeyboardInterrupt, click.Abort) as error:
        code = _ended(error.__cause__ or error)  # click's Abort stands for what caused it
    except LockedError as error:
        code = complain(error, LOCKED, error)
    except (WalCorruptionError, FormatError) as error:
        code = complain(error, CORRUPT, error)
    except (WalError, QueueError) as error:
        code = complain(error, FAILED, error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        code = complain(f"{where}{error.strerror or error}", FAILED, error)
    sys.exit(code or CLEAN)


def _ended(error: BaseException) -> int:
    if isinstance(error, TerminatedError):
        return complain("terminated", TERMINATED, error)
    return complain("interrupted", INTERRUPTED, error)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: it would leave without a word, and files behind."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _hold_standard_descriptors() -> None:
    """Fill closed descriptors 0 to 2: the log's files would get their numbers, and our output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for good)


def standard_output() -> TextIO:
    """Return standard output.

    Raises:
        WalError: The process was started without one.
    """
    if sys.stdout is None:
        raise WalError("standard output is closed: send it to a file or to /dev/null")
    return sys.stdout


def write_output(data: str | bytes) -> None:
    """Write to standard output, now.

    Raises:
        OutputClosed: Nobody reads it any more.
        WalError: It cannot be written to, or was closed from the start.
    """
    out = standard_output()
    try:
        out.flush()
        out.buffer.write(
            data if isinstance(data, bytes) else data.encode(out.encoding, "backslashreplace")
        )
        out.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        _discard_output()
        raise WalError(f"standard output: {error.strerror}", errno=error.errno) from None


def write_ack(line: str) -> None:
    """Write an acknowledgement to standard output, now.

    Raises:
        WalError: Nobody reads it any more, and there is more to be taken in: that is no clean end.
    """
    try:
        write_output(line)
    except OutputClosed:
        _discard_output()
        raise WalError("nobody reads the acknowledgements any more: stopped") from None


def _discard_output() -> None:
    """Send what is left in the buffer nowhere, or the interpreter complains about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(problem: object, code: int, error: BaseException | None = None) -> int:
    """Say on standard error what went wrong, and the error's notes; return the exit code."""
    # What closing raises is often what ended the work, once more.
    for text in dict.fromkeys([str(problem), *getattr(error, "__notes__", ())]):
        click.echo(f"walengine: {text}", err=True)
    return code
