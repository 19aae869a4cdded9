"""The two databases behind one face, for tests that hold for every sink."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from postgres_server import PostgresServer, fresh_database

from walengine.buffer.database import PostgresSink, SqliteSink
from walengine.buffer.entry import Metadata
from walengine.buffer.location import BatchNamer

COLUMNS = ["sequence", "number", "text"]
ENTRIES = 3


@dataclass(frozen=True)
class FakeBatch:
    """What a consumer hands over."""

    sequence: int
    entries: Sequence[bytes]
    location: str
    metadata: Sequence[Metadata] = field(default=())


def batch(sequence: int, identity: str | None = None, *, content: int | None = None) -> FakeBatch:
    """The batch that has this place; content says whose entries it has, if another's."""
    namer = BatchNamer("ingest")
    name = namer.restamp(identity or identity_for(sequence))
    content = sequence if content is None else content
    entries = [b"%d %d" % (content, number) for number in range(ENTRIES)]
    return FakeBatch(sequence, entries, name.location, [Metadata(0, 1000 + content, b"m")])


def identity_for(sequence: int) -> str:
    return f"{sequence:016d}"


def to_rows(entry: bytes, metadata: Metadata | None) -> list[tuple[int, int, str]]:
    content, number = entry.split()
    assert metadata is not None
    return [(int(content), int(number), f"at {metadata.ingestion_time_ms}")]


def rows_for(*contents: int) -> list[tuple[int, int, str]]:
    return [(i, number, f"at {1000 + i}") for i in contents for number in range(ENTRIES)]


class SqlitePlace:
    """A SQLite database with an empty table."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.execute(f"CREATE TABLE rows ({COLUMNS[0]} INTEGER, number INTEGER, text TEXT)")

    def sink(self, rows: Callable[..., Any] = to_rows, **options: Any) -> SqliteSink:
        return SqliteSink(self.path, "rows", COLUMNS, rows, **options)

    def execute(self, statement: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement.replace("%s", "?"), values).fetchall()

    def back_up(self) -> Callable[[], None]:
        """Copy everything; what is returned puts it back, under another inode."""
        copy = self.path.with_suffix(".backup")
        with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(copy)) as to:
            source.backup(to)
        return lambda: copy.replace(self.path)

    def age_identities(self, days: int) -> None:
        self.execute(
            f"UPDATE walengine_state_identities SET stored_at = stored_at - {days * 86400}"
        )


class PostgresPlace:
    """A PostgreSQL database with an empty table."""

    kind = "postgres"

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.name = fresh_database(server)
        self.execute(f"CREATE TABLE rows ({COLUMNS[0]} bigint, number bigint, text text)")

    @property
    def conninfo(self) -> str:
        return self.server.conninfo(self.name)

    def sink(self, rows: Callable[..., Any] = to_rows, **options: Any) -> PostgresSink:
        return PostgresSink(self.conninfo, "rows", COLUMNS, rows, **options)

    def execute(self, statement: str, *values: object) -> list[tuple]:
        return self.server.execute(statement, *values, database=self.name)

    def back_up(self) -> Callable[[], None]:
        copy = self.name + "_backup"
        self.server.execute(f"CREATE DATABASE {copy} TEMPLATE {self.name} STRATEGY FILE_COPY")

        def restore() -> None:
            self.server.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
            self.server.execute(f"ALTER DATABASE {copy} RENAME TO {self.name}")

        return restore

    def age_identities(self, days: int) -> None:
        self.execute(
            f"UPDATE walengine_state_identities SET stored_at = stored_at - interval '{days} days'"
        )

    def drop(self) -> None:
        self.server.execute(f"DROP DATABASE {self.name} WITH (FORCE)")


Place = SqlitePlace | PostgresPlace


def rows_in(place: Place) -> list[tuple]:
    return place.execute("SELECT sequence, number, text FROM rows ORDER BY sequence, number")


def state_of(place: Place, name: str = "rows") -> int | None:
    found = place.execute("SELECT sequence FROM walengine_state WHERE sink = %s", name)
    return found[0][0] if found else None


# ---- failing at a chosen step --------------------------------------------------------------------

STEPS = ("begin", "move", "remember", "forget", "write_rows", "commit")


class Faulty:
    """A database that does something else before or behind one of its steps, once.

    Args:
        database: The real one.
        step: One of STEPS; "move" is whichever of the two it is.
        act: What happens; it may raise.
        behind: After the step was done instead of before.
    """

    def __init__(
        self, database: Any, step: str, act: Callable[[], None], *, behind: bool = False
    ) -> None:
        self._database = database
        self._step = {"move": "move_state"}.get(step, step)
        self._act: Callable[[], None] | None = act
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._database, name)
        step = "move_state" if name == "insert_state" else name
        if step != self._step or self._act is None:
            return found

        def failing(*arguments: Any) -> Any:
            act, self._act = self._act, None
            if act is None:
                return found(*arguments)  # it was called before, and is tried again
            if self._behind:
                result = found(*arguments)
                act()
                return result
            act()
            return found(*arguments)

        return failing


def break_at(sink: Any, step: str, act: Callable[[], None], *, behind: bool = False) -> None:
    """Have a sink's database act at a step of its next transaction."""
    sink._database = Faulty(sink._database, step, act, behind=behind)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def write_and_break(
    make: tuple[str, str], sequence: int, step: str, behind: bool, how: str, options: dict[str, Any]
) -> None:
    """The body of a process: write one batch, and die or freeze at a step. Prints nothing.

    Args:
        make: ("sqlite", path) or ("postgres", conninfo).
        sequence: Of the batch.
        step: Where: one of STEPS, or "copy" for the middle of the rows.
        behind: After it.
        how: "die" or "freeze".
        options: The sink's.
    """
    kind, where = make
    sink = (SqliteSink if kind == "sqlite" else PostgresSink)(
        where, "rows", COLUMNS, to_rows, **options
    )
    sink.start_sequence()
    act = die if how == "die" else freeze
    if step == "copy":
        write_rows = sink._database.write_rows
        sink._database.write_rows = lambda rows: write_rows(interrupted(rows, act))
    else:
        break_at(sink, step, act, behind=behind)
    try:
        sink.write(batch(sequence))
    except Exception:  # noqa: BLE001 (the test looks at the exit code)
        # It was frozen and something went on without it: the same batch again, as users are told.
        os._exit(20 + sink.write(batch(sequence)))
    os._exit(10)


def interrupted(rows: Sequence[Any], act: Callable[[], None]) -> Iterator[Any]:
    """Yield the rows; act behind the first one."""
    for index, row in enumerate(rows):
        if index == 1:
            act()
        yield row


def target_of(place: Place) -> tuple[str, str]:
    return (place.kind, str(place.path) if isinstance(place, SqlitePlace) else place.conninfo)


def backends(place: PostgresPlace) -> list[int]:
    """The process ids of the sinks' sessions."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'walengine'"
    return [pid for (pid,) in place.server.execute(query, place.name)]


def kill_backends(place: PostgresPlace) -> None:
    """End the sinks' sessions, and wait until they are gone."""
    for pid in backends(place):
        place.server.execute("SELECT pg_terminate_backend(%s, 10000)", pid)


def connect(place: PostgresPlace) -> psycopg.Connection[Any]:
    return psycopg.connect(place.conninfo)
