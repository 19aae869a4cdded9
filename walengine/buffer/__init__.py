"""An ordered queue made of objects and one manifest in an object store."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Which file has which names. A file is read when one of its names is asked for: who catches an
# error of the queue does not wait for databases and codecs to be loaded.
_HOMES = {
    "collector": ("Collection", "collect_garbage"),
    "compression": ("CompressionType",),
    "config": ("ConsumerConfig", "ProducerConfig"),
    "consumer": (
        "AsyncConsumer",
        "BatchDescriptor",
        "ConsumedBatch",
        "Consumer",
        "ConsumerFetchHandle",
        "ConsumerStats",
        "FetchHandle",
    ),
    "database": (
        "AsyncDatabaseSink",
        "AsyncPostgresSink",
        "AsyncSqliteSink",
        "DatabaseSink",
        "DatabaseSinkStats",
        "PostgresSink",
        "SqliteSink",
    ),
    "entry": ("Metadata",),
    "errors": (
        "AckOrderError",
        "BackpressureError",
        "BatchMissingError",
        "DatabaseError",
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
    ),
    "pairing": ("Adoption", "adopt"),
    "producer": (
        "AsyncProducer",
        "AsyncWatcher",
        "Producer",
        "ProducerStats",
        "Watcher",
        "WriteHandle",
    ),
    "store_config": ("ObjectStoreConfig",),
}


def __getattr__(name: str) -> Any:
    """Return one of the names above, from its file (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            globals()[name] = found = getattr(import_module(f"{__name__}.{home}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what is here and what can be asked for."""
    return sorted({*globals(), *__all__})
