"""Records in and out: append, replay."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from walengine._feed import Feeder, chunks, lines, prefixed
from walengine._formats import ENCODERS, parts
from walengine.cli._run import CORRUPT, standard_output, terminable, write_ack, write_output
from walengine.cli._salvage import Gaps
from walengine.cli._show import LSN, counted, json_option, log_argument, print_json, progress
from walengine.cli._sizes import backend_option, configuration, size
from walengine.errors import WalError
from walengine.reader import WalReader
from walengine.types import LSN_MAX, Lsn, RecoveryMode, Verdict
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
@click.option(
    "--segment-bytes", type=size, help="Size of a segment (default: as in LOG; 64MiB in a new one)."
)
@click.option("--max-record-bytes", type=size, help="Largest record taken (default: 64MiB).")
@click.option("--max-log-bytes", type=size, help="Size that LOG may reach (default: the disk's).")
@click.option("--strict-sectors", is_flag=True, help="Align commits to 4096 bytes.")
@backend_option
@json_option
def append(
    log: str,
    length_prefixed: bool,
    durable_every: int | None,
    acks: bool,
    segment_bytes: int | None,
    max_record_bytes: int | None,
    max_log_bytes: int | None,
    strict_sectors: bool,
    backend: str,
    as_json: bool,
) -> None:
    """Append standard input to LOG, one record a line.

    A record is the line with its newline; the last one as it stands. Records become durable
    whenever a batch is full, when the input pauses, and at the end. Sizes are bytes, or a number
    with KiB, MiB or GiB.
    """
    if acks and as_json:
        raise click.UsageError("--acks and --json cannot both have standard output")
    if acks or as_json:
        standard_output()
    if sys.stdin is None:
        raise WalError("standard input is closed: there is nothing to append")
    source = sys.stdin.fileno()
    config = configuration(
        log,
        create=True,
        backend=backend,
        segment_bytes=segment_bytes,
        max_record_bytes=max_record_bytes,
        max_log_bytes=max_log_bytes,
        strict_sectors=strict_sectors,
    )
    wal = PortableWalWriter(log, config)
    first = wal.last_lsn + 1
    with (
        terminable(),
        _telling(wal, first),
        wal,
        progress("appending", _size_of(source)) as advance,
    ):
        feeder = Feeder(wal, durable_every, _print_ack if acks else lambda _lsn: None)
        split = prefixed if length_prefixed else lines
        for records in split(chunks(source, feeder.pause), config.max_record_bytes):
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
        click.echo(_summary(feeder.records, wal), err=True)


@contextmanager
def _telling(wal: PortableWalWriter, first: Lsn) -> Iterator[None]:
    """Let whatever ends the appending early say how far it came, once the log is closed."""
    try:
        yield
    except BaseException as error:
        error.add_note(_summary(wal.last_lsn + 1 - first, wal))
        raise


def _summary(records: int, wal: PortableWalWriter) -> str:
    return f"{counted(records, 'record')} appended, durable up to LSN {wal.durable_lsn}"


def _print_ack(lsn: Lsn) -> None:
    write_ack(f"durable {lsn}\n")


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
@click.option(
    "--salvage", is_flag=True, help="Go on behind damage, and say which records are missing."
)
@click.pass_context
def replay(
    context: click.Context,
    log: str,
    form: str | None,
    from_lsn: Lsn | None,
    to_lsn: Lsn | None,
    salvage: bool,
) -> None:
    """Write the records of LOG to standard output; at damage, stop with exit code 4."""
    encode = ENCODERS[form or ("human" if standard_output().isatty() else "raw")]
    mode = RecoveryMode.SALVAGE if salvage else RecoveryMode.POINT_IN_TIME
    with WalReader(log, mode) as reader:
        first, last = from_lsn or reader.first_lsn, min(to_lsn or reader.last_lsn, reader.last_lsn)
        records = reader.records(from_lsn, to_lsn)
        gaps = Gaps(log, first)
        with progress("replaying", max(last - first + 1, 0)) as advance:
            for part in parts(gaps.watched(records) if salvage else records):
                write_output(encode(part))
                advance(len(part))
        report = reader.report
    if salvage and report.verdict is Verdict.CORRUPT:
        gaps.expect(min(report.evidence_lsn, to_lsn or LSN_MAX) + 1)
    if salvage and (gaps.missing or report.verdict is Verdict.CORRUPT):
        context.exit(CORRUPT)
