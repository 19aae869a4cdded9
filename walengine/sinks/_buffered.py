"""The faces of buffering sinks: what BatchSink, CallbackSink and their kin have in common."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar

from walengine.sinks._async import AsyncShell
from walengine.sinks._core import Core, State
from walengine.sinks._destination import Destination
from walengine.sinks._sync import Shell
from walengine.sinks.options import SinkOptions

T = TypeVar("T")


class _Observable(Generic[T]):
    """What can be asked of either twin, at any time, from any thread."""

    _core: Core[T]

    def buffered_count(self) -> int:
        """Return the number of items that the destination does not have yet."""
        return len(self._core.items)

    @property
    def capacity(self) -> int:
        """Items at which a batch is written."""
        return self._core.capacity

    @property
    def backpressure(self) -> bool:
        """True from the high watermark on until the level is at the low one."""
        return self._core.backpressure

    @property
    def closed(self) -> bool:
        """True once a close succeeded."""
        return self._core.state is State.CLOSED

    def add_batch_listener(self, listener: Callable[[int], object]) -> None:
        """Have listener called with the number of items of each batch written from now on.

        It may send. What it raises is logged.
        """
        self._core.listeners.append(listener)

    def __repr__(self) -> str:
        """Show how full it is."""
        state = "closed" if self.closed else "back-pressure" if self.backpressure else "ready"
        name, count = type(self).__name__, self.buffered_count()
        return f"<{name} {count} buffered, capacity {self.capacity}, {state}>"


class BufferedSink(_Observable[T]):
    """A sync sink that collects items and hands them on in batches; any number of threads.

    It is flushed when it is collected, or at interpreter exit, if nobody closed it.
    """

    def __init__(
        self, capacity: int, destination: Destination[T], options: SinkOptions | None
    ) -> None:
        self._core = Core(type(self).__name__, capacity, options)
        self._shell = Shell(self._core, destination)
        weakref.finalize(self, self._shell.finish).atexit = False

    def ready(self) -> bool:
        """Tell whether to go on sending: False while back-pressure is on.

        Does no I/O. A send is possible all the same; it may have to write first.
        """
        return not self._core.backpressure

    def send(self, item: T) -> None:
        """Take one item; write the batch if it is full, large or old enough.

        Raises:
            BackpressureError: The sink is full, and may not write here (``when_full="raise"``).
            SinkClosedError: The sink was closed.
            Exception: Whatever the destination raised. The item was not accepted; those before it
                stay buffered. Where part of the destination has the item already, this send
                returns, and the next one raises the error.
        """
        self._shell.send(item)

    def send_all(self, source: Iterable[T]) -> int:
        """Send every item of source, then flush.

        Whatever is raised, items that were taken from source have been accepted: call again with
        the same iterator to go on. (Two exceptions: the sink is closed meanwhile, or this very item
        can never be written.)

        Args:
            source: Items, in order.

        Returns:
            How many there were.

        Raises:
            Exception: As for ``send`` and ``flush``.
        """
        return self._shell.send_all(source)

    def poll(self) -> bool:
        """Write if count, bytes or age ask for it; for calling now and then while nothing is sent.

        Returns:
            Whether anything was written.

        Raises:
            Exception: Whatever the destination raised; everything stays buffered.
        """
        return self._shell.poll()

    def flush(self) -> None:
        """Write everything accepted so far.

        Raises:
            SinkError: Called by the destination in the middle of a write.
            Exception: Whatever the destination raised; what it does not have stays buffered, in
                order, and the next flush tries again.
        """
        self._shell.flush()

    def close(self) -> None:
        """Flush and refuse further items; a second call does nothing.

        Raises:
            Exception: As for ``flush``; the sink stays open then.
        """
        self._shell.close()

    def discard(self) -> list[T]:
        """Give up what is buffered: the way out when a destination will never take it.

        Returns:
            The items, in order. After a failure the destination may have some of them.
        """
        return self._shell.discard()

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


class AsyncBufferedSink(_Observable[T]):
    """The asynchronous twin: one write at a time, in the background, while the next batch fills.

    It belongs to one event loop and is not thread-safe. A sink that is collected with items in it
    is a ResourceWarning.
    """

    def __init__(
        self, capacity: int, destination: Destination[T], options: SinkOptions | None
    ) -> None:
        self._core = Core(type(self).__name__, capacity, options)
        self._shell = AsyncShell(self._core, destination)
        weakref.finalize(self, self._shell.finish)

    async def ready(self) -> None:
        """Wait while the sink is full, or while back-pressure is on and a write is under way.

        Raises:
            Exception: As for ``send``.
        """
        await self._shell.ready()

    def send_nowait(self, item: T) -> None:
        """Take one item, or raise.

        Raises:
            BackpressureError: The sink is full, or others wait for room.
            Exception: As for ``send``.
        """
        self._shell.send_nowait(item)

    async def send(self, item: T) -> None:
        """Wait for room, then take one item; the write of a full batch is begun, not awaited.

        Raises:
            SinkClosedError: The sink was closed.
            Exception: Whatever a write raised, perhaps one that began earlier. The item was not
                accepted, and neither was it if this is cancelled.
        """
        await self._shell.send(item)

    async def send_all(self, source: Iterable[T] | AsyncIterable[T]) -> int:
        """Send every item of source, then flush; one batch is in flight while the next fills.

        Whatever is raised, items that were taken from source have been accepted: call again with
        the same iterator to go on. (Two exceptions: the sink is closed meanwhile, or this very item
        can never be written.)

        Args:
            source: Items, in order; an iterable or an asynchronous one.

        Returns:
            How many there were.

        Raises:
            Exception: As for ``send`` and ``flush``.
        """
        return await self._shell.send_all(source)

    async def flush(self) -> None:
        """Write everything accepted so far; cancelling this cancels no write.

        Raises:
            SinkError: Called by the destination in the middle of a write, or the write was
                cancelled.
            Exception: Whatever the destination raised; what it does not have stays buffered, in
                order, and the next flush tries again.
        """
        await self._shell.flush()

    async def aclose(self) -> None:
        """Flush and refuse further items; a second call does nothing.

        Raises:
            Exception: As for ``flush``; the sink stays open then.
        """
        await self._shell.aclose()

    def discard(self) -> list[T]:
        """Give up what is buffered and not in flight.

        Returns:
            The items, in order. After a failure the destination may have some of them.
        """
        return self._shell.discard()

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
