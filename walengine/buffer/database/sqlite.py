"""SQLite as a sink: a file, and transactions that are on the disk when they are committed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from walengine.buffer.database._async import AsyncDatabaseSink
from walengine.buffer.database._core import DEDUPE_RETENTION, DatabaseSink
from walengine.buffer.database._names import IDENTITIES, checked_columns, checked_name
from walengine.buffer.database._port import Row, Stored, ToRows
from walengine.buffer.durations import from_code

__all__ = ["AsyncSqliteSink", "SqliteSink"]

LOCK_TIMEOUT = timedelta(seconds=30)
FORGOTTEN_AT_ONCE = 10_000

# FULL leaves a gap where the journal is a file that is deleted: the deletion, which is the commit,
# may be undone by a power loss. EXTRA syncs the directory too; with a WAL the two are the same.
SYNCHRONOUS_EXTRA = 3
DURABLE_JOURNALS = frozenset({"delete", "truncate", "persist", "wal"})


class SqliteSink(DatabaseSink):
    """A table in a SQLite database that gets every batch exactly once.

    The database and the table must be there; the state tables are made. Nothing is connected
    before ``open()``, the ``with`` block or the first call.

    Args:
        path: The database's file.
        table: Where the rows go.
        columns: Of what to_rows returns, in its order.
        to_rows: (entry, its Metadata or None) -> rows.
        state_table: Where the sequence is kept; its name with ``_identities`` is the other one.
        name: Which state row; the table's name unless given.
        queue: What the queue is called, any text. It is kept in the row when that is made; another
            queue with the same row is then a ``PairingError`` instead of a hole.
        dedupe_retention: How long identities are kept; a timedelta or seconds.
        lock_timeout: How long to wait for another writer; a timedelta or seconds.

    Example:
        >>> import sqlite3, tempfile
        >>> from types import SimpleNamespace
        >>> path = tempfile.mkdtemp() + "/shop.db"
        >>> with sqlite3.connect(path) as db:
        ...     _ = db.execute("CREATE TABLE orders (id TEXT)")
        >>> db.close()
        >>> with SqliteSink(path, "orders", ["id"], lambda entry, _: [[entry.decode()]]) as sink:
        ...     batch = SimpleNamespace(
        ...         entries=[b"a", b"b"], sequence=0, location="ingest/x", metadata=[]
        ...     )
        ...     sink.write(batch), sink.write(batch), sink.start_sequence()
        (True, False, 0)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str,
        columns: Sequence[str],
        to_rows: ToRows,
        *,
        state_table: str = "walengine_state",
        name: str | None = None,
        queue: str | None = None,
        dedupe_retention: timedelta | float = DEDUPE_RETENTION,
        lock_timeout: timedelta | float = LOCK_TIMEOUT,
    ) -> None:
        columns = checked_columns(columns)
        lock_timeout_s = from_code("lock_timeout", lock_timeout).total_seconds()
        if lock_timeout_s < 0:
            raise ValueError("lock_timeout must not be negative")
        database = SqliteDatabase(
            path, table, columns, state_table, name or table, queue, lock_timeout_s
        )
        super().__init__(database, to_rows, columns, queue=queue, dedupe_retention=dedupe_retention)


