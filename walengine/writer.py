"""PortableWalWriter: what a program calls; how records reach C is in _handover.py."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from walengine import _lifecycle
from walengine._appending import Appending
from walengine._handover import State
from walengine._looking import note_closing
from walengine._opening import log_recovery, open_native, snapshot, with_cost
from walengine._records import copied_all, listed, with_checksum
from walengine._staging import Run
from walengine.backend import log_backend
from walengine.config import IoUringConfig, WalConfig, normalised
from walengine.errors import WalError
from walengine.types import IoUringStatsSnapshot, Lsn, RecoveryReport, checked_lsn, checked_timeout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["PortableWalWriter"]

log = logging.getLogger("walengine")


class PortableWalWriter(Appending):
    """The writer of a log: any number of threads, one process.

    Order is call order. ``append`` hands its record to the operating system (it survives the
    process being killed); ``append_batched`` stages it in memory; ``flush_batch`` and ``sync`` make
    everything so far durable (it survives power loss).

    A failed write or sync poisons the writer: every later call raises the same WalPoisonedError
    until ``reopen()``. After ``os.fork()`` the child must open the log anew. Ctrl-C ends any wait;
    what became of the records in flight is then unknown until ``sync()`` succeeds.

    Args:
        path: Directory of the log; made where there is none.
        config: A WalConfig, or an IoUringConfig for the batch shape alone.

    Raises:
        LockedError: Another writer has the log open.
        WalCorruptionError: Acknowledged bytes are damaged; the report says where.
        WalError: The path is no log, is unsafe, or cannot be opened.

    Example:
        >>> from walengine import PortableWalWriter, replay
        >>> with PortableWalWriter("wal.log") as wal:
        ...     first = wal.append(b"entry1")
        ...     pending = wal.append_batched(b"entry2")
        ...     wal.flush_batch()
        >>> [record.data for record in replay("wal.log")]
        [b'entry1', b'entry2']
    """

    _state = State.CLOSED  # until it is open: __del__ sees failed openings too

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: IoUringConfig | WalConfig | None = None,
    ) -> None:
        text = os.fsdecode(path)
        config = normalised(config)
        native, self._in_use, self._report = open_native(text, config)
        super().__init__(
            text,
            native,
            self._in_use.direct_io,
            self._report.last_lsn,
            config,
        )
        _lifecycle.handles[id(self)] = native
        _lifecycle.open_writers.add(self)
        log_backend(text, self._in_use)
        log_recovery(text, self._report)

    # ---- appending -------------------------------------------------------------------------------

    def append(self, data: ReadableBuffer) -> Lsn:
        """Hand one record to the operating system, behind what is staged.

        With ``direct_io`` in use it is synced when the call returns.

        Args:
            data: Contiguous bytes-like object, 0 to ``max_record_bytes`` bytes.

        Returns:
            Its LSN.

        Raises:
            RecordTooLargeError: Nothing was written.
            WalFullError: This record was not taken; what is staged stays staged.
            WalPoisonedError: A write failed; see ``reopen()``.
        """
        record = data if type(data) is bytes else self._copied(data)
        return self._append(record, len(record))

    def append_with_checksum(self, data: ReadableBuffer) -> Lsn:
        """Append as ``append`` does, with the record's own CRC32C computed here.

        Readers verify it and expose it, so that a consumer further on can still check the bytes.

        Args:
            data: As for ``append``.

        Returns:
            Its LSN.

        Raises:
            WalError: As for ``append``.
        """
        record = data if type(data) is bytes else self._copied(data)
        return self._append(with_checksum(record), len(record))

    def append_batched(self, data: ReadableBuffer) -> int:
        """Stage one record in memory.

        The call that reaches ``max_batch_bytes()`` runs ``flush_batch()`` itself and returns 0.

        Args:
            data: As for ``append``; a mutable object may change afterwards.

        Returns:
            Payload bytes now staged.

        Raises:
            RecordTooLargeError: Nothing was staged.
            WalFullError: By the call that flushes: this record was not taken, the others stay
                staged.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        record = data if type(data) is bytes else self._copied(data)
        size = len(record)
        with self._stage_lock:
            if size > self._limit:
                raise self._refusal(size)
            if self._lanes:
                self._close_lanes()
            pending = self._staged_bytes + size
            if pending < self._batch_bytes_max:
                self._staged.append(record)
                # Not "= pending": a signal handler may have staged between the two lines.
                self._staged_bytes += size
                return pending
        return self._append_and_flush(record)

    def append_with_checksum_batched(self, data: ReadableBuffer) -> int:
        """Stage as ``append_batched`` does, with the record's own CRC32C computed here.

        Args:
            data: As for ``append_batched``.

        Returns:
            Payload bytes now staged.

        Raises:
            WalError: As for ``append_batched``.
        """
        record = data if type(data) is bytes else self._copied(data)
        size = len(record)
        item = with_checksum(record)
        with self._stage_lock:
            if size > self._limit:
                raise self._refusal(size)
            if self._lanes:
                self._close_lanes()
            pending = self._staged_bytes + size
            if pending < self._batch_bytes_max:
                self._staged.append(item)
                self._staged_bytes += size
                return pending
        return self._append_and_flush(item)

    def append_durable(self, data: ReadableBuffer) -> Lsn:
        """Append one record, behind what is staged, and return when it is synced.

        Threads that wait at the same time share a sync (group commit), and the next group fills
        while one is at the device.

        Args:
            data: As for ``append``.

        Returns:
            Its LSN.

        Raises:
            WalFullError: This record was not taken; what is staged stays staged.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        record = data if type(data) is bytes else self._copied(data)
        return self._append_single(record, len(record), durable=True)

    def append_many(
        self,
        records: Iterable[ReadableBuffer],
        *,
        durable: bool = False,
        atomic: bool = False,
    ) -> range:
        """Append records, in order, with no other's between them.

        They are staged as ``append_batched`` stages one, and flushed at ``max_batch_bytes()``.

        Args:
            records: Contiguous bytes-like objects, each as for ``append``.
            durable: Return when they are synced.
            atomic: After a crash all of them are there or none. The group is handed over at once,
                in one frame or several, and never crosses a segment.

        Returns:
            Their LSNs.

        Raises:
            TypeError: records is itself a record, or holds something that is none.
            RecordTooLargeError: One of them is too large; none was taken.
            WalFullError: An atomic group was not taken; others are staged, and what did not fit
                stays so: do not append them again, make room and call ``flush_batch()``.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        if durable and not atomic:
            records = listed(records)
            if run := Run.of(records, self._record_bytes_max):
                last = self._flush(run)
                return range(last - len(run) + 1, last + 1)
        copies = copied_all(records, self._check)
        if atomic and copies:
            return self._append_group(copies, durable=durable)
        lsns, is_full = self._stage_all(copies)
        if durable or is_full:
            self._flush()
        return lsns

    def wait_durable(self, lsn: Lsn, timeout: float | None = None) -> None:
        """Return when everything up to and including lsn is synced; sync where nobody does.

        Args:
            lsn: From 1 to ``last_lsn``; staged records are handed over.
            timeout: Seconds to wait for the sync, or None for as long as it takes.

        Raises:
            ValueError: lsn is beyond ``last_lsn``.
            TimeoutError: It was not durable in time. Nothing changed: wait again.
            WalFullError: It is staged, and there is no room for it.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        checked_lsn("lsn", lsn)
        timeout = checked_timeout(timeout)
        last = self.last_lsn
        if lsn > last:
            raise ValueError(f"{self._path}: LSN {lsn} was not given yet; the last one is {last}")
        self._wait(lsn, timeout)

    def flush_batch(self) -> None:
        """Write and sync everything staged or appended so far.

        Raises:
            WalFullError: What did not fit stays staged; what was handed over is synced.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        self._flush()

    def sync(self) -> None:
        """Make everything staged or appended so far durable: the same as ``flush_batch``.

        Raises:
            WalError: As for ``flush_batch``.
        """
        self.flush_batch()

    # ---- looking ---------------------------------------------------------------------------------

    def pending_batch_bytes(self) -> int:
        """Return the payload bytes staged."""
        self._check_open()
        return self._staged_bytes

    def pending_batch_ops(self) -> int:
        """Return the number of records staged."""
        self._check_open()
        return len(self._staged)

    def has_pending_batch(self) -> bool:
        """Tell whether anything is staged."""
        self._check_open()
        return bool(self._staged)

    def stats(self) -> IoUringStatsSnapshot:
        """Return a snapshot of the counters, which are kept in C and cost appends nothing.

        Raises:
            WalClosedError: The writer was closed.
        """
        durable_lsn = int(self._position().durable_lsn)
        counters = self._native.stats()
        with self._stage_lock:
            return snapshot(
                counters,
                self._in_use,
                pending_bytes=self._staged_bytes,
                pending_ops=len(self._staged),
                durable_lsn=durable_lsn,
                last_lsn=self._last_lsn(),
            )

    @property
    def backend(self) -> str:
        """What is in use: "io_uring" or "pwrite"."""
        return self._in_use.backend

    @property
    def recovery_report(self) -> RecoveryReport:
        """What the last opening or ``reopen()`` found."""
        return self._report

    @property
    def last_lsn(self) -> Lsn:
        """Of the newest record, staged ones included; 0 in a log that never held one.

        A closed writer's is final.
        """
        with self._stage_lock:
            self._check_ours()
            return self._last_lsn()

    @property
    def durable_lsn(self) -> Lsn:
        """Everything up to and including this one is synced; a closed writer's is final."""
        self._check_ours()
        return int(self._native.position().durable_lsn)

    def __repr__(self) -> str:
        """Show path, state and the last LSN."""
        if self._state is State.CLOSED:
            return f"<PortableWalWriter {getattr(self, '_path', None)!r} closed>"
        state = "poisoned" if self._poison else self._state.name.lower()
        return f"<PortableWalWriter {self._path!r} {state}, last_lsn={self._last_lsn()}>"

    # ---- trimming, reopening, closing ------------------------------------------------------------

    def truncate_before(self, lsn: Lsn) -> None:
        """Sync, then drop the records below lsn and recycle the segments that held only such.

        Never drops what is not durable: lsn is clamped to ``durable_lsn + 1``. Works on a full log,
        where staged records stay staged.

        Args:
            lsn: The first record to keep, from 1.

        Raises:
            ValueError: lsn is below 1.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        checked_lsn("lsn", lsn)
        self._trim(lsn)

    def reopen(self) -> RecoveryReport:
        """Recover from what the device really holds, and go on.

        The way on after poisoning. Records that were not durable may be gone, and their LSNs are
        given anew then; ``lost`` in the report names them. A sound writer is synced first, and what
        is staged in it because the log is full stays staged.

        Returns:
            The report, also kept as ``recovery_report``.

        Raises:
            WalError: The log cannot be opened; the writer stays poisoned.
        """
        with self._handover_lock:
            self._refuse_reentry()
            self._check_open()
            self._close_open_lanes()
            if self._poison is None:
                self._flush_before_reopening()
            expected = self._handed if self._poison is None else self._poison.lost.stop - 1
            self._report = with_cost(self._native.reopen(), expected)
            self._resume(self._report)
        log_recovery(self._path, self._report)
        return self._report

    def close(self) -> None:
        """Sync what is staged, seal the log and release it; a second call does nothing.

        Waits for calls in flight. In the child of a fork it does nothing.

        Raises:
            WalFullError: Staged records did not fit and are gone; the log is released.
            WalPoisonedError: Records may be lost (``lost`` names them); the log is released.
        """
        if self._state is State.FORKED:
            return
        with self._handover_lock:
            if self._state is State.CLOSED:
                return  # perhaps by another thread, meanwhile
            self._refuse_reentry()
            with self._stage_lock:
                self._state = State.CLOSING
                self._limit = -1
            try:
                problem = self._hand_over_the_rest()
                problem = self._close_native() or problem
            except BaseException:  # Ctrl-C; a second close() may still finish it
                self._native.abandon()
                raise
            self._state = State.CLOSED
            self._staged, self._staged_bytes = [], 0
            _lifecycle.open_writers.discard(self)
        if problem is not None:
            raise problem.with_traceback(None)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; an error of the block goes on, with a note where closing failed too."""
        if error is None:
            self.close()
            return
        try:
            self.close()
        except WalError as problem:
            note_closing(error, problem)

    def __del__(self) -> None:
        """Close what was forgotten, with a ResourceWarning."""
        staged = len(self._staged) if self._state is State.OPEN else None
        _lifecycle.collect(self, getattr(self, "_path", ""), staged)

    # ---- helpers ---------------------------------------------------------------------------------

    def close_at_exit(self) -> int:
        """Close, unless Ctrl-C already ended a close; return how many records were staged."""
        if self._state is not State.OPEN:
            return 0
        staged = len(self._staged)
        self.close()
        return staged


PortableWalWriter.__module__ = "walengine"
