"""SQLite, from the standard library."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from contenders.base import Contender

INSERT = "INSERT INTO log (data) VALUES (?)"


class Sqlite(Contender):
    """A table whose key is the row number.

    Options: ``journal_mode=WAL`` and ``synchronous=FULL``, with which the WAL is synced by every
    commit (https://sqlite.org/pragma.html#pragma_synchronous; NORMAL would sync at checkpoints
    only). Automatic checkpoints as they are by default. SQLite has one writer at a time
    (https://sqlite.org/wal.html); with a connection for each thread the others sleep and try
    again, which is several times slower than what is done here: one connection and a lock.
    """

    name = "SQLite"

    def version(self) -> str:
        """Return the library's."""
        return f"SQLite {sqlite3.sqlite_version}"

    def open(self, path: Path) -> None:
        """Open the database and make its table."""
        self._lock = Lock()
        self._db = sqlite3.connect(path / "log.db", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS log (lsn INTEGER PRIMARY KEY, data BLOB)")

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def put(self, record: bytes) -> None:
        """Insert; outside of a transaction each statement commits by itself."""
        with self._lock:
            self._db.execute(INSERT, (record,))

    def put_many(self, records: Sequence[bytes]) -> None:
        """Insert in one transaction."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(INSERT, zip(records))
            self._db.execute("COMMIT")

    def scan(self) -> int:
        """Select in the order of the key."""
        count = 0
        for _lsn, _data in self._db.execute("SELECT lsn, data FROM log ORDER BY lsn"):
            count += 1
        return count
