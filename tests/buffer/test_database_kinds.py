"""What holds for one database only: how a commit is made durable, what is refused, who may what."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from databases import COLUMNS, PostgresPlace, SqlitePlace, batch, rows_for, rows_in, to_rows

from walengine.buffer import (
    AsyncPostgresSink,
    AsyncSqliteSink,
    DatabaseError,
    PostgresSink,
    SqliteSink,
)


@pytest.fixture
def sqlite(memory_path):
    return SqlitePlace(memory_path / "rows.db")


@pytest.fixture
def postgres(postgres_server):
    made = PostgresPlace(postgres_server)
    yield made
    made.drop()


# ---- SQLite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_commit_of_sqlite_is_synced(sqlite, journal):
    sqlite.execute(f"PRAGMA journal_mode = {journal}")
    with sqlite.sink() as sink:
        connection = sink._database._connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == (journal,)
        assert sink.write(batch(0))
    assert rows_in(sqlite) == rows_for(0)


@pytest.mark.parametrize("path", [":memory:", "", b"rows.db", "a\0b"])
def test_a_path_that_is_no_file_is_refused(path):
    with pytest.raises((ValueError, TypeError)):
        SqliteSink(path, "rows", COLUMNS, to_rows)


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    path = tmp_path / "none.db"
    with pytest.raises(DatabaseError, match="no such database: make it, with its table"):
        SqliteSink(path, "rows", COLUMNS, to_rows).open()
    assert not path.exists()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("this is a text and no database, whatever its length is" * 20)
    with pytest.raises(DatabaseError, match="file is not a database"):
        SqliteSink(path, "rows", COLUMNS, to_rows).open()


def test_names_with_marks_of_urls_are_files(memory_path):
    place = SqlitePlace(memory_path / "a b?c#d%41.db")
    with place.sink() as sink:
        assert sink.write(batch(0))
    assert rows_in(place) == rows_for(0)


def test_a_file_that_is_deleted_under_a_sink_is_missed(sqlite):
    with sqlite.sink() as sink:
        sink.write(batch(0))
        sqlite.path.unlink()
        with pytest.raises(DatabaseError, match="no such database"):
            sink.write(batch(1))


def test_a_reader_of_sqlite_does_not_stop_a_sink_for_good(sqlite):
    """Goal: with a rollback journal a reader holds up the commit; after it all is well."""
    with sqlite.sink(lock_timeout=0.1) as sink:
        sink.write(batch(0))
        with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM rows").fetchone()
            with pytest.raises(DatabaseError, match="cannot commit: database is locked"):
                sink.write(batch(1))
        assert sink.write(batch(1))
    assert rows_in(sqlite) == rows_for(0, 1)


# ---- PostgreSQL ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "used"), [("off", "on"), ("remote_apply", "remote_apply")])
def test_a_commit_waits_for_the_disk_whatever_the_role_says(postgres, asked, used):
    """Goal: on is the least; what is more than that is not taken back."""
    seen = []
    with PostgresSink(
        f"{postgres.conninfo} options='-c synchronous_commit={asked}'", "rows", COLUMNS, to_rows
    ) as sink:
        database = sink._database
        commit = database.commit

        def look():
            query = "SELECT current_setting('synchronous_commit')"
            seen.append(database._connection.execute(query).fetchone()[0])
            commit()

        database.commit = look
        sink.write(batch(0))
    assert seen == [used]


def test_a_role_that_wants_serializable_transactions_does_not_matter(postgres):
    conninfo = f"{postgres.conninfo} options='-c default_transaction_isolation=serializable'"
    barrier = threading.Barrier(2)
    wrote = []

    def feed():
        with PostgresSink(conninfo, "rows", COLUMNS, to_rows) as sink:
            barrier.wait()
            wrote.extend(sink.write(batch(i)) for i in range(20))

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(wrote), sum(wrote)) == (40, 20)
    assert rows_in(postgres) == rows_for(*range(20))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        ("CREATE UNLOGGED TABLE odd (sequence int)", "UNLOGGED: a crash of the server empties it"),
        ("CREATE VIEW odd AS SELECT * FROM rows", "odd is no ordinary table"),
    ],
)
def test_a_table_that_does_not_keep_its_rows_is_refused(postgres, make, text):
    postgres.execute(make)
    with pytest.raises(DatabaseError, match=text):
        PostgresSink(postgres.conninfo, "odd", ["sequence"], to_rows).open()
    with pytest.raises(DatabaseError, match=text):
        PostgresSink(postgres.conninfo, "rows", COLUMNS, to_rows, state_table="odd").open()


def test_a_partitioned_table_and_a_schema_will_do(postgres):
    postgres.execute("CREATE SCHEMA other")
    postgres.execute(
        "CREATE TABLE other.parts (sequence bigint, number bigint, text text) "
        "PARTITION BY LIST (sequence)"
    )
    postgres.execute("CREATE TABLE other.zero PARTITION OF other.parts FOR VALUES IN (0)")
    where = postgres.conninfo
    with PostgresSink(where, "other.parts", COLUMNS, to_rows, state_table="other.state") as sink:
        assert sink.write(batch(0))
        with pytest.raises(DatabaseError, match="no partition of relation"):
            sink.write(batch(1))
    assert postgres.execute("SELECT count(*) FROM other.zero") == [(3,)]
    assert postgres.execute("SELECT sink, sequence FROM other.state") == [("other.parts", 0)]


def test_a_role_needs_no_more_than_the_page_says(postgres, postgres_server):
    """Method: the tables are made by their owner, the sink's role may only insert into one."""
    role = f"feeder_{postgres.name}"
    with postgres.sink():
        pass
    postgres.execute(f"CREATE ROLE {role} LOGIN")
    postgres.execute(f"GRANT INSERT ON rows TO {role}")
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE ON walengine_state TO {role}")
    postgres.execute(f"GRANT SELECT, INSERT, DELETE ON walengine_state_identities TO {role}")
    try:
        conninfo = postgres.conninfo.replace("user=postgres", f"user={role}")
        with PostgresSink(conninfo, "rows", COLUMNS, to_rows) as sink:
            assert [sink.write(batch(i)) for i in range(2)] == [True, True]
        postgres.execute(f"REVOKE INSERT ON rows FROM {role}")
        refused = pytest.raises(DatabaseError, match="permission denied for table rows")
        with PostgresSink(conninfo, "rows", COLUMNS, to_rows) as sink, refused:
            sink.write(batch(2))
    finally:
        postgres.execute(f"DROP OWNED BY {role}")
        postgres.execute(f"DROP ROLE {role}")
    assert rows_in(postgres) == rows_for(0, 1)


