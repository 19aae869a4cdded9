"""PostgreSQL's side of opening: is this a server and a table that keep what is committed?

The checks read the catalogue, which every role may: a sink needs INSERT on its table and no SELECT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

__all__ = ["Tables", "check_server", "prepare_tables"]

ORDINARY, PARTITIONED = "r", "p"
PERMANENT = "p"
UNLOGGED = "u"

# So that two sinks that start at once do not make the tables at once, which is an error.
ADVISORY_LOCK = 0x77616C656E67

MAKE_STATE = """
CREATE TABLE IF NOT EXISTS {state} (
    sink text PRIMARY KEY,
    queue text,
    sequence bigint NOT NULL
)
"""
MAKE_IDENTITIES = """
CREATE TABLE IF NOT EXISTS {identities} (
    sink text NOT NULL,
    identity text NOT NULL,
    sequence bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, identity)
)
"""
MAKE_INDEX = "CREATE INDEX ON {identities} (sink, stored_at)"


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of a sink's tables.

    Attributes:
        table: Where the rows go; with its schema before a dot, or without.
        columns: Of the rows.
        state: The state table.
        identities: The table of identities.
    """

    table: str
    columns: tuple[str, ...]
    state: str
    identities: str

    def statement(self, text: str) -> Composed:
        """Return a statement with the names put in, quoted."""
        from psycopg import sql  # noqa: PLC0415 (an extra)

        return sql.SQL(text).format(
            table=_identifier(self.table),
            columns=sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            state=_identifier(self.state),
            identities=_identifier(self.identities),
        )


def check_server(connection: psycopg.Connection[Any]) -> list[str]:
    """Return warnings about a server that forgets.

    Raises:
        psycopg.Error: It is a standby, which takes no writes.
    """
    query = "SELECT pg_is_in_recovery(), current_setting('fsync')"
    standby, fsync = connection.execute(query).fetchone() or (False, "on")
    if standby:
        raise _refusal("the server is a standby and takes no writes: name the primary")
    if fsync == "off":
        return ["the server's fsync is off: a power loss there takes what was committed"]
    return []


def prepare_tables(connection: psycopg.Connection[Any], tables: Tables) -> None:
    """Check the table of the rows, and make the state tables where there are none.

    Raises:
        psycopg.Error: Rows in the table would not last, or it cannot be written.
    """
    oid = _check_kept(connection, tables.table)
    if oid is None:
        raise _refusal(f"there is no table {tables.table}: make it first")
    query = (
        "SELECT attname::text FROM pg_attribute "
        "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
    )
    found = {name for (name,) in connection.execute(query, (oid,))}
    missing = [name for name in tables.columns if name not in found]
    if missing:
        raise _refusal(f"table {tables.table} has no column {missing[0]}")
    if _state_is_there(connection, tables):
        return
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
    if _state_is_there(connection, tables):
        return
    for text in (MAKE_STATE, MAKE_IDENTITIES, MAKE_INDEX):
        connection.execute(tables.statement(text))


def _state_is_there(connection: psycopg.Connection[Any], tables: Tables) -> bool:
    found = [_check_kept(connection, name) for name in (tables.state, tables.identities)]
    return None not in found


def _check_kept(connection: psycopg.Connection[Any], table: str) -> int | None:
    """Return the table's oid, or None where there is none; refuse one that a crash empties."""
    query = (
        "SELECT oid, relkind::text, relpersistence::text FROM pg_class WHERE oid = to_regclass(%s)"
    )
    row = connection.execute(query, (_identifier(table).as_string(connection),)).fetchone()
    if row is None:
        return None
    oid, kind, persistence = row
    if kind not in {ORDINARY, PARTITIONED}:
        raise _refusal(f"{table} is no ordinary table: its rows may be written elsewhere")
    if persistence != PERMANENT:
        what = "UNLOGGED: a crash of the server empties it" if persistence == UNLOGGED else "TEMP"
        raise _refusal(f"table {table} is {what}")
    return int(oid)


def _refusal(text: str) -> Exception:
    from psycopg import OperationalError  # noqa: PLC0415 (an extra)

    return OperationalError(text)


def _identifier(name: str) -> Any:
    from psycopg import sql  # noqa: PLC0415 (an extra)

    return sql.Identifier(*name.split(".", 1))
