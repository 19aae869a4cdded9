"""WalSink and its twin: items become records of a log, durable when they are flushed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from walengine._refusals import too_large
from walengine.errors import WalError, WalPoisonedError
from walengine.reader import replay
from walengine.sinks._buffered import AsyncBufferedSink, BufferedSink
from walengine.sinks._destination import Destination, InThread
from walengine.sinks.options import SinkOptions
from walengine.writer import PortableWalWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["AsyncWalSink", "WalSink"]

CAPACITY = 1024

log = logging.getLogger("walengine")


class _Log(Destination["ReadableBuffer"]):
    """Stages a batch in the writer and syncs.

    Items stay buffered until they are durable. What was appended by an attempt that failed is not
    appended again: on a full log it is still staged, and goes down with the next sync. After a
    poisoning and a reopen the log itself is asked what survived.
    """

    def __init__(self, wal: PortableWalWriter) -> None:
        self._wal = wal
        self._poison: WalPoisonedError | None = None  # the last one met
        self.forget()

    def forget(self) -> None:
        """Begin a batch."""
        self._appended = 0  # leading items that the writer took
        self._first_lsn = 0  # of the first of them
        self._report = self._wal.recovery_report  # another one: the writer was reopened

    def admit(self, item: ReadableBuffer) -> bytes:
        """Return the item as bytes, safe from later changes; refuse what can be no record."""
        data = item if type(item) is bytes else memoryview(item).tobytes()
        wal = self._wal
        if len(data) > wal._record_bytes_max:  # noqa: SLF001 (the same package)
            raise too_large(str(wal.path), len(data), wal._config)  # noqa: SLF001
        return data

    def write(self, batch: list[ReadableBuffer]) -> None:
        """Append what the log does not have, and sync."""
        wal = self._wal
        if wal.recovery_report is not self._report:
            self._count_survivors(batch)
        if self._appended == 0:
            self._first_lsn = wal.last_lsn + 1
        for item in batch[self._appended :]:
            self._append(item)
        wal.flush_batch()
        self.forget()

    def _append(self, item: ReadableBuffer) -> None:
        """Stage one item; where that fills the writer's batch, it is written and synced."""
        try:
            self._wal.append_batched(item)
        except WalPoisonedError as error:
            if error is not self._poison:  # this very call met it: the log may have the item
                self._poison = error
                self._appended += 1
            raise
        self._appended += 1

    def taken(self) -> int:
        """Return how many items the log may have."""
        return self._appended

    def _count_survivors(self, batch: list[ReadableBuffer]) -> None:
        """After a reopen, count the leading items whose records the log kept."""
        self._report = report = self._wal.recovery_report
        if self._appended == 0:
            return
        first, last = self._first_lsn, self._first_lsn + self._appended - 1
        survivors = self._count_matches(batch, first, min(last, report.last_lsn))
        is_whole = survivors == max(0, min(last, report.last_lsn) - first + 1)
        if is_whole and not report.lost and self._wal.last_lsn >= last:
            return  # a sound writer was reopened: the rest is still staged in it
        self._appended = survivors

    def _count_matches(self, batch: list[ReadableBuffer], first: int, last: int) -> int:
        """Count the leading items that the log has, from LSN first to last."""
        if last < first:
            return 0
        matches = 0
        try:
            for record in replay(self._wal.path, first, last):
                if record.data != batch[matches]:
                    break  # its number was given anew, or another thread appended in between
                matches += 1
        except WalError as error:  # trimmed, or damaged: append again rather than lose
            log.warning("%s: what survived is not clear: %s", self._wal.path, error)
        return matches


class WalSink(BufferedSink["ReadableBuffer"]):
    """Appends items to a log; what was flushed is durable.

    Every batch is synced, whatever triggered it. The writer stays the caller's: close the sink
    first. After a WalPoisonedError call ``wal.reopen()`` and flush again: records that survived are
    not appended twice, unless other threads appended to the same log between them.

    Args:
        wal: An open writer.
        capacity: Items of a batch.
        options: Other triggers and the watermarks.

    Example:
        >>> from walengine import PortableWalWriter, replay
        >>> from walengine.sinks import WalSink
        >>> with PortableWalWriter("sink.log") as wal, WalSink(wal) as sink:
        ...     sink.send(b"order 1")
        ...     sink.flush()
        ...     wal.durable_lsn
        1
    """

    def __init__(
        self,
        wal: PortableWalWriter,
        capacity: int = CAPACITY,
        options: SinkOptions | None = None,
    ) -> None:
        super().__init__(capacity, _Log(wal), options)


class AsyncWalSink(AsyncBufferedSink["ReadableBuffer"]):
    """The asynchronous twin of WalSink; the writer is called in the loop's thread pool.

    Args:
        wal: An open writer.
        capacity: Items of a batch.
        options: Other triggers and the watermarks.
    """

    def __init__(
        self,
        wal: PortableWalWriter,
        capacity: int = CAPACITY,
        options: SinkOptions | None = None,
    ) -> None:
        super().__init__(capacity, InThread(_Log(wal)), options)


for _kind in (WalSink, AsyncWalSink):
    _kind.__module__ = "walengine.sinks"
