"""Batches that cannot be had, stores that fail, manifests that somebody else changed."""

import pytest
from faults import Fault, FaultyStore
from fed_queue import MANIFEST, TestQueue, opened

from walengine.buffer import (
    AckOrderError,
    BatchMissingError,
    FormatError,
    ManifestLostError,
    ObjectTooLargeError,
    PairingError,
    SequenceGapError,
    StorageError,
)
from walengine.buffer.batch import encode_batch
from walengine.buffer.entry import HEAD, LOCATION_LENGTH, Listing, Metadata
from walengine.buffer.manifest import Manifest


@pytest.fixture
def queue() -> TestQueue:
    return TestQueue(max_batch_bytes=4096)


# ---- batches that cannot be had ------------------------------------------------------------------


async def missing(queue):
    await queue.enqueue(Listing(queue.namer.new().location))


async def corrupt(queue):
    location = queue.namer.new().location
    await queue.store.put(location, b"no batch at all")
    await queue.enqueue(Listing(location))


async def oversized(queue):
    location = queue.namer.new().location
    await queue.store.put(location, bytes(9000))
    await queue.enqueue(Listing(location))


async def misdescribed(queue):
    location = await queue.put([b"one"])
    await queue.enqueue(Listing(location, [Metadata(0, 0, b""), Metadata(1, 0, b"")]))


async def elsewhere(queue):
    await queue.store.put("other/batch", b"")
    await queue.enqueue(Listing("other/batch"))


async def unreadable(queue):
    """List a location that is longer than its entry."""
    await queue.enqueue(Listing("ingest/x"))
    manifest = await queue.manifest()
    data = bytearray(manifest.data)
    LOCATION_LENGTH.pack_into(data, manifest._offsets[-1] + HEAD.size, 60_000)
    await queue.store.put(MANIFEST, bytes(data))


TROUBLES = [
    (missing, BatchMissingError, "its object is not there"),
    (corrupt, FormatError, "version 27756"),
    (oversized, ObjectTooLargeError, "raise max_batch_bytes"),
    (misdescribed, FormatError, "it has 1 entries, and metadata 1"),
    (elsewhere, FormatError, "it lies outside of ingest/"),
    (unreadable, FormatError, "its location has 60000 bytes"),
]
troubles = pytest.mark.parametrize(
    ("trouble", "error", "text"), TROUBLES, ids=[each[0].__name__ for each in TROUBLES]
)


@troubles
def test_a_batch_that_cannot_be_had_stays_until_it_is_skipped(
    run, queue, trouble, error, text, caplog
):
    async def scenario():
        await queue.add()
        await trouble(queue)
        await queue.add(entries=[b"2"])
        async with opened(queue) as consumer:
            assert (await consumer.next_batch()).sequence == 0
            for _ in range(2):
                with pytest.raises(error, match=text) as caught:
                    await consumer.next_batch()
                assert caught.value.sequence == 1
                assert "skip(1, reason)" in str(caught.value)
            await consumer.skip(1, "seen by the operator")
            assert (await consumer.next_batch()).sequence == 2
            await consumer.ack(0)
            await consumer.ack(2)
            assert consumer.stats().metrics["buffer.batches_skipped"] == 1
        assert "sequence 1 is skipped: seen by the operator" in caplog.text
        assert await queue.listed() == []

    run(scenario())


@troubles
def test_it_is_raised_when_it_is_reached_and_not_before(run, queue, trouble, error, text):
    async def scenario():
        await queue.add(2)
        await trouble(queue)
        async with opened(queue) as consumer:
            delivered = []
            with pytest.raises(error, match=text):
                async for batch in consumer.batches(poll_interval=0):
                    delivered.append(batch.sequence)  # noqa: PERF401 (it ends with an error)
            assert delivered == [0, 1]
            await consumer.skip(2, "no")
            await queue.add(entries=[b"3"])
            batches = consumer.batches(poll_interval=0)
            assert (await anext(batches)).sequence == 3
            await batches.aclose()

    run(scenario())


@pytest.mark.parametrize("trouble", [elsewhere, unreadable])
def test_descriptors_end_before_an_entry_that_is_broken(run, queue, trouble):
    async def scenario():
        await queue.add(2)
        await trouble(queue)
        async with opened(queue) as consumer:
            assert [each.sequence for each in await consumer.next_descriptors(10)] == [0, 1]
            with pytest.raises(FormatError):
                await consumer.next_descriptors(10)
            assert consumer.stats().next_sequence == 2

    run(scenario())


