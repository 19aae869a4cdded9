"""SQLite, from the standard library."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

from contenders.base import Contender

INSERT = "INSERT INTO log (data) VALUES (?)"


class Sqlite(Contender):
    """A table whose key is the row number.

    Options: ``journal_mode=WAL`` and ``synchronous=FULL``, with which the WAL is synced by every
    commit (https://sqlite.org/pragma.html#pragma_synchronous; NORMAL would sync at checkpoints
    only). One connection for each thread (https://sqlite.org/wal.html: one writer at a time; the
    others wait, here for as long as it takes). Automatic checkpoints as they are by default.
    """

    name = "SQLite"

    def version(self) -> str:
        """Return the library's."""
        return f"SQLite {sqlite3.sqlite_version}"

    def open(self, path: Path) -> None:
        """Open the database and make its table."""
        self._file = path / "log.db"
        self._connections: list[sqlite3.Connection] = []
        self._lock = Lock()
        self._main = self._connect()
        self._main.execute("CREATE TABLE IF NOT EXISTS log (lsn INTEGER PRIMARY KEY, data BLOB)")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=600, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        with self._lock:
            self._connections.append(connection)
        return connection

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()

    def put(self, record: bytes) -> None:
        """Insert; outside of a transaction each statement commits by itself."""
        self._main.execute(INSERT, (record,))

    def put_of_a_thread(self) -> Callable[[bytes], object]:
        """Give the thread a connection of its own."""
        connection = self._connect()
        return lambda record: connection.execute(INSERT, (record,))

    def put_many(self, records: Sequence[bytes]) -> None:
        """Insert in one transaction."""
        self._main.execute("BEGIN IMMEDIATE")
        self._main.executemany(INSERT, zip(records))
        self._main.execute("COMMIT")

    def scan(self) -> int:
        """Select in the order of the key."""
        count = 0
        for _lsn, _data in self._main.execute("SELECT lsn, data FROM log ORDER BY lsn"):
            count += 1
        return count
