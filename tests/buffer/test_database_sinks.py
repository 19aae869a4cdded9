"""Both sinks, on the real databases: what is written once, by whom, and what an error leaves."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

import pytest
from databases import (
    COLUMNS,
    STEPS,
    FakeBatch,
    PostgresPlace,
    SqlitePlace,
    batch,
    break_at,
    identity_for,
    rows_for,
    rows_in,
    state_of,
    to_rows,
)

from walengine.buffer import (
    AckOrderError,
    DatabaseError,
    InvalidInputError,
    PairingError,
    SequenceGapError,
)
from walengine.buffer.entry import Metadata


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, memory_path):
    if request.param == "sqlite":
        yield SqlitePlace(memory_path / "rows.db")
        return
    made = PostgresPlace(request.getfixturevalue("postgres_server"))
    yield made
    made.drop()


# ---- what is written -----------------------------------------------------------------------------


def test_batches_become_rows_and_the_sequence_moves(place):
    with place.sink() as sink:
        assert sink.start_sequence() is None
        assert [sink.write(batch(i)) for i in range(3)] == [True] * 3
        assert sink.start_sequence() == 2
        stats = sink.stats()
    assert (stats.batches, stats.rows, stats.duplicates, stats.sequence) == (3, 9, 0, 2)
    assert rows_in(place) == rows_for(0, 1, 2)


def test_the_next_sink_goes_on_where_the_last_one_was(place):
    with place.sink() as sink:
        sink.write(batch(7))
    with place.sink() as sink:
        assert sink.start_sequence() == 7
        assert sink.write(batch(8))
    assert rows_in(place) == rows_for(7, 8)


def test_a_batch_that_is_in_the_table_is_left_out(place):
    with place.sink() as sink:
        assert sink.write(batch(0))
        assert not sink.write(batch(0))
        assert sink.write(batch(1))
        assert not sink.write(batch(0))
        assert sink.stats().duplicates == 2
    assert rows_in(place) == rows_for(0, 1)


def test_a_known_identity_moves_the_sequence_and_writes_nothing(place):
    """Goal: what a producer appended twice, for it could not know, is in the table once."""
    with place.sink() as sink:
        sink.write(batch(0))
        assert not sink.write(batch(1, identity_for(0), content=0))
        assert sink.start_sequence() == 1
        assert sink.write(batch(2))
    assert rows_in(place) == rows_for(0, 2)


def test_a_foreign_location_is_an_identity_too(place):
    with place.sink() as sink:
        first = FakeBatch(0, [b"0 0"], "ingest/01RUN/0000000000000001", [Metadata(0, 1000, b"")])
        again = FakeBatch(1, first.entries, first.location, first.metadata)
        other = FakeBatch(2, first.entries, "ingest/01RUN/0000000000000002", first.metadata)
        assert [sink.write(each) for each in (first, again, other)] == [True, False, True]
    assert rows_in(place) == [(0, 0, "at 1000")] * 2


def test_identities_are_forgotten_after_their_time(place):
    with place.sink(dedupe_retention=timedelta(days=30)) as sink:
        sink.write(batch(0))
        place.age_identities(29)
        sink.write(batch(1))
    with place.sink(dedupe_retention=timedelta(days=30)) as sink:
        assert not sink.write(batch(2, identity_for(0), content=0))
    place.age_identities(2)
    with place.sink(dedupe_retention=timedelta(days=30)) as sink:
        sink.write(batch(3))
        assert sink.write(batch(4, identity_for(0), content=4))
        assert not sink.write(batch(5, identity_for(1), content=1))


def test_entries_may_become_no_row_or_many(place):
    def rows(entry, _):
        return [[int(entry), i, None] for i in range(int(entry))]

    with place.sink(rows) as sink:
        sink.write(FakeBatch(0, [b"0", b"2", b"1"], "a/b"))
        sink.write(FakeBatch(1, [b"0"], "a/c"))
        sink.write(FakeBatch(2, [], "a/d"))
        assert sink.start_sequence() == 2
    assert rows_in(place) == [(1, 0, None), (2, 0, None), (2, 1, None)]


def test_each_entry_gets_the_metadata_that_covers_it(place):
    def rows(entry, metadata):
        yield int(entry), -1, None if metadata is None else metadata.payload.decode()

    covered = [Metadata(0, 1, b"a"), Metadata(0, 2, b"b"), Metadata(2, 3, b"c")]
    with place.sink(rows) as sink:
        sink.write(FakeBatch(0, [b"0", b"1", b"2", b"3"], "a/b", covered))
        sink.write(FakeBatch(1, [b"4"], "a/c"))
    assert [row[2] for row in rows_in(place)] == ["b", "b", "c", "c", None]


# ---- order ---------------------------------------------------------------------------------------


def test_a_batch_that_was_passed_over_is_an_error(place):
    with place.sink() as sink:
        sink.write(batch(0))
        with pytest.raises(AckOrderError, match="batch 2 does not follow 0") as caught:
            sink.write(batch(2))
        assert caught.value.sequence == 2
        assert sink.write(batch(1))
    assert rows_in(place) == rows_for(0, 1)


def test_skipping_moves_over_what_the_consumer_left_out(place):
    with place.sink() as sink:
        sink.write(batch(0))
        sink.skip(4)
        sink.skip(3)
        assert state_of(place) == 4
        assert sink.write(batch(5))
        assert not sink.write(batch(2))
    assert rows_in(place) == rows_for(0, 5)


@pytest.mark.parametrize("sequence", [-1, 1 << 63])
def test_a_sequence_that_no_table_can_hold_is_refused(place, sequence):
    with place.sink() as sink, pytest.raises(InvalidInputError, match="sequence"):
        sink.write(FakeBatch(sequence, [b"0 0"], "a/b"))


# ---- names ---------------------------------------------------------------------------------------


def test_sinks_of_other_names_have_their_own_state(place):
    with place.sink(name="one") as one, place.sink(name="two", state_table='odd; na"me') as two:
        one.write(batch(5))
        assert two.start_sequence() is None
        assert two.write(batch(5))
    assert rows_in(place) == sorted(rows_for(5, 5))


def test_another_queue_in_the_same_row_is_a_pairing_error(place):
    with place.sink(queue="file:///a ingest/manifest") as sink:
        sink.write(batch(0))
    with pytest.raises(PairingError, match="file:///a ingest/manifest.*file:///b"):
        place.sink(queue="file:///b ingest/manifest").open()
    with place.sink() as sink:
        assert sink.write(batch(1))


def test_names_are_quoted(place):
    place.execute('CREATE TABLE "Odd; ""Table" ("a b" text, "Ünï" text)')
    kind = type(place.sink())
    where = place.path if place.kind == "sqlite" else place.conninfo
    with kind(where, 'Odd; "Table', ["Ünï", "a b"], lambda e, _: [["1", e.decode()]]) as sink:
        sink.write(FakeBatch(0, [b"x"], "a/b"))
    assert place.execute('SELECT "a b", "Ünï" FROM "Odd; ""Table"') == [("x", "1")]


# ---- mistakes ------------------------------------------------------------------------------------


def test_a_to_rows_that_raises_leaves_everything_as_it_was(place):
    def rows(entry, _):
        raise KeyError(entry)

    with place.sink(rows) as sink:
        with pytest.raises(KeyError) as caught:
            sink.write(batch(0))
        assert "to_rows, of entry 0 of batch ingest/" in caught.value.__notes__[0]
        assert sink.start_sequence() is None
    assert rows_in(place) == []


@pytest.mark.parametrize(
    ("row", "error", "text"),
    [
        ((1, 2), ValueError, "a row of 2 values for 3 columns"),
        ("abc", TypeError, "rows: lists or tuples, not str"),
        (1, TypeError, "not int"),
    ],
)
def test_what_is_no_row_is_refused(place, row, error, text):
    with place.sink(lambda *_: [row]) as sink, pytest.raises(error, match=text):
        sink.write(batch(0))


def test_values_that_the_table_refuses_leave_everything_as_it_was(place):
    place.execute("CREATE UNIQUE INDEX one ON rows (number)")
    with place.sink(lambda *_: [(0, 0, "twice")]) as sink:
        with pytest.raises(DatabaseError, match="cannot write the rows of batch 0: ") as caught:
            sink.write(batch(0))
        assert not caught.value.unclear
        assert caught.value.__cause__ is not None
        assert sink.start_sequence() is None
    with place.sink(lambda *_: [(1 << 63, 0, "too large")]) as sink:
        with pytest.raises(DatabaseError, match="cannot write the rows"):
            sink.write(batch(0))
        assert sink.start_sequence() is None
    assert rows_in(place) == []


def test_text_that_cannot_be_encoded_is_the_databases_refusal(place):
    """JSON may hold half of a surrogate pair; no database does."""
    with place.sink(lambda *_: [(0, 0, "\ud800")]) as sink:
        with pytest.raises(DatabaseError, match=r"rows of batch 0.*surrogates") as raised:
            sink.write(batch(0))
        assert not raised.value.unclear
        assert sink.start_sequence() is None
    assert rows_in(place) == []


def test_a_table_or_a_column_that_is_not_there_is_said_at_opening(place):
    kind = type(place.sink())
    where = place.path if place.kind == "sqlite" else place.conninfo
    with pytest.raises(DatabaseError, match="there is no table none: make it first"):
        kind(where, "none", COLUMNS, to_rows).open()
    with pytest.raises(DatabaseError, match="table rows has no column none"):
        kind(where, "rows", ["none"], to_rows).open()


def test_arguments_are_checked_when_it_is_made(place):
    kind = type(place.sink())
    where = place.path if place.kind == "sqlite" else place.conninfo
    for columns, error in (("text", TypeError), ([], ValueError), (["a", "a"], ValueError)):
        with pytest.raises(error):
            kind(where, "rows", columns, to_rows)
    for options in (
        {"dedupe_retention": 0}, {"name": "a\0"}, {"state_table": "\0"},
        {"lock_timeout": -1} if place.kind == "sqlite" else {"stall_timeout": 0},
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            kind(where, "rows", COLUMNS, to_rows, **options)


def test_a_closed_sink_says_so_and_closing_twice_is_once(place):
    sink = place.sink()
    sink.close()
    sink.close()
    with pytest.raises(DatabaseError, match="is closed: make a new one"):
        sink.start_sequence()


@pytest.mark.parametrize("call", ["write", "skip", "start_sequence", "close"])
def test_a_call_in_the_middle_of_another_is_refused(place, call):
    """to_rows may come back, and a signal's handler anywhere: neither hangs, nor mixes the two."""
    arguments = {"write": (batch(0),), "skip": (0,)}.get(call, ())
    refused = []

    def back(entry, metadata):
        with pytest.raises(DatabaseError, match="in the middle of another call") as raised:
            getattr(sink, call)(*arguments)
        refused.append(raised.value)
        return to_rows(entry, metadata)

    with place.sink(back) as sink:
        writing = threading.Thread(target=sink.write, args=(batch(0),), daemon=True)
        writing.start()
        writing.join(10)
        assert not writing.is_alive()
        assert len(refused) == len(batch(0).entries)
    assert rows_in(place) == rows_for(0)


