"""AsyncWalWriter: what a program calls; how records go down and come back is in _driver.py."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from walengine._handover import State
from walengine._looking import note_closing
from walengine._opening import snapshot
from walengine._records import copied_all, listed, with_checksum
from walengine._staging import Run
from walengine.aio._base import AsyncBase
from walengine.config import IoUringConfig, WalConfig
from walengine.errors import WalError, WalFullError, WalPoisonedError
from walengine.types import IoUringStatsSnapshot, Lsn, RecoveryReport, checked_lsn, checked_timeout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["AsyncWalWriter"]

log = logging.getLogger("walengine")

_running_loop = asyncio.get_running_loop

RUN_RECORDS_MIN = 64  # fewer of one call go down with what others staged, in one native call


class AsyncWalWriter(AsyncBase):
    """The writer of a log for asyncio: any number of tasks of one event loop, one process.

    The same log, promises and errors as ``PortableWalWriter``. Tasks that wait at the same time
    share a sync; a waiting task costs a future and no thread. Works on any loop that can watch a
    file descriptor: asyncio's own, uvloop.

    Order is call order: the order in which the coroutines run. Cancelling one that waits ends its
    wait; its record is staged already and goes down all the same. So memory is bounded by the tasks
    that wait, and by those that gave up while the disk was stuck: who calls again and again with a
    time limit should look at ``pending_batch_bytes()`` first. A failed write or sync poisons the
    writer: everybody who waits, and every later call, gets the same WalPoisonedError until
    ``reopen()``. Used from another loop than the one that opened it, it raises RuntimeError.

    Args:
        path: Directory of the log; made where there is none.
        config: A WalConfig, or an IoUringConfig for the batch shape alone.

    Nothing is opened before ``async with``, or ``await AsyncWalWriter.open(path)``.

    Example:
        >>> import asyncio
        >>> from walengine import AsyncWalWriter, replay
        >>> async def main():
        ...     async with AsyncWalWriter("wal.log") as wal:
        ...         return await asyncio.gather(*(wal.append_durable(b"%d" % i) for i in range(3)))
        >>> asyncio.run(main())
        [1, 2, 3]
        >>> [record.data for record in replay("wal.log")]
        [b'0', b'1', b'2']
    """

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        config: IoUringConfig | WalConfig | None = None,
    ) -> Self:
        """Open the log, recovering it in a thread, off the loop.

        Args:
            path: Directory of the log.
            config: As for the class.

        Returns:
            The writer; call ``aclose()`` in the end.

        Raises:
            LockedError: Another writer has the log open.
            WalCorruptionError: Acknowledged bytes are damaged; the report says where.
            WalError: The path is no log, is unsafe, or cannot be opened.
        """
        writer = cls(path, config)
        await writer._open()
        return writer

    # ---- appending -------------------------------------------------------------------------------

    async def append(self, data: ReadableBuffer) -> Lsn:
        """Append one record, behind what is staged; return when the operating system has it.

        With ``direct_io`` in use it is synced then.

        Args:
            data: Contiguous bytes-like object, 0 to ``max_record_bytes`` bytes.

        Returns:
            Its LSN.

        Raises:
            RecordTooLargeError: Nothing was staged.
            WalFullError: This record was not taken.
            WalPoisonedError: A write failed; see ``reopen()``.
        """
        record = self._taken(data)
        return await self._append(record, len(record))

    async def append_with_checksum(self, data: ReadableBuffer) -> Lsn:
        """Append as ``append`` does, with the record's own CRC32C computed here.

        Args:
            data: As for ``append``.

        Returns:
            Its LSN.

        Raises:
            WalError: As for ``append``.
        """
        record = self._taken(data)
        return await self._append(with_checksum(record), len(record))

    async def append_durable(self, data: ReadableBuffer) -> Lsn:
        """Append one record, behind what is staged, and return when it is synced.

        Args:
            data: As for ``append``.

        Returns:
            Its LSN.

        Raises:
            RecordTooLargeError: Nothing was staged.
            WalFullError: This record was not taken.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        # The one call that is made a million times: nothing here that could be done per tick.
        record = data if type(data) is bytes else self._copied(data)
        size = len(record)
        if size > self._limit:
            raise self._refusal(size)
        if _running_loop() is not self._loop:
            raise self._wrong_loop()
        driver = self._driver
        waiter: asyncio.Future[Lsn] = self._new_future()
        stage = driver.stage
        stage.records.append(record)
        stage.waiters.append(waiter)
        driver.staged_bytes += size
        if not driver.is_durable_wanted:
            driver.want(durable=True)
        return await waiter

    async def append_batched(self, data: ReadableBuffer) -> int:
        """Stage one record in memory.

        The call that reaches ``max_batch_bytes()`` waits until all of it is synced and returns 0.

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
        record = self._taken(data)
        return await self._append_batched(record, len(record))

    async def append_with_checksum_batched(self, data: ReadableBuffer) -> int:
        """Stage as ``append_batched`` does, with the record's own CRC32C computed here.

        Args:
            data: As for ``append_batched``.

        Returns:
            Payload bytes now staged.

        Raises:
            WalError: As for ``append_batched``.
        """
        record = self._taken(data)
        return await self._append_batched(with_checksum(record), len(record))

    async def append_many(
        self,
        records: Iterable[ReadableBuffer],
        *,
        durable: bool = False,
        atomic: bool = False,
    ) -> range:
        """Append records, in order, with no other's between them.

        Args:
            records: Contiguous bytes-like objects, each as for ``append``.
            durable: Return when they are synced; else when the operating system has them.
            atomic: After a crash all of them are there or none. The group goes down in one call, in
                one frame or several, and never crosses a segment.

        Returns:
            Their LSNs.

        Raises:
            TypeError: records is itself a record, or holds something that is none.
            RecordTooLargeError: One of them is too large; none was staged.
            WalFullError: An atomic group was not taken. Others are staged, and what did not fit
                stays so: do not append them again, make room and call ``flush_batch()``.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        items = listed(records)
        is_long = len(items) >= RUN_RECORDS_MIN and not atomic
        run = Run.of(items, self._record_bytes_max) if is_long else None
        copies = copied_all(items, self._check) if run is None else run
        self._check_usable()
        driver = self._driver
        if not copies:
            return range(driver.last_lsn + 1, driver.last_lsn + 1)
        stage = driver.stage
        if atomic or run is not None:
            stage = driver.new_stage(atomic=atomic, run=run)
        if run is None:
            stage.records.extend(copies)
            stage.waiters.extend([None] * len(copies))
        driver.staged_bytes += sum(map(len, copies)) if run is None else run.bytes
        waiter: asyncio.Future[Lsn] = self._new_future()
        stage.mark_last(waiter, durable=durable, owns=False)
        if stage.is_closed:
            driver.new_stage()
        driver.want(durable=durable)
        last = await waiter
        return range(last - len(copies) + 1, last + 1)

    async def flush_batch(self) -> None:
        """Return when everything staged or appended so far is written and synced.

        Raises:
            WalFullError: What did not fit stays staged.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        self._check_usable()
        await self._flush()

    async def sync(self) -> None:
        """Make everything staged or appended so far durable: the same as ``flush_batch``.

        Raises:
            WalError: As for ``flush_batch``.
        """
        await self.flush_batch()

    async def wait_durable(self, lsn: Lsn, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Return when everything up to and including lsn is synced; sync where nobody does.

        Args:
            lsn: From 1 to ``last_lsn``; staged records are handed over.
            timeout: Seconds, or None for as long as it takes.

        Raises:
            ValueError: lsn is beyond ``last_lsn``.
            TimeoutError: It was not durable in time. Nothing changed: wait again.
            WalFullError: It is staged, and there is no room for it.
            WalPoisonedError: A write or sync failed; see ``reopen()``.
        """
        checked_lsn("lsn", lsn)
        timeout = checked_timeout(timeout)
        self._check_usable()
        last = self._driver.last_lsn
        if lsn > last:
            raise ValueError(f"{self._path}: LSN {lsn} was not given yet; the last one is {last}")
        try:
            async with asyncio.timeout(timeout):
                await self._driver.until_durable(lsn)
        except TimeoutError:
            raise TimeoutError(
                f"{self._path}: LSN {lsn} was not durable within {timeout:g} s; it still may "
                "become so: wait again"
            ) from None

    # ---- looking ---------------------------------------------------------------------------------

    def pending_batch_bytes(self) -> int:
        """Return the payload bytes staged."""
        self._check_open()
        return self._driver.staged_bytes

    def pending_batch_ops(self) -> int:
        """Return the number of records staged."""
        self._check_open()
        return self._driver.staged_count

    def has_pending_batch(self) -> bool:
        """Tell whether anything is staged."""
        self._check_open()
        return self._driver.staged_count > 0

    def stats(self) -> IoUringStatsSnapshot:
        """Return a snapshot of the counters.

        Raises:
            WalClosedError: The writer was closed.
        """
        durable_lsn = int(self._position().durable_lsn)
        taken = snapshot(
            self._opened.native.stats(),
            self._opened.in_use,
            pending_bytes=self._driver.staged_bytes,
            pending_ops=self._driver.staged_count,
            durable_lsn=durable_lsn,
            last_lsn=self._driver.last_lsn,
        )
        return dataclasses.replace(taken, commits=taken.commits + self._driver.commits)

    @property
    def backend(self) -> str:
        """What is in use: "io_uring" or "pwrite"."""
        self._check_opened()
        return self._opened.in_use.backend

    @property
    def recovery_report(self) -> RecoveryReport:
        """What the last opening or ``reopen()`` found."""
        self._check_opened()
        return self._report

    @property
    def last_lsn(self) -> Lsn:
        """Of the newest record, staged ones included; 0 in a log that never held one."""
        self._check_opened()
        return self._driver.last_lsn

    @property
    def durable_lsn(self) -> Lsn:
        """Everything up to and including this one is synced."""
        self._check_opened()
        return int(self._opened.native.position().durable_lsn)

    def __repr__(self) -> str:
        """Show path, state and the last LSN."""
        if self._state is None or self._state is State.CLOSED:
            state = "closed" if self._state else "not opened"
            return f"<AsyncWalWriter {self._path!r} {state}>"
        state = "poisoned" if self._driver.poison else self._state.name.lower()
        return f"<AsyncWalWriter {self._path!r} {state}, last_lsn={self._driver.last_lsn}>"

    # ---- trimming, reopening, closing ------------------------------------------------------------

    async def truncate_before(self, lsn: Lsn) -> None:
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
        self._check_usable()
        try:
            await self._flush()
        except WalFullError as error:
            log.info("trimming with records still staged: %s", error)
        generation = self._driver.generation
        try:
            await self._off_the_loop(self._opened.native.truncate_before, lsn)
        except WalPoisonedError as error:
            if self._driver.generation != generation:  # a reopening has cured it meanwhile
                raise
            raise self._driver.poisoned(error) from None

    async def reopen(self) -> RecoveryReport:
        """Recover from what the device really holds, and go on.

        The way on after poisoning. Records that were not durable may be gone, and their LSNs are
        given anew then; ``lost`` in the report names them. A sound writer is synced first. Calls of
        other tasks are refused while it lasts, but for this one: they share it. Cancelling it does
        not stop it.

        Returns:
            The report, also kept as ``recovery_report``.

        Raises:
            WalError: The log cannot be opened, and the writer stays poisoned; or a sound one could
                not be synced.
            WalClosedError: The writer was closed.
        """
        self._check_loop()
        self._check_open()
        if self._reopening is None or self._reopening.done():
            self._reopening = self._loop.create_task(self._reopen())
        return await asyncio.shield(self._reopening)

    async def aclose(self) -> None:
        """Sync what is staged, seal the log and release it; a second call does nothing.

        Everybody who waits is served first. Cancelling it does not stop the closing.

        Raises:
            WalFullError: Staged records did not fit and are gone; the log is released.
            WalPoisonedError: Records may be lost (``lost`` names them); the log is released.
        """
        if self._state in {None, State.CLOSED, State.FORKED}:
            return
        self._check_loop()
        if self._closing is None or self._closing.cancelled():
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        """Open the log and return the writer."""
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; an error of the block goes on, with a note where closing failed too."""
        if error is None:
            await self.aclose()
            return
        try:
            await self.aclose()
        except WalError as problem:
            note_closing(error, problem)


AsyncWalWriter.__module__ = "walengine"
