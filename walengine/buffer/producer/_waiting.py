"""Who waits for room: calls, in the order they came, let in one at a time.

Acceptance is the waiter's own step and not that of who made room. So a wait that is cancelled, even
in the moment between, has accepted nothing; it goes on to the next in line.

A caller in a tight loop that always finds room would never let the event loop turn, and nothing
would be uploaded. So who calls when the loop has not turned for some milliseconds waits in line for
one turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from walengine.buffer.errors import QueueError
from walengine.buffer.producer._input import Input
from walengine.buffer.producer._outcome import fresh
from walengine.buffer.producer._room import Room

__all__ = ["Waiting"]

TURN_INTERVAL_S: Final = 0.005


class _Waiter:
    __slots__ = ("call", "future", "is_called")

    def __init__(self, call: Input, future: asyncio.Future[None]) -> None:
        self.call = call
        self.future = future
        self.is_called = False


class Waiting:
    """The calls that wait.

    Args:
        room: What they wait for.
        turn_over: Called when one of them was let in, or has gone.
    """

    def __init__(self, room: Room, turn_over: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = room
        self._turn_over = turn_over
        self._waiters: deque[_Waiter] = deque()
        self._refusal: QueueError | None = None
        self._busy_since: float | None = None  # the first acceptance since the loop turned

    def __len__(self) -> int:
        return len(self._waiters)

    def must_wait(self, call: Input) -> bool:
        """Tell whether a call that comes now has to wait.

        Raises:
            QueueError: Calls are refused.
        """
        if self._refusal is not None:
            raise fresh(self._refusal)
        return bool(self._waiters) or not self._room.has(call) or self._owes_turn()

    @contextlib.asynccontextmanager
    async def turn(self, call: Input) -> AsyncIterator[None]:
        """Wait for the call's turn and for room; in the block it is to be accepted.

        Raises:
            QueueError: Calls are refused.
        """
        waiter = _Waiter(call, self._loop.create_future())
        self._waiters.append(waiter)
        try:
            self._turn_over()  # it may be the first, and have room already
            while True:
                await waiter.future
                if self._refusal is not None:
                    raise fresh(self._refusal)
                if self._room.has(call):
                    break
                waiter.future, waiter.is_called = self._loop.create_future(), False
            yield
        finally:
            self._waiters.remove(waiter)
            self._turn_over()

    def let_first_in(self) -> None:
        """Wake the first that waits, if there is room for it."""
        if not self._waiters:
            return
        first = self._waiters[0]
        if not first.is_called and self._room.has(first.call):
            first.is_called = True
            self._loop.call_soon(_wake, first.future)

    def first_lacks_bytes(self) -> bool:
        """Tell whether the first that waits waits for bytes to become durable."""
        return bool(self._waiters) and self._room.lacks_bytes(self._waiters[0].call)

    def refuse(self, error: QueueError) -> None:
        """Refuse those who wait and those who come."""
        self._refusal = error
        for waiter in self._waiters:
            waiter.is_called = True
            _wake(waiter.future)

    def allow(self) -> None:
        """Refuse no longer."""
        self._refusal = None

    def note_accepted(self, now: float) -> None:
        """Take note that a call was accepted."""
        if self._busy_since is None:
            self._busy_since = now
            self._loop.call_soon(self._loop_turned)

    def _owes_turn(self) -> bool:
        since = self._busy_since
        return since is not None and self._loop.time() - since >= TURN_INTERVAL_S

    def _loop_turned(self) -> None:
        self._busy_since = None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
