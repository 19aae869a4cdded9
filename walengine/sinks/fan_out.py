"""FanOutSink and its twin: every item to several sinks.

Each target has a position: how many of the leading buffered items it has taken. A write feeds every
target from its own position on, a failing one does not keep the others from theirs, and an item
leaves the buffer when all have it. Since a target's send that raised took nothing, the positions
are exact, and no retry doubles an item.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from walengine.sinks._buffered import AsyncBufferedSink, BufferedSink
from walengine.sinks._core import with_note
from walengine.sinks._destination import Destination
from walengine.sinks.errors import BackpressureError
from walengine.sinks.options import SinkOptions
from walengine.sinks.protocols import AsyncSink, Sink

__all__ = ["AsyncFanOutSink", "FanOutSink"]

T = TypeVar("T")


class _Positions(Destination[T]):
    """How far each target is in the leading items of the buffer."""

    def __init__(self, targets: Sequence[object]) -> None:
        if not targets:
            raise ValueError("targets is empty: give at least one sink")
        self._all = targets
        self.forget()

    def taken(self) -> int:
        """Return how far the foremost target is."""
        return max(self._positions)

    def forget(self) -> None:
        """Begin with the next item."""
        self._positions = [0] * len(self._all)

    def _raise(self, errors: list[tuple[int, Exception]]) -> None:
        """Raise what went wrong: one error as it is, several as a group."""
        for i, error in errors:
            with_note(error, f"raised by target {i} of {len(self._all)}, {self._all[i]!r}")
        if len(errors) == 1:
            raise errors[0][1]
        if errors:
            failures = [error for _, error in errors]
            raise ExceptionGroup(f"{len(errors)} of {len(self._all)} targets failed", failures)


class _Targets(_Positions[T]):
    """Feeds sync sinks, one after the other."""

    def __init__(self, targets: Iterable[Sink[T]]) -> None:
        self._targets = list(targets)
        super().__init__(self._targets)

    def write(self, batch: list[T]) -> None:
        """Send to each what it does not have."""

        def feed(i: int) -> None:
            while self._positions[i] < len(batch):
                self._targets[i].send(batch[self._positions[i]])
                self._positions[i] += 1

        self._for_each(feed)
        self.forget()

    def flush(self) -> None:
        """Flush every target."""
        self._for_each(lambda i: self._targets[i].flush())

    def close(self) -> None:
        """Close every target; what a second attempt closes again does nothing."""
        self._for_each(lambda i: self._targets[i].close())

    def _for_each(self, act: Callable[[int], None]) -> None:
        errors = []
        for i in range(len(self._targets)):
            try:
                act(i)
            except Exception as error:  # noqa: BLE001 (raised when all had their turn)
                errors.append((i, error))
        self._raise(errors)


class _AsyncTargets(_Positions[T]):
    """Feeds asynchronous sinks, all at once."""

    def __init__(self, targets: Iterable[AsyncSink[T]]) -> None:
        self._targets = list(targets)
        super().__init__(self._targets)

    def write(self, batch: list[T]) -> Awaitable[None] | None:
        """Send to each what it takes at once; wait only for those that are full."""
        errors: list[tuple[int, Exception]] = []
        full = []
        for i, target in enumerate(self._targets):
            try:
                while self._positions[i] < len(batch):
                    target.send_nowait(batch[self._positions[i]])
                    self._positions[i] += 1
            except BackpressureError:
                full.append(i)
            except Exception as error:  # noqa: BLE001 (raised when all had their turn)
                errors.append((i, error))
        if full:
            return self._wait(batch, full, errors)
        self._raise(errors)
        self.forget()
        return None

    async def _wait(
        self, batch: list[T], full: list[int], errors: list[tuple[int, Exception]]
    ) -> None:
        async def feed(i: int) -> None:
            while self._positions[i] < len(batch):
                await self._targets[i].send(batch[self._positions[i]])
                self._positions[i] += 1

        self._raise(errors + await _failures(full, feed))
        self.forget()

    async def flush(self) -> None:
        """Flush every target."""
        everyone = range(len(self._targets))
        self._raise(await _failures(everyone, lambda i: self._targets[i].flush()))

    async def close(self) -> None:
        """Close every target; what a second attempt closes again does nothing."""
        everyone = range(len(self._targets))
        self._raise(await _failures(everyone, lambda i: self._targets[i].aclose()))


async def _failures(
    numbers: Iterable[int], act: Callable[[int], Awaitable[None]]
) -> list[tuple[int, Exception]]:
    """Do all at once; return who failed, and with what."""
    numbers = list(numbers)
    results = await asyncio.gather(*(act(i) for i in numbers), return_exceptions=True)
    failures = []
    for i, result in zip(numbers, results, strict=True):
        if isinstance(result, Exception):
            failures.append((i, result))
        elif isinstance(result, BaseException):
            raise result  # cancelled with its loop
    return failures


class FanOutSink(BufferedSink[T]):
    """Sends every item to every target, in order, to each once.

    When a target fails, the others get their items all the same. As soon as one target has the item
    of the present send, that item is accepted: the error is then raised by the next call. Several
    targets that fail at once raise an ExceptionGroup. ``flush`` and ``close`` flush and close the
    targets too.

    Args:
        targets: At least one sink.
        capacity: Items that are collected before they are handed on; with 1, each at once.
        options: Other triggers and the watermarks.

    Example:
        >>> from walengine.sinks import BatchSink, FanOutSink
        >>> small, large = BatchSink(2), BatchSink(4)
        >>> with FanOutSink([small, large]) as sink:
        ...     for i in range(4):
        ...         sink.send(i)
        >>> small.into_batches(), large.into_batches()
        ([[0, 1], [2, 3]], [[0, 1, 2, 3]])
    """

    def __init__(
        self,
        targets: Iterable[Sink[T]],
        capacity: int = 1,
        options: SinkOptions | None = None,
    ) -> None:
        super().__init__(capacity, _Targets(targets), options)


class AsyncFanOutSink(AsyncBufferedSink[T]):
    """The asynchronous twin of FanOutSink; targets are fed at the same time.

    Args:
        targets: At least one asynchronous sink.
        capacity: Items that are collected before they are handed on; with 1, each at once.
        options: Other triggers and the watermarks.
    """

    def __init__(
        self,
        targets: Iterable[AsyncSink[T]],
        capacity: int = 1,
        options: SinkOptions | None = None,
    ) -> None:
        super().__init__(capacity, _AsyncTargets(targets), options)


for _kind in (FanOutSink, AsyncFanOutSink):
    _kind.__module__ = "walengine.sinks"
