"""From a sealed batch to an object in the store: encoded off the loop, put until it is there."""

from __future__ import annotations

import asyncio
import logging

from walengine.buffer._pace import Backoff
from walengine.buffer._queue import Queue
from walengine.buffer.batch import encode_batch
from walengine.buffer.compression import CompressionType
from walengine.buffer.errors import StorageError
from walengine.buffer.metrics import Metrics
from walengine.buffer.producer._counters import Counters
from walengine.buffer.producer._forming import Batch
from walengine.buffer.producer._names import Names

__all__ = ["Uploader"]

log = logging.getLogger("walengine.buffer")


class Uploader:
    """Puts batches into the store; any number at once.

    Args:
        queue: Where.
        names: Who names them.
        compression: Of the entries.
        metrics: Counts what was written.
        counters: Counts what failed.
    """

    def __init__(
        self,
        queue: Queue,
        names: Names,
        compression: CompressionType,
        metrics: Metrics,
        counters: Counters,
    ) -> None:
        self._environment = queue.environment
        self._names = names
        self._compression = compression
        self._metrics = metrics
        self._counters = counters

    async def upload(self, batch: Batch) -> None:
        """Encode the batch, if that was not done, and put it under a new name until it is there.

        Every attempt has a name of its own time. What an earlier one may have left under another is
        unlisted, and a collector takes it.
        """
        data = await self._encoded(batch)
        backoff = Backoff(self._environment.random)
        while True:
            name, stamped_at = self._names.stamp(batch)
            try:
                await self._environment.store.put(name.location, data)
            except StorageError as error:
                batch.error = error
                self._counters.upload_errors += 1
                text = "%s: an upload failed and is tried again: %s"
                log.log(backoff.level(), text, name.location, error)
                await asyncio.sleep(backoff.after_error())
                continue
            batch.stamped_at[name.location] = stamped_at
            batch.name = name
            self._metrics.count("buffer.bytes_written", len(data))
            return

    async def _encoded(self, batch: Batch) -> bytes:
        if batch.data is None:
            entries, compression = batch.entries, self._compression
            batch.data = await self._environment.offload(lambda: encode_batch(entries, compression))
            batch.entries = []  # the object's bytes are kept, and nothing twice
        return batch.data