def test_a_sink_does_not_survive_a_fork(place):
    with place.sink() as sink:
        sink.write(batch(0))
        sink._pid = os.getpid() + 1  # as the child of a fork would see it
        with pytest.raises(DatabaseError, match="which was forked"):
            sink.write(batch(1))
        sink.close()
        sink._pid = os.getpid()
        assert sink.write(batch(1))


# ---- errors at every step ------------------------------------------------------------------------


class OwnError(BaseException):
    """What is no error of a database: Ctrl-C, or a bug."""


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
@pytest.mark.parametrize("step", STEPS)
def test_an_error_at_any_step_loses_and_doubles_nothing(place, step, first, behind):
    """Goal: after it, the same sink takes the same batch, and it is in the table once."""
    if not first:
        with place.sink() as sink:
            sink.write(batch(0))
    sequence = 0 if first else 1
    with place.sink() as sink:
        for failure in (sink._database.failures[0], OwnError):

            def fail(failure=failure):
                raise failure("injected")

            sink._transactions = 0  # it forgets in every hundredth one
            break_at(sink, step, fail, behind=behind)
            with pytest.raises((DatabaseError, OwnError)) as caught:
                sink.write(batch(sequence))
            if isinstance(caught.value, DatabaseError):
                assert caught.value.unclear == (step == "commit")
                assert "injected" in str(caught.value)
            committed = step == "commit" and behind
            assert sink.write(batch(sequence)) == (not committed)
            sequence += 1
    assert rows_in(place) == rows_for(*range(sequence))
    assert state_of(place) == sequence - 1


