"""Objects in this process's memory: for tests, examples and what needs no durability."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import quote

from walengine.buffer.store.port import (
    NOT_MODIFIED,
    Data,
    ObjectInfo,
    StoredObject,
    Unchanged,
    check_name,
    check_open,
    check_prefix,
    check_size,
)


@dataclass(frozen=True, slots=True)
class _Version:
    data: bytes
    etag: str
    last_modified_ms: int


@dataclass(slots=True)
class _Objects:
    """What all stores of one name share; threads too, each with a loop of its own."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: dict[str, _Version] = field(default_factory=dict)
    etags: itertools.count[int] = field(default_factory=itertools.count)


_stores: dict[str, _Objects] = {}
_stores_lock = threading.Lock()


class MemoryStore:
    """Objects in memory. Stores of the same name share them, for as long as the process lives.

    Args:
        name: Which objects.
    """

    def __init__(self, name: str = "default") -> None:
        self._name = name
        with _stores_lock:
            self._objects = _stores.setdefault(name, _Objects())
        self._closed = False

    @property
    def url(self) -> str:
        """``memory://`` and the name."""
        return "memory://" + quote(self._name)

    async def get(self, name: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Return the object, or None."""
        version = self._version(name)
        if version is None:
            return None
        check_size(self.url, name, len(version.data), max_bytes)
        return StoredObject(version.data, version.etag)

    async def get_if_changed(
        self, name: str, etag: str, *, max_bytes: int | None = None
    ) -> StoredObject | Unchanged | None:
        """Return the object, NOT_MODIFIED or None."""
        version = self._version(name)
        if version is not None and version.etag == etag:
            return NOT_MODIFIED
        return await self.get(name, max_bytes=max_bytes)

    async def head(self, name: str) -> ObjectInfo | None:
        """Return size and time, or None."""
        version = self._version(name)
        if version is None:
            return None
        return ObjectInfo(name, len(version.data), version.last_modified_ms)

    async def put(self, name: str, data: Data) -> None:
        """Write the object, over whatever is there."""
        check_open(self.url, is_closed=self._closed)
        with self._objects.lock:
            self._write(check_name(name), data)

    async def create(self, name: str, data: Data) -> str | None:
        """Write the object only if there is none."""
        check_open(self.url, is_closed=self._closed)
        with self._objects.lock:
            absent = check_name(name) not in self._objects.versions
            return self._write(name, data) if absent else None

    async def replace(self, name: str, data: Data, etag: str) -> str | None:
        """Write the object only if the one there has this etag."""
        check_open(self.url, is_closed=self._closed)
        with self._objects.lock:
            version = self._objects.versions.get(check_name(name))
            matches = version is not None and version.etag == etag
            return self._write(name, data) if matches else None

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is below prefix."""
        check_open(self.url, is_closed=self._closed)
        below = check_prefix(prefix) and prefix + "/"
        with self._objects.lock:
            found = [item for item in self._objects.versions.items() if item[0].startswith(below)]
        for name, version in found:
            yield ObjectInfo(name, len(version.data), version.last_modified_ms)

    async def delete(self, name: str) -> None:
        """Delete the object; one that is not there is no error."""
        check_open(self.url, is_closed=self._closed)
        with self._objects.lock:
            self._objects.versions.pop(check_name(name), None)

    async def aclose(self) -> None:
        """Refuse further calls; the objects stay, for others of the same name."""
        self._closed = True

    def _version(self, name: str) -> _Version | None:
        check_open(self.url, is_closed=self._closed)
        with self._objects.lock:
            return self._objects.versions.get(check_name(name))

    def _write(self, name: str, data: Data) -> str:
        etag = f"m{next(self._objects.etags)}"
        self._objects.versions[name] = _Version(bytes(data), etag, time.time_ns() // 1_000_000)
        return etag
