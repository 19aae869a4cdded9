"""LevelDB from asyncio tasks, as a program without an asyncio store does it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contenders.base import AsyncContender
from contenders.leveldb import LevelDb

THREADS = 32


class LevelDbTasks(AsyncContender):
    """Each put runs in an executor of threads.

    Options: LevelDB's as in leveldb.py; ``loop.run_in_executor`` with a pool of 32 threads, where
    LevelDB groups best (docs.python.org, "Event Loop", executing code in thread or process pools).
    """

    name = "LevelDB in an executor"
    package = "plyvel"

    async def open(self, path: Path) -> None:
        """Open the store and the pool."""
        self._store = LevelDb()
        self._store.open(path)
        self._pool = ThreadPoolExecutor(THREADS)

    async def close(self) -> None:
        """Close both."""
        self._pool.shutdown()
        self._store.close()

    async def put(self, record: bytes) -> None:
        """Put with a sync, in a thread of the pool."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._store.put, record)
