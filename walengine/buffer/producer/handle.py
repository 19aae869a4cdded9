"""What produce() returns: when the entries were taken, and whether they are durable yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from walengine.buffer.errors import QueueError
from walengine.buffer.producer._outcome import Outcome

if TYPE_CHECKING:
    from walengine.buffer._loop_thread import LoopThread

__all__ = ["AsyncWatcher", "Watcher", "WriteHandle"]

W = TypeVar("W", "AsyncWatcher", "Watcher")


class _Watcher:
    """Knows the outcome of one call."""

    __slots__ = ("_outcome",)

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def result(self) -> bool | None:
        """Tell without waiting: None while undecided, True when durable.

        Raises:
            QueueError: The call failed, for good. A ``StorageError`` says in ``unclear`` whether
                the entries may be in the queue all the same.
        """
        return self._outcome.result()

    def __repr__(self) -> str:
        """Show what is known."""
        outcome = self._outcome
        state = "durable" if outcome.durable else "failed" if outcome.failure else "undecided"
        return f"<{type(self).__name__} {state}>"


class AsyncWatcher(_Watcher):
    """Watches one call of an asynchronous producer, from tasks of its loop."""

    __slots__ = ()

    async def await_durable(self) -> None:
        """Wait until the entries are durable; cancelling the wait cancels no write.

        Raises:
            QueueError: As for ``result``.
        """
        await self._outcome.decided()
        self._outcome.result()


class Watcher(_Watcher):
    """Watches one call of a synchronous producer, from any thread."""

    __slots__ = ("_thread",)

    def __init__(self, outcome: Outcome, thread: LoopThread) -> None:
        super().__init__(outcome)
        self._thread = thread

    def await_durable(self, timeout: float | None = None) -> None:
        """Wait until the entries are durable.

        Args:
            timeout: Seconds to wait at most; None: until it is decided.

        Raises:
            TimeoutError: It is not decided yet; nothing has changed.
            QueueError: As for ``result``.
        """
        try:
            if not self._outcome.is_decided:
                self._thread.run(self._outcome.decided, timeout)
        except QueueError:
            if not self._outcome.is_decided:  # else by the close that came in between
                raise
        self._outcome.result()


@dataclass(frozen=True, slots=True)
class WriteHandle(Generic[W]):
    """What became of one produce() call.

    Attributes:
        ingestion_time_ms: When the entries were taken, in ms since 1970 by the store's clock, as
            far as that is known. The manifest has it too.
        watcher: Tells when they are durable.
    """

    ingestion_time_ms: int
    watcher: W


for _kind in (AsyncWatcher, Watcher, WriteHandle):
    _kind.__module__ = "walengine.buffer"
