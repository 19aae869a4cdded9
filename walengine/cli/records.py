"""Records in and out: append, replay."""

from __future__ import annotations

import os
import stat
import sys

import click

from walengine._feed import Feeder, chunks, lines, prefixed
from walengine._formats import ENCODERS, parts
from walengine.cli._show import LSN, json_option, log_argument, print_json, progress
from walengine.config import WalConfig
from walengine.reader import WalReader
from walengine.types import Lsn
from walengine.writer import PortableWalWriter


@click.command()
@log_argument
@click.option(
    "--length-prefixed", is_flag=True, help="A record is a u32 little-endian length and its bytes."
)
@click.option(
    "--durable-every",
    metavar="N",
    type=click.IntRange(1),
    help="Make records durable after each N of them.",
)
@click.option("--acks", is_flag=True, help="Print 'durable LSN' after each sync.")
@json_option
def append(
    log: str, length_prefixed: bool, durable_every: int | None, acks: bool, as_json: bool
) -> None:
    """Append standard input to LOG, one record a line.

    A record is the line with its newline; the last one as it stands. Records become durable
    whenever a batch is full, when the input pauses, and at the end.
    """
    if acks and as_json:
        raise click.UsageError("--acks and --json cannot both have standard output")
    source = sys.stdin.fileno()
    with PortableWalWriter(log) as wal, progress("appending", _size_of(source)) as advance:
        feeder = Feeder(wal, durable_every, _print_ack if acks else lambda _lsn: None)
        split = prefixed if length_prefixed else lines
        first = wal.last_lsn + 1
        for records in split(chunks(source, feeder.pause), WalConfig().max_record_bytes):
            before = feeder.bytes
            feeder.feed(records)
            advance(feeder.bytes - before)
        feeder.sync()
        outcome = {
            "records": feeder.records,
            "bytes": feeder.bytes,
            "first_lsn": first if feeder.records else None,
            "last_lsn": wal.last_lsn,
            "durable_lsn": wal.durable_lsn,
        }
    if as_json:
        print_json(outcome)
    elif not acks:
        text = "{records} records appended, durable up to LSN {durable_lsn}"
        click.echo(text.format(**outcome), err=True)


def _print_ack(lsn: Lsn) -> None:
    sys.stdout.write(f"durable {lsn}\n")
    sys.stdout.flush()


def _size_of(descriptor: int) -> int | None:
    """Return the size of a regular file; of anything else nobody knows it."""
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@click.command()
@log_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(list(ENCODERS)),
    help="Default: human on a terminal, else raw: the records' bytes back to back.",
)
@click.option("--from", "from_lsn", type=LSN, metavar="LSN", help="First record.")
@click.option("--to", "to_lsn", type=LSN, metavar="LSN", help="Last record.")
def replay(log: str, form: str | None, from_lsn: Lsn | None, to_lsn: Lsn | None) -> None:
    """Write the records of LOG to standard output."""
    out = sys.stdout.buffer
    encode = ENCODERS[form or ("human" if sys.stdout.isatty() else "raw")]
    with WalReader(log) as reader:
        first, last = from_lsn or reader.first_lsn, min(to_lsn or reader.last_lsn, reader.last_lsn)
        records = reader.records(from_lsn, to_lsn)
        with progress("replaying", max(last - first + 1, 0)) as advance:
            for part in parts(records):
                out.write(encode(part))
                advance(len(part))
    out.flush()


COMMANDS = (append, replay)
