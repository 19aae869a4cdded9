"""Sinks whose processes are killed or frozen at every step, sinks that race, a server's crash."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from databases import (
    STEPS,
    PostgresPlace,
    SqlitePlace,
    backends,
    batch,
    break_at,
    connect,
    identity_for,
    kill_backends,
    rows_for,
    rows_in,
    state_of,
    target_of,
    write_and_break,
)

from walengine.buffer import DatabaseError, SequenceGapError

pytestmark = pytest.mark.not_quick

# Processes come from one that has this package loaded, and no threads: forking pytest is not safe.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["databases"])

FROZEN_SECONDS_MAX = 30


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, memory_path):
    if request.param == "sqlite":
        yield SqlitePlace(memory_path / "rows.db")
        return
    made = PostgresPlace(request.getfixturevalue("postgres_server"))
    yield made
    made.drop()


@pytest.fixture
def postgres(postgres_server):
    made = PostgresPlace(postgres_server)
    yield made
    made.drop()


def start(place, sequence, step, *, behind=False, how="die", **options):
    process = processes.Process(
        target=write_and_break, args=(target_of(place), sequence, step, behind, how, options)
    )
    process.start()
    return process


def wait_until_frozen(process):
    limit = time.monotonic() + FROZEN_SECONDS_MAX
    while True:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii")
        if stat.rpartition(")")[2].split()[0] == "T":
            return
        assert process.is_alive()
        assert time.monotonic() < limit
        time.sleep(0.005)


def thaw(process):
    """Let it go on; returns its exit code."""
    os.kill(process.pid, signal.SIGCONT)
    process.join()
    return process.exitcode


# ---- kill -9 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_at_any_step_leaves_all_or_nothing(place, step, behind, count):
    """Method: the first batch and the second die at this step; then a new sink goes on."""
    for sequence in range(2):
        process = start(place, sequence, step, behind=behind)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        committed = step == "commit" and behind
        assert rows_in(place) == rows_for(*range(sequence + committed))
        with place.sink() as sink:
            last = sequence if committed else sequence - 1
            assert sink.start_sequence() == (last if last >= 0 else None)
            assert sink.write(batch(sequence)) == (not committed)
    assert rows_in(place) == rows_for(0, 1)
    count(f"{place.kind}, steps killed at", 2 * len(STEPS) * 2)


@pytest.mark.parametrize("step", [*STEPS])
def test_a_backend_killed_at_any_step_leaves_nothing(postgres, step):
    """Goal: the session dies between two statements; the sink connects anew, on its own."""
    with postgres.sink() as sink:
        sink.write(batch(0))
        sink._transactions = 0
        break_at(sink, step, lambda: kill_backends(postgres))
        if step == "begin":
            # Nothing was under way: nobody needs to hear of it.
            assert sink.write(batch(1))
        else:
            with pytest.raises(DatabaseError) as caught:
                sink.write(batch(1))
            assert caught.value.unclear == (step == "commit")
            assert rows_in(postgres) == rows_for(0)
            assert sink.write(batch(1))
    assert rows_in(postgres) == rows_for(0, 1)


def test_a_commit_whose_answer_is_lost_is_found_out(postgres):
    with postgres.sink() as sink:

        def lose_the_answer():
            kill_backends(postgres)
            raise sink._database.failures[0]("server closed the connection unexpectedly")

        break_at(sink, "commit", lose_the_answer, behind=True)
        with pytest.raises(DatabaseError, match="cannot commit") as caught:
            sink.write(batch(0))
        assert caught.value.unclear
        assert not sink.write(batch(0))
        assert sink.write(batch(1))
    assert rows_in(postgres) == rows_for(0, 1)


def test_a_server_that_crashes_keeps_what_was_committed(postgres):
    """Method: an immediate shutdown between two batches, and one within a transaction."""
    server = postgres.server

    def crash():
        server.kill()
        server.start()

    with postgres.sink() as sink:
        sink.write(batch(0))
        crash()
        assert sink.write(batch(1))
        break_at(sink, "commit", crash)
        with pytest.raises(DatabaseError, match="cannot commit"):
            sink.write(batch(2))
        assert state_of(postgres) == 1
        assert sink.write(batch(2))
        server.kill()
        with pytest.raises(DatabaseError, match="cannot open it"):
            sink.write(batch(3))
        server.start()
        assert sink.write(batch(3))
    assert rows_in(postgres) == rows_for(0, 1, 2, 3)


# ---- zombies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["move", "remember", "copy", "write_rows"])
def test_a_zombie_in_mid_transaction_changes_nothing(postgres, step):
    """Method: frozen within its transaction, replaced, woken; the server has ended its session."""
    with postgres.sink() as sink:
        sink.write(batch(0))
    zombie = start(postgres, 1, step, behind=True, how="freeze", stall_timeout=0.5)
    wait_until_frozen(zombie)
    with postgres.sink(stall_timeout=1) as sink:
        assert sink.start_sequence() == 0
        assert sink.write(batch(1))
        assert sink.write(batch(2))
    # Told of the lost session, it tries the batch again, and finds that it is in.
    assert thaw(zombie) == 20
    assert rows_in(postgres) == rows_for(0, 1, 2)
    assert state_of(postgres) == 2


def test_a_zombie_that_wakes_before_its_transaction_changes_nothing(place):
    """Method: frozen when it knows the position and holds no lock."""
    with place.sink() as sink:
        sink.write(batch(0))
    zombie = start(place, 1, "begin", how="freeze")
    wait_until_frozen(zombie)
    with place.sink() as sink:
        assert sink.write(batch(1))
        assert sink.write(batch(2))
    assert thaw(zombie) == 10
    assert rows_in(place) == rows_for(0, 1, 2)
    assert state_of(place) == 2


@pytest.mark.parametrize("step", ["move", "write_rows", "commit"])
def test_a_frozen_writer_of_sqlite_is_waited_for_and_named(memory_path, step):
    """Goal: its lock cannot be taken away, so who comes behind says so, and both end well."""
    place = SqlitePlace(memory_path / "rows.db")
    with place.sink() as sink:
        sink.write(batch(0))
    zombie = start(place, 1, step, how="freeze")
    wait_until_frozen(zombie)
    with place.sink(lock_timeout=0.1) as sink:
        with pytest.raises(DatabaseError, match="database is locked"):
            sink.write(batch(1))
        assert thaw(zombie) == 10
        assert not sink.write(batch(1))
        assert sink.write(batch(2))
    assert rows_in(place) == rows_for(0, 1, 2)


@pytest.mark.parametrize("step", ["copy", "commit"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
def test_who_waits_for_a_frozen_sink_ends_its_session(postgres, step, first):
    """Goal: no timeout of the server's ends a session in mid-COPY, or one that has none."""
    sequence = 0 if first else 1
    with postgres.sink() as sink:
        if not first:
            sink.write(batch(0))
    zombie = start(postgres, sequence, step, how="freeze", stall_timeout=600)
    wait_until_frozen(zombie)
    with postgres.sink(stall_timeout=0.1) as sink:
        assert sink.write(batch(sequence))
        assert thaw(zombie) == 20
        assert sink.write(batch(sequence + 1))
    assert rows_in(postgres) == rows_for(*range(sequence + 2))


