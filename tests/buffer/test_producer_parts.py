"""The producer's decisions by themselves: no store, no loop, no time."""

import random

import pytest

from walengine.buffer._pace import ERROR_WAIT_MAX_S, ERROR_WAIT_MIN_S, Backoff, Pace
from walengine.buffer.entry import Listing
from walengine.buffer.location import BatchNamer, identity_of
from walengine.buffer.manifest import Manifest
from walengine.buffer.producer._forming import Batch, Forming
from walengine.buffer.producer._group import form_group
from walengine.buffer.producer._input import Input, Limits
from walengine.buffer.producer._room import Room
from walengine.buffer.producer._verdict import Attempt, Listed, Verdict, judge, verdict_on

NAMER = BatchNamer("ingest")
LIMITS = Limits(max_batch_bytes=1000, max_buffered_bytes=1000, max_listing_bytes=200)


def call(*entries, metadata=b""):
    return Input(entries, metadata, LIMITS)


def locations(count):
    return [NAMER.new().location for _ in range(count)]


def manifest_of(*names, gone=0):
    """A queue with these batches, of which the first ones were dequeued."""
    manifest = Manifest.empty("m").append([Listing(name) for name in names])
    return manifest.dequeue(gone - 1)


# ---- what an append of unclear outcome did -------------------------------------------------------

NAMES = locations(5)
a, b, c, x, y = NAMES
A, B, C, X, Y = map(identity_of, NAMES)

VERDICTS = [
    ("nobody was there yet", manifest_of(), (0, a), Verdict.TO_COME),
    ("the place is still to come", manifest_of(x), (1, a, b), Verdict.TO_COME),
    ("all of it is listed", manifest_of(x, a, b), (1, a, b), Verdict.HAPPENED),
    ("the first was dequeued", manifest_of(x, a, b, gone=2), (1, a, b), Verdict.HAPPENED),
    ("all was dequeued", manifest_of(x, a, b, gone=3), (1, a, b), Verdict.UNKNOWN),
    ("all was, and more came", manifest_of(x, a, b, y, gone=3), (1, a, b), Verdict.UNKNOWN),
    ("somebody else has the place", manifest_of(x, y), (1, a), Verdict.REFUTED),
    ("somebody else has the second", manifest_of(a, y), (0, a, b), Verdict.REFUTED),
    ("it is shorter than what was asked for", manifest_of(a), (0, a, b), Verdict.REFUTED),
    ("others are left behind it", manifest_of(x, y, gone=1), (0, a, b), Verdict.REFUTED),
]


@pytest.mark.parametrize(("manifest", "attempt", "verdict"), [row[1:] for row in VERDICTS],
                         ids=[row[0] for row in VERDICTS])  # fmt: skip
def test_a_look_decides(manifest, attempt, verdict):
    assert verdict_on(manifest, Attempt(attempt[0], attempt[1:])) is verdict


def test_a_listed_identity_is_found_wherever_it_is_and_under_whatever_name():
    old = NAMER.restamp(A).location
    judgement = judge(manifest_of(x, old), [Attempt(7, (a,))], {A})
    assert judgement.listed == {A: Listed(1, old, is_gone=False)}
    assert judgement.unknown == frozenset()


def test_the_batches_of_one_append_vouch_for_each_other():
    """Goal: a is not appended again behind b, though nothing but b is left to be seen."""
    judgement = judge(manifest_of(x, a, b, gone=2), [Attempt(1, (a, b))], {A, B})
    assert judgement.listed == {A: Listed(1, a, is_gone=True), B: Listed(2, b, is_gone=False)}
    assert (judgement.unknown, judgement.open) == (frozenset(), [])


def test_of_several_attempts_each_is_judged_by_itself():
    attempts = [Attempt(0, (a,)), Attempt(1, (a, b)), Attempt(3, (a, b, c))]
    judgement = judge(manifest_of(x, a, b), attempts, {A, B, C})
    assert judgement.listed.keys() == {A, B}
    assert judgement.open == [Attempt(3, (a, b, c))]


def test_what_was_dequeued_unseen_is_unknown_until_it_is_seen():
    attempts = [Attempt(0, (a,)), Attempt(1, (a, b))]
    unseen = judge(manifest_of(x, y, x, gone=3), attempts, {A, B})
    assert (unseen.listed, unseen.unknown, unseen.open) == ({}, {A, B}, [])
    seen = judge(manifest_of(x, y, x, a, gone=3), attempts, {A, B})
    assert (seen.listed.keys(), seen.unknown) == ({A}, {B})


def test_an_attempt_that_may_still_happen_stays_open():
    judgement = judge(manifest_of(), [Attempt(0, (a,))], {A})
    assert judgement == ({}, frozenset(), [Attempt(0, (a,))])


def test_judged_at_random_no_batch_is_taken_for_listed_that_is_not(seed, scaled, count):
    """Method: a queue that really happens: appends, some unclear, by two, and dequeues between."""
    chance = random.Random(seed)
    looks = 0
    for _ in range(scaled(300)):
        manifest, attempts, done = Manifest.empty("m"), [], set()
        mine = locations(6)
        for _ in range(chance.randrange(1, 12)):
            if chance.random() < 0.3:
                manifest = manifest.append([Listing(NAMER.new().location)])
            if chance.random() < 0.4:
                manifest = manifest.dequeue(chance.randrange(-1, manifest.next_sequence + 1))
            group = tuple(mine[: chance.randrange(1, 3)])
            attempts.append(Attempt(manifest.next_sequence, group))
            if chance.random() < 0.4:
                manifest = manifest.append([Listing(each) for each in group])
                done.update(map(identity_of, group))
            if chance.random() < 0.4:
                manifest = manifest.dequeue(chance.randrange(-1, manifest.next_sequence + 1))
            judgement = judge(manifest, attempts, set(map(identity_of, mine)))
            looks += 1
            visible = {identity_of(entry.location) for entry in manifest.entries()}
            assert judgement.listed.keys() <= done
            assert visible & done <= judgement.listed.keys()
            assert done <= judgement.listed.keys() | judgement.unknown
            if done:  # the next group begins behind what is done
                break
            attempts = judgement.open
    count("looks at random queues", looks)


