"""ProducerSink and its twin: items become entries of a queue, durable when they are flushed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from walengine.sinks._buffered import AsyncBufferedSink, BufferedSink
from walengine.sinks._destination import Destination
from walengine.sinks.options import SinkOptions

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from walengine.buffer import AsyncProducer, Producer

__all__ = ["AsyncProducerSink", "ProducerSink"]

CAPACITY = 1024

ENTRY_PREFIX_BYTES = 4

P = TypeVar("P", "AsyncProducer", "Producer")


class _Queue(Destination["ReadableBuffer"], Generic[P]):
    """Hands a batch to a producer and waits until it is durable, in calls that the producer takes.

    What is durable of a batch whose rest failed is not produced again.
    """

    needs_network = True

    def __init__(self, producer: P, metadata: bytes) -> None:
        from walengine.buffer.producer._input import Input  # noqa: PLC0415 (the producer has it)

        config = producer.config
        self._producer: P = producer
        # What the producer would refuse with every batch is refused here, before there is an item.
        self._metadata = Input([b""], metadata, producer._limits).metadata  # noqa: SLF001
        self._max_bytes = min(
            config.max_batch_bytes, config.max_buffered_bytes - len(self._metadata)
        )
        self._durable = 0  # leading items of the batch that is being written

    def admit(self, item: ReadableBuffer) -> bytes:
        """Return the item as bytes, safe from later changes; refuse what can be no entry."""
        data = item if type(item) is bytes else memoryview(item).tobytes()
        if len(data) + ENTRY_PREFIX_BYTES > self._max_bytes:
            raise ValueError(
                f"an item of {len(data)} bytes exceeds what the producer takes at once, "
                f"{self._max_bytes} bytes: split it or raise max_batch_bytes, max_buffered_bytes"
            )
        return data

    def taken(self) -> int:
        """Return how many items are durable."""
        return self._durable

    def forget(self) -> None:
        """Begin a batch."""
        self._durable = 0

    def _parts(self, batch: list[ReadableBuffer]) -> Iterator[list[ReadableBuffer]]:
        """Yield what is not durable in parts of at most so many bytes."""
        part: list[ReadableBuffer] = []
        size = 0
        for item in batch[self._durable :]:
            item_bytes = len(item) + ENTRY_PREFIX_BYTES  # type: ignore[arg-type]
            if part and size + item_bytes > self._max_bytes:
                yield part
                part, size = [], 0
            part.append(item)
            size += item_bytes
        if part:  # else an interrupt came when all of it was durable
            yield part


class _SyncQueue(_Queue["Producer"]):
    def write(self, batch: list[ReadableBuffer]) -> None:
        """Produce the batch and wait."""
        for part in self._parts(batch):
            self._producer._put(part, self._metadata)  # noqa: SLF001 (the same package)
            self._durable += len(part)
        self.forget()


class _AsyncQueue(_Queue["AsyncProducer"]):
    async def write(self, batch: list[ReadableBuffer]) -> None:
        """Produce the batch and wait."""
        for part in self._parts(batch):
            await self._producer._put(part, self._metadata)  # noqa: SLF001 (the same package)
            self._durable += len(part)
        self.forget()


class ProducerSink(BufferedSink["ReadableBuffer"]):
    """Puts items into a queue; what was flushed is durable there.

    A batch of the sink is written at once and waited for: the sink's capacity, bytes and age decide
    how large batches are, and not the producer's ``flush_interval``. The producer stays the
    caller's: close the sink first.

    A write of unclear outcome is an error like others, and the next flush produces the batch again:
    then it may be in the queue twice, as two batches. (The producer itself repeats a batch under
    its identity, for ``delivery_timeout``; make that long.)

    A sink that nobody closed is a ResourceWarning with the count: at collection, and at interpreter
    exit, there is no network to flush it over.

    Args:
        producer: An open ``walengine.buffer.Producer``.
        capacity: Items of a batch.
        options: Other triggers and the watermarks.
        metadata: Kept in the manifest for each batch.

    Raises:
        InvalidInputError, TypeError: The metadata is too large, or not bytes-like.

    Example:
        >>> from walengine.buffer import ObjectStoreConfig, Producer, ProducerConfig
        >>> from walengine.sinks import ProducerSink
        >>> config = ProducerConfig(object_store=ObjectStoreConfig.InMemory("orders"))
        >>> with Producer(config) as producer, ProducerSink(producer, capacity=100) as sink:
        ...     sink.send(b"order 1")
        ...     sink.flush()
        ...     sink.buffered_count()
        0
    """

    def __init__(
        self,
        producer: Producer,
        capacity: int = CAPACITY,
        options: SinkOptions | None = None,
        *,
        metadata: bytes = b"",
    ) -> None:
        super().__init__(capacity, _SyncQueue(producer, metadata), options)


class AsyncProducerSink(AsyncBufferedSink["ReadableBuffer"]):
    """The asynchronous twin of ProducerSink: one batch is on its way while the next one fills.

    Args:
        producer: An open ``walengine.buffer.AsyncProducer`` of the same event loop.
        capacity: Items of a batch.
        options: Other triggers and the watermarks.
        metadata: Kept in the manifest for each batch.
    """

    def __init__(
        self,
        producer: AsyncProducer,
        capacity: int = CAPACITY,
        options: SinkOptions | None = None,
        *,
        metadata: bytes = b"",
    ) -> None:
        super().__init__(capacity, _AsyncQueue(producer, metadata), options)


for _kind in (ProducerSink, AsyncProducerSink):
    _kind.__module__ = "walengine.sinks"
