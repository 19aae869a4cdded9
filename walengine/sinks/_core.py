"""The state of a buffering sink, without I/O, locks or tasks; both twins are shells around it.

All accepted items stand in one list until the destination has them::

    items      [ a b c d | e f g ]          accepted, written: totals, as positions in the order
                 in flight  waiting

A write begins with the leading items (``begin``: they are in flight), and ends: ``succeed``
removes them, ``fail`` only forgets that they were in flight. So a failed batch is where it was, in
front and in order, without being put back.

Level, triggers and watermarks count the waiting items alone: what is in flight frees no room by
waiting for it, and the next batch may fill meanwhile.

An error of a write that no call waited for is *kept* and raised by the next send. If a retry
succeeds before, it is logged and forgotten.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from enum import Enum
from itertools import accumulate
from typing import Generic, TypeVar

from walengine.sinks.errors import SinkClosedError
from walengine.sinks.options import SinkOptions, checked_count, default_size

T = TypeVar("T")

log = logging.getLogger("walengine")


KEPT = "Nothing was lost: what was accepted stays buffered, and a flush tries again"


class State(Enum):
    """Of a sink."""

    OPEN = 0
    CLOSING = 1
    CLOSED = 2


class Core(Generic[T]):
    """What is buffered, what is under way, and when to write.

    Args:
        name: Of the sink, for messages.
        capacity: Items at which a batch is written, and the most that one batch holds.
        options: The other triggers, and the watermarks.
    """

    def __init__(self, name: str, capacity: int, options: SinkOptions | None) -> None:
        self.name = name
        self.capacity = checked_count("capacity", capacity)
        self.options = options = options or SinkOptions()
        self.state = State.OPEN
        self.backpressure = False
        self.listeners: list[Callable[[int], object]] = []
        self.batches = 0
        self._max_bytes = options.max_bytes
        self._max_age = options.max_age_seconds
        self._size_of = options.size_of or default_size
        self._high_count = math.ceil(options.high_watermark * capacity)
        self._low_count = math.floor(options.low_watermark * capacity)
        self.clear()

    def clear(self) -> None:
        """Forget every item: in the child of a fork they are the parent's."""
        self.items: list[T] = []
        self.in_flight = 0
        self.accepted = 0
        self.written = 0
        self.kept_error: Exception | None = None
        self._sizes: list[int] = []  # of every item, with max_bytes
        self._times: list[float] = []  # when each was accepted, with max_age
        self._waiting_bytes = 0

    # ---- looking ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Items that are buffered and not in flight."""
        return len(self.items) - self.in_flight

    def is_full(self) -> bool:
        """Tell whether a whole batch waits."""
        if len(self.items) - self.in_flight >= self.capacity:
            return True
        return self._max_bytes is not None and self._waiting_bytes >= self._max_bytes

    def is_due(self) -> bool:
        """Tell whether count, bytes or age ask for a write."""
        if self.is_full():
            return True
        due_at = self.due_at()
        return due_at is not None and self.options.clock() >= due_at

    def due_at(self) -> float | None:
        """Return when the oldest waiting item will be ``max_age`` old, by the options' clock."""
        if self._max_age is None or self.waiting == 0:
            return None
        return self._times[self.in_flight] + self._max_age

    def check_open(self) -> None:
        """Refuse what a closed sink cannot do."""
        if self.state is not State.OPEN:
            raise SinkClosedError(f"{self.name}: the sink is closed; make a new one")

    # ---- items in --------------------------------------------------------------------------------

    def accept(self, item: T) -> int:
        """Put one item behind the others; return its position in the order."""
        # What is the caller's code, and may raise, comes before anything is changed.
        size = self._size_of(item) if self._max_bytes is not None else 0
        waiting_bytes = self._waiting_bytes + size
        if self._max_age is not None:
            self._times.append(self.options.clock())
        if self._max_bytes is not None:
            self._sizes.append(size)
            self._waiting_bytes = waiting_bytes
        self.items.append(item)
        position = self.accepted
        self.accepted += 1
        self.note_level()  # which may call back, and accept another one
        return position

    def withdraw(self, position: int, taken: int) -> bool:
        """Take an item back out whose send is going to raise, unless that is too late.

        Args:
            position: What ``accept`` returned.
            taken: Leading items that the destination may have.

        Returns:
            Whether the item is out.
        """
        index = position - self.written
        if index < max(taken, self.in_flight):
            return False
        del self.items[index]
        self.accepted -= 1
        if self._max_bytes is not None:
            self._waiting_bytes -= self._sizes.pop(index)
        if self._max_age is not None:
            del self._times[index]
        self.note_level()
        return True

    def discard(self) -> list[T]:
        """Remove what waits and return it."""
        begin = self.in_flight
        dropped = self.items[begin:]
        del self.items[begin:], self._sizes[begin:], self._times[begin:]
        self._waiting_bytes = 0
        self.accepted -= len(dropped)
        self.kept_error = None
        self.note_level()
        return dropped

    # ---- batches out -----------------------------------------------------------------------------

    def begin(self) -> list[T]:
        """Put the next batch in flight; return a copy, which the destination may keep."""
        count = min(self.capacity, len(self.items))
        if self._max_bytes is not None:
            limit = self._max_bytes
            ends = accumulate(self._sizes[:count])
            count = next((i for i, end in enumerate(ends, 1) if end >= limit), count)
            self._waiting_bytes -= sum(self._sizes[:count])
        self.in_flight = count
        return self.items[:count]

    def succeed(self) -> None:
        """The destination has what was in flight."""
        count = self.in_flight
        self.in_flight = 0
        del self.items[:count], self._sizes[:count], self._times[:count]
        self.written += count
        self.batches += 1
        if self.kept_error is not None:
            log.warning("%s: a failed write was made good: %r", self.name, self.kept_error)
            self.kept_error = None
        self.note_level()
        for listener in self.listeners:
            try:
                listener(count)
            except Exception:
                log.exception("%s: a batch listener failed", self.name)

    def fail(self) -> None:
        """The destination has not: everything stays as it stands."""
        self._waiting_bytes += sum(self._sizes[: self.in_flight])
        self.in_flight = 0
        self.note_level()

    # ---- errors that no call waited for ----------------------------------------------------------

    def raise_kept(self) -> None:
        """Raise the error that was kept, once."""
        error = self.kept_error
        if error is not None:
            self.kept_error = None
            raise error

    # ---- watermarks ------------------------------------------------------------------------------

    def note_level(self) -> None:
        """Turn back-pressure on or off, and tell who wants to know."""
        waiting = len(self.items) - self.in_flight
        if self.backpressure:
            turn = waiting <= self._low_count and not self._bytes_above(self.options.low_watermark)
        else:
            turn = waiting >= self._high_count or self._bytes_reach(self.options.high_watermark)
        if not turn:
            return
        self.backpressure = not self.backpressure
        if self.options.on_backpressure is None:
            return
        try:
            self.options.on_backpressure(self.backpressure)
        except Exception:
            log.exception("%s: on_backpressure failed", self.name)

    def _bytes_reach(self, share: float) -> bool:
        return self._max_bytes is not None and self._waiting_bytes >= share * self._max_bytes

    def _bytes_above(self, share: float) -> bool:
        return self._max_bytes is not None and self._waiting_bytes > share * self._max_bytes


def with_note(error: Exception, note: str) -> None:
    """Have the traceback tell more, once for each error object."""
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def warn_not_closed(core: Core[T], remedy: str) -> None:
    """Warn of a sink that ends with items that nobody can write any more."""
    warnings.warn(
        f"{core.name} was not closed; items that were not written: {len(core.items)}. {remedy}",
        ResourceWarning,
        stacklevel=3,
    )
