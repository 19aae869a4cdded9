"""The consumer: takes batches off a queue, in order, and owns its manifest."""

from walengine.buffer.consumer.asynchronous import AsyncConsumer
from walengine.buffer.consumer.batches import BatchDescriptor, ConsumedBatch
from walengine.buffer.consumer.fetch import ConsumerFetchHandle
from walengine.buffer.consumer.stats import ConsumerStats

__all__ = [
    "AsyncConsumer",
    "BatchDescriptor",
    "ConsumedBatch",
    "ConsumerFetchHandle",
    "ConsumerStats",
]