# ---- the database went back ----------------------------------------------------------------------


def test_a_sink_of_a_restored_database_begins_at_its_sequence(place):
    with place.sink() as sink:
        sink.write(batch(0))
    restore = place.back_up()
    with place.sink() as sink:
        sink.write(batch(1))
    restore()
    with place.sink() as sink:
        assert sink.start_sequence() == 0
        assert sink.write(batch(1))
    assert rows_in(place) == rows_for(0, 1)


def test_a_database_that_is_restored_under_a_sink_stops_it(place):
    with place.sink() as sink:
        sink.write(batch(0))
        sink.close()
    restore = place.back_up()
    with place.sink() as sink:
        sink.write(batch(1))
        restore()
        for _ in range(2):
            with pytest.raises((SequenceGapError, DatabaseError)) as caught:
                sink.write(batch(2))
        assert isinstance(caught.value, SequenceGapError)
        assert "had written up to sequence 1, and the state row says 0" in str(caught.value)
        assert sink.start_sequence() == 0
        assert sink.write(batch(1))
    assert rows_in(place) == rows_for(0, 1)


def test_a_state_row_that_is_gone_stops_a_running_sink(place):
    with place.sink() as sink:
        sink.write(batch(0))
        place.execute("DELETE FROM walengine_state")
        with pytest.raises(SequenceGapError, match="the state row is gone"):
            sink.write(batch(1))
    assert rows_in(place) == rows_for(0)