def test_a_skip_alone_takes_nothing_off(run, queue):
    """Else the position that a sink stored would have a gap behind it."""

    async def scenario():
        await queue.add(entries=[b"0"])
        await missing(queue)
        async with opened(queue) as consumer:
            await consumer.next_batch()
            await consumer.ack(0)
            await consumer.skip(1, "gone")
        assert await queue.listed() == [1]
        async with opened(queue, 0) as consumer:
            with pytest.raises(BatchMissingError):
                await consumer.next_batch()
            await consumer.skip(1, "gone")
            await consumer.ack(1)
            with pytest.raises(AckOrderError, match="can be skipped"):
                await consumer.skip(1, "again")
        assert await queue.listed() == []

    run(scenario())


def test_what_is_not_there_yet_cannot_be_skipped(run, queue):
    async def scenario():
        await queue.add(1)
        async with opened(queue) as consumer:
            await consumer.next_batch()
            with pytest.raises(AckOrderError):
                await consumer.skip(2, "too early")

    run(scenario())


def test_batches_below_the_extra_prefixes_are_fetched(run):
    async def scenario():
        queue = TestQueue(extra_data_prefixes=["of/go"])
        location = queue.namer.new().location.replace("ingest/", "of/go/run/")
        await queue.store.put(location, encode_batch([b"1"]))
        await queue.enqueue(Listing(location))
        await elsewhere(queue)
        async with opened(queue) as consumer:
            assert (await consumer.next_batch()).entries == [b"1"]
            with pytest.raises(FormatError, match="outside of ingest/ and of/go/"):
                await consumer.next_batch()

    run(scenario())


def test_a_missing_batch_that_comes_back_is_delivered(run, queue):
    async def scenario():
        (location,) = await queue.add()
        data = (await queue.store.get(location)).data
        await queue.store.delete(location)
        async with opened(queue) as consumer:
            with pytest.raises(BatchMissingError, match="puts it back within a minute"):
                await consumer.next_batch()
            await queue.store.put(location, data)
            assert (await consumer.next_batch()).sequence == 0

    run(scenario())


# ---- manifests that somebody else changed --------------------------------------------------------


def test_a_manifest_that_is_gone_is_an_error_and_is_not_made_anew(run, queue):
    async def scenario():
        await queue.add(1)
        consumer = await queue.open()
        await consumer.next_batch()
        await queue.store.delete(MANIFEST)
        with pytest.raises(ManifestLostError, match="the manifest is gone"):
            await consumer.next_batch()
        with pytest.raises(ManifestLostError):
            await consumer.ack_through(0)
        await consumer.ack(0)
        with pytest.raises(ManifestLostError):
            await consumer.aclose()
        assert MANIFEST not in await queue.objects()

    run(scenario())


def test_a_manifest_that_was_made_anew_is_lost(run, queue):
    async def scenario():
        await queue.add(3)
        async with opened(queue) as consumer:
            await queue.store.delete(MANIFEST)
            await queue.store.put(MANIFEST, Manifest.empty(MANIFEST).raise_epoch().data)
            with pytest.raises(ManifestLostError, match="next sequence went back from 3 to 0"):
                await consumer.flush() or (
                    await consumer.next_descriptors(9) and (await consumer.next_batch())
                )

    run(scenario())


def test_batches_that_somebody_else_took_off_are_a_gap(run, queue):
    async def scenario():
        await queue.add(2)
        async with opened(queue) as consumer:
            await consumer.next_batch()
            await consumer.next_batch()
            await queue.add(2)
            await queue.change(lambda manifest: manifest.dequeue(2))
            for _ in range(2):
                with pytest.raises(SequenceGapError, match="nothing behind -1 was acked"):
                    await consumer.next_batch()
            with pytest.raises(SequenceGapError):
                await consumer.ack_through(1)

    run(scenario())


def test_a_position_and_no_manifest_are_no_pair(run, queue):
    async def scenario():
        with pytest.raises(PairingError, match="the manifest was lost"):
            await queue.open(7)
        assert MANIFEST not in await queue.objects()

    run(scenario())


# ---- stores that fail ----------------------------------------------------------------------------


def failing(queue, *steps):
    """A store that fails the nth call of a verb on an object: (verb, name's end, fault)."""
    pending = list(steps)

    def plan(call):
        if pending and (call.verb, call.name.endswith(pending[0][1])) == (pending[0][0], True):
            return pending.pop(0)[2]
        return None

    return FaultyStore(queue.store, plan)


UNCLEAR = [Fault.LOST_REPLY, Fault.LOST_REQUEST, Fault.UNAVAILABLE, Fault.CONFLICT, Fault.LATE,
           Fault.PRECONDITION]  # fmt: skip


