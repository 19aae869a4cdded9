"""PostgreSQL as a sink, through psycopg 3 (the extra ``postgres``); rows go in by COPY.

What a session or a role may have set is set anew for each transaction, so that a pooler between may
mix sessions: a commit waits for the disk, a frozen sink does not hold its row for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from walengine.buffer.database._async import AsyncDatabaseSink
from walengine.buffer.database._core import DEDUPE_RETENTION, DatabaseSink
from walengine.buffer.database._names import IDENTITIES, checked_columns, checked_name
from walengine.buffer.database._port import Row, Stored, ToRows
from walengine.buffer.database._postgres_tables import Tables, check_server, prepare_tables
from walengine.buffer.durations import from_code
from walengine.buffer.errors import DatabaseError

if TYPE_CHECKING:
    import psycopg

__all__ = ["AsyncPostgresSink", "PostgresSink"]

log = logging.getLogger("walengine.buffer")

STALL_TIMEOUT = timedelta(minutes=1)
CONNECT_TIMEOUT_S = 10
FORGOTTEN_AT_ONCE = 10_000
LOCK_TIMEOUT_FACTOR = 2  # whoever stalls between statements is out before others look for it
SHOWN_OF_CONNINFO = ("host", "port", "dbname", "service")

# remote_apply is on and more: on a standby the commit can be seen already.
SETTINGS = """
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
           WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
       set_config('idle_in_transaction_session_timeout', %s, true),
       set_config('lock_timeout', %s, true)
"""

# A session that waits for rows of a COPY is not idle, and no timeout of the server ends it: whoever
# waits for its row does. Ending a sink's transaction is always safe.
EVICT = """
SELECT count(pg_terminate_backend(activity.pid))
FROM pg_stat_activity AS activity JOIN pg_locks AS locks USING (pid)
WHERE locks.relation = to_regclass(%s) AND locks.mode = 'RowExclusiveLock' AND locks.granted
  AND activity.usename = current_user AND activity.wait_event = 'ClientRead'
  AND activity.xact_start < now() - make_interval(secs => %s)
