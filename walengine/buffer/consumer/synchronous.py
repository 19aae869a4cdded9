"""The consumer for threads: the asynchronous one runs on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from datetime import timedelta
from typing import Self

from walengine.buffer._environment import Environment
from walengine.buffer._loop_thread import LoopThread
from walengine.buffer._twin import Twin
from walengine.buffer.config import ConsumerConfig
from walengine.buffer.consumer.asynchronous import AsyncConsumer
from walengine.buffer.consumer.batches import BatchDescriptor, ConsumedBatch
from walengine.buffer.consumer.fetch import ConsumerFetchHandle
from walengine.buffer.consumer.stats import ConsumerStats
from walengine.buffer.errors import QueueError

__all__ = ["Consumer", "FetchHandle"]


class Consumer(Twin[AsyncConsumer]):
    """The synchronous twin of ``AsyncConsumer``: the same promises, for any number of threads.

    A call that Ctrl-C ends may have moved the cursor: open again, and the batch comes again.

    Args:
        config: What to consume.
        last_acked_sequence: Begin behind this sequence; None: with the first batch listed.
        allow_gap: Begin even if batches behind last_acked_sequence are no longer listed.
        environment: As for ``AsyncConsumer``.

    Example:
        with Consumer(config) as consumer:
            for batch in consumer.batches():
                handle(batch.entries)
                consumer.ack(batch.sequence)
    """

    def __init__(
        self,
        config: ConsumerConfig,
        last_acked_sequence: int | None = None,
        *,
        allow_gap: bool = False,
        environment: Environment | None = None,
    ) -> None:
        super().__init__(
            AsyncConsumer(config, last_acked_sequence, allow_gap=allow_gap, environment=environment)
        )

    @classmethod
    def open(
        cls,
        config: ConsumerConfig,
        last_acked_sequence: int | None = None,
        *,
        allow_gap: bool = False,
        environment: Environment | None = None,
    ) -> Self:
        """Return an open consumer; raises as ``AsyncConsumer.open`` does."""
        consumer = cls(config, last_acked_sequence, allow_gap=allow_gap, environment=environment)
        return consumer.__enter__()

    def next_batch(self) -> ConsumedBatch | None:
        """Return the next batch, or None if there is none now; raises as the twin's does."""
        return self._thread.run(self._inner.next_batch)

    def next_descriptors(self, max_count: int) -> list[BatchDescriptor]:
        """Return where the next batches are, and move the cursor; raises as the twin's does."""
        return self._thread.run(lambda: self._inner.next_descriptors(max_count))

    def fetch_handle(self) -> FetchHandle:
        """Return what fetches batches by their descriptors; it may be shared by many threads."""
        return FetchHandle(self._inner.fetch_handle(), self._thread)

    def fetch_descriptor(self, descriptor: BatchDescriptor) -> ConsumedBatch:
        """Fetch one batch, for who takes descriptors one by one; raises as ``fetch`` does."""
        return self._thread.run(lambda: self._inner.fetch_descriptor(descriptor))

    def batches(
        self, *, prefetch: int = 8, poll_interval: timedelta | float = 0.1
    ) -> Generator[ConsumedBatch, None, None]:
        """Yield batches for ever, fetched ahead; arguments and errors as the twin's."""
        inner = self._inner.batches(prefetch=prefetch, poll_interval=poll_interval)
        return self._iterated(inner)

    def skip(self, sequence: int, reason: str) -> None:
        """Pass over a batch that cannot be had; raises as the twin's does."""
        self._thread.run(lambda: self._inner.skip(sequence, reason))

    def ack(self, sequence: int) -> None:
        """Ack a batch; raises as the twin's does."""
        self._thread.run(lambda: self._inner.ack(sequence))

    def ack_through(self, sequence: int) -> None:
        """Ack everything up to here, and take it off the manifest; raises as the twin's does."""
        self._thread.run(lambda: self._inner.ack_through(sequence))

    def flush(self) -> None:
        """Take everything that is acked off the manifest; raises as the twin's does."""
        self._thread.run(self._inner.flush)

    def _iterated(
        self, inner: AsyncGenerator[ConsumedBatch, None]
    ) -> Generator[ConsumedBatch, None, None]:
        """Yield what the asynchronous one does; whoever iterates keeps the consumer."""
        thread = self._thread
        # A wait that Ctrl-C ended is still being cancelled when the generator is closed.
        turn = asyncio.Lock()

        async def one() -> ConsumedBatch:
            async with turn:
                return await anext(inner)

        async def close() -> None:
            async with turn:
                await inner.aclose()

        try:
            while True:
                yield thread.run(one)
        finally:
            # Not waited for: in a collection, which comes anywhere, the loop may wait for this
            # thread. On the loop's own thread it is refused, and the loop closes it.
            with contextlib.suppress(QueueError):
                thread.submit(close)

    @property
    def is_open(self) -> bool:
        """Whether it has been opened and not closed."""
        return self._inner.is_open

    @property
    def epoch(self) -> int:
        """Its generation: the manifest is its own as long as it has this epoch."""
        return self._inner.epoch

    @property
    def queue_length(self) -> int:
        """How many batches the newest manifest seen lists; acked ones may be among them."""
        return self._inner.queue_length

    @property
    def last_acked_sequence(self) -> int | None:
        """The last sequence acked, by this consumer or one before it; None before the first."""
        return self._inner.last_acked_sequence

    def stats(self) -> ConsumerStats:
        """Return positions, warnings and all counters; a closed consumer has them still."""
        return self._inner.stats()

    @property
    def config(self) -> ConsumerConfig:
        """What it consumes."""
        return self._inner.config


class FetchHandle:
    """The synchronous twin of ``ConsumerFetchHandle``; ``Consumer.fetch_handle`` makes it."""

    def __init__(self, inner: ConsumerFetchHandle, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread

    def fetch(self, descriptor: BatchDescriptor) -> ConsumedBatch:
        """Return the batch; raises as the twin's does."""
        return self._thread.run(lambda: self._inner.fetch(descriptor))


for _kind in (Consumer, FetchHandle):
    _kind.__module__ = "walengine.buffer"
