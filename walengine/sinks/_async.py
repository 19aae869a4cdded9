"""The asynchronous shell: one write at a time, in a task of its own, while the next batch fills.

A send waits for room first and accepts last: nothing is awaited once the item is in, so that a send
that was cancelled, or raised, never took it. The write of a full batch is begun and not waited for;
its error, if it has one, is raised by the next send.

The task of a write belongs to the sink. Whoever waits for it waits for a future beside it:
cancelling the waiter cancels no write, so that no batch is written twice for want of knowing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Awaitable, Iterable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from walengine.sinks._core import KEPT, Core, State, warn_not_closed, with_note
from walengine.sinks._destination import Destination
from walengine.sinks.errors import BackpressureError, SinkError

T = TypeVar("T")

# The loop holds tasks weakly; a write must not be collected together with its sink.
_writes: set[asyncio.Task[None]] = set()


class AsyncShell(Generic[T]):
    """Everything of an asynchronous sink but its face, to which it never refers."""

    def __init__(self, core: Core[T], destination: Destination[T]) -> None:
        if core.options.when_full != "flush":
            raise ValueError(
                f'{core.name}: when_full="raise" is for sync sinks; send_nowait raises when full'
            )
        self.core = core
        self.destination = destination
        self._turn = asyncio.Lock()  # of those who wait for room: first come, first served
        self._queued = 0  # how many those are
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_writing = False
        self._closing: asyncio.Future[None] | None = None  # of the close that is under way
        # Of the write that is under way: None, or its error.
        self._outcome: asyncio.Future[Exception | None]
        open_shells.add(self)

    # ---- the four phases -------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait while the sink is full, or behind: back-pressure on and a write under way."""
        self._enter()
        self.core.raise_kept()
        core = self.core
        while core.is_full() or (core.backpressure and self._is_writing):
            await self._relief()

    def send_nowait(self, item: T) -> None:
        """Accept one item, or raise BackpressureError."""
        self._enter()
        core = self.core
        core.raise_kept()
        if core.is_full():
            self._begin()
            core.raise_kept()
        if core.is_full() or self._queued:
            raise BackpressureError(
                f"{core.name}: {len(core.items)} items are buffered, one batch or more of them "
                "waiting; await ready(), or send()"
            )
        self._accept_or_raise(item)

    async def send(self, item: T) -> None:
        """Wait for room, then accept one item."""
        self._enter()
        self.core.raise_kept()
        if self._must_wait():
            await self._room()
        self._accept_or_raise(item)

    async def send_all(self, source: Iterable[T] | AsyncIterable[T]) -> int:
        """Send every item, then flush.

        There is room before an item is taken from source, and what was taken stays accepted: an
        item that was already drawn from an iterator has no other place.
        """
        await self._room()
        count = 0
        if isinstance(source, AsyncIterable):
            async for item in source:
                self.core.check_open()
                self._accept(item)
                count += 1
                if self._must_wait():
                    await self._room()
        else:
            for item in source:
                self.core.check_open()
                self._accept(item)
                count += 1
                if count % self.core.capacity == 0:
                    await asyncio.sleep(0)  # the batch that was just begun needs the loop
                if self._must_wait():
                    await self._room()
        await self.flush()
        return count

    async def flush(self) -> None:
        """Write everything accepted so far, and have the destination flush."""
        self._enter()
        await self._drain()
        await _done(self.destination.flush())

    async def aclose(self) -> None:
        """Flush, close the destination, refuse what comes."""
        core = self.core
        if self._closing is not None:
            self._refuse_reentry()
        while self._closing is not None:  # by another task; if that fails it is our turn
            await asyncio.shield(self._closing)
        if core.state is State.CLOSED:
            return
        self._enter()
        core.state = State.CLOSING
        self._closing = closing = asyncio.get_running_loop().create_future()
        try:
            await self._drain()
            await _done(self.destination.close())
        except BaseException:
            core.state = State.OPEN
            raise
        else:
            core.state = State.CLOSED
            self._cancel_timer()
        finally:
            self._closing = None
            closing.set_result(None)

    def discard(self) -> list[T]:
        """Give up what waits and return it; what is in flight goes on."""
        if self.core.in_flight == 0:
            self.destination.forget()
        return self.core.discard()

    # ---- accepting: nothing in here awaits -------------------------------------------------------

    def _enter(self) -> None:
        self.core.check_open()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise SinkError(f"{self.core.name}: the sink belongs to another event loop")
            self._adopt(loop)

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to live on a loop; what ran on a former one, now closed, is over."""
        if self._is_writing:
            self._settle(asyncio.CancelledError())
        self._loop, self._timer, self._turn, self._queued = loop, None, asyncio.Lock(), 0

    def _accept(self, item: T) -> int:
        """Accept, and begin to write what is due; return the item's position."""
        position = self.core.accept(self.destination.admit(item))
        if self.core.is_due():
            self._begin()
        else:
            self._set_timer()
        return position

    def _accept_or_raise(self, item: T) -> None:
        """Accept; if the write that this begins fails on the spot, take the item out and raise."""
        core = self.core
        before = core.kept_error
        position = self._accept(item)
        error = core.kept_error
        if error is None or error is before:
            return
        core.kept_error = None  # it is this call's, and nobody's whom the withdrawal calls back
        if core.withdraw(position, self.destination.taken()):
            raise error
        core.kept_error = error

    # ---- waiting ---------------------------------------------------------------------------------

    def _must_wait(self) -> bool:
        core = self.core
        return bool(self._queued or core.kept_error or core.is_full())

    async def _room(self) -> None:
        """Wait until one item has room; others who wait for that come first."""
        self._enter()
        self.core.raise_kept()
        if self._must_wait():
            self._refuse_reentry()
        self._queued += 1
        try:
            async with self._turn:
                while self.core.is_full():
                    await self._relief()
        finally:
            self._queued -= 1
        self.core.check_open()

    async def _relief(self) -> None:
        """Wait until a write ends (begin one if need be); raise its error."""
        self._begin()
        if not self._is_writing:
            self.core.raise_kept()
            return
        self._refuse_reentry()
        error = await asyncio.shield(self._outcome)
        if error is not None:
            if self.core.kept_error is error:
                self.core.kept_error = None
            raise error

    def _refuse_reentry(self) -> None:
        """Refuse to wait, in a write, for what can only follow it."""
        if self._is_writing and asyncio.current_task() is self._task:
            raise SinkError(f"{self.core.name}: called by its own destination in mid-write")

    async def _drain(self) -> None:
        """Write what was accepted up to now."""
        core = self.core
        goal = core.accepted
        while core.written < goal and core.items:
            await self._relief()

    # ---- writing ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin to write a batch, unless a write is under way or nothing waits."""
        if self._is_writing or not self.core.items:
            return
        loop = asyncio.get_running_loop()
        self._cancel_timer()
        self._is_writing = True
        self._outcome = loop.create_future()
        try:
            under_way = self.destination.write(self.core.begin())
        except Exception as error:  # noqa: BLE001 (kept, and raised by the next call)
            self._settle(error)
            return
        except BaseException as error:
            self._settle(error)
            raise
        if under_way is None:
            self._settle(None)
            return
        self.core.note_level()
        # Not by create_task: with a program's eager task factory it might be over in here.
        self._task = asyncio.Task(self._finish(under_way), loop=loop)
        _writes.add(self._task)
        self._task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        _writes.discard(task)
        if self._task is task:  # cancelled before its first step
            self._settle(asyncio.CancelledError())

    async def _finish(self, under_way: Awaitable[None]) -> None:
        try:
            await under_way
        except Exception as error:  # noqa: BLE001 (kept, or raised by who waits)
            self._settle(error)
        except BaseException as error:
            self._settle(error)  # the loop is being shut down
            raise
        else:
            self._settle(None)

    def _settle(self, error: BaseException | None) -> None:
        """End the write; tell who waits; begin the next one if it is due."""
        core, told = self.core, self._told(error)
        try:
            # What this calls back finds a write under way: it may send, and begins no other write.
            if error is None:
                core.succeed()
            else:
                core.fail()
        finally:
            self._is_writing, self._task = False, None
            if isinstance(error, Exception):
                core.kept_error = error
            if not self._outcome.get_loop().is_closed():
                self._outcome.set_result(told)
        if error is None and core.items and core.is_due():
            self._begin()
        else:
            self._set_timer(retry=error is not None)

    def _told(self, error: BaseException | None) -> Exception | None:
        """Return what those who wait for the write are told of its end."""
        if isinstance(error, Exception):
            with_note(error, f"{self.core.name}: {KEPT}")
            return error
        if error is None:
            return None
        return SinkError(f"{self.core.name}: the write was cancelled. {KEPT}")

    # ---- age -------------------------------------------------------------------------------------

    def _set_timer(self, *, retry: bool = False) -> None:
        """Have the loop look again when the oldest item is due, or once more after a failure."""
        core, loop = self.core, self._loop
        due_at = core.due_at()
        if due_at is None or self._timer is not None or self._is_writing:
            return
        if loop is None or loop.is_closed():
            return
        seconds = due_at - core.options.clock()
        if retry:
            seconds = max(seconds, core.options.max_age_seconds or 0.0)
        self._timer = loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.core.state is State.CLOSED:
            return
        if self.core.is_due():
            self._begin()
        else:
            self._set_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- ends without a close --------------------------------------------------------------------

    def finish(self) -> None:
        """Warn of a sink that nobody closed: there is no loop to flush it on."""
        core = self.core
        if core.state is State.CLOSED or not core.items:
            return
        warn_not_closed(core, "Call await aclose(), or use async with")

    def after_fork_in_child(self) -> None:
        """Become an empty sink: what was buffered is the parent's."""
        self._is_writing, self._task, self._timer, self._loop = False, None, None, None
        self.core.clear()
        self.destination.forget()


async def _done(awaitable: Awaitable[None] | None) -> None:
    if awaitable is not None:
        await awaitable


open_shells: WeakSet[AsyncShell[Any]] = WeakSet()


def _in_child() -> None:
    for shell in list(open_shells):
        shell.after_fork_in_child()


os.register_at_fork(after_in_child=_in_child)
