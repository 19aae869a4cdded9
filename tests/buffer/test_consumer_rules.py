"""What a consumer decides, without a store: where it begins, what a manifest means, acks."""

import pytest

from walengine.buffer import AckOrderError, FencedError, PairingError, SequenceGapError
from walengine.buffer.consumer._progress import DEQUEUE_INTERVAL, Progress
from walengine.buffer.consumer._rules import check_epoch, check_first, first_position
from walengine.buffer.entry import Listing
from walengine.buffer.manifest import Manifest

EMPTY = Manifest.empty("m")


def manifest(first: int, count: int) -> Manifest:
    total = EMPTY.append([Listing(f"ingest/{i}") for i in range(first + count)])
    return total.dequeue(first - 1)


def position(queue: Manifest, last_acked, *, allow_gap=False) -> int:
    return first_position(queue, last_acked, allow_gap=allow_gap, queue="q")


# ---- where it begins -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "last_acked", "acked"),
    [
        (EMPTY, None, -1),
        (manifest(0, 3), None, -1),
        (manifest(5, 3), None, 4),
        (manifest(5, 0), None, 4),
        (manifest(5, 3), 4, 4),  # exactly before the first listed
        (manifest(5, 3), 6, 6),  # acked, and not taken off
        (manifest(5, 3), 7, 7),  # all of them
        (manifest(5, 0), 4, 4),
    ],
)
def test_it_begins_behind_what_was_acked(queue, last_acked, acked):
    assert position(queue, last_acked) == acked


@pytest.mark.parametrize(
    ("queue", "last_acked"), [(EMPTY, 0), (manifest(0, 3), 3), (manifest(5, 0), 5)]
)
def test_a_queue_that_never_got_so_far_is_another_one(queue, last_acked):
    with pytest.raises(PairingError, match=f"sequence is {last_acked}, but the queue's next is"):
        position(queue, last_acked, allow_gap=True)


@pytest.mark.parametrize(("queue", "first"), [(manifest(5, 3), 5), (manifest(5, 0), 5)])
def test_a_gap_is_an_error_unless_it_is_allowed(queue, first):
    with pytest.raises(SequenceGapError, match="sequences 3 to 4 were acked by somebody") as caught:
        position(queue, 2)
    assert caught.value.sequence == 3
    assert position(queue, 2, allow_gap=True) == first - 1


# ---- what a manifest means -----------------------------------------------------------------------


def test_another_epoch_is_another_consumers():
    mine = manifest(0, 1).raise_epoch()
    check_epoch(mine, 1, queue="q")
    with pytest.raises(FencedError, match="its epoch is 2, this one's 1"):
        check_epoch(mine.raise_epoch(), 1, queue="q")


def test_only_what_was_asked_for_may_be_gone():
    check_first(manifest(5, 3), 4, queue="q")
    check_first(manifest(5, 3), 7, queue="q")  # asked for, and not done or not seen yet
    with pytest.raises(SequenceGapError, match="the first batch listed is 5, but nothing behind 3"):
        check_first(manifest(5, 3), 3, queue="q")


# ---- positions -----------------------------------------------------------------------------------


def progress(delivered: int) -> Progress:
    made = Progress(acked=-1, first_listed=0)
    made.deliver(delivered)
    return made


def test_acks_come_in_order_and_once():
    made = progress(4)
    for wrong in (1, 4):
        with pytest.raises(AckOrderError, match="the next to be acked is 0"):
            made.check_ack(wrong)
    made.check_ack(0)
    assert made.ack(0) == 1
    with pytest.raises(AckOrderError, match="everything up to 0 is acked already"):
        made.check_ack(0)
    with pytest.raises(AckOrderError, match="was not delivered"):
        made.check_ack(5)


def test_ack_through_takes_any_that_was_delivered_and_not_acked():
    made = progress(4)
    made.ack(1)
    for right in (2, 3, 4):
        made.check_ack_through(right)
    for wrong in (0, 1, 5):
        with pytest.raises(AckOrderError):
            made.check_ack_through(wrong)
    assert made.ack(4) == 3


def test_the_next_ack_passes_over_what_was_skipped():
    made = progress(2)
    made.ack(0)
    made.skip(1)
    made.skip(3)  # the next one: the cursor moves
    assert made.cursor == 4
    made.deliver(4)
    with pytest.raises(AckOrderError, match="the next to be acked is 2"):
        made.check_ack(4)
    assert made.acked == 0  # a skip alone acks nothing
    made.check_ack(2)
    made.ack(2)
    made.check_ack(4)
    assert made.ack(4) == 2


def test_what_was_skipped_may_be_acked_itself():
    made = progress(0)
    made.ack(0)
    made.skip(1)
    made.check_ack(1)
    made.ack(1)
    assert (made.acked, made._skipped) == (1, set())


def test_only_the_next_and_the_unacked_can_be_skipped():
    made = progress(2)
    made.ack(0)
    for wrong in (0, 4):
        with pytest.raises(AckOrderError, match="only 1 to 3 can be skipped"):
            made.skip(wrong)


def test_a_dequeue_is_wanted_every_hundred():
    made = progress(500)
    assert not made.is_dequeue_wanted(DEQUEUE_INTERVAL - 2)
    assert made.is_dequeue_wanted(DEQUEUE_INTERVAL - 1)
    made.ack(98)
    assert made.is_dequeue_due
    made.dequeue(98)
    assert not made.is_dequeue_due
    assert not made.is_dequeue_wanted(DEQUEUE_INTERVAL)


def test_what_was_acked_before_and_is_listed_still_is_due():
    made = Progress(acked=6, first_listed=5)
    assert made.is_dequeue_due
    assert made.cursor == 7
