"""The consumer: takes batches off a queue, in order, and owns its manifest."""

from walengine.buffer.consumer.asynchronous import AsyncConsumer
from walengine.buffer.consumer.batches import BatchDescriptor, ConsumedBatch
from walengine.buffer.consumer.fetch import ConsumerFetchHandle
from walengine.buffer.consumer.stats import ConsumerStats
from walengine.buffer.consumer.synchronous import Consumer, FetchHandle

__all__ = [
    "AsyncConsumer",
    "BatchDescriptor",
    "ConsumedBatch",
    "Consumer",
    "ConsumerFetchHandle",
    "ConsumerStats",
    "FetchHandle",
]
