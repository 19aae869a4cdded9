"""Entries into a queue: buffer produce."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from walengine._feed import chunks, lines, prefixed
from walengine.buffer import Producer, ProducerConfig, Watcher, WriteHandle
from walengine.cli._queue_options import configuration, queue_options
from walengine.cli._run import standard_output, terminable, write_ack
from walengine.cli._show import counted, json_option, print_json
from walengine.errors import RecordTooLargeError, WalError

ENTRY_BYTES_MAX = 64 << 20


@click.command(short_help="Put standard input into a queue, one entry a line.")
@queue_options
@click.option(
    "--length-prefixed", is_flag=True, help="An entry is a u32 little-endian length and its bytes."
)
@click.option("--metadata", default="", help="Text that the manifest keeps for the entries.")
@click.option(
    "--flush-interval", metavar="DURATION", help='Age at which a batch is written, like "100ms".'
)
@click.option(
    "--compression", type=click.Choice(["none", "zstd"]), help="Of the batches (default: none)."
)
@click.option("--acks", is_flag=True, help="Print 'durable N' as entries become durable.")
@json_option
def produce(
    url: str | None,
    config_file: Path | None,
    manifest_path: str | None,
    data_path_prefix: str | None,
    length_prefixed: bool,
    metadata: str,
    flush_interval: str | None,
    compression: str | None,
    acks: bool,
    as_json: bool,
) -> None:
    """Put standard input into a queue, one entry a line.

    An entry is the line with its newline; the last one as it stands. It ends with exit code 0 when
    every entry is durable: stored, and listed in the manifest. A process that is killed loses what
    it had read and not acknowledged; --acks tells how far it came.
    """
    if acks and as_json:
        raise click.UsageError("--acks and --json cannot both have standard output")
    if acks or as_json:
        standard_output()
    if sys.stdin is None:
        raise WalError("standard input is closed: there is nothing to produce")
    config = configuration(
        ProducerConfig, url, config_file, manifest_path, data_path_prefix,
        flush_interval=flush_interval, batch_compression=compression,
    )  # fmt: skip
    source = sys.stdin.fileno()
    feed = _Feed(_print_ack if acks else lambda _: None)
    split = prefixed if length_prefixed else lines
    with terminable(), _telling(feed):
        with Producer(config) as producer:
            try:
                for entries in split(chunks(source, feed.settle), ENTRY_BYTES_MAX):
                    feed.add(producer, entries, os.fsencode(metadata))
            except RecordTooLargeError as error:
                text = str(error).replace("a record", "an entry").replace("record", "entry")
                raise WalError(text) from None
            finally:
                producer.flush()
                feed.settle()
        stats = producer.stats()
    outcome: dict[str, Any] = {
        "entries": feed.durable,
        "bytes": feed.bytes,
        "batches": stats.metrics["buffer.batches_flushed"],
        "conflict_rate": stats.conflict_rate,
    }
    if as_json:
        print_json(outcome)
    elif not acks:
        click.echo(feed.summary(), err=True)


class _Feed:
    """Entries on their way: how many were taken, how many are durable.

    Args:
        acknowledge: Called with the number of durable entries when it has grown.
    """

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        self.taken = 0
        self.durable = 0
        self.bytes = 0
        self._acknowledge = acknowledge
        self._waiting: deque[tuple[WriteHandle[Watcher], int]] = deque()

    def add(self, producer: Producer, entries: list[bytes], metadata: bytes) -> None:
        """Hand entries over, and see what has become durable."""
        self._waiting.append((producer.produce(entries, metadata), len(entries)))
        self.taken += len(entries)
        self.bytes += sum(map(len, entries))
        self._look()

    def settle(self) -> None:
        """Wait until all that was handed over is durable: nobody knows when more will come."""
        if self._waiting:
            self._waiting[-1][0].watcher.await_durable()
            self._look()

    def summary(self) -> str:
        """Say how far it came."""
        return f"{counted(self.taken, 'entry')} read, {self.durable} durable in the queue"

    def _look(self) -> None:
        before = self.durable
        while self._waiting and self._waiting[0][0].watcher.result():
            self.durable += self._waiting.popleft()[1]
        if self.durable > before:
            self._acknowledge(self.durable)


def _print_ack(entries: int) -> None:
    write_ack(f"durable {entries}\n")


@contextmanager
def _telling(feed: _Feed) -> Iterator[None]:
    """Let whatever ends it early say how far it came, once the producer is closed."""
    try:
        yield
    except BaseException as error:
        error.add_note(feed.summary())
        raise


COMMANDS = (produce,)
