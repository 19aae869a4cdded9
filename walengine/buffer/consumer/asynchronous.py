"""The consumer, asynchronous: batches in order, acks, and the manifest's one owner."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import AsyncGenerator
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Self

from walengine.buffer import durations
from walengine.buffer._environment import Environment, open_environment
from walengine.buffer._queue import Queue
from walengine.buffer.collector._background import Collector, SteadyClock
from walengine.buffer.config import ConsumerConfig
from walengine.buffer.consumer._delivery import Delivery
from walengine.buffer.consumer._ends import cancel_other, check_position, forget
from walengine.buffer.consumer._read_ahead import read_ahead
from walengine.buffer.consumer._session import Session
from walengine.buffer.consumer.batches import BatchDescriptor, ConsumedBatch
from walengine.buffer.consumer.fetch import ConsumerFetchHandle
from walengine.buffer.consumer.stats import ConsumerStats, stats_of
from walengine.buffer.errors import QueueError
from walengine.buffer.metrics import Metrics

__all__ = ["AsyncConsumer"]

log = logging.getLogger("walengine.buffer")

SKEW_SHARE = 4
"""A clock that is off by more than the grace period divided by this is worth a warning."""


class AsyncConsumer:
    """Takes batches off a queue, in order, each at least once.

    Opening raises the queue's epoch: from then on this consumer owns the manifest, and the one that
    had it gets ``FencedError``. Batches are delivered in the order of their sequences, and again
    from the first un-acked one after a restart. To have each exactly once, store the sequence and
    what is made of the batch in one transaction, and pass the stored sequence when opening.

    It belongs to one event loop. Its methods may be called from several tasks; calls that deliver
    wait for each other, and so do calls that ack. After an error a call may be made again.

    Args:
        config: What to consume.
        last_acked_sequence: Begin behind this sequence; None: with the first batch listed.
        allow_gap: Begin even if batches behind last_acked_sequence are no longer listed.
        environment: For tests and embedding; None: opened from the configuration.

    Example:
        async with AsyncConsumer(config) as consumer:
            async for batch in consumer.batches():
                handle(batch.entries)
                await consumer.ack(batch.sequence)
    """

    def __init__(
        self,
        config: ConsumerConfig,
        last_acked_sequence: int | None = None,
        *,
        allow_gap: bool = False,
        environment: Environment | None = None,
    ) -> None:
        check_position(last_acked_sequence)
        self.config = config
        self.metrics = Metrics("consumer")
        self._last_acked_sequence = last_acked_sequence
        self._allow_gap = allow_gap
        self._given = environment
        self._is_closed = False
        self._session: Session | None = None
        self._delivers: Delivery | None = None
        self._collector: Collector | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._warnings: list[str] = []
        self._delivering = asyncio.Lock()
        self._acking = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        config: ConsumerConfig,
        last_acked_sequence: int | None = None,
        *,
        allow_gap: bool = False,
        environment: Environment | None = None,
    ) -> Self:
        """Return an open consumer; arguments as above.

        Raises:
            PairingError: The prefix is another manifest's, or the queue never got as far as
                last_acked_sequence.
            SequenceGapError: Batches behind it are gone, and that is not allowed.
            FormatError: The manifest is broken, or its epoch the last one.
            UnsupportedStoreError: The store cannot be used.
            StorageError: The store failed; the epoch may be raised all the same.
        """
        consumer = cls(config, last_acked_sequence, allow_gap=allow_gap, environment=environment)
        await consumer._open()
        return consumer

    async def __aenter__(self) -> Self:
        """Open, unless it is; raises as ``open`` does."""
        if not self.is_open:
            await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; an error of the block is not covered by one of closing."""
        try:
            await self.aclose()
        except QueueError as closing:
            if error is None:
                raise
            log.warning("%s: closing failed too: %s", self.config.manifest_path, closing)

    # ---- delivery --------------------------------------------------------------------------------

    async def next_batch(self) -> ConsumedBatch | None:
        """Return the next batch, or None if there is none now.

        The cursor moves when the batch is there: after an error the same batch comes again.

        Raises:
            BatchMissingError: Its object is not there.
            FormatError: It, or what the manifest says of it, is broken; or the manifest is.
            ObjectTooLargeError: It, or the manifest, is larger than allowed.
            FencedError: A newer consumer has taken over.
            ManifestLostError: The manifest is gone, or went back.
            SequenceGapError: Somebody else took batches off.
            StorageError: The store failed; try again.
        """
        async with self._delivering:
            delivery = self._delivery()
            descriptors = await delivery.descriptors_from(delivery.cursor, 1)
            if not descriptors:
                return None
            batch = await delivery.fetch(descriptors[0])
            delivery.deliver(batch)
            return batch

    async def next_descriptors(self, max_count: int) -> list[BatchDescriptor]:
        """Return where the next batches are, and move the cursor behind them.

        Fetch them with ``fetch_handle``, as many at once as you like, and ack in order what is
        done. The list ends before a batch whose entry in the manifest is broken.

        Args:
            max_count: At most so many.

        Raises:
            FormatError: The first one's entry is broken: ``skip`` it. Or the manifest is.
            FencedError: As with ``next_batch``, and so on.
        """
        if max_count < 1:
            raise ValueError(f"max_count must be at least 1, not {max_count}")
        async with self._delivering:
            delivery = self._delivery()
            descriptors = await delivery.descriptors_from(delivery.cursor, max_count)
            if descriptors:
                self._opened().progress.deliver(descriptors[-1].sequence)
            return descriptors

    def fetch_handle(self) -> ConsumerFetchHandle:
        """Return what fetches batches by their descriptors; it may be shared by many tasks."""
        return self._delivery().handle

    async def fetch_descriptor(self, descriptor: BatchDescriptor) -> ConsumedBatch:
        """Fetch one batch, for who takes descriptors one by one; raises as ``fetch`` does."""
        delivery = self._delivery()
        batch = await delivery.fetch(descriptor)
        delivery.show_lag(batch)
        return batch

    def batches(
        self, *, prefetch: int = 8, poll_interval: timedelta | float = 0.1
    ) -> AsyncGenerator[ConsumedBatch, None]:
        """Yield batches for ever, fetched ahead; close the generator to end it.

        An error ends it. After ``skip``, or once the store works again, call this again: it begins
        with the first batch that was not delivered.

        Args:
            prefetch: Batches fetched ahead, at most; each is held in memory.
            poll_interval: How long to wait when there is nothing: a timedelta or seconds.

        Raises:
            QueueError: As with ``next_batch``, when that batch is reached.
        """
        if prefetch < 1:
            raise ValueError(f"prefetch must be at least 1, not {prefetch}")
        interval_s = durations.from_code("poll_interval", poll_interval).total_seconds()
        if interval_s < 0:
            raise ValueError("poll_interval must not be negative")
        return read_ahead(self._delivery, prefetch, interval_s)

    async def skip(self, sequence: int, reason: str) -> None:
        """Pass over a batch that cannot be had; it is logged and counted.

        It is taken off the queue with the next batch that is acked. It may be acked on its own too;
        a sink that stores its position must store this sequence then.

        Args:
            sequence: Of the next batch, or of one that was delivered and not acked.
            reason: For the log: who decided so, and why.

        Raises:
            AckOrderError: It is neither.
        """
        async with self._delivering:
            session = self._opened()
            session.progress.skip(sequence)
        self.metrics.count("buffer.batches_skipped")
        log.warning("%s: sequence %d is skipped: %s", session.queue.name, sequence, reason)

    # ---- acks ------------------------------------------------------------------------------------

    async def ack(self, sequence: int) -> None:
        """Ack a batch: it is done, and will not be delivered again.

        Every hundredth ack takes what is acked off the manifest. If that raises, the batch is not
        acked: ack it again.

        Args:
            sequence: The one behind the last acked one; those that were skipped are passed over.

        Raises:
            AckOrderError: It is another one.
            FencedError: A newer consumer has taken over.
            ManifestLostError: The manifest is gone, or went back.
            StorageError: The store failed.
        """
        async with self._acking:
            session = self._opened()
            session.refuse_fenced()
            session.progress.check_ack(sequence)
            if session.progress.is_dequeue_wanted(sequence):
                await session.dequeue(sequence)
            self.metrics.count("buffer.acks", session.progress.ack(sequence))

    async def ack_through(self, sequence: int) -> None:
        """Ack everything up to this sequence, and take it off the manifest: one write.

        Args:
            sequence: One that was delivered.

        Raises:
            AckOrderError: It is acked already, or was not delivered.
            QueueError: As with ``ack``; then nothing more is acked than before.
        """
        async with self._acking:
            session = self._opened()
            session.refuse_fenced()
            session.progress.check_ack_through(sequence)
            await session.dequeue(sequence)
            self.metrics.count("buffer.acks", session.progress.ack(sequence))

    async def flush(self) -> None:
        """Take everything that is acked off the manifest.

        Raises:
            QueueError: As with ``ack``; it stays acked.
        """
        async with self._acking:
            session = self._opened()
            session.refuse_fenced()
            if session.progress.is_dequeue_due:
                await session.dequeue(session.progress.acked)

    async def aclose(self) -> None:
        """Take what is acked off the manifest, and close; a second call does nothing.

        Raises:
            FencedError: A newer consumer has taken over, unless that was known before.
            StorageError: The store failed: what is acked may be delivered again. It is closed.
        """
        if self._is_closed:
            return
        self._is_closed = True
        session = self._session
        if session is None:
            return
        self._forgotten.detach()
        try:
            await self._stop_collecting()
            async with self._acking:
                if not session.is_fenced and session.progress.is_dequeue_due:
                    await session.dequeue(session.progress.acked)
        finally:
            await self._close_environment(session.queue)

    # ---- what it tells ---------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it has been opened and not closed."""
        return self._session is not None and not self._is_closed

    @property
    def epoch(self) -> int:
        """Its generation: the manifest is its own as long as it has this epoch."""
        return self._opened().epoch

    @property
    def queue_length(self) -> int:
        """How many batches the newest manifest seen lists; acked ones may be among them."""
        return self._opened().queue_length

    @property
    def last_acked_sequence(self) -> int | None:
        """The last sequence acked, by this consumer or one before it; None before the first."""
        acked = self._opened().progress.acked
        return None if acked < 0 else acked

    def stats(self) -> ConsumerStats:
        """Return positions, warnings and all counters; a closed consumer has them still."""
        if self._session is None or self._collector is None:
            raise QueueError(f"{self._name}: it is not open")
        return stats_of(self._session, self._collector, self._warnings, self.metrics)

    def __repr__(self) -> str:
        """Show what it consumes and how far it is."""
        if self._session is None:
            state = "not open"
        else:
            cursor = self._session.progress.cursor
            state = f"epoch {self._session.epoch}, next sequence {cursor}"
        where = f"{self.config.object_store.url} {self.config.manifest_path}"
        return f"<{type(self).__name__} {where}: {state}{', closed' if self._is_closed else ''}>"

    # ---- inside ----------------------------------------------------------------------------------

    async def _open(self) -> None:
        if self._is_closed or self._session is not None:
            raise QueueError(f"{self._name}: it was opened before; make another one")
        around = self._given or await open_environment(self.config.object_store)
        # Opening may take hours where the store is down, and a clock may be set meanwhile.
        clock = SteadyClock(around)
        queue = Queue(around, self.config)
        try:
            self._warnings += await queue.pair()
            session = await Session.open(
                queue, self._last_acked_sequence, allow_gap=self._allow_gap, metrics=self.metrics
            )
        except BaseException:
            await self._close_environment(queue)
            raise
        limit_ms = round(self.config.gc_grace_period_s * 1000) // SKEW_SHARE
        if warning := around.skew_warning(limit_ms):
            self._warnings.append(warning)
        self._session = session
        self._delivers = Delivery(session, self.config, self.metrics)
        self._collector = Collector(queue, session.read, self.config, self.metrics, clock)
        # Nothing of this may refer to the consumer: one that nobody closes must be found out.
        self._collecting = asyncio.create_task(self._collector.run_forever())
        session.on_fenced = partial(cancel_other, self._collecting)
        self._forgotten = weakref.finalize(
            self, forget, session, self._collecting, asyncio.get_running_loop(), os.getpid()
        )

    def _opened(self) -> Session:
        if self._session is None or self._is_closed:
            state = "closed" if self._is_closed else "not open"
            raise QueueError(f"{self._name}: it is {state}")
        return self._session

    def _delivery(self) -> Delivery:
        self._opened()
        assert self._delivers is not None  # noqa: S101 (made with the session)
        return self._delivers

    @property
    def _name(self) -> str:
        return f"consumer of {self.config.object_store.url} {self.config.manifest_path}"

    async def _stop_collecting(self) -> None:
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)

    async def _close_environment(self, queue: Queue) -> None:
        if self._given is None:
            await queue.aclose()


AsyncConsumer.__module__ = "walengine.buffer"