@pytest.mark.parametrize("fault", UNCLEAR, ids=lambda fault: fault.name)
def test_an_unclear_dequeue_is_looked_up(run, queue, fault):
    async def scenario():
        await queue.add(3)
        store = failing(queue, ("replace", "manifest", None), ("replace", "manifest", fault))
        async with opened(queue, store=store) as consumer:
            assert len(await consumer.next_descriptors(9)) == 3
            await consumer.ack_through(1)
            assert await queue.listed() == [2]
            writes = consumer.stats().metrics["buffer.manifest_writes"]
            assert writes == (2 if fault is Fault.LOST_REPLY else 3)  # with the raise
            assert await consumer.next_descriptors(9) == []
            await consumer.ack(2)
        assert await queue.listed() == []
        assert (await queue.manifest()).epoch == 1
        await store.aclose()

    run(scenario())


@pytest.mark.parametrize("count", [99, 1])
def test_a_dequeue_that_failed_is_made_by_the_next_ack(run, queue, count):
    """Whatever became of it: applied and not answered, or not applied."""

    async def scenario():
        await queue.add(250)
        fault = Fault.LOST_REPLY if count == 1 else Fault.FAIL_BEFORE
        steps = [("replace", "manifest", None)]
        # Unclear once, and then not to be looked up.
        steps += [("replace", "manifest", fault)]
        steps += [("get_if_changed", "manifest", Fault.UNAVAILABLE)] if count == 1 else []
        async with opened(queue, store=failing(queue, *steps)) as consumer:
            await consumer.next_descriptors(250)
            for sequence in range(99):
                await consumer.ack(sequence)
            with pytest.raises(StorageError):
                await consumer.ack(99)
            assert consumer.last_acked_sequence == 98
            assert await consumer.next_descriptors(1) == []  # what is off by then is no gap
            await consumer.ack(99)
            assert await queue.listed() == list(range(100, 250))

    run(scenario())


def test_a_dequeue_that_comes_late_is_no_gap(run, queue):
    """Method: it is asked for, unclear, given up; less is asked for then; and then it happens."""

    async def scenario():
        await queue.add(101)
        held = []

        class Late(Through):
            async def replace(self, name, data, etag):
                if not held and Manifest.parse(data, name).sequences.start == 100:
                    held.append(data)
                    raise StorageError("no answer", unclear=True)
                if held:
                    raise StorageError("no connection")
                return await self.store.replace(name, data, etag)

        async with opened(queue, store=Late(queue.store)) as consumer:
            await consumer.next_descriptors(101)
            for sequence in range(99):
                await consumer.ack(sequence)
            for call in (lambda: consumer.ack(99), consumer.flush):
                with pytest.raises(StorageError):
                    await call()
            await queue.store.put(MANIFEST, held[0])
            assert await consumer.next_descriptors(1) == []
            await consumer.ack(99)
        assert await queue.listed() == [100]

    run(scenario())


class Through:
    """A store that is another one, but for what a subclass changes."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_a_store_that_stays_unclear_is_the_callers_to_judge(run, queue):
    async def scenario():
        await queue.add(1)
        steps = [("replace", "manifest", None), *[("replace", "manifest", Fault.UNAVAILABLE)] * 8]
        async with opened(queue, store=failing(queue, *steps)) as consumer:
            await consumer.next_batch()
            with pytest.raises(StorageError, match="503") as caught:
                await consumer.ack_through(0)
            assert caught.value.unclear
            await consumer.ack_through(0)

    run(scenario())


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.TRUNCATED, Fault.TIMEOUT])
def test_a_fetch_that_failed_is_made_again(run, queue, fault):
    async def scenario():
        await queue.add(1)
        async with opened(queue, store=failing(queue, ("get", ".batch", fault))) as consumer:
            with pytest.raises(StorageError):
                await consumer.next_batch()
            assert (await consumer.next_batch()).sequence == 0

    run(scenario())


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.UNAVAILABLE])
@pytest.mark.parametrize("verb", ["get", "replace", "create"])
def test_an_opening_that_failed_leaves_nothing_behind(run, queue, verb, fault):
    """Method: each call of the opening fails, all of them with an outcome known or not."""

    async def scenario():
        if verb == "replace":
            await queue.add(1)
        store = FaultyStore(queue.store, lambda call: fault if call.verb == verb else None)
        with pytest.raises(StorageError):
            await queue.open(store=store)
        async with opened(queue) as consumer:
            assert len(await consumer.next_descriptors(9)) == (verb == "replace")

    run(scenario())
