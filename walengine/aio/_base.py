"""What stands behind the public methods: the life of a writer, its refusals, its waits."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from walengine import _lifecycle, _refusals
from walengine._handover import State
from walengine._looking import Looking
from walengine._opening import log_recovery, with_cost
from walengine._records import copied
from walengine._staging import Staged
from walengine.aio._apart import apart
from walengine.aio._driver import Driver
from walengine.aio._opened import Opened, open_polled
from walengine.backend import log_backend
from walengine.config import IoUringConfig, WalConfig, normalised
from walengine.errors import WalError, WalFullError, WalPoisonedError
from walengine.types import Lsn, RecoveryReport

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

T = TypeVar("T")

log = logging.getLogger("walengine")


class AsyncBase(Looking):
    """Base of the asyncio writer: opening, closing, forks, exit."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: IoUringConfig | WalConfig | None = None,
    ) -> None:
        self._state: State | None = None  # None: not opened yet
        self._path = os.fsdecode(path)
        self._config = normalised(config)
        self._batch_bytes_max = self._config.io.max_batch_bytes
        self._limit = -1  # the largest record taken now; -1: none is
        self._record_bytes_max = -1  # known once it is open
        self._closing: asyncio.Task[None] | None = None
        self._reopening: asyncio.Task[RecoveryReport] | None = None
        self._opened: Opened
        self._driver: Driver
        self._loop: asyncio.AbstractEventLoop
        self._new_future: Callable[[], asyncio.Future[Any]]
        self._report: RecoveryReport

    # ---- opening ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        if self._state is not None:
            raise RuntimeError(f"{self._path}: this writer was opened already; make another one")
        loop = asyncio.get_running_loop()
        opened = await apart(loop, open_polled, self._path, self._config, abandon=Opened.release)
        try:
            loop.add_reader(opened.bell.fd, self._on_bell)
        except BaseException as error:
            await apart(loop, opened.release)
            if isinstance(error, NotImplementedError):
                raise self._blind_loop(loop) from None
            raise
        self._loop, self._opened, self._report = loop, opened, opened.report
        self._new_future = loop.create_future
        self._driver = Driver(
            self._path,
            opened.polled,
            loop,
            opened.report.last_lsn,
            is_direct=opened.in_use.direct_io,
            early_bytes=self._batch_bytes_max,
            on_poison=self._take_nothing,
        )
        self._state = State.OPEN
        self._limit = self._record_bytes_max = opened.native.record_bytes_max()
        _lifecycle.handles[id(self)] = opened.native
        _lifecycle.open_writers.add(self)
        log_backend(self._path, opened.in_use)
        log_recovery(self._path, opened.report)

    def _blind_loop(self, loop: asyncio.AbstractEventLoop) -> NotImplementedError:
        return NotImplementedError(
            f"{self._path}: {type(loop).__name__} cannot watch a file descriptor; use a loop with "
            "add_reader (asyncio's selector loop, uvloop), or PortableWalWriter in threads"
        )

    def _take_nothing(self) -> None:
        self._limit = -1

    def _on_bell(self) -> None:
        self._opened.bell.hush()
        self._driver.look()

    # ---- appending -------------------------------------------------------------------------------

    async def _append(self, item: Staged, size: int) -> Lsn:
        waiter: asyncio.Future[Lsn] = self._new_future()
        stage = self._driver.stage
        stage.add(item)
        stage.mark_last(waiter, durable=self._opened.in_use.direct_io, owns=True)
        self._driver.staged_bytes += size
        self._driver.want(durable=False)
        return await waiter

    async def _append_batched(self, item: Staged, size: int) -> int:
        driver = self._driver
        driver.stage.add(item)
        driver.staged_bytes += size
        if driver.staged_bytes < self._batch_bytes_max:
            return driver.staged_bytes
        waiter: asyncio.Future[Lsn] = self._new_future()
        driver.stage.mark_last(waiter, durable=True, owns=True)
        driver.want(durable=True)
        await waiter
        return 0

    async def _flush(self) -> None:
        await self._driver.until_durable(self._driver.last_lsn)

    def _taken(self, data: ReadableBuffer) -> bytes:
        """Return the record as bytes; refuse what this writer does not take."""
        record = data if type(data) is bytes else self._copied(data)
        self._check(len(record))
        self._check_loop()
        return record

    def _copied(self, data: ReadableBuffer) -> bytes:
        return copied(data, self._check)

    async def _off_the_loop(self, function: Callable[..., T], *arguments: Any) -> T:
        return await apart(self._loop, function, *arguments)

    # ---- refusals --------------------------------------------------------------------------------

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise self._refusal(size)

    def _check_usable(self) -> None:
        self._check(0)
        self._check_loop()

    def _check_loop(self) -> None:
        self._check_opened()
        if asyncio.get_running_loop() is not self._loop:
            raise self._wrong_loop()

    def _wrong_loop(self) -> RuntimeError:
        return RuntimeError(
            f"{self._path}: the writer belongs to another event loop; open and use it in one loop, "
            "or take a PortableWalWriter, which any thread may use"
        )

    def _check_opened(self) -> None:
        if self._state is None or self._state is State.FORKED:
            raise self._refusal(0)

    def _check_open(self) -> None:
        if self._state is not State.OPEN:
            raise self._refusal(0)

    def _refusal(self, size: int) -> Exception:
        """Return the reason why nothing, or nothing of this size, is taken."""
        if self._state is None:
            return RuntimeError(
                f"{self._path}: the log is not open yet; use 'async with', or "
                "'await AsyncWalWriter.open(path)'"
            )
        if self._state is State.FORKED:
            return _refusals.forked(self._path)
        if self._state is not State.OPEN:
            return _refusals.closed(self._path)
        if self._driver.poison is not None:
            return self._driver.poison.with_traceback(None)
        if self._limit < 0:
            return WalError(f"{self._path}: the log is being reopened", path=self._path)
        return _refusals.too_large(self._path, size, self._config)

    def _position(self) -> Any:
        self._check_open()
        return self._opened.native.position()

    # ---- reopening, closing ----------------------------------------------------------------------

    async def _reopen(self) -> RecoveryReport:
        driver = self._driver
        self._limit = -1  # what was staged behind the sync would be forgotten
        try:
            if driver.poison is None:
                await self._flush()
            expected = driver.handed if driver.poison is None else driver.poison.lost.stop - 1
            report = await self._off_the_loop(self._opened.native.reopen)
            self._report = with_cost(report, expected)
            driver.resume(report.last_lsn)
        finally:
            if self._state is State.OPEN and driver.poison is None:
                self._limit = self._record_bytes_max
        log_recovery(self._path, self._report)
        return self._report

    async def _close(self) -> None:
        self._state = State.CLOSING
        self._limit = -1
        if self._reopening is not None:
            await asyncio.wait([self._reopening])
        problem: WalError | None = self._driver.poison
        if problem is None:
            problem = await self._hand_over_the_rest()
        self._loop.remove_reader(self._opened.bell.fd)
        self._opened.unhook()
        try:
            await self._off_the_loop(self._opened.native.close)
        except WalPoisonedError as error:
            problem = self._driver.poisoned(error)
        except WalError as error:
            problem = error
        self._released()
        self._driver.end(self._opened.polled.durable_lsn(), problem or _refusals.closed(self._path))
        if problem is not None:
            raise problem.with_traceback(None)

    async def _hand_over_the_rest(self) -> WalError | None:
        try:
            await self._flush()
        except WalFullError as error:
            return _refusals.gone(error, self._driver.staged_count)
        except WalError as error:
            return error
        return None

    def _released(self) -> None:
        self._state = State.CLOSED
        _lifecycle.open_writers.discard(self)

    def close_at_exit(self) -> int:
        """Close without a loop, blocking; return how many records were staged."""
        if self._state not in {State.OPEN, State.CLOSING}:
            return 0
        native = self._opened.native
        self._limit = -1
        stages = self._driver.stop()
        self._opened.unhook()
        staged = self._driver.staged_count
        try:
            for stage in stages:
                for records, crcs in stage.calls():
                    native.append_joined(records, crcs, durable=False, atomic=stage.atomic)
        finally:
            try:
                native.close()
            finally:
                self._released()
        return staged

    def after_fork_in_child(self) -> None:
        """Become a handle that refuses; the loop, the bell and the log are the parent's."""
        if self._state in {State.OPEN, State.CLOSING}:
            self._state = State.FORKED
            self._limit = -1
            self._opened.bell.close()

    def __del__(self) -> None:
        """Close what was forgotten, with a ResourceWarning."""
        staged = self._driver.staged_count if self._state is State.OPEN else None
        _lifecycle.collect(self, getattr(self, "_path", ""), staged)
