"""CallbackSink and its twin: each batch to a function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from walengine.sinks._buffered import AsyncBufferedSink, BufferedSink
from walengine.sinks._destination import Destination
from walengine.sinks.options import SinkOptions

__all__ = ["AsyncCallbackSink", "CallbackSink"]

T = TypeVar("T")


class _Function(Destination[T]):
    """Calls a plain function."""

    def __init__(self, on_flush: Callable[[list[T]], object]) -> None:
        if inspect.iscoroutinefunction(on_flush):
            raise TypeError("on_flush is a coroutine function: use AsyncCallbackSink")
        self._on_flush = on_flush

    def write(self, batch: list[T]) -> None:
        """Call it; a coroutine that nobody would await is an error, and not a silent loss."""
        result = self._on_flush(batch)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("on_flush returned a coroutine: use AsyncCallbackSink")


class _AnyFunction(Destination[T]):
    """Calls a plain function or a coroutine function."""

    def __init__(self, on_flush: Callable[[list[T]], Awaitable[object] | object]) -> None:
        self._on_flush = on_flush

    def write(self, batch: list[T]) -> Awaitable[None] | None:
        """Call it; what can be awaited is."""
        result = self._on_flush(batch)
        return _awaited(result) if inspect.isawaitable(result) else None


async def _awaited(result: Awaitable[object]) -> None:
    await result


class CallbackSink(BufferedSink[T]):
    """Hands each batch to a function.

    The function gets a list of its own. When it raises, the batch stays buffered and is handed over
    again, later, perhaps with more items behind: a function that took some of it before it raised
    sees those twice.

    Args:
        capacity: Items of a batch.
        on_flush: Takes a batch; raises if it did not. What it returns is ignored.
        options: Other triggers and the watermarks.

    Raises:
        TypeError: on_flush is a coroutine function.

    Example:
        >>> from walengine.sinks import CallbackSink
        >>> with CallbackSink(2, print) as sink:
        ...     for i in range(5):
        ...         sink.send(i)
        [0, 1]
        [2, 3]
        [4]
    """

    def __init__(
        self,
        capacity: int,
        on_flush: Callable[[list[T]], object],
        options: SinkOptions | None = None,
    ) -> None:
        super().__init__(capacity, _Function(on_flush), options)

    def flush_count(self) -> int:
        """Return how many batches on_flush has taken."""
        return self._core.batches


class AsyncCallbackSink(AsyncBufferedSink[T]):
    """The asynchronous twin of CallbackSink; the function may be a coroutine function or plain.

    A plain function is called on the loop, at once, in the send that fills the batch: it must not
    block.

    Args:
        capacity: Items of a batch.
        on_flush: Takes a batch; raises if it did not. What it returns is awaited if it can be.
        options: Other triggers and the watermarks.
    """

    def __init__(
        self,
        capacity: int,
        on_flush: Callable[[list[T]], Awaitable[object] | object],
        options: SinkOptions | None = None,
    ) -> None:
        super().__init__(capacity, _AnyFunction(on_flush), options)

    def flush_count(self) -> int:
        """Return how many batches on_flush has taken."""
        return self._core.batches


for _kind in (CallbackSink, AsyncCallbackSink):
    _kind.__module__ = "walengine.sinks"
