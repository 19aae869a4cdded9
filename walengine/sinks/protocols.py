"""Sink and AsyncSink: what every destination of items offers, in four phases.

1. **ready**: is there room, or is it wiser to wait? Takes nothing.
2. **send**: the sink takes one item, or raises. *An item whose send raised was not accepted*; an
   item whose send returned was, and the sink keeps it, in order, until the destination has it. That
   holds for cancellation too: an asynchronous send that raises CancelledError took nothing. (Two
   exceptions end a program rather than a call, KeyboardInterrupt and SystemExit: an item whose sync
   send they interrupt may have been accepted.)
3. **flush**: when it returns, the destination has everything that was accepted before the call.
   When it raises, nothing is lost: what was not written stays buffered, in order, and the next
   flush tries again.
4. **close**: flush, then no more sends. When it raises, the sink stays open, and close may be
   called again. A second close does nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Protocol, Self, TypeVar, runtime_checkable

__all__ = ["AsyncSink", "Sink"]

T_contra = TypeVar("T_contra", contravariant=True)


@runtime_checkable
class Sink(Protocol[T_contra]):
    """A destination for items of one type; see the module for the four phases."""

    def ready(self) -> bool:
        """Tell whether to go on sending: False while back-pressure is on. Does no I/O."""
        ...

    def send(self, item: T_contra) -> None:
        """Take one item; if this raises, the item was not accepted."""
        ...

    def flush(self) -> None:
        """Write everything accepted so far; if this raises, the rest stays, in order."""
        ...

    def close(self) -> None:
        """Flush and refuse further items; if this raises, the sink stays open."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, whether the block ended well or not."""
        ...


@runtime_checkable
class AsyncSink(Protocol[T_contra]):
    """The asynchronous twin of Sink; its methods belong to one event loop."""

    async def ready(self) -> None:
        """Wait until ``send_nowait`` would take an item and back-pressure permits."""
        ...

    def send_nowait(self, item: T_contra) -> None:
        """Take one item, or raise BackpressureError."""
        ...

    async def send(self, item: T_contra) -> None:
        """Wait for room, then take one item; raised or cancelled, it was not accepted."""
        ...

    async def send_all(self, source: Iterable[T_contra] | AsyncIterable[T_contra]) -> int:
        """Send every item of source, then flush; return how many there were."""
        ...

    async def flush(self) -> None:
        """Write everything accepted so far; if this raises, the rest stays, in order."""
        ...

    async def aclose(self) -> None:
        """Flush and refuse further items; if this raises, the sink stays open."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, whether the block ended well or not."""
        ...


@runtime_checkable
class BatchNotifier(Protocol):
    """A sink that tells the size of each batch it has written."""

    def add_batch_listener(self, listener: Callable[[int], object]) -> None:
        """Have listener called with the number of items of each batch written from now on."""
        ...


Sink.__module__ = AsyncSink.__module__ = "walengine.sinks"
