"""The producer when it cannot deliver: what fails, who is told, and what is still known then."""

import asyncio
import copy
import pickle

import pytest
from faults import Fault
from queues import MANIFEST, always, at, in_world

from walengine.buffer import FormatError, ManifestLostError, QueueError, StorageError
from walengine.buffer.manifest import Manifest
from walengine.buffer.producer._outcome import fresh


def test_a_batch_that_cannot_be_delivered_fails_with_all_behind_it():
    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "put")
        producer = await world.producer(delivery_timeout=10.0, flush_size_bytes=5).__aenter__()
        handles = [await producer.produce([b"%d...." % i]) for i in range(40)]
        begin = asyncio.get_running_loop().time()
        for handle in handles:
            with pytest.raises(StorageError, match="delivery_timeout=10 s") as raised:
                await handle.watcher.await_durable()
            assert not raised.value.unclear
            assert "FAIL" not in str(raised.value)
            assert "connection was refused" in str(raised.value)
        assert asyncio.get_running_loop().time() - begin < 10.1
        with pytest.raises(StorageError):
            handles[0].watcher.result()
        world.plan = None
        again = await producer.produce([b"again"])
        await again.watcher.await_durable()
        await producer.aclose()
        assert await world.entries() == [b"again"]
        assert producer.stats().calls_failed == 40
        assert producer.stats().buffered_bytes == 0

    in_world(body)


@pytest.mark.parametrize("verb", ["put", "replace"])
def test_a_store_in_trouble_is_told_once_and_long_before_the_batch_fails(verb, caplog):
    async def body(world):
        async with world.producer(delivery_timeout=120.0) as producer:
            await producer.produce([b"x"])
            await producer.flush()
            world.plan = always(Fault.FAIL_BEFORE, verb)
            await producer.produce([b"y"])
            await asyncio.sleep(0.2)
            assert not [record for record in caplog.records if record.levelname == "WARNING"]
            await asyncio.sleep(20)
            (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
            assert "failed and is tried again: " in told.message
            assert "connection was refused" in told.message
            world.plan = None

    in_world(body)


def test_what_an_append_of_unclear_outcome_may_have_listed_says_so():
    async def body(world):
        options = {"delivery_timeout": 5.0, "flush_size_bytes": 1}
        async with world.producer(**options) as producer:
            await producer.produce([b"before"])
            await producer.flush()
            world.plan = lambda call: Fault.LOST_REQUEST if call.verb == "replace" else (
                Fault.FAIL_BEFORE if call.verb == "get_if_changed" else None
            )  # fmt: skip
            attempted = await producer.produce([b"attempted"])
            await asyncio.sleep(1)
            behind = await producer.produce([b"behind"])
            with pytest.raises(StorageError) as raised:
                await attempted.watcher.await_durable()
            assert raised.value.unclear
            assert "may be in the queue" in str(raised.value)
            with pytest.raises(StorageError) as raised:
                await behind.watcher.await_durable()
            assert not raised.value.unclear
            world.plan = None
        assert await world.entries() == [b"before"]

    in_world(body)


def test_a_cancelled_append_is_unclear_and_what_follows_is_behind_it():
    """Goal: the swap is under way when the batch times out, and is applied."""

    async def body(world):
        async with world.producer(delivery_timeout=5.0) as producer:
            await producer.produce([b"x"])
            await producer.flush()
            world.plan = at(("replace", 0, Fault.SLOW, MANIFEST))
            world.store._slow_s = 60.0
            failed = await producer.produce([b"a"])
            with pytest.raises(StorageError) as raised:
                await failed.watcher.await_durable()
            assert raised.value.unclear
            await producer.produce([b"b"])
            await asyncio.sleep(100)
            await producer.produce([b"c"])
        assert await world.entries() == [b"x", b"b", b"c"]
        assert producer.stats().calls_failed == 1

    in_world(body)


def test_an_attempt_that_was_overtaken_by_a_success_makes_nothing_unclear():
    """Method: an append of two is lost, the second one's name grows old, the first is appended."""

    async def body(world):
        async with world.producer(delivery_timeout=400.0, flush_size_bytes=1) as producer:
            await producer.produce([b"x."])
            await producer.flush()
            loop = asyncio.get_running_loop()
            begin = loop.time()
            old = []

            def plan(call):
                since = loop.time() - begin
                if call.verb == "put":
                    old.append(call.name[-22:])
                    fails = call.name[-22:] == old[0] if since < 60 else since > 125
                    return Fault.FAIL_BEFORE if fails else None
                if call.verb == "replace" and since < 125:
                    return Fault.LOST_REQUEST
                return Fault.FAIL_BEFORE if call.verb == "get_if_changed" and since < 125 else None

            world.plan = plan
            first = await producer.produce([b"a."])
            second = await producer.produce([b"b."])
            await first.watcher.await_durable()
            with pytest.raises(StorageError, match="are not in the queue") as raised:
                await second.watcher.await_durable()
            assert not raised.value.unclear
            assert producer.stats().names_renewed == 1
        assert await world.entries() == [b"x.", b"a."]

    in_world(body)


def test_what_may_have_been_listed_and_dequeued_fails_as_unclear():
    async def body(world):
        async with world.producer(delivery_timeout=5.0) as producer:
            await producer.produce([b"x"])
            await producer.flush()
            world.plan = at(("replace", 0, Fault.LOST_REPLY))
            handle = await producer.produce([b"a"])
            await asyncio.sleep(0.11)
            await world.dequeue(1)
            world.plan = always(Fault.FAIL_BEFORE, "replace")
            with pytest.raises(StorageError) as raised:
                await handle.watcher.await_durable()
            assert producer.stats().maybe_doubled == 1
            assert raised.value.unclear

    in_world(body)


def test_the_timeout_counts_for_each_batch_from_its_own_oldest_call():
    """Goal: a timer set for a batch that is long durable must not be the last one."""

    async def body(world):
        loop = asyncio.get_running_loop()
        async with world.producer(delivery_timeout=10.0) as producer:
            begin = loop.time()
            await producer.produce([b"a"])
            await producer.flush()
            world.plan = always(Fault.FAIL_BEFORE, "put")
            await asyncio.sleep(6)
            handle = await producer.produce([b"b"])
            with pytest.raises(StorageError):
                await handle.watcher.await_durable()
            assert loop.time() - begin == pytest.approx(16, abs=0.01)

    in_world(body)


def test_a_failure_that_nobody_met_is_raised_by_the_next_call_once():
    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "put")
        async with world.producer(delivery_timeout=1.0) as producer:
            await producer.produce([b"a"])
            await producer.produce([b"b"])
            await asyncio.sleep(2)
            world.plan = None
            with pytest.raises(StorageError, match="2 entries of 2 calls"):
                await producer.produce([b"c"])
            await producer.produce([b"d"])
        assert await world.entries() == [b"d"]

    in_world(body)


