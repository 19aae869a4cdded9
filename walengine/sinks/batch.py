"""BatchSink and its twin: batches collected in memory."""

from __future__ import annotations

from typing import Generic, TypeVar

from walengine.sinks._buffered import AsyncBufferedSink, BufferedSink, _Observable
from walengine.sinks._destination import Destination
from walengine.sinks.errors import SinkClosedError
from walengine.sinks.options import SinkOptions

__all__ = ["AsyncBatchSink", "BatchSink"]

T = TypeVar("T")


class _Batches(Destination[T]):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.batches: list[list[T]] = []
        self.is_consumed = False

    def write(self, batch: list[T]) -> None:
        """Keep one batch."""
        self.batches.append(batch)


class _Collecting(_Observable[T], Generic[T]):
    """What both twins know of their batches."""

    _destination: _Batches[T]

    def flushed_count(self) -> int:
        """Return the number of batches written."""
        return self._core.batches

    def _take(self) -> list[list[T]]:
        destination = self._destination
        if destination.is_consumed:
            raise SinkClosedError(f"{type(self).__name__}: into_batches() was called before")
        destination.is_consumed = True
        batches, destination.batches = destination.batches, []
        return batches


class BatchSink(_Collecting[T], BufferedSink[T]):
    """Collects items into batches, in memory.

    Args:
        capacity: Items of a batch.
        options: Other triggers and the watermarks.

    Example:
        >>> from walengine.sinks import BatchSink
        >>> sink = BatchSink(3)
        >>> for i in range(5):
        ...     sink.send(i)
        >>> sink.buffered_count(), sink.flushed_count()
        (2, 1)
        >>> sink.into_batches()
        [[0, 1, 2], [3, 4]]
    """

    def __init__(self, capacity: int, options: SinkOptions | None = None) -> None:
        self._destination = _Batches()
        super().__init__(capacity, self._destination, options)

    def into_batches(self) -> list[list[T]]:
        """Flush, close, and return every batch; works on a closed sink too, once.

        Raises:
            SinkClosedError: The batches were taken before.
        """
        self.close()
        return self._take()


class AsyncBatchSink(_Collecting[T], AsyncBufferedSink[T]):
    """The asynchronous twin of BatchSink.

    Args:
        capacity: Items of a batch.
        options: Other triggers and the watermarks.
    """

    def __init__(self, capacity: int, options: SinkOptions | None = None) -> None:
        self._destination = _Batches()
        super().__init__(capacity, self._destination, options)

    async def into_batches(self) -> list[list[T]]:
        """Flush, close, and return every batch; works on a closed sink too, once.

        Raises:
            SinkClosedError: The batches were taken before.
        """
        await self.aclose()
        return self._take()


for _kind in (BatchSink, AsyncBatchSink):
    _kind.__module__ = "walengine.sinks"
