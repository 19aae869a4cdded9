"""persist-queue, the queue on disk that Python programs use most."""

from __future__ import annotations

from pathlib import Path

from persistqueue import SQLiteQueue

from contenders.base import Contender


class PersistQueue(Contender):
    """Its queue on SQLite: its queue of files does not sync a put.

    Options: ``auto_commit=True, multithreading=True`` (README of persist-queue, "SQLite3 based
    queue": every put is a transaction). It sets ``journal_mode=WAL`` and leaves ``synchronous`` at
    SQLite's default, FULL. It has no put of several items, and reading is removing.
    """

    name = "persist-queue"
    package = "persist-queue"

    def open(self, path: Path) -> None:
        """Open the queue; refuse one that would not sync."""
        self._queue = SQLiteQueue(str(path), auto_commit=True, multithreading=True)
        level = self._queue._putter.execute("PRAGMA synchronous").fetchone()[0]  # noqa: SLF001
        if level != 2:
            raise RuntimeError(f"{path}: synchronous is {level} and not FULL: puts are not durable")

    def close(self) -> None:
        """Close it."""
        self._queue.close()

    def put(self, record: bytes) -> None:
        """Put one item."""
        self._queue.put(record)