def test_a_server_without_fsync_is_warned_of(postgres, monkeypatch, caplog):
    from walengine.buffer.database import _postgres_tables as tables  # noqa: PLC0415 (patched)

    connection = _Answering((False, "off"))
    assert "fsync is off" in tables.check_server(connection)[0]
    with pytest.raises(Exception, match="is a standby and takes no writes"):
        tables.check_server(_Answering((True, "on")))
    monkeypatch.setattr(
        "walengine.buffer.database.postgres.check_server", lambda _: ["the server's fsync is off"]
    )
    with caplog.at_level(logging.WARNING, "walengine.buffer"), postgres.sink():
        assert "fsync is off" in caplog.text


class _Answering:
    def __init__(self, row):
        self._row = row

    def execute(self, *_):
        return self

    def fetchone(self):
        return self._row


def test_a_password_is_shown_nowhere(postgres):
    secret = "s3cret-of-nobody"
    sink = PostgresSink(f"{postgres.conninfo} password={secret}", "none", COLUMNS, to_rows)
    with pytest.raises(DatabaseError) as caught:
        sink.open()
    assert secret not in str(caught.value) + repr(sink)
    with pytest.raises(ValueError, match="conninfo must be like") as caught:
        PostgresSink(f"host=x password={secret} {secret}", "rows", COLUMNS, to_rows)
    assert secret not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_server_that_is_not_there_is_named():
    sink = PostgresSink("host=/nonexistent dbname=shop", "rows", COLUMNS, to_rows)
    with pytest.raises(DatabaseError, match="postgresql host=/nonexistent dbname=shop table rows"):
        sink.open()


def test_without_psycopg_the_extra_is_named():
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from walengine.buffer import PostgresSink, DatabaseError\n"
        "try: PostgresSink('', 't', ['c'], print)\n"
        "except DatabaseError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"pip install 'walengine[postgres]'" in done.stdout


# ---- the asynchronous twins ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_twins_write_the_same(kind, request, run):
    place = request.getfixturevalue(kind)
    if kind == "sqlite":
        sink = AsyncSqliteSink(place.path, "rows", COLUMNS, to_rows, name="rows")
    else:
        sink = AsyncPostgresSink(place.conninfo, "rows", COLUMNS, to_rows, name="rows")

    async def feed():
        async with sink:
            assert await sink.start_sequence() is None
            assert await sink.write(batch(0))
            assert not await sink.write(batch(0))
            await sink.skip(1)
            assert await sink.write(batch(2))
            assert sink.stats().batches == 2
        await sink.aclose()
        with pytest.raises(DatabaseError, match="is closed"):
            await sink.write(batch(3))

    run(feed())
    assert rows_in(place) == rows_for(0, 2)


def test_cancelling_a_wait_cancels_no_write(sqlite, run):
    began, go_on = threading.Event(), threading.Event()

    def rows(entry, metadata):
        began.set()
        go_on.wait(30)
        return to_rows(entry, metadata)

    async def feed():
        async with AsyncSqliteSink(sqlite.path, "rows", COLUMNS, rows) as sink:
            task = asyncio.ensure_future(sink.write(batch(0)))
            await asyncio.to_thread(began.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            assert not await sink.write(batch(0))

    run(feed())
    assert rows_in(sqlite) == rows_for(0)


def test_a_twin_that_cannot_open_leaves_no_thread(tmp_path, run):
    async def feed():
        sink = AsyncSqliteSink(tmp_path / "none.db", "rows", COLUMNS, to_rows)
        with pytest.raises(DatabaseError, match="no such database"):
            await sink.__aenter__()

    run(feed())
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("walengine-database-sink")]


def test_a_close_that_is_cancelled_blocks_nobody_and_closes_behind_the_write(sqlite, run):
    began, go_on = threading.Event(), threading.Event()

    def rows(entry, metadata):
        began.set()
        assert go_on.wait(5), "the loop was blocked"
        return to_rows(entry, metadata)

    async def feed():
        sink = AsyncSqliteSink(sqlite.path, "rows", COLUMNS, rows)
        await sink.open()
        writing = asyncio.ensure_future(sink.write(batch(0)))
        await asyncio.to_thread(began.wait)
        closing = asyncio.ensure_future(sink.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        go_on.set()
        assert await writing
        await sink.aclose()
        assert sink._sink._database._connection is None

    run(feed())
    assert rows_in(sqlite) == rows_for(0)
