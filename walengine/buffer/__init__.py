"""An ordered queue made of objects and one manifest in an object store."""

from walengine.buffer.collector import Collection, collect_garbage
from walengine.buffer.compression import CompressionType
from walengine.buffer.config import ConsumerConfig, ProducerConfig
from walengine.buffer.consumer import (
    AsyncConsumer,
    BatchDescriptor,
    ConsumedBatch,
    Consumer,
    ConsumerFetchHandle,
    ConsumerStats,
    FetchHandle,
)
from walengine.buffer.database import (
    AsyncDatabaseSink,
    AsyncPostgresSink,
    AsyncSqliteSink,
    DatabaseSink,
    DatabaseSinkStats,
    PostgresSink,
    SqliteSink,
)
from walengine.buffer.entry import Metadata
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
from walengine.buffer.pairing import Adoption, adopt
from walengine.buffer.producer import (
    AsyncProducer,
    AsyncWatcher,
    Producer,
    ProducerStats,
    Watcher,
    WriteHandle,
)
from walengine.buffer.store_config import ObjectStoreConfig

__all__ = [
    "AckOrderError",
    "Adoption",
    "AsyncConsumer",
    "AsyncDatabaseSink",
    "AsyncPostgresSink",
    "AsyncProducer",
    "AsyncSqliteSink",
    "AsyncWatcher",
    "BackpressureError",
    "BatchDescriptor",
    "BatchMissingError",
    "Collection",
    "CompressionType",
    "ConsumedBatch",
    "Consumer",
    "ConsumerConfig",
    "ConsumerFetchHandle",
    "ConsumerStats",
    "DatabaseError",
    "DatabaseSink",
    "DatabaseSinkStats",
    "FencedError",
    "FetchHandle",
    "FormatError",
    "InvalidInputError",
    "ManifestLostError",
    "Metadata",
    "ObjectStoreConfig",
    "ObjectTooLargeError",
    "PairingError",
    "PostgresSink",
    "Producer",
    "ProducerConfig",
    "ProducerStats",
    "QueueError",
    "SequenceGapError",
    "SqliteSink",
    "StaleBatchError",
    "StorageError",
    "UnsupportedStoreError",
    "Watcher",
    "WriteHandle",
    "adopt",
    "collect_garbage",
]
