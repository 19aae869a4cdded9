"""An ordered queue made of objects and one manifest in an object store."""

from walengine.buffer.compression import CompressionType
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

__all__ = [
    "AckOrderError",
    "BackpressureError",
    "BatchMissingError",
    "CompressionType",
    "FencedError",
    "FormatError",
    "InvalidInputError",
    "ManifestLostError",
    "ObjectTooLargeError",
    "PairingError",
    "QueueError",
    "SequenceGapError",
    "StaleBatchError",
    "StorageError",
    "UnsupportedStoreError",
]