# ---- groups --------------------------------------------------------------------------------------


def batch(*, stored=True, entries=(b"x",), metadata=b""):
    forming = Forming(LIMITS, 100)
    forming.add(call(*entries, metadata=metadata))
    made = Batch(forming, NAMER.new().identity, 0.0)
    made.name = NAMER.restamp(made.identity) if stored else None
    return made


def test_a_group_is_the_front_of_the_line_as_far_as_it_is_stored():
    line = [batch(), batch(), batch(stored=False), batch()]
    assert form_group(line, 10_000, lambda _: True) == (line[:2], [], False)
    assert form_group(line[2:], 10_000, lambda _: True) == ([], [], False)
    assert form_group([], 10_000, lambda _: True) == ([], [], False)


def test_a_stale_name_ends_the_group_and_all_of_them_are_renewed():
    line = [batch() for _ in range(5)]
    group = form_group(line, 10_000, lambda each: each not in (line[2], line[4]))
    assert group == (line[:2], [line[2], line[4]], False)


def test_a_group_fits_into_the_manifest():
    line = [batch(metadata=bytes(20)) for _ in range(3)]
    manifest = manifest_of(x)
    grown = len(manifest.append([line[0].listing()]).data) - len(manifest.data)
    assert [each.manifest_bytes() for each in line] == [grown] * 3
    for room_bytes, count in ((grown - 1, 0), (grown, 1), (3 * grown - 1, 2), (3 * grown, 3)):
        group = form_group(line, room_bytes, lambda _: True)
        assert group == (line[:count], [], count == 0)


# ---- the open batch ------------------------------------------------------------------------------


def test_an_open_batch_takes_calls_up_to_its_limits():
    forming = Forming(LIMITS, flush_size_bytes=500)
    assert not forming
    forming.add(call(bytes(400), metadata=bytes(100)))
    assert forming
    assert not forming.is_full, "the flush size has to be exceeded"
    assert forming.takes(call(bytes(592)))
    assert not forming.takes(call(bytes(593))), "block: 400 + 4 + 593 + 4"
    assert forming.takes(call(b"", metadata=bytes(68)))
    assert not forming.takes(call(b"", metadata=bytes(69))), "listing: 116 + 16 + 69"
    forming.add(call(b"x"))
    assert forming.is_full
    assert not forming.takes(call(b"x"))


def test_an_input_is_measured_as_batch_and_manifest_hold_it():
    made = call(b"abc", b"", metadata=b"xy")
    assert (made.size_bytes, made.block_bytes, made.listing_bytes) == (5, 11, 18)


def test_bytes_are_kept_and_all_else_is_copied():
    kept, changing = b"kept", bytearray(b"copied")
    made = call(kept, changing)
    assert made.entries[0] is kept
    assert type(made.entries[1]) is bytes


# ---- room ----------------------------------------------------------------------------------------


def test_three_things_take_room():
    room = Room(max_inputs=2, max_bytes=100)
    small, large = call(bytes(10)), call(bytes(90), metadata=bytes(11))
    assert room.has(small)
    assert not room.has(large)
    assert room.lacks_bytes(large)
    room.inputs = 2
    assert not room.has(small)
    assert not room.lacks_bytes(small)
    assert "max_buffered_inputs=2" in room.why_not(small)
    room.inputs, room.bytes = 1, 90
    assert room.has(small)
    room.bytes = 91
    assert not room.has(small)
    assert "max_buffered_bytes=100" in room.why_not(small)
    room.bytes, room.manifest_is_full = 0, True
    assert not room.has(small)
    assert "max_manifest_bytes" in room.why_not(small)
    room.reset(5)
    assert (room.inputs, room.bytes, room.manifest_is_full) == (0, 5, False)


# ---- pace ----------------------------------------------------------------------------------------


def test_three_retries_go_at_once_and_then_within_one_round_trip():
    pace = Pace(random.Random(1))
    pace.measured(0.1)
    waits = [pace.after_conflict() for _ in range(100)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert all(0.0 < wait < 0.1 for wait in waits[3:])
    assert len(set(waits)) == 98
    pace.succeeded()
    assert pace.after_conflict() == 0.0


def test_the_round_trip_is_smoothed():
    pace = Pace(random.Random(1))
    pace.measured(0.1)
    pace.measured(0.2)
    assert pace.round_trip_s == pytest.approx(0.12)


def test_errors_wait_longer_and_longer_up_to_a_limit():
    backoff = Backoff(random.Random(1))
    waits = [backoff.after_error() for _ in range(100)]
    assert ERROR_WAIT_MIN_S / 2 <= waits[0] <= ERROR_WAIT_MIN_S
    for i in range(6):
        assert waits[i] <= ERROR_WAIT_MIN_S * 2**i
        assert waits[i] >= ERROR_WAIT_MIN_S * 2**i / 2
    assert all(ERROR_WAIT_MAX_S / 2 <= wait <= ERROR_WAIT_MAX_S for wait in waits[7:])
    backoff.succeeded()
    assert backoff.after_error() <= ERROR_WAIT_MIN_S