def test_a_sink_behind_one_that_works_gives_up_with_a_reason(postgres):
    """Method: a session that holds the row and is busy; it is none that waits for its client."""
    with postgres.sink() as sink:
        sink.write(batch(0))
    with connect(postgres) as blocker, postgres.sink(stall_timeout=0.05) as sink:
        blocker.execute("UPDATE walengine_state SET sequence = sequence")
        blocker.pgconn.send_query(b"SELECT pg_sleep(60)")
        with pytest.raises(DatabaseError, match="cannot move the sequence.*lock timeout"):
            sink.write(batch(1))
        blocker.cancel()
        blocker.pgconn.get_result()
        blocker.pgconn.get_result()
        blocker.rollback()
        assert sink.write(batch(1))
    assert rows_in(postgres) == rows_for(0, 1)


# ---- races ---------------------------------------------------------------------------------------


def test_two_sinks_that_race_write_each_batch_once(place, scaled, count):
    batches = scaled(40)
    wrote = [0, 0]
    trouble = []

    def feed(index):
        try:
            with place.sink() as sink:
                for i in range(batches):
                    wrote[index] += sink.write(batch(i))
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            trouble.append(error)

    threads = [threading.Thread(target=feed, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert sum(wrote) == batches
    assert rows_in(place) == rows_for(*range(batches))
    count(f"{place.kind}, batches raced for", batches)


def test_sinks_that_start_at_once_make_the_state_tables_once(place):
    trouble = []

    def begin(index):
        try:
            with place.sink(name=f"sink {index}") as sink:
                sink.start_sequence()
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            trouble.append(error)

    threads = [threading.Thread(target=begin, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []


# ---- random histories ----------------------------------------------------------------------------


def test_random_histories_end_with_every_row_once(place, seed, scaled, count):
    """Method: two sinks by turns; errors at random steps, new sinks, batches appended twice.

    The queue is a list of contents: what a producer could not know it appended stands there twice.
    """
    histories = scaled(20 if place.kind == "sqlite" else 8)
    count(f"{place.kind}, histories", histories)
    count(f"{place.kind}, steps of histories", live_through(place, histories, seed))


def live_through(place, histories, seed, spoil=lambda sink: sink):
    """Play histories and check each; returns the calls made. spoil makes a sink a mutant."""
    generator = random.Random(seed)
    steps = 0
    for history in range(histories):
        length = 12
        queue = [
            generator.randrange(max(i, 1)) if i and generator.random() < 0.2 else i
            for i in range(length)
        ]
        name = f"history {history}"
        steps += play(place, name, queue, generator, spoil)
        assert rows_in(place) == rows_for(*sorted(set(queue)))
        assert state_of(place, name) == length - 1
        place.execute("DELETE FROM rows")
    return steps


def play(place, name, queue, generator, spoil):
    """Feed the queue, from wherever each sink believes to be; returns the calls it took."""
    sinks = [spoil(place.sink(name=name)), spoil(place.sink(name=name))]
    positions = [0, 0]
    calls = 0
    stored = -1
    while min(positions) < len(queue):
        which = generator.randrange(2)
        sink, sequence = sinks[which], positions[which]
        calls += 1
        if generator.random() < 0.1:
            sink.close()
            sinks[which] = sink = spoil(place.sink(name=name))
            start = sink.start_sequence()
            positions[which] = sequence = 0 if start is None else start + 1
        if sequence == len(queue):
            continue
        if generator.random() < 0.4:
            failure = sink._database.failures[0]

            def fail(failure=failure):
                raise failure("injected")

            sink._transactions = 0
            break_at(sink, generator.choice(STEPS), fail, behind=generator.random() < 0.5)
        try:
            content = queue[sequence]
            sink.write(batch(sequence, identity_for(content), content=content))
        except DatabaseError:
            continue
        finally:
            before, now = stored, state_of(place, name)
            stored = -1 if now is None else now
        assert stored >= before
        positions[which] += 1
    for sink in sinks:
        sink.close()
    return calls


class Mutant:
    """A database with one deliberate mistake."""

    def __init__(self, database):
        self._database = database

    def __getattr__(self, name):
        return getattr(self._database, name)


class AnyPosition(Mutant):
    """The row is moved whatever it says."""

    def move_state(self, _, sequence):
        return self._database.move_state(self._database.read_state().sequence, sequence)


class NoIdentity(Mutant):
    """Identities are stored, and nobody looks."""

    def remember(self, identity, sequence):
        self._database.remember(identity, sequence)
        return True


class PositionFirst(Mutant):
    """The position is a transaction of its own, and the rows another."""

    def move_state(self, known, sequence):
        moved = self._database.move_state(known, sequence)
        self._database.commit()
        self._database.begin()
        return moved


class RowsFirst(Mutant):
    """The rows are a transaction of their own, and position and identity another."""

    def remember(self, *identity):
        self._identity = identity
        return self._database.remember(*identity)

    def write_rows(self, rows):
        database, (identity, sequence) = self._database, self._identity
        database.rollback()
        database.begin()
        database.write_rows(rows)
        database.commit()
        database.begin()
        if not database.move_state(sequence - 1, sequence):
            database.insert_state(sequence)
        database.remember(identity, sequence)


@pytest.mark.parametrize("mutant", [AnyPosition, NoIdentity, PositionFirst, RowsFirst])
def test_random_histories_find_deliberate_mistakes(memory_path, seed, mutant):
    """Goal: a suite that cannot fail proves nothing."""

    def spoil(sink):
        sink._database = mutant(sink._database)
        return sink

    place = SqlitePlace(memory_path / "rows.db")
    with pytest.raises((AssertionError, SequenceGapError)):
        live_through(place, 60, seed, spoil)


def test_the_backends_of_closed_sinks_are_gone(postgres):
    """Negative control of what the tests above look at, and no connection is left behind."""
    with postgres.sink():
        assert len(backends(postgres)) == 1
    limit = time.monotonic() + FROZEN_SECONDS_MAX
    while backends(postgres):
        assert time.monotonic() < limit
        time.sleep(0.01)