class AsyncSqliteSink(AsyncDatabaseSink):
    """The asynchronous twin of SqliteSink, with the same arguments; a thread does the work."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str,
        columns: Sequence[str],
        to_rows: ToRows,
        *,
        state_table: str = "walengine_state",
        name: str | None = None,
        queue: str | None = None,
        dedupe_retention: timedelta | float = DEDUPE_RETENTION,
        lock_timeout: timedelta | float = LOCK_TIMEOUT,
    ) -> None:
        super().__init__(
            SqliteSink(
                path, table, columns, to_rows, state_table=state_table, name=name, queue=queue,
                dedupe_retention=dedupe_retention, lock_timeout=lock_timeout,
            )
        )  # fmt: skip


class SqliteDatabase:
    """The port's steps in SQLite.

    Attributes:
        where: For messages.
        failures: What the driver raises; OverflowError for integers beyond 64 bits, UnicodeError
            for text that is none.
    """

    failures: tuple[type[Exception], ...] = (sqlite3.Error, OverflowError, UnicodeError)

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str,
        columns: Sequence[str],
        state_table: str,
        name: str,
        queue: str | None,
        lock_timeout_s: float,
    ) -> None:
        text = os.fspath(path)
        if not isinstance(text, str) or not text or text.startswith(":") or "\x00" in text:
            raise ValueError(f"path {text!r} must be a file's: nothing else outlives the process")
        self._path = Path(text).absolute()
        self._table = checked_name("table", table)
        self._columns = columns
        self._state = checked_name("state_table", state_table)
        self._identities = self._state + IDENTITIES
        self._name = checked_name("name", name)
        self._queue = queue
        self._lock_timeout_s = lock_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self.where = f"sqlite {self._path} table {table}"

    @property
    def lost(self) -> bool:
        """Whether it is closed, or open on a file that is no longer the one of this name."""
        return self._connection is None or self._file != self._file_now()

    def open(self) -> None:
        """Connect, if that is lost."""
        if not self.lost:
            return
        self.close()
        if not self._path.exists():
            raise sqlite3.OperationalError("there is no such database: make it, with its table")
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self._path))}?mode=rw",
            uri=True,
            timeout=self._lock_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection = connection
        try:
            self._file = self._file_now()
            self._be_durable(connection)
            self._check_table(connection)
            self._make_state(connection)
        except BaseException:
            self.close()
            raise

    def read_state(self) -> Stored | None:
        """Return the state row."""
        query = f"SELECT sequence, queue FROM {_quoted(self._state)} WHERE sink = ?"
        row = self._open_connection.execute(query, (self._name,)).fetchone()
        return None if row is None else Stored(*row)

    def begin(self) -> None:
        """Take the write lock at once: a later upgrade could meet another writer half-way."""
        if self.lost:
            raise sqlite3.OperationalError("the file is gone, or another one has its name")
        self._open_connection.execute("BEGIN IMMEDIATE")

    def insert_state(self, sequence: int) -> bool:
        """Make the state row."""
        insert = (
            f"INSERT INTO {_quoted(self._state)} (sink, queue, sequence) VALUES (?, ?, ?) "
            "ON CONFLICT DO NOTHING"
        )
        return self._changes(insert, (self._name, self._queue, sequence))

    def move_state(self, known: int, sequence: int) -> bool:
        """Move the state row if it is still at known."""
        update = f"UPDATE {_quoted(self._state)} SET sequence = ? WHERE sink = ? AND sequence = ?"
        return self._changes(update, (sequence, self._name, known))

    def remember(self, identity: str, sequence: int) -> bool:
        """Store an identity."""
        insert = (
            f"INSERT INTO {_quoted(self._identities)} (sink, identity, sequence) "
            "VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        )
        return self._changes(insert, (self._name, identity, sequence))

    def forget(self, older_than_s: float) -> None:
        """Delete old identities."""
        table = _quoted(self._identities)
        delete = (
            f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} "
            "WHERE sink = ? AND stored_at < CAST(strftime('%s', 'now') AS INTEGER) - ? LIMIT ?)"
        )
        self._open_connection.execute(delete, (self._name, older_than_s, FORGOTTEN_AT_ONCE))

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Insert rows."""
        columns = ", ".join(map(_quoted, self._columns))
        marks = ", ".join("?" * len(self._columns))
        insert = f"INSERT INTO {_quoted(self._table)} ({columns}) VALUES ({marks})"
        self._open_connection.executemany(insert, rows)

    def commit(self) -> None:
        """Commit."""
        self._open_connection.execute("COMMIT")

    def rollback(self) -> None:
        """Roll back; some errors have done so already."""
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # ---- opening ---------------------------------------------------------------------------------

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the connection was lost")
        return self._connection

    def _changes(self, statement: str, values: tuple[object, ...]) -> bool:
        return self._open_connection.execute(statement, values).rowcount == 1

    def _file_now(self) -> tuple[int, int] | None:
        """Tell one file from another under the same name."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _be_durable(self, connection: sqlite3.Connection) -> None:
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        if journal not in DURABLE_JOURNALS:
            raise sqlite3.OperationalError(
                f"its journal_mode is {journal}: a crash would damage it"
            )
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS_EXTRA}")
        connection.execute("PRAGMA fullfsync = 1")  # where an fsync does not flush the device

    def _check_table(self, connection: sqlite3.Connection) -> None:
        query = "SELECT name FROM pragma_table_info(?)"
        found = {name for (name,) in connection.execute(query, (self._table,))}
        if not found:
            raise sqlite3.OperationalError(f"there is no table {self._table}: make it first")
        missing = [name for name in self._columns if name not in found]
        if missing:
            raise sqlite3.OperationalError(f"table {self._table} has no column {missing[0]}")

    def _make_state(self, connection: sqlite3.Connection) -> None:
        # Looking needs no lock, making does: another sink may be in its transaction.
        wanted = (self._state, self._identities)
        query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN (?, ?)"
        if connection.execute(query, wanted).fetchone()[0] == len(wanted):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_quoted(self._state)} "
                "(sink TEXT PRIMARY KEY, queue TEXT, sequence INTEGER NOT NULL)"
            )
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_quoted(self._identities)} "
                "(sink TEXT NOT NULL, identity TEXT NOT NULL, sequence INTEGER NOT NULL, "
                "stored_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)), "
                "PRIMARY KEY (sink, identity))"
            )
            index = _quoted(f"{self._identities}_stored_at")
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS {index} "
                f"ON {_quoted(self._identities)} (sink, stored_at)"
            )
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


for _sink in (SqliteSink, AsyncSqliteSink):
    _sink.__module__ = "walengine.buffer"
