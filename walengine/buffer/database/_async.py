"""The asynchronous twins: a synchronous sink in a thread of its own.

SQLite has no other way, and with PostgreSQL most of the time is spent in to_rows and COPY, which
would hold up the loop. A wait that is cancelled cancels no transaction: the thread finishes it, and
the next call stands behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from walengine.buffer.database._core import DatabaseSink, DatabaseSinkStats
from walengine.buffer.database._port import Batch
from walengine.buffer.errors import DatabaseError

__all__ = ["AsyncDatabaseSink"]

T = TypeVar("T")


class AsyncDatabaseSink:
    """A table that gets every batch of a queue exactly once; base of the asynchronous sinks."""

    def __init__(self, sink: DatabaseSink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="walengine-database-sink")
        self._closing: Future[None] | None = None

    def __repr__(self) -> str:
        """Show where the rows go, and no password."""
        return f"<{type(self).__name__} {self._sink!r}>"

    async def open(self) -> None:
        """Connect, check the table, and read the state; see the synchronous twin."""
        await self._run(self._sink.open)

    async def start_sequence(self) -> int | None:
        """Return the sequence of the last batch in the table; see the synchronous twin."""
        return await self._run(self._sink.start_sequence)

    async def write(self, batch: Batch) -> bool:
        """Write a batch's rows and move the sequence; see the synchronous twin."""
        return await self._run(lambda: self._sink.write(batch))

    async def skip(self, sequence: int) -> None:
        """Move the sequence without rows; see the synchronous twin."""
        await self._run(lambda: self._sink.skip(sequence))

    def stats(self) -> DatabaseSinkStats:
        """Return what this sink has done."""
        return self._sink.stats()

    async def aclose(self) -> None:
        """Wait for what is under way and release the connection; twice is once."""
        if self._closing is None:
            self._closing = self._thread.submit(self._sink.close)
            self._thread.shutdown(wait=False)  # what it was given it still does
        # A wait that is cancelled must not take the closing off the thread's list.
        await asyncio.shield(asyncio.wrap_future(self._closing))
        self._thread.shutdown()  # it has nothing more to do

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, whether the block ended well or not."""
        await self.aclose()

    async def _run(self, call: Callable[[], T]) -> T:
        if self._closing is not None:
            raise DatabaseError(f"{self!r} is closed: make a new one")
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


AsyncDatabaseSink.__module__ = "walengine.buffer"
