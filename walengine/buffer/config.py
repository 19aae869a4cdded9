"""How producers and consumers are set up: frozen, checked when made, written in four forms.

The names that OpenData Buffer has are OpenData's, with its defaults, so its files are read as they
are. In code durations are timedeltas or seconds; in files whole milliseconds, or "100ms", "5min".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from walengine.buffer._form import Form, check_all, setting
from walengine.buffer._kinds import choice, duration, integer, text, texts
from walengine.buffer.compression import CompressionType
from walengine.buffer.location import normalise_path, normalise_prefix, parse_batch_name
from walengine.buffer.store_config import ObjectStoreConfig, object_store

__all__ = ["CONSUMER_NAME", "NAME_AGE_MAX", "OWNER_NAME", "ConsumerConfig", "ProducerConfig"]

MIB = 1024 * 1024
GIB = 1024 * MIB
TIB = 1024 * GIB
MS = timedelta(milliseconds=1)

NAME_AGE_MAX: Final = timedelta(minutes=2)
"""How old a batch's name may be when it is listed; older, it is uploaded again under a new one."""

GRACE_PERIOD_MIN: Final = 2 * NAME_AGE_MAX
"""Below this a collector could take an object whose name a producer may still list."""

OWNER_NAME: Final = "_queue.json"
"""Object below the prefix that names the queue's manifest."""

CONSUMER_NAME: Final = "_consumer.json"
"""Object below the prefix by which the command line's consumer is seen."""

_PATH = text(lambda _, value: normalise_path(value))
_PREFIX = text(lambda _, value: normalise_prefix(value))
_PREFIXES = texts(lambda _, value: normalise_prefix(value))


class _QueueForm(Form):
    """What producer and consumer must agree on."""

    __slots__ = ()

    @classmethod
    def parse_env(cls, prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return the dict that the variables mean, with that of the store in it."""
        found = super().parse_env(prefix, environ)
        found.pop("object_store", None)
        store = ObjectStoreConfig.parse_env(prefix + "OBJECT_STORE_", environ)
        return found | ({"object_store": store} if store else {})


@dataclass(frozen=True, kw_only=True, slots=True)
class ProducerConfig(_QueueForm):
    """How batches are made and where they go.

    Attributes:
        object_store: Where; the consumer's must mean the same.
        data_path_prefix: Objects of batches are below it; the same as the consumer's.
        manifest_path: Name of the manifest, which is the queue; the same as the consumer's.
        flush_interval: A batch is written when it is so old, or when half of delivery_timeout is
            over; a timedelta once it is kept here.
        flush_size_bytes: Or when its entries and metadata have more than so many bytes.
        max_buffered_inputs: Calls that may wait to be taken into a batch.
        batch_compression: Of the entries.
        max_inflight_batches: Batches under way to the store at once.
        max_buffered_bytes: All that is held and not durable yet; then callers wait.
        delivery_timeout: A batch that is not durable by then fails, and all behind it.
        max_manifest_bytes: A manifest of so many bytes makes callers wait: each swap rewrites it.
        max_batch_bytes: No batch may be larger, encoded or not.

    Example:
        >>> config = ProducerConfig(object_store=ObjectStoreConfig.InMemory(), flush_interval=0.05)
        >>> config.flush_interval_s
        0.05
    """

    object_store: ObjectStoreConfig = setting(object_store())
    data_path_prefix: str = setting(_PREFIX, "ingest")
    manifest_path: str = setting(_PATH, "ingest/manifest")
    flush_interval: timedelta | float = setting(duration(MS, timedelta(days=1)), 100 * MS)
    flush_size_bytes: int = setting(integer(1, TIB), 64 * MIB)
    max_buffered_inputs: int = setting(integer(1, 2**31), 1000)
    batch_compression: CompressionType = setting(choice(CompressionType), CompressionType.NONE)
    max_inflight_batches: int = setting(integer(1, 1024), 16)
    max_buffered_bytes: int = setting(integer(1, TIB), 256 * MIB)
    delivery_timeout: timedelta | float = setting(
        duration(MS, timedelta(days=30)), timedelta(minutes=2)
    )
    max_manifest_bytes: int = setting(integer(4096, GIB), 16 * MIB)
    max_batch_bytes: int = setting(integer(4096, TIB), GIB)

    def __post_init__(self) -> None:
        """Check every field; raises TypeError or ValueError."""
        check_all(self)
        _check_names(self.data_path_prefix, self.manifest_path)

    @property
    def flush_interval_s(self) -> float:
        """``flush_interval`` in seconds."""
        return _seconds(self.flush_interval)

    @property
    def delivery_timeout_s(self) -> float:
        """``delivery_timeout`` in seconds."""
        return _seconds(self.delivery_timeout)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerConfig(_QueueForm):
    """Where batches are read and how what is left over is collected.

    Attributes:
        object_store: Where; the producer's must mean the same.
        manifest_path: Name of the manifest, which is the queue; the same as the producer's.
        data_path_prefix: Objects of batches are below it; the same as the producer's.
        gc_interval: How often the collector runs; a timedelta once it is kept here.
        gc_grace_period: No object younger than this is collected.
        max_manifest_bytes: A larger manifest is not read.
        max_batch_bytes: A larger batch is not read, encoded or not.
        extra_data_prefixes: Where else listed batches may be; nothing is collected there.

    Example:
        >>> config = ConsumerConfig.from_dict(
        ...     {"object_store": {"type": "InMemory"}, "gc_interval": "10min"}
        ... )
        >>> config.gc_interval_s
        600.0
    """

    object_store: ObjectStoreConfig = setting(object_store())
    manifest_path: str = setting(_PATH, "ingest/manifest")
    data_path_prefix: str = setting(_PREFIX, "ingest")
    gc_interval: timedelta | float = setting(duration(MS, timedelta(days=30)), timedelta(minutes=5))
    gc_grace_period: timedelta | float = setting(
        duration(GRACE_PERIOD_MIN, timedelta(days=3650)), timedelta(minutes=10)
    )
    max_manifest_bytes: int = setting(integer(4096, GIB), 16 * MIB)
    max_batch_bytes: int = setting(integer(4096, TIB), GIB)
    extra_data_prefixes: tuple[str, ...] = setting(_PREFIXES, ())

    def __post_init__(self) -> None:
        """Check every field; raises TypeError or ValueError."""
        check_all(self)
        _check_names(self.data_path_prefix, self.manifest_path)

    @property
    def gc_interval_s(self) -> float:
        """``gc_interval`` in seconds."""
        return _seconds(self.gc_interval)

    @property
    def gc_grace_period_s(self) -> float:
        """``gc_grace_period`` in seconds."""
        return _seconds(self.gc_grace_period)


def _check_names(data_path_prefix: str, manifest_path: str) -> None:
    taken = {f"{data_path_prefix}/{name}" for name in (OWNER_NAME, CONSUMER_NAME)}
    if parse_batch_name(manifest_path) or manifest_path in taken:
        raise ValueError(
            f"manifest_path {manifest_path!r} is a name that the queue gives to others"
        )
    if f"{data_path_prefix}/".startswith(f"{manifest_path}/"):
        raise ValueError(
            f"no object can be below the manifest's name: manifest_path {manifest_path!r}, "
            f"data_path_prefix {data_path_prefix!r}"
        )


def _seconds(value: timedelta | float) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


for _config in (ProducerConfig, ConsumerConfig):
    _config.__module__ = "walengine.buffer"