def test_flush_and_close_raise_what_failed():
    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "put")
        producer = await world.producer(delivery_timeout=1.0).__aenter__()
        await producer.produce([b"a"])
        with pytest.raises(StorageError):
            await producer.flush()
        await producer.flush()
        await producer.produce([b"b"])
        with pytest.raises(StorageError):
            await producer.aclose()
        await producer.aclose()

    in_world(body)


def test_an_error_of_the_block_is_not_covered_by_one_of_closing(caplog):
    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "put")
        with pytest.raises(ZeroDivisionError):
            async with world.producer(delivery_timeout=1.0) as producer:
                await producer.produce([b"a"])
                raise ZeroDivisionError

    in_world(body)
    assert "closing failed too" in caplog.text


def test_an_error_with_notes_is_copied_and_pickled_whole():
    """Goal: every caller gets a copy, and sinks add notes to theirs."""
    error = StorageError("words", unclear=True, errno=5, object="a", offset=3)
    error.add_note("a note")
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error)), fresh(error)):
        assert (type(again), str(again), vars(again)) == (StorageError, "words", vars(error))
        assert again.__notes__ == ["a note"]


def test_closing_in_time_gives_up_what_is_left():
    async def body(world):
        world.plan = always(Fault.UNAVAILABLE, "put")
        producer = await world.producer().__aenter__()
        handle = await producer.produce([b"a"])
        begin = asyncio.get_running_loop().time()
        with pytest.raises(StorageError, match="2 s only"):
            await producer.aclose(timeout=2)
        assert asyncio.get_running_loop().time() - begin < 2.1
        with pytest.raises(StorageError):
            await handle.watcher.await_durable()
        await producer.aclose()
        with pytest.raises(QueueError, match="closed"):
            await producer.produce([b"b"])

    in_world(body)


@pytest.mark.parametrize("how", ["deleted", "went back", "broken"])
def test_a_manifest_that_is_lost_or_broken_fails_everything_at_once(how):
    async def body(world):
        async with world.producer() as producer:
            await producer.produce([b"a"])
            await producer.flush()
            if how == "deleted":
                await world.inner.delete(MANIFEST)
            else:
                data = Manifest.empty(MANIFEST).data if how == "went back" else b"nonsense" * 5
                await world.inner.put(MANIFEST, data)
            handle = await producer.produce([b"b"])
            error = FormatError if how == "broken" else ManifestLostError
            with pytest.raises(error):
                await handle.watcher.await_durable()
            found = await world.inner.get(MANIFEST)
            assert (found is None) == (how == "deleted"), "nothing is made anew"

    in_world(body)


def test_cancelling_a_wait_cancels_no_write():
    async def body(world):
        async with world.producer() as producer:
            handle = await producer.produce([b"a"])
            waits = [asyncio.ensure_future(handle.watcher.await_durable()) for _ in range(3)]
            await asyncio.sleep(0)
            waits[0].cancel()
            await asyncio.gather(*waits[1:])
            assert waits[0].cancelled()
            await producer.produce([b"b"])
            flush = asyncio.ensure_future(producer.flush())
            await asyncio.sleep(0)
            flush.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flush
        assert await world.entries() == [b"a", b"b"]

    in_world(body, latency_s=0.1)
