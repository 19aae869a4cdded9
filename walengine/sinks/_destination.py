"""What a buffering sink writes to: the one interface between the shells and a kind of sink.

A destination never refers to its sink, so that a sink that nobody holds can be collected, and what
it buffered flushed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import ClassVar, Generic, TypeVar

T = TypeVar("T")


class Destination(ABC, Generic[T]):
    """Takes batches, whole or in parts.

    ``write`` is called with the leading items of the buffer until it succeeds; between two attempts
    items are only added behind. A destination that can have part of a batch remembers how far it
    came, goes on from there, and tells ``taken``.

    Attributes:
        needs_network: A write takes what may be gone when a sink is collected or the interpreter
            ends: the sink then warns of what is buffered, and does not write it.
    """

    needs_network: ClassVar[bool] = False

    def admit(self, item: T) -> T:
        """Return the item as it is to be buffered, or raise if it can never be written."""
        return item

    @abstractmethod
    def write(self, batch: list[T]) -> Awaitable[None] | None:
        """Take the batch, at once or (in asynchronous sinks) when the awaitable is done."""

    def taken(self) -> int:
        """Return how many leading items are already somewhere, though their write failed."""
        return 0

    def forget(self) -> None:
        """Start anew: the items that were begun are gone from the buffer."""

    def flush(self) -> Awaitable[None] | None:
        """Pass a flush on, once everything was written."""
        return None

    def close(self) -> Awaitable[None] | None:
        """Pass a close on, once everything was written."""
        return None


class InThread(Destination[T]):
    """A sync destination whose writes run in the loop's thread pool."""

    def __init__(self, inner: Destination[T]) -> None:
        self._inner = inner

    def admit(self, item: T) -> T:
        """Ask the destination."""
        return self._inner.admit(item)

    async def write(self, batch: list[T]) -> None:
        """Wait for the thread, cancelled or not: only it knows what was written."""
        work = asyncio.get_running_loop().run_in_executor(None, self._inner.write, batch)
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        work.result()

    def taken(self) -> int:
        """Ask the destination."""
        return self._inner.taken()

    def forget(self) -> None:
        """Tell the destination."""
        self._inner.forget()
