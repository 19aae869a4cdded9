"""Where ``consume`` puts entries: --into a database, a row each, exactly once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import click

from walengine.buffer import AsyncDatabaseSink, AsyncPostgresSink, AsyncSqliteSink
from walengine.buffer.database import Row, ToRows
from walengine.buffer.entry import Metadata
from walengine.buffer.errors import DatabaseError, QueueError
from walengine.cli._store import split_url

ROWS = ("text", "bytes", "json")
POSTGRES = ("postgresql", "postgres")


class EntryError(QueueError):
    """An entry cannot be a row of this kind."""


class Target(NamedTuple):
    """What the options say.

    Attributes:
        into: A SQLite file or a PostgreSQL URL.
        table: Its table.
        columns: The columns that are filled.
        rows: One of ROWS.
        create: Whether to make the table if there is none.
    """

    into: str
    table: str
    columns: tuple[str, ...]
    rows: str
    create: bool


def target_of(
    into: str, table: str | None, columns: str | None, rows: str, *, create: bool
) -> Target:
    """Return what the options say, checked.

    Raises:
        click.UsageError: They do not fit together.
    """
    if table is None:
        raise click.UsageError("--into needs --table NAME")
    names = tuple(name.strip() for name in (columns or "").split(",") if name.strip())
    if not names:
        raise click.UsageError("--into needs --columns NAME, or several with commas between")
    if rows != "json" and len(names) > 1:
        raise click.UsageError(
            f"--rows {rows} fills one column, and --columns names {len(names)}; --rows json "
            "takes entries that are JSON objects, a key for each column"
        )
    scheme = split_url("--into", into).scheme if "://" in into else ""
    if scheme not in {"", "sqlite", *POSTGRES}:
        raise click.UsageError(
            f"--into {scheme}://…: a SQLite file (PATH or sqlite:///PATH) or postgresql://…"
        )
    return Target(into, table, names, rows, create)


def sink_of(target: Target, queue: str, name: str | None) -> AsyncDatabaseSink:
    """Return the sink; with ``create`` the table is made now.

    Args:
        target: Where to.
        queue: The queue's name, kept beside the sequence.
        name: Of the state row, or None for the table's.

    Raises:
        click.UsageError: A name or the URL is wrong.
        DatabaseError: The table cannot be made, or psycopg is missing.
    """
    to_rows = _READERS[target.rows](target.columns)
    path = _sqlite_path(target.into)
    try:
        if path is not None:
            if target.create:
                _create_in_sqlite(path, target)
            return AsyncSqliteSink(
                path, target.table, target.columns, to_rows, name=name, queue=queue
            )
        if target.create:
            _create_in_postgres(target)
        return AsyncPostgresSink(
            target.into, target.table, target.columns, to_rows, name=name, queue=queue
        )
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--into: {error}") from None


def _sqlite_path(into: str) -> Path | None:
    if "://" not in into:
        return Path(into)
    parts = split_url("--into", into)
    if parts.scheme != "sqlite":
        return None
    if parts.netloc or parts.query or parts.fragment or parts.path in {"", "/"}:
        raise click.UsageError(
            f"--into {into}: three slashes, then the file's whole path; ? is written as %3F"
        )
    return Path(unquote(parts.path))


# ---- rows ----------------------------------------------------------------------------------------


def _text(_columns: Sequence[str]) -> ToRows:
    def rows(entry: bytes, _: Metadata | None) -> Iterator[Row]:
        try:
            yield (entry.decode().removesuffix("\n"),)
        except UnicodeDecodeError as error:
            raise EntryError(f"an entry is no UTF-8 ({error}): use --rows bytes") from None

    return rows


def _bytes(_columns: Sequence[str]) -> ToRows:
    return lambda entry, _: [(entry,)]


def _json(columns: Sequence[str]) -> ToRows:
    def rows(entry: bytes, _: Metadata | None) -> Iterator[Row]:
        try:
            value = json.loads(entry)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise EntryError("an entry is no JSON object")
        yield [_plain(value.get(name)) for name in columns]

    return rows


def _plain(value: Any) -> Any:
    """Return what a column can hold: what is nested stays JSON."""
    nested = isinstance(value, (dict, list))
    return json.dumps(value, ensure_ascii=False) if nested else value


_READERS: dict[str, Callable[[Sequence[str]], ToRows]] = {
    "text": _text,
    "bytes": _bytes,
    "json": _json,
}


# ---- making the table ----------------------------------------------------------------------------


def _create_in_sqlite(path: Path, target: Target) -> None:
    kind = "BLOB" if target.rows == "bytes" else ""  # without one, a column keeps what it is given
    columns = ", ".join(f"{_quoted(name)} {kind}" for name in target.columns)
    statement = f"CREATE TABLE IF NOT EXISTS {_quoted(target.table)} ({columns})"
    if not path.absolute().parent.is_dir():
        raise DatabaseError(f"sqlite {path}: there is no directory {path.parent}: make it first")
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)
    except sqlite3.Error as error:
        raise DatabaseError(f"sqlite {path}: cannot make table {target.table}: {error}") from None


def _create_in_postgres(target: Target) -> None:
    try:
        import psycopg  # noqa: PLC0415 (an extra)
    except ImportError:
        return  # the sink says so
    kind = "bytea" if target.rows == "bytes" else "text"
    columns = ", ".join(f"{_quoted(name)} {kind}" for name in target.columns)
    table = ".".join(_quoted(part) for part in target.table.split(".", 1))
    try:
        with psycopg.connect(target.into, autocommit=True, connect_timeout=10) as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})".encode())
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:
            raise ValueError("that is no URL of a PostgreSQL database") from None
        raise DatabaseError(f"postgresql: cannot make table {target.table}: {error}") from None
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        raise DatabaseError(f"postgresql: cannot make table {target.table}: {text}") from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
