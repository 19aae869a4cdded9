"""StatsSink and its twin: counts, alone or of another sink's batches."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from walengine.sinks.protocols import AsyncSink, BatchNotifier, Sink

__all__ = ["AsyncStatsSink", "SinkStats", "StatsSink"]

T = TypeVar("T")


class SinkStats(NamedTuple):
    """What went through a sink.

    Attributes:
        items: Items of all batches.
        batches: Their number.
        max_batch: Items of the largest one.
    """

    items: int
    batches: int
    max_batch: int


class _Counter:
    """Counts batches; apart from the sink, so that the inner sink does not hold the outer one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal's handler may come back
        self.unflushed = 0  # sent since the last flush, where the inner sink tells of no batches
        self._items = 0
        self._batches = 0
        self._max_batch = 0

    def record_batch(self, size: int) -> None:
        with self.lock:
            self._items += size
            self._batches += 1
            self._max_batch = max(self._max_batch, size)

    def record_sent(self) -> None:
        with self.lock:
            self.unflushed += 1

    def record_flush(self, size: int) -> None:
        """Count size of the items sent as a batch, unless another flush did."""
        with self.lock:
            size = min(size, self.unflushed)
            self.unflushed -= size
        if size:
            self.record_batch(size)

    def stats(self) -> SinkStats:
        with self.lock:
            return SinkStats(self._items, self._batches, self._max_batch)


class _Counting:
    """What both twins tell."""

    _counter: _Counter

    def record_batch(self, size: int) -> None:
        """Count one batch by hand.

        Args:
            size: Its number of items.
        """
        if size < 0:
            raise ValueError(f"size is {size}: a batch has 0 items or more")
        self._counter.record_batch(size)

    def stats(self) -> SinkStats:
        """Return a tuple of items, batches and the largest batch."""
        return self._counter.stats()


def _counter_of(inner: object) -> tuple[_Counter, bool]:
    """Return a counter, and whether the inner sink tells it of its batches."""
    counter = _Counter()
    if isinstance(inner, BatchNotifier):
        inner.add_batch_listener(counter.record_batch)
        return counter, True
    return counter, False


class StatsSink(_Counting, Generic[T]):
    """Counts items and batches; around another sink, or alone.

    Around a sink of this package it counts the batches which that one has written from then on.
    Around any other sink, and alone, a batch is what was sent between two flushes. Alone it drops
    the items. It is as thread-safe as the inner sink; the counts are by themselves.

    Args:
        inner: Where items go; it is closed together with this one.

    Example:
        >>> from walengine.sinks import BatchSink, StatsSink
        >>> with StatsSink(BatchSink(3)) as sink:
        ...     for i in range(5):
        ...         sink.send(i)
        >>> tuple(sink.stats())
        (5, 2, 3)
    """

    def __init__(self, inner: Sink[T] | None = None) -> None:
        self._inner = inner
        self._counter, self._is_told = _counter_of(inner)

    @property
    def inner(self) -> Sink[T] | None:
        """The sink that this one wraps."""
        return self._inner

    def ready(self) -> bool:
        """Ask the inner sink."""
        return self._inner.ready() if self._inner else True

    def send(self, item: T) -> None:
        """Send to the inner sink; see there for what it raises."""
        if self._inner is not None:
            self._inner.send(item)
        if not self._is_told:
            self._counter.record_sent()

    def flush(self) -> None:
        """Flush the inner sink; see there for what it raises."""
        size = self._counter.unflushed
        if self._inner is not None:
            self._inner.flush()
        self._counter.record_flush(size)

    def close(self) -> None:
        """Close the inner sink; see there for what it raises."""
        size = self._counter.unflushed
        if self._inner is not None:
            self._inner.close()
        self._counter.record_flush(size)

    def __enter__(self) -> Self:
        """Return the sink."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, whether the block ended well or not."""
        self.close()


class AsyncStatsSink(_Counting, Generic[T]):
    """The asynchronous twin of StatsSink.

    Args:
        inner: Where items go; it is closed together with this one.
    """

    def __init__(self, inner: AsyncSink[T] | None = None) -> None:
        self._inner = inner
        self._counter, self._is_told = _counter_of(inner)

    @property
    def inner(self) -> AsyncSink[T] | None:
        """The sink that this one wraps."""
        return self._inner

    async def ready(self) -> None:
        """Wait for the inner sink."""
        if self._inner is not None:
            await self._inner.ready()

    def send_nowait(self, item: T) -> None:
        """Send to the inner sink; see there for what it raises."""
        if self._inner is not None:
            self._inner.send_nowait(item)
        self._note_sent()

    async def send(self, item: T) -> None:
        """Send to the inner sink; see there for what it raises."""
        if self._inner is not None:
            await self._inner.send(item)
        self._note_sent()

    async def send_all(self, source: Iterable[T] | AsyncIterable[T]) -> int:
        """Send every item of source to the inner sink, which flushes; return how many."""
        if self._inner is not None and self._is_told:
            return await self._inner.send_all(source)
        counted = self._counted(source)
        if self._inner is not None:
            count = await self._inner.send_all(counted)
        else:
            count = len([None async for _ in counted])
        self._counter.record_flush(self._counter.unflushed)
        return count

    async def flush(self) -> None:
        """Flush the inner sink; see there for what it raises."""
        size = self._counter.unflushed
        if self._inner is not None:
            await self._inner.flush()
        self._counter.record_flush(size)

    async def aclose(self) -> None:
        """Close the inner sink; see there for what it raises."""
        size = self._counter.unflushed
        if self._inner is not None:
            await self._inner.aclose()
        self._counter.record_flush(size)

    def _note_sent(self) -> None:
        if not self._is_told:
            self._counter.record_sent()

    async def _counted(self, source: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
        if isinstance(source, AsyncIterable):
            async for item in source:
                self._note_sent()
                yield item
        else:
            for item in source:
                self._note_sent()
                yield item

    async def __aenter__(self) -> Self:
        """Return the sink."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, whether the block ended well or not."""
        await self.aclose()


for _kind in (SinkStats, StatsSink, AsyncStatsSink):
    _kind.__module__ = "walengine.sinks"
