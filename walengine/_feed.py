"""Records out of a stream of bytes, and into a writer: what ``walengine append`` does."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

from walengine.errors import RecordTooLargeError, WalError
from walengine.types import Lsn
from walengine.writer import PortableWalWriter

READ_BYTES = 1 << 20
IDLE_SECONDS = 0.05
PREFIX_BYTES = 4


def chunks(descriptor: int, on_idle: Callable[[], None]) -> Iterator[bytes]:
    """Yield what the descriptor gives; call on_idle when it gives nothing for 50 ms."""
    while True:
        if not select.select([descriptor], [], [], IDLE_SECONDS)[0]:
            on_idle()
        chunk = os.read(descriptor, READ_BYTES)
        if not chunk:
            return
        yield chunk


def lines(source: Iterator[bytes], record_bytes_max: int) -> Iterator[list[bytes]]:
    """Yield the lines of a stream, each with its newline; the last as it stands.

    Raises:
        RecordTooLargeError: A line is longer than a record may be.
    """
    rest: list[bytes] = []  # the parts of a line that is not whole yet
    rest_bytes = 0
    for chunk in source:
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            whole = b"".join(rest) + head
            yield [line + b"\n" for line in whole.split(b"\n")]
            rest, rest_bytes = [], 0
        rest.append(tail)
        rest_bytes += len(tail)
        if rest_bytes > record_bytes_max:
            raise RecordTooLargeError(
                f"a line of the input is longer than {record_bytes_max} bytes; "
                "use --length-prefixed for records that are no lines"
            )
    if rest_bytes:
        yield [b"".join(rest)]


def prefixed(source: Iterator[bytes], record_bytes_max: int) -> Iterator[list[bytes]]:
    """Yield the records of a stream of u32 little-endian lengths, each followed by its bytes.

    Raises:
        RecordTooLargeError: A length is more than a record may have.
        WalError: The stream ends in the middle of a record.
    """
    parts: list[bytes] = []
    have = 0
    need = PREFIX_BYTES  # bytes without which the next record is not whole
    for chunk in source:
        parts.append(chunk)
        have += len(chunk)
        if have < need:
            continue
        data = b"".join(parts)
        records, begin, need = _cut(data, record_bytes_max)
        if records:
            yield records
        parts, have = [data[begin:]], len(data) - begin
    if have:
        raise WalError(f"the input ends in the middle of a record, {have} bytes into it")


def _cut(data: bytes, record_bytes_max: int) -> tuple[list[bytes], int, int]:
    """Return the whole records of data, where the rest begins, and how much the rest needs."""
    records: list[bytes] = []
    begin = 0
    while len(data) - begin >= PREFIX_BYTES:
        size = int.from_bytes(data[begin : begin + PREFIX_BYTES], "little")
        if size > record_bytes_max:
            raise RecordTooLargeError(
                f"the input has a record of {size} bytes, more than {record_bytes_max}; "
                "is it in the length-prefixed form?"
            )
        end = begin + PREFIX_BYTES + size
        if end > len(data):
            return records, begin, PREFIX_BYTES + size
        records.append(data[begin + PREFIX_BYTES : end])
        begin = end
    return records, begin, PREFIX_BYTES


class Feeder:
    """Stages records and makes them durable: every so many, when the input pauses, at the end.

    Args:
        wal: Where they go.
        durable_every: Records between syncs; None: when a batch is full.
        acknowledge: Called with the durable LSN after each sync.
    """

    def __init__(
        self,
        wal: PortableWalWriter,
        durable_every: int | None,
        acknowledge: Callable[[Lsn], None],
    ) -> None:
        self.records = 0
        self.bytes = 0
        self._wal = wal
        self._durable_every = durable_every
        self._until_sync = durable_every
        self._acknowledge = acknowledge
        self._acknowledged = wal.durable_lsn

    def feed(self, records: list[bytes]) -> None:
        """Stage records; sync where it is due."""
        begin = 0
        while begin < len(records):
            part = records[begin : begin + (self._until_sync or len(records))]
            self._stage(part)
            begin += len(part)
            if self._until_sync is not None:
                self._until_sync -= len(part)
                if self._until_sync == 0:
                    self.sync()

    def _stage(self, records: list[bytes]) -> None:
        append_batched = self._wal.append_batched
        for record in records:
            if not append_batched(record):
                self._report()
        self.records += len(records)
        self.bytes += sum(map(len, records))

    def pause(self) -> None:
        """Sync what is staged: nobody knows when more will come."""
        if self._wal.has_pending_batch():
            self.sync()

    def sync(self) -> None:
        """Make everything durable and say so."""
        self._wal.sync()
        self._until_sync = self._durable_every
        self._report()

    def _report(self) -> None:
        durable = self._wal.durable_lsn
        if durable > self._acknowledged:
            self._acknowledged = durable
            self._acknowledge(durable)
