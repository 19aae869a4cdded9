"""How accepted calls fail: with words that say what is known, and not in silence.

What fails, fails with everything behind it, since the queue's order is the order of calls. Of some
of it nobody may know whether it is in the queue, when an append was under way; these get an error
that says so (``unclear``), the others one that says that they are not.

A failure that no caller has met yet, through a handle or a flush, is raised by the next produce().
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from walengine.buffer.config import ProducerConfig
from walengine.buffer.errors import QueueError, StorageError
from walengine.buffer.producer._forming import Batch
from walengine.buffer.producer._late import WATCHED_S
from walengine.buffer.producer._outcome import Failure, fresh

__all__ = ["Failing", "Told"]

log = logging.getLogger("walengine.buffer")

AGAIN = "produce again what is to be in it"


class Told(NamedTuple):
    """The two failures of one event."""

    clear: Failure
    unclear: Failure


class Failing:
    """Makes failures and remembers those that nobody met.

    Args:
        config: For the limits in the messages.
        queue_name: For the messages.
    """

    def __init__(self, config: ProducerConfig, queue_name: str) -> None:
        self._timeout_s = config.delivery_timeout_s
        self._name = queue_name
        self._unseen: list[Failure] = []

    @property
    def late_timeout_s(self) -> float:
        """How long a batch that was listed late may be looked after."""
        return WATCHED_S + self._timeout_s

    def raise_unseen(self) -> None:
        """Raise the oldest failure that no caller has met."""
        while self._unseen:
            failure = self._unseen.pop(0)
            if not failure.event.was_seen:
                raise failure.raised()

    def note(self, failure: Failure) -> None:
        """Remember a failure until somebody meets it."""
        if failure.event.was_seen:
            return
        if all(failure.event is not known.event for known in self._unseen):
            log.error("%s", failure.error)
        self._unseen.append(failure)

    def of_event(
        self, cause: QueueError | None, calls: int, entries: int, newest: Exception | None
    ) -> Told:
        """Return the failures of all calls that are given up at once.

        Args:
            cause: Why; None: delivery_timeout.
            calls: How many.
            entries: In them.
            newest: The last thing that went wrong.
        """
        if cause is not None and not isinstance(cause, StorageError):
            failure = Failure(cause)
            return Told(failure, failure)
        what = f"{self._name}: {entries} entries of {calls} calls "
        if cause is None:
            what += f"were not in the queue within delivery_timeout={self._timeout_s:g} s"
        else:
            what += f"were given up: {cause}"
        if newest is not None:
            what += f"; the last error: {newest}"
        clear = StorageError(f"{what}. Those of this error are not in the queue: {AGAIN}")
        unclear = StorageError(
            f"{what}. Those of this error may be in the queue all the same, an append was under "
            f"way: look, or {AGAIN}, perhaps twice",
            unclear=True,
        )
        clear.__cause__ = unclear.__cause__ = cause or newest
        first = Failure(clear)
        return Told(first, Failure(unclear, first.event))

    def of_late(self, batch: Batch) -> Failure:
        """Return the failure of a batch that is listed and whose object could not be checked."""
        error = StorageError(
            f"{self._name}: batch {batch.identity} was listed under an old name, and in the time "
            "that was left the store did not tell whether its object is still there; the last "
            f"error: {batch.error}. It may be in the queue: look, or {AGAIN}, perhaps twice",
            unclear=True,
        )
        error.__cause__ = batch.error
        return Failure(error)


def as_queue_error(error: Exception, name: str) -> QueueError:
    """Return the error that callers get; one that the queue does not know is logged in full."""
    if isinstance(error, QueueError):
        return fresh(error)
    log.error("%s: the producer failed", name, exc_info=error)
    wrapped: Any = QueueError(f"{name}: the producer failed, which is a bug: {error!r}")
    wrapped.__cause__ = error
    return wrapped  # type: ignore[no-any-return]
