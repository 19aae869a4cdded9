"""An ordered queue made of objects and one manifest in an object store."""

from walengine.buffer.compression import CompressionType
from walengine.buffer.config import ConsumerConfig, ProducerConfig
from walengine.buffer.database import (
    AsyncDatabaseSink,
    AsyncPostgresSink,
    AsyncSqliteSink,
    DatabaseSink,
    DatabaseSinkStats,
    PostgresSink,
    SqliteSink,
)
from walengine.buffer.errors import (
    AckOrderError,
    BackpressureError,
    BatchMissingError,
    DatabaseError,
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
    "AsyncDatabaseSink",
    "AsyncPostgresSink",
    "AsyncSqliteSink",
    "BackpressureError",
    "BatchMissingError",
    "CompressionType",
    "ConsumerConfig",
    "DatabaseError",
    "DatabaseSink",
    "DatabaseSinkStats",
    "FencedError",
    "FormatError",
    "InvalidInputError",
    "ManifestLostError",
    "ObjectStoreConfig",
    "ObjectTooLargeError",
    "PairingError",
    "PostgresSink",
    "ProducerConfig",
    "QueueError",
    "SequenceGapError",
    "SqliteSink",
    "StaleBatchError",
    "StorageError",
    "UnsupportedStoreError",
]
