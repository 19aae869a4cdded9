"""Opening a store: made from its configuration, and asked whether it keeps conditions.

Some servers that speak S3's protocol ignore ``If-None-Match`` or ``If-Match``: two producers would
overwrite each other's manifest there, in silence. So the first to open a bucket in a process
writes a small object under a unique name and tries what must be refused. It also reads the store's
clock from that object, because collectors compare names stamped here with times stamped there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass

from walengine.buffer.errors import StorageError, UnsupportedStoreError
from walengine.buffer.store.local import LocalStore
from walengine.buffer.store.memory import MemoryStore
from walengine.buffer.store.port import ObjectStore
from walengine.buffer.store_config import (
    InMemoryObjectStoreConfig,
    LocalObjectStoreConfig,
    ObjectStoreConfig,
)

PROBE_DIRECTORY = "_probe"
"""Probes' objects are below it; one that is left over by a crash is safe to delete."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What the store's clock shows, compared to this machine's.

    Attributes:
        skew_ms: What to add to this machine's time to get the store's.
        uncertainty_ms: How far off that may be, either way: the request's time, and the whole
            seconds of a store's times.
    """

    skew_ms: int
    uncertainty_ms: int


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store that keeps conditions.

    Attributes:
        store: It.
        clock: Its clock.
    """

    store: ObjectStore
    clock: ClockReading


CLOCK_SET_MS = 1000
"""A machine's clock that has moved by so much against passing time was set."""

# By what identifies a bucket: the reading, and where this machine's clock stood then. A process
# that forks keeps what it knows: buckets do not change.
_known: dict[object, tuple[ClockReading, int]] = {}


async def open_store(config: ObjectStoreConfig) -> OpenedStore:
    """Open the store; the first time in this process a bucket is probed.

    And again when this machine's clock was set since then: the reading is wrong by as much, and a
    collector that is ahead of the store's clock takes what is about to be listed.

    Raises:
        UnsupportedStoreError: It ignores a condition, or its package is missing.
        StorageError: It failed, or cannot be reached.
    """
    store = make_store(config)
    if isinstance(config, (LocalObjectStoreConfig, InMemoryObjectStoreConfig)):
        return OpenedStore(store, ClockReading(0, 0))
    key = (config.url, getattr(config, "endpoint", None))
    if key not in _known or abs(_known[key][1] - _clock_stands_ms()) > CLOCK_SET_MS:
        stands_ms = _clock_stands_ms()
        try:
            _known[key] = await probe(store), stands_ms
        except BaseException:
            await store.aclose()
            raise
    return OpenedStore(store, _known[key][0])


def make_store(config: ObjectStoreConfig) -> ObjectStore:
    """Make the store, without a word to it.

    Raises:
        UnsupportedStoreError: Its package is missing.
        StorageError: The configuration is none that the package takes.
    """
    if isinstance(config, LocalObjectStoreConfig):
        return LocalStore(config.path, allow_shared_dir=config.allow_shared_dir)
    if isinstance(config, InMemoryObjectStoreConfig):
        return MemoryStore(config.name)
    from walengine.buffer.store.cloud import CloudStore  # noqa: PLC0415 (obstore is an extra)

    return CloudStore(config)


async def probe(store: ObjectStore) -> ClockReading:
    """Check that the store keeps conditions, and read its clock.

    Raises:
        UnsupportedStoreError: It does not.
        StorageError: It failed.
    """
    name = f"{PROBE_DIRECTORY}/{secrets.token_hex(16)}"
    try:
        return await _probe(store, name)
    finally:
        # Cleaning up must neither hide an error nor be left out when the opening is cancelled.
        with contextlib.suppress(StorageError):
            await asyncio.shield(store.delete(name))


async def _probe(store: ObjectStore, name: str) -> ClockReading:
    before_ms = _now_ms()
    first = await store.create(name, b"1")
    after_ms = _now_ms()
    if first is None:
        # Nobody else has this name: a retry below us met its own success.
        raise UnsupportedStoreError(f"{store.url}: the store refused to create a new object")
    info = await store.head(name)
    if info is None:
        raise UnsupportedStoreError(f"{store.url}: the store does not show what was just written")
    if await store.create(name, b"2") is not None:
        raise UnsupportedStoreError(_complaint(store, "If-None-Match", "overwrote an object"))
    second = await store.replace(name, b"3", first)
    if second is None:
        raise UnsupportedStoreError(_complaint(store, "If-Match", "refused the current etag"))
    if await store.replace(name, b"4", first) is not None:
        raise UnsupportedStoreError(_complaint(store, "If-Match", "took a stale etag"))
    found = await store.get(name, max_bytes=16)
    if found is None or found.data != b"3":
        raise UnsupportedStoreError(_complaint(store, "If-Match", "applied what it had refused"))
    return _reading(before_ms, after_ms, info.last_modified_ms)


def _complaint(store: ObjectStore, header: str, what: str) -> str:
    return (
        f"{store.url}: the store {what}: it ignores {header}, and producers would overwrite each "
        "other's manifest; use one with conditional writes"
    )


def _reading(before_ms: int, after_ms: int, stored_ms: int) -> ClockReading:
    # A whole second is one that was cut off: it stands for the middle of that second.
    cut_ms = 0 if stored_ms % 1000 else 500
    skew_ms = stored_ms + cut_ms - (before_ms + after_ms) // 2
    return ClockReading(skew_ms, (after_ms - before_ms + 1) // 2 + cut_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _clock_stands_ms() -> int:
    """Return this machine's time less the time that has passed: it changes when the clock is set.

    Passed since the machine started, its sleep included where the system counts that; elsewhere a
    sleep looks like a clock that was set, and costs a probe.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        passed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    else:
        passed_ns = time.monotonic_ns()
    return _now_ms() - passed_ns // 1_000_000
