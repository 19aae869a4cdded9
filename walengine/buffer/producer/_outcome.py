"""What became of one produce() call: undecided, durable or failed; and who waits for it.

Handles keep the outcome and nothing else, so that a program may keep handles and not its payloads.
It is touched on the producer's loop; only ``durable`` and ``error`` may be read from elsewhere.
"""

from __future__ import annotations

import asyncio
import copy

from walengine.buffer.errors import QueueError

__all__ = ["Event", "Failure", "Outcome", "fresh"]


class Event:
    """One occasion on which calls failed, perhaps with several errors.

    Attributes:
        was_seen: Some caller was told.
    """

    __slots__ = ("was_seen",)

    def __init__(self) -> None:
        self.was_seen = False


class Failure:
    """Why calls failed; shared by all that failed alike.

    Args:
        error: Why; every caller gets a copy.
        event: The occasion; None: one of its own.
    """

    __slots__ = ("error", "event")

    def __init__(self, error: QueueError, event: Event | None = None) -> None:
        self.error = error
        self.event = event or Event()

    def raised(self) -> QueueError:
        """Return what to raise, and note that it was seen."""
        self.event.was_seen = True
        return fresh(self.error)


class Outcome:
    """The outcome of one call.

    Attributes:
        durable: It is in the queue.
        failure: Why it is not, and never will be by itself.
    """

    __slots__ = ("_waiting", "durable", "failure")

    durable: bool
    failure: Failure | None
    _waiting: list[asyncio.Future[None]] | None

    def __init__(self) -> None:
        self.durable = False
        self.failure = None
        self._waiting = None

    @property
    def is_decided(self) -> bool:
        """Whether it is durable or has failed."""
        return self.durable or self.failure is not None

    def result(self) -> bool | None:
        """Return None while undecided and True when durable; raise why it failed."""
        if self.failure is not None:
            raise self.failure.raised()
        return True if self.durable else None

    async def decided(self) -> None:
        """Wait until it is decided; being cancelled changes nothing."""
        if self.is_decided:
            return
        waiter = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(waiter)
        await waiter

    def succeed(self) -> None:
        """It is durable."""
        self.durable = True
        self._wake()

    def fail(self, failure: Failure) -> None:
        """It has failed."""
        self.failure = failure
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        for waiter in waiting or ():
            if not waiter.done():
                waiter.set_result(None)


def fresh(error: QueueError) -> QueueError:
    """Return a copy: one exception object raised in several places mixes their tracebacks up."""
    again = copy.copy(error)
    again.__cause__ = error.__cause__
    return again
