"""An ordered queue made of objects and one manifest in an object store."""

from walengine.buffer.compression import CompressionType
from walengine.buffer.config import ConsumerConfig, ProducerConfig
from walengine.buffer.errors import (
    AckOrderError,
    BackpressureError,
    BatchMissingError,
    FencedError,
    FormatError,
    InvalidInputError,
    ManifestLostError,
    ObjectTooLargeError,
    PairingError,
    QueueError,
    SequenceGapError,
    StaleBatchError,
    StorageError,
    UnsupportedStoreError,
)
from walengine.buffer.store_config import ObjectStoreConfig

__all__ = [
    "AckOrderError",
    "BackpressureError",
    "BatchMissingError",
    "CompressionType",
    "ConsumerConfig",
    "FencedError",
    "FormatError",
    "InvalidInputError",
    "ManifestLostError",
    "ObjectStoreConfig",
    "ObjectTooLargeError",
    "PairingError",
    "ProducerConfig",
    "QueueError",
    "SequenceGapError",
    "StaleBatchError",
    "StorageError",
    "UnsupportedStoreError",
]