"""


class PostgresSink(DatabaseSink):
    """A table in a PostgreSQL database that gets every batch exactly once.

    The table must be there, and be an ordinary one (not UNLOGGED: a crash of the server empties
    those). The state tables are made, if the user may; docs/BUFFER.md has their definition. Nothing
    is connected before ``open()``, the ``with`` block or the first call.

    Args:
        conninfo: libpq's connection string or URL.
        table: Where the rows go; ``schema.table`` or a name on the search path, in the case that
            the catalogue has.
        columns: Of what to_rows returns, in its order.
        to_rows: (entry, its Metadata or None) -> rows.
        state_table: Where the sequence is kept; its name with ``_identities`` is the other one.
        name: Which state row; the table's name unless given.
        queue: What the queue is called, any text. It is kept in the row when that is made; another
            queue with the same row is then a ``PairingError`` instead of a hole.
        dedupe_retention: How long identities are kept; a timedelta or seconds.
        stall_timeout: A sink that is frozen in mid-transaction is thrown out by the server after so
            long; in the middle of a COPY by whoever waits for its row, after twice that. A
            timedelta or seconds.

    Raises:
        DatabaseError: The package psycopg is missing.

    Example::

        def to_rows(entry, metadata):
            order = json.loads(entry)
            yield order["id"], order["amount"]


        with PostgresSink("dbname=shop", "orders", ["id", "amount"], to_rows) as sink:
            with Consumer.open(config, sink.start_sequence()) as consumer:
                for batch in consumer.batches():
                    sink.write(batch)
                    consumer.ack(batch.sequence)
    """

    def __init__(
        self,
        conninfo: str,
        table: str,
        columns: Sequence[str],
        to_rows: ToRows,
        *,
        state_table: str = "walengine_state",
        name: str | None = None,
        queue: str | None = None,
        dedupe_retention: timedelta | float = DEDUPE_RETENTION,
        stall_timeout: timedelta | float = STALL_TIMEOUT,
    ) -> None:
        columns = checked_columns(columns)
        stall = from_code("stall_timeout", stall_timeout)
        if stall < timedelta(milliseconds=1):
            raise ValueError("stall_timeout must be a millisecond or more")
        database = PostgresDatabase(
            conninfo, table, columns, state_table, name or table, queue,
            stall // timedelta(milliseconds=1),
        )  # fmt: skip
        super().__init__(database, to_rows, columns, queue=queue, dedupe_retention=dedupe_retention)


class AsyncPostgresSink(AsyncDatabaseSink):
    """The asynchronous twin of PostgresSink, with the same arguments; a thread does the work."""

    def __init__(
        self,
        conninfo: str,
        table: str,
        columns: Sequence[str],
        to_rows: ToRows,
        *,
        state_table: str = "walengine_state",
        name: str | None = None,
        queue: str | None = None,
        dedupe_retention: timedelta | float = DEDUPE_RETENTION,
        stall_timeout: timedelta | float = STALL_TIMEOUT,
    ) -> None:
        super().__init__(
            PostgresSink(
                conninfo, table, columns, to_rows, state_table=state_table, name=name, queue=queue,
                dedupe_retention=dedupe_retention, stall_timeout=stall_timeout,
            )
        )  # fmt: skip


class PostgresDatabase:
    """The port's steps in PostgreSQL.

    Attributes:
        where: For messages.
        failures: What the driver raises; UnicodeError for text that is none.
    """

    def __init__(
        self,
        conninfo: str,
        table: str,
        columns: Sequence[str],
        state_table: str,
        name: str,
        queue: str | None,
        stall_timeout_ms: int,
    ) -> None:
        self._psycopg = _import_psycopg()
        self.failures: tuple[type[Exception], ...] = (self._psycopg.Error, UnicodeError)
        self._conninfo = _parsed(conninfo)
        checked_name("table", table)
        checked_name("state_table", state_table)
        self._tables = Tables(table, tuple(columns), state_table, state_table + IDENTITIES)
        self._name = checked_name("name", name)
        self._queue = queue
        self._stall_timeout_ms = stall_timeout_ms
        self._connection: psycopg.Connection[Any] | None = None
        shown = " ".join(
            f"{key}={self._conninfo[key]}" for key in SHOWN_OF_CONNINFO if self._conninfo.get(key)
        )
        self.where = f"postgresql{f' {shown}' if shown else ''} table {table}"

    @property
    def lost(self) -> bool:
        """Whether the connection is closed."""
        return self._connection is None or self._connection.closed

    def open(self) -> None:
        """Connect, if that is lost."""
        if not self.lost:
            return
        self.close()
        # Prepared statements are a session's, which a pooler may change under us.
        connection = self._psycopg.connect(**self._conninfo, prepare_threshold=None)
        try:
            # Whatever the role's default is: above it, a row that was moved is an error of its own.
            connection.isolation_level = self._psycopg.IsolationLevel.READ_COMMITTED
            for warning in check_server(connection):
                log.warning("%s: %s", self.where, warning)
            prepare_tables(connection, self._tables)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def read_state(self) -> Stored | None:
        """Return the state row."""
        row = self._one("SELECT sequence, queue FROM {state} WHERE sink = %s", self._name)
        self._open_connection.commit()
        return None if row is None else Stored(*row)

    def begin(self) -> None:
        """Begin a transaction, with its settings."""
        stall_ms = self._stall_timeout_ms
        settings = (f"{stall_ms}ms", f"{LOCK_TIMEOUT_FACTOR * stall_ms}ms")
        self._open_connection.execute(SETTINGS, settings)

    def insert_state(self, sequence: int) -> bool:
        """Make the state row."""
        return self._first(
            "INSERT INTO {state} (sink, queue, sequence) VALUES (%s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            self._name, self._queue, sequence,
        )  # fmt: skip

    def move_state(self, known: int, sequence: int) -> bool:
        """Move the state row if it is still at known."""
        return self._first(
            "UPDATE {state} SET sequence = %s WHERE sink = %s AND sequence = %s",
            sequence, self._name, known,
        )  # fmt: skip

    def remember(self, identity: str, sequence: int) -> bool:
        """Store an identity."""
        return self._changes(
            "INSERT INTO {identities} (sink, identity, sequence) VALUES (%s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            self._name, identity, sequence,
        )  # fmt: skip

    def forget(self, older_than_s: float) -> None:
        """Delete old identities, by the server's clock."""
        self._changes(
            "DELETE FROM {identities} WHERE (sink, identity) IN "
            "(SELECT sink, identity FROM {identities} WHERE sink = %s "
            "AND stored_at < now() - make_interval(secs => %s) LIMIT %s)",
            self._name, older_than_s, FORGOTTEN_AT_ONCE,
        )  # fmt: skip

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Insert rows by COPY."""
        statement = self._tables.statement("COPY {table} ({columns}) FROM STDIN")
        with self._open_connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def commit(self) -> None:
        """Commit."""
        self._open_connection.commit()

    def rollback(self) -> None:
        """Roll back; the server does so itself when the connection is lost."""
        if self._connection is None:
            return
        try:
            self._connection.rollback()
        except self._psycopg.Error:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._psycopg.Error):
                connection.close()

    @property
    def _open_connection(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            raise self._psycopg.OperationalError("the connection was lost")
        return self._connection

    def _one(self, statement: str, *values: object) -> Any:
        return self._open_connection.execute(self._tables.statement(statement), values).fetchone()

    def _first(self, statement: str, *values: object) -> bool:
        """Do the transaction's first change; whoever holds the row and does nothing is ended."""
        try:
            return self._changes(statement, *values)
        except self._psycopg.errors.LockNotAvailable:
            self.rollback()
        connection = self._open_connection
        state = self._tables.statement("{state}").as_string(connection)
        stall_s = self._stall_timeout_ms / 1000
        (ended,) = connection.execute(EVICT, (state, stall_s)).fetchone() or (0,)
        connection.commit()
        log.warning("%s: another sink holds the state row; sessions ended: %d", self.where, ended)
        self.begin()
        return self._changes(statement, *values)

    def _changes(self, statement: str, *values: object) -> bool:
        cursor = self._open_connection.execute(self._tables.statement(statement), values)
        return cursor.rowcount == 1


def _import_psycopg() -> Any:
    try:
        import psycopg  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise DatabaseError(
            f"PostgreSQL needs the package psycopg ({error}): pip install 'walengine[postgres]'"
        ) from None
    return psycopg


def _parsed(conninfo: str) -> dict[str, Any]:
    """Return the connection's parameters; what cannot be parsed may be a password."""
    if not isinstance(conninfo, str):
        raise TypeError(f"conninfo must be a str, not {type(conninfo).__name__}")
    from psycopg import ProgrammingError, conninfo as parsing  # noqa: I001, PLC0415 (an extra)

    try:
        found: dict[str, Any] = dict(parsing.conninfo_to_dict(conninfo))
    except ProgrammingError:
        raise ValueError(
            "conninfo must be like 'host=… dbname=… user=…' or postgresql://user@host/dbname"
        ) from None
    return {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "walengine"} | found


for _sink in (PostgresSink, AsyncPostgresSink):
    _sink.__module__ = "walengine.buffer"
