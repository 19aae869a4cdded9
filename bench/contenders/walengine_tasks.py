"""walengine itself, from asyncio tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import walengine
from contenders.base import AsyncContender, CannotRunError
from contenders.walengine_log import WalengineDirect, require, ring_syncs
from walengine import WalConfig


class WalengineTasks(AsyncContender):
    """A log as ``AsyncWalWriter(path)`` opens it, on the standard loop.

    Options: none, the defaults (docs/API.md).
    """

    name = "walengine asyncio"
    package = "walengine"
    config = WalConfig()

    async def open(self, path: Path) -> None:
        """Open the log."""
        require(walengine, "AsyncWalWriter", "walengine")
        self._wal = walengine.AsyncWalWriter(path / "log", self.config)
        await self._wal.__aenter__()

    async def close(self) -> None:
        """Close it."""
        await self._wal.__aexit__(None, None, None)

    async def put(self, record: bytes) -> None:
        """Append, and wait until it is durable."""
        await self._wal.append_durable(record)

    async def put_many(self, records: Sequence[bytes]) -> None:
        """Append all, and wait until they are durable."""
        await self._wal.append_many(records, durable=True)

    async def trim(self) -> None:
        """Drop all records but the last; the segments are used again."""
        await self._wal.truncate_before(self._wal.last_lsn)

    def count_of(self, what: str) -> int | None:
        """Return the syncs that its ring was given."""
        return ring_syncs(self._wal.stats()) if what == "ring syncs" else None

    def put_of_a_task(self) -> Callable[[bytes], Awaitable[object]]:
        """Return the writer's own method: no call of ours around it."""
        append: Callable[[bytes], Awaitable[object]] = self._wal.append_durable
        return append


class WalengineUvloop(WalengineTasks):
    """The same on uvloop.

    Options: none, the defaults (docs/API.md); ``uvloop.new_event_loop`` (uvloop.readthedocs.io).
    """

    name = "walengine uvloop"
    loop = "uvloop"


class WalengineTasksDirect(WalengineTasks):
    """A log that writes past the page cache, a group a tick, several of them at the device at once.

    Options: ``IoUringConfig(direct_io=True)`` (docs/API.md).
    """

    name = "walengine asyncio direct_io"
    config = WalengineDirect.config

    async def open(self, path: Path) -> None:
        """Open the log.

        Raises:
            CannotRunError: The filesystem has no O_DIRECT.
        """
        await super().open(path)
        if not self._wal.stats().direct_io:
            await self.close()
            raise CannotRunError("the filesystem has no O_DIRECT")


class WalengineUvloopDirect(WalengineTasksDirect):
    """The same on uvloop.

    Options: ``IoUringConfig(direct_io=True)``; ``uvloop.new_event_loop`` (uvloop.readthedocs.io).
    """

    name = "walengine uvloop direct_io"
    loop = "uvloop"
