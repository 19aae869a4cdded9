"""PortableWalWriter: what a program calls; how records reach C is in _handover.py."""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crc32c import crc32c

from walengine import _lifecycle
from walengine._handover import HandOver, State
from walengine._opening import log_recovery, open_native, snapshot
from walengine._staging import Staged
from walengine.backend import log_backend
from walengine.config import IoUringConfig, WalConfig, normalised
from walengine.errors import WalError, WalFullError, WalPoisonedError
from walengine.types import IoUringStatsSnapshot, Lsn, RecoveryReport, checked_lsn

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["PortableWalWriter"]

log = logging.getLogger("walengine")


class PortableWalWriter(HandOver):
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
            record_bytes_max=config.max_record_bytes,
            batch_bytes_max=config.io.max_batch_bytes,
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
        return self._append((record, crc32c(record)), len(record))

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
        item = (record, crc32c(record))
        with self._stage_lock:
            if size > self._limit:
                raise self._refusal(size)
            pending = self._staged_bytes + size
            if pending < self._batch_bytes_max:
                self._staged.append(item)
                self._staged_bytes += size
                return pending
        return self._append_and_flush(item)

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

    def max_batch_bytes(self) -> int:
        """Return the staged bytes at which ``append_batched`` flushes by itself."""
        return self._batch_bytes_max

    def size(self) -> int:
        """Return the bytes of the frames from the first to the last LSN handed over."""
        return int(self._position().frame_bytes)

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
    def path(self) -> Path:
        """Directory of the log."""
        return Path(self._path)

    @property
    def backend(self) -> str:
        """What is in use: "io_uring" or "pwrite"."""
        return self._in_use.backend

    @property
    def recovery_report(self) -> RecoveryReport:
        """What the last opening or ``reopen()`` found."""
        return self._report

    @property
    def first_lsn(self) -> Lsn:
        """Of the oldest record kept; that of the next record where there is none."""
        return int(self._position().first_lsn)

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
        with self._handover_lock:
            try:
                self._hand_over()
            except WalFullError as error:
                log.info("trimming with records still staged: %s", error)
        try:
            self._native.truncate_before(lsn)
        except WalPoisonedError as error:
            raise self._poisoned(error) from None

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
            if self._poison is None:
                self._flush_before_reopening()
            expected = self._handed if self._poison is None else self._poison.lost.stop - 1
            report = self._native.reopen()
            lost = range(report.last_lsn + 1, max(expected, report.last_lsn) + 1)
            self._report = dataclasses.replace(report, lost=lost)
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
            if problem is not error:
                error.add_note(f"closing the log failed too: {problem}")

    def __del__(self) -> None:
        """Close what was forgotten, with a ResourceWarning."""
        try:
            if self._state is State.OPEN:
                warnings.warn(
                    f"unclosed log {self._path!r} with {len(self._staged)} staged records",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )
        finally:  # the warning may be an error
            try:
                self.close_at_exit()
            finally:
                _lifecycle.handles.pop(id(self), None)

    # ---- helpers ---------------------------------------------------------------------------------

    def _append(self, item: Staged, size: int) -> Lsn:
        if size > self._limit:
            raise self._refusal(size)
        if self._is_direct:
            return self._flush(item)
        with self._handover_lock:
            return self._hand_over(item)

    def _append_and_flush(self, item: Staged) -> int:
        """Append the record that fills the batch (it is never staged itself), and sync."""
        self._flush(item)
        return 0

    def _flush(self, own: Staged | None = None) -> Lsn:
        """Make durable what is staged, then own; on a full log, what fits."""
        full = None
        with self._handover_lock:
            former = self._former_poison
            try:
                last = self._hand_over(own, durable=True)
            except WalFullError as error:
                full, last = error, self._handed
            is_synced = self._is_synced
        if not is_synced:
            self._commit(last, former)
        if full is not None:
            raise full
        return last

    def _commit(self, lsn: Lsn, former: WalPoisonedError | None) -> None:
        """Wait until everything up to lsn is durable.

        A poisoning and a reopening may lie between the hand-over and here; then lsn may have been
        given anew, and its being durable says nothing about the record that was meant.
        """
        begin = perf_counter()
        problem: WalError | None = None
        try:
            self._native.commit(lsn)
        except WalError as error:
            problem = error
        self._note_sync(perf_counter() - begin)
        cured = self._former_poison
        if cured is not None and cured is not former:
            raise cured.with_traceback(None)
        if isinstance(problem, WalPoisonedError):
            raise self._poisoned(problem)
        if problem is not None:
            raise problem

    def _position(self) -> Any:
        self._check_open()
        return self._native.position()

    def _copied(self, data: ReadableBuffer) -> bytes:
        """Return the bytes of any other contiguous object, as they are now."""
        if isinstance(data, str):
            raise TypeError("a record is bytes, not str: encode the text first")
        view = memoryview(data)
        if not view.c_contiguous:
            raise TypeError("a record must be contiguous in memory: pass bytes(...) of it")
        if view.nbytes > self._limit:
            raise self._refusal(view.nbytes)
        return view.tobytes()

    def _flush_before_reopening(self) -> None:
        """Sync a sound writer; a full or failing one is reopened as it is."""
        try:
            self.flush_batch()
        except (WalFullError, WalPoisonedError) as error:
            log.warning("before reopening: %s", error)

    def _close_native(self) -> WalError | None:
        """Seal and release; return what went wrong."""
        try:
            self._native.close()
        except WalPoisonedError as error:
            return self._poisoned(error)
        except WalError as error:
            return error
        return None

    def close_at_exit(self) -> int:
        """Close, unless Ctrl-C already ended a close; return how many records were staged."""
        if self._state is not State.OPEN:
            return 0
        staged = len(self._staged)
        self.close()
        return staged


PortableWalWriter.__module__ = "walengine"
