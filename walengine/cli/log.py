"""The log as a whole: inspect, verify, recover, trim."""

from __future__ import annotations

import click

from walengine.cli._run import CORRUPT
from walengine.cli._show import (
    LSN,
    complain_of_damage,
    exit_code,
    json_option,
    log_argument,
    lsns,
    print_facts,
    print_json,
    print_rows,
    progress,
    words,
)
from walengine.cli._sizes import backend_option, configuration
from walengine.reader import WalReader, check_log
from walengine.reader import recover as recover_log
from walengine.types import Lsn, Verdict
from walengine.writer import PortableWalWriter

SEGMENT_COLUMNS = ("segment", "base_lsn", "last_lsn", "end_offset", "file_bytes", "sealed")
CHECK_COLUMNS = ("segment", "frames", "records", "bytes", "record_crcs", "damaged_offset")


@click.command()
@log_argument
@json_option
@click.pass_context
def inspect(context: click.Context, log: str, as_json: bool) -> None:
    """Show what LOG consists of, without reading its records."""
    with WalReader(log) as reader:
        report = reader.report.as_dict()
        segments = [segment.as_dict() for segment in reader.segments]
    if as_json:
        print_json({"path": log, "report": report, "segments": segments})
    else:
        print_facts(log, report | {"lost": lsns(report["lost"])})
        rows = [[segment[name] for name in SEGMENT_COLUMNS] for segment in segments]
        print_rows("segments", map(words, SEGMENT_COLUMNS), rows)
    if report["verdict"] == Verdict.CORRUPT.value:
        complain_of_damage(log)
        context.exit(CORRUPT)


@click.command(short_help="Check every frame and every record's own checksum.")
@log_argument
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Segments checked at a time (default: one per processor).",
)
@json_option
@click.pass_context
def verify(context: click.Context, log: str, threads: int | None, as_json: bool) -> None:
    """Check every frame of LOG, and every record that carries its own checksum."""
    with progress("verifying", 1) as advance:
        report = check_log(log, threads, advance)
    facts = report.as_dict()
    if as_json:
        print_json({"path": log} | facts)
    else:
        names = ("verdict", "frames", "records", "bytes", "record_crcs", "duration_us")
        print_facts(log, {name: facts[name] for name in names})
        rows = [[check[name] for name in CHECK_COLUMNS] for check in facts["segments"]]
        print_rows("segments", map(words, CHECK_COLUMNS), rows)
    if report.verdict is Verdict.CORRUPT:
        damaged = report.damaged
        complain_of_damage(log, damaged[0].damaged_lsn if damaged else None)
    context.exit(exit_code(report.verdict))


@click.command(short_help="Tell what opening LOG for writing would find and do.")
@log_argument
@json_option
@click.pass_context
def recover(context: click.Context, log: str, as_json: bool) -> None:
    """Tell what opening LOG for writing would find and do; change nothing.

    It tells of an open with the default configuration: with other sizes, or another alignment,
    the next step may differ.
    """
    report = recover_log(log)
    facts = report.as_dict()
    if as_json:
        print_json({"path": log} | facts)
    else:
        print_facts(log, facts | {"lost": lsns(facts["lost"])})
    if report.verdict is Verdict.CORRUPT:
        complain_of_damage(log)
    context.exit(exit_code(report.verdict))


@click.command()
@log_argument
@click.argument("lsn", type=LSN)
@backend_option
@json_option
def trim(log: str, lsn: Lsn, backend: str, as_json: bool) -> None:
    """Drop the records of LOG below LSN and recycle their segments."""
    with PortableWalWriter(log, configuration(log, create=False, backend=backend)) as wal:
        before = wal.first_lsn
        wal.truncate_before(lsn)
        outcome = {
            "path": log,
            "dropped_records": wal.first_lsn - before,
            "first_lsn": wal.first_lsn,
            "last_lsn": wal.last_lsn,
            "segments": wal.stats().segments,
        }
    if as_json:
        print_json(outcome)
    else:
        print_facts("trimmed", outcome)
