"""Delivering: which batch is next, fetching it, and moving the cursor behind it."""

from __future__ import annotations

from walengine.buffer.config import ConsumerConfig
from walengine.buffer.consumer._session import Session
from walengine.buffer.consumer.batches import BatchDescriptor, ConsumedBatch
from walengine.buffer.consumer.fetch import ConsumerFetchHandle, skippable
from walengine.buffer.errors import BatchMissingError, FormatError
from walengine.buffer.metrics import Metrics

__all__ = ["Delivery"]


class Delivery:
    """The delivering half of a consumer.

    Args:
        session: The manifest.
        config: Has the prefixes below which batches may be.
        metrics: Has the lag.
    """

    def __init__(self, session: Session, config: ConsumerConfig, metrics: Metrics) -> None:
        self.handle = ConsumerFetchHandle(session.queue.environment, config, metrics)
        self._session = session
        self._prefixes = (config.data_path_prefix, *config.extra_data_prefixes)
        self._metrics = metrics

    @property
    def cursor(self) -> int:
        """The next sequence to deliver."""
        return self._session.progress.cursor

    async def descriptors_from(
        self, sequence: int, max_count: int, *, may_read: bool = True
    ) -> list[BatchDescriptor]:
        """Return descriptors from this sequence on, without moving the cursor.

        Args:
            sequence: The cursor, or behind it.
            max_count: At most so many; fewer before a batch whose entry is broken.
            may_read: Whether the manifest may be read, if no fresh snapshot lists the sequence.

        Raises:
            FormatError: The first one's entry is broken, or the manifest is.
            QueueError: Whatever reading the manifest raises.
        """
        manifest = self._session.listed(sequence)
        if manifest is None:
            if not may_read:
                return []
            manifest = (await self._session.read()).manifest
        found: list[BatchDescriptor] = []
        for each in range(sequence, min(manifest.next_sequence, sequence + max_count)):
            try:
                entry = manifest.entry(each, self._prefixes)
            except FormatError as error:
                if found:
                    break
                raise skippable(error, each) from None
            found.append(BatchDescriptor(each, entry.location, tuple(entry.metadata)))
        return found

    async def fetch(self, descriptor: BatchDescriptor) -> ConsumedBatch:
        """Fetch a batch; one that a newer consumer has collected is no missing one.

        Raises:
            QueueError: As ``ConsumerFetchHandle.fetch`` does, or reading the manifest.
        """
        try:
            return await self.handle.fetch(descriptor)
        except BatchMissingError:
            await self._session.read()
            raise

    def deliver(self, batch: ConsumedBatch) -> None:
        """Move the cursor behind the batch."""
        self._session.progress.deliver(batch.sequence)
        self.show_lag(batch)

    def show_lag(self, batch: ConsumedBatch) -> None:
        """Set the gauge of the lag: now less when the batch's last entries were taken in."""
        if batch.metadata:
            now_ms = self._session.queue.environment.wall_ms()
            lag_s = (now_ms - batch.metadata[-1].ingestion_time_ms) / 1000
            self._metrics.set("buffer.consumer_lag_seconds", lag_s)
