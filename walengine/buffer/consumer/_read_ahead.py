"""Batches fetched ahead of whoever takes them, handed over in order.

The cursor belongs to the consumer and moves when a batch is handed over. What was fetched ahead is
dropped when something else has moved the cursor meanwhile: a skip, or another call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from walengine.buffer.consumer._delivery import Delivery
from walengine.buffer.consumer.batches import ConsumedBatch
from walengine.buffer.errors import FormatError

__all__ = ["read_ahead"]


async def read_ahead(
    delivery: Callable[[], Delivery], prefetch: int, poll_interval_s: float
) -> AsyncGenerator[ConsumedBatch, None]:
    """Yield batches for ever; when there is none, look again after the interval.

    Args:
        delivery: The consumer's; raises when that is closed.
        prefetch: Batches under way, at most.
        poll_interval_s: The interval.
    """
    source = delivery()
    flights = _Flights(source, prefetch)
    try:
        while True:
            delivery()
            await flights.top_up()
            flight = flights.first()
            if flight is None:
                await asyncio.sleep(poll_interval_s)
                continue
            batch = await flight
            if flights.take(batch):
                source.deliver(batch)
                yield batch
    finally:
        await flights.cancel()


class _Flights:
    """Fetches under way, in order of their sequences, without a gap from the cursor on."""

    def __init__(self, source: Delivery, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._under_way: deque[tuple[int, asyncio.Task[ConsumedBatch]]] = deque()
        self._dropped: set[asyncio.Task[ConsumedBatch]] = set()

    async def top_up(self) -> None:
        """Start fetches up to the limit.

        The manifest is read when nothing is under way. Otherwise what is known of it must do: a
        read for every batch would double the requests of a consumer that keeps up.
        """
        self._drop_stale()
        room = self._limit - len(self._under_way)
        begin = self._source.cursor + len(self._under_way)
        try:
            descriptors = await self._source.descriptors_from(
                begin, room, may_read=not self._under_way
            )
        except FormatError:
            if not self._under_way:
                raise
            return  # of a batch behind those under way: raised when it is reached
        if begin != self._source.cursor + len(self._under_way):
            return  # the cursor was moved while the manifest was read
        for descriptor in descriptors:
            task = asyncio.ensure_future(self._source.fetch(descriptor))
            task.add_done_callback(_look)
            self._under_way.append((descriptor.sequence, task))

    def first(self) -> Awaitable[ConsumedBatch] | None:
        """Return the fetch of the batch at the cursor, or None if there is none."""
        return self._under_way[0][1] if self._under_way else None

    def take(self, batch: ConsumedBatch) -> bool:
        """Take the first fetch off; tell whether its batch is still the next."""
        self._under_way.popleft()
        return batch.sequence == self._source.cursor

    async def cancel(self) -> None:
        """Cancel all that is under way, and wait for it to end."""
        for _, task in self._under_way:
            self._drop(task)
        self._under_way.clear()
        await asyncio.gather(*self._dropped, return_exceptions=True)

    def _drop_stale(self) -> None:
        """Drop fetches before the cursor, which never goes back."""
        while self._under_way and self._under_way[0][0] < self._source.cursor:
            self._drop(self._under_way.popleft()[1])

    def _drop(self, task: asyncio.Task[ConsumedBatch]) -> None:
        task.cancel()
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)


def _look(task: asyncio.Task[ConsumedBatch]) -> None:
    """Look at the task's error: of a batch that nobody comes to take, nobody else will."""
    if not task.cancelled():
        task.exception()
