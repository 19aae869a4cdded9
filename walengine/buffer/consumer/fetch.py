"""Fetching batches: the part of a consumer that touches no manifest, and may run many at once.

What is wrong with one batch is an error that names its sequence, and stays: fetched again it comes
again, until the store has the object, a limit is raised, or ``skip`` passes the batch over.
"""

from __future__ import annotations

import asyncio
from typing import Final

from walengine.buffer._environment import Environment
from walengine.buffer.batch import decode_batch, object_bytes_max
from walengine.buffer.config import ConsumerConfig
from walengine.buffer.consumer.batches import BatchDescriptor, ConsumedBatch
from walengine.buffer.entry import ManifestEntry
from walengine.buffer.errors import BatchMissingError, FormatError, ObjectTooLargeError
from walengine.buffer.metrics import Metrics

__all__ = ["ConsumerFetchHandle"]

DECODED_INLINE_BYTES_MAX: Final = 32 * 1024
"""A larger object, and any that is compressed, is decoded off the event loop."""

_CODE_AT = -7


class ConsumerFetchHandle:
    """Fetches and decodes batches by their descriptors; ``AsyncConsumer.fetch_handle`` makes it.

    It holds no position: any number of tasks may share it, and a descriptor may be fetched twice.
    It serves as long as the consumer is open.
    """

    def __init__(self, environment: Environment, config: ConsumerConfig, metrics: Metrics) -> None:
        self._environment = environment
        self._max_batch_bytes = config.max_batch_bytes
        self._metrics = metrics

    async def fetch(self, descriptor: BatchDescriptor) -> ConsumedBatch:
        """Return the batch.

        Raises:
            BatchMissingError: Its object is not there.
            FormatError: Its object is no batch, or not the one that the manifest describes.
            ObjectTooLargeError: It has more than max_batch_bytes.
            StorageError: The store failed; try again.
        """
        began_s = asyncio.get_running_loop().time()
        data = await self._data(descriptor)
        entries = await self._entries(data, descriptor)
        self._metrics.count("buffer.batches_collected")
        self._metrics.count("buffer.entries_collected", len(entries))
        self._metrics.count("buffer.bytes_collected", len(data))
        took_s = asyncio.get_running_loop().time() - began_s
        self._metrics.observe("buffer.fetch_duration_seconds", took_s)
        sequence, location, metadata = descriptor.sequence, descriptor.location, descriptor.metadata
        return ConsumedBatch(entries, sequence, location, metadata)

    async def _data(self, descriptor: BatchDescriptor) -> bytes:
        sequence, location = descriptor.sequence, descriptor.location
        limit = object_bytes_max(self._max_batch_bytes)
        try:
            found = await self._environment.store.get(location, max_bytes=limit)
        except ObjectTooLargeError:
            raise ObjectTooLargeError(
                f"batch {location}: its object has more than {limit} bytes: raise max_batch_bytes, "
                f"or skip({sequence}, reason)",
                object=location,
                sequence=sequence,
                max_bytes=limit,
            ) from None
        if found is None:
            raise BatchMissingError(
                f"batch {location}: the manifest lists it as sequence {sequence}, and its object "
                "is not there; a producer that was frozen puts it back within a minute, otherwise "
                f"skip({sequence}, reason)",
                object=location,
                sequence=sequence,
            )
        return found.data

    async def _entries(self, data: bytes, descriptor: BatchDescriptor) -> list[bytes]:
        def decoded() -> list[bytes]:
            location, limit = descriptor.location, self._max_batch_bytes
            entries = decode_batch(data, location, max_batch_bytes=limit)
            ManifestEntry(
                location, descriptor.metadata, sequence=descriptor.sequence
            ).check_records(len(entries))
            return entries

        try:
            if len(data) <= DECODED_INLINE_BYTES_MAX and data[_CODE_AT:][:1] == b"\0":
                return decoded()
            return await self._environment.offload(decoded)
        except FormatError as error:
            raise skippable(error, descriptor.sequence) from None


def skippable(error: FormatError, sequence: int) -> FormatError:
    """Return the error of one batch with its sequence, and with what to do."""
    return FormatError(
        f"{error}; skip({sequence}, reason) goes on without this batch",
        object=error.object,
        offset=error.offset,
        sequence=sequence,
    )


ConsumerFetchHandle.__module__ = "walengine.buffer"
