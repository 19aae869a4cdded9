"""The producer when the store fails, loses replies, applies late, or others are faster.

The oracle is the same throughout: what a watcher called durable is in the queue, once and in the
order of calls.
"""

import asyncio

import pytest
from faults import Call, Fault
from queues import MANIFEST, always, at, in_world

from walengine.buffer import StorageError
from walengine.buffer.entry import Listing
from walengine.buffer.location import BatchNamer, parse_batch_name

ON_MANIFEST = [
    Fault.FAIL_BEFORE, Fault.LOST_REQUEST, Fault.LOST_REPLY, Fault.UNAVAILABLE, Fault.TIMEOUT,
    Fault.LATE, Fault.CONFLICT, Fault.PRECONDITION, Fault.SLOW,
]  # fmt: skip

ON_OBJECTS = [f for f in ON_MANIFEST if f not in (Fault.CONFLICT, Fault.PRECONDITION)]


@pytest.mark.parametrize("fault", ON_MANIFEST)
@pytest.mark.parametrize("which", ["create", "replace"])
def test_an_append_that_meets_a_fault_lists_its_batch_once(fault, which):
    async def body(world):
        async with world.producer() as producer:
            if which == "replace":
                await producer.produce([b"before"])
                await producer.flush()
            world.plan = at((which, 0, fault, MANIFEST))
            handle = await producer.produce([b"a"])
            await producer.produce([b"b"])
            await handle.watcher.await_durable()
            await producer.produce([b"c"])
        expected = [b"a", b"b", b"c"]
        assert await world.entries() == ([b"before"] if which == "replace" else []) + expected
        await world.store.aclose()

    in_world(body)


def test_a_lost_reply_is_found_by_looking_and_not_repeated():
    async def body(world):
        world.plan = at(("create", 0, Fault.LOST_REPLY, MANIFEST))
        async with world.producer() as producer:
            await producer.produce([b"a"])
            await producer.flush()
            stats = producer.stats()
        assert (stats.unclear_appends, stats.found_listed, stats.maybe_doubled) == (1, 1, 0)
        assert (stats.swaps, stats.conflicts) == (1, 0)

    in_world(body)


def test_an_append_that_comes_late_wins_or_loses_against_its_own_repetition():
    """Method: the swap is applied while the producer waits, or just when it tries again."""

    async def body(world):
        for slow_s in (0.001, 0.02, 0.04, 0.06, 0.3):
            world.store._slow_s = slow_s
            world.plan = at(("replace", 0, Fault.LATE, MANIFEST))
            async with world.producer() as producer:
                await producer.produce([b"%g" % slow_s])
        await asyncio.gather(*world.store._late)
        assert await world.entries() == [b"%g" % s for s in (0.001, 0.02, 0.04, 0.06, 0.3)]

    in_world(body)


def test_what_was_consumed_with_its_neighbour_still_listed_is_not_appended_again():
    """Goal: of one append with a lost reply, the first batch was dequeued before the look."""

    async def body(world):
        async with world.producer(flush_size_bytes=1) as producer:
            await producer.produce([b"xx"])
            await producer.flush()
            world.store._latency_s = lambda: 1.0
            first = await producer.produce([b"a1"])
            second = await producer.produce([b"b1"])
            world.plan = at(("replace", 0, Fault.LOST_REPLY))
            await asyncio.sleep(2.01)
            assert await world.entries() == [b"xx", b"a1", b"b1"]
            assert second.watcher.result() is None
            await world.dequeue(1)
            await asyncio.gather(first.watcher.await_durable(), second.watcher.await_durable())
            stats = producer.stats()
            assert (stats.found_listed, stats.maybe_doubled) == (2, 0)
        assert await world.entries() == [b"b1"]
        assert (await world.manifest()).next_sequence == 3

    in_world(body)


def test_what_was_consumed_unseen_is_appended_again_under_its_identity():
    async def body(world):
        async with world.producer() as producer:
            await producer.produce([b"x"])
            await producer.flush()
            world.plan = lambda call: Fault.LOST_REPLY if call.verb == "replace" else None
            handle = await producer.produce([b"a"])
            await asyncio.sleep(0.11)
            (first,) = [e.location for e in (await world.manifest()).entries()][1:]
            world.plan = None
            await world.dequeue(1)
            await handle.watcher.await_durable()
            (second,) = [e.location for e in (await world.manifest()).entries()]
            assert parse_batch_name(first).identity == parse_batch_name(second).identity
            assert producer.stats().maybe_doubled == 1

    in_world(body)


def test_conflicts_with_others_are_retried_and_the_order_is_kept():
    async def body(world):
        namer = BatchNamer("ingest")
        others = 0

        async def interfere(call):
            nonlocal others
            if call.verb in ("create", "replace") and call.name == MANIFEST and others < 7:
                others += 1
                manifest = (await world.manifest()).append([Listing(namer.new().location)])
                await world.write(manifest)

        original = world.store._call

        async def call_through(verb, name, do):
            await interfere(Call(0, verb, name))
            return await original(verb, name, do)

        world.store._call = call_through
        async with world.producer(flush_size_bytes=1) as producer:
            for i in range(5):
                await producer.produce([b"%d." % i])
            await producer.flush()
            stats = producer.stats()
            assert stats.conflicts == 7
            assert producer.conflict_rate() == pytest.approx(100 * 7 / stats.swaps)
        mine = (await world.manifest()).dequeue(6)
        await world.write(mine)
        assert await world.entries() == [b"%d." % i for i in range(5)]

    in_world(body)


def test_the_group_grows_while_it_waits():
    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "create", part=MANIFEST)
        async with world.producer(flush_interval=0.05) as producer:
            for i in range(10):
                await producer.produce([b"%d" % i])
                await asyncio.sleep(0.06)
            world.plan = None
            await producer.flush()
            assert producer.stats().swaps - producer.stats().append_errors == 1
        assert await world.entries() == [b"%d" % i for i in range(10)]
        assert len(await world.manifest()) == 10

    in_world(body)


# ---- uploads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ON_OBJECTS)
def test_an_upload_that_fails_is_tried_again_under_a_later_name(fault):
    async def body(world):
        world.plan = at(("put", 0, fault), ("put", 1, fault))
        async with world.producer() as producer:
            await producer.produce([b"a"])
        assert await world.entries() == [b"a"]
        names = [parse_batch_name(c.name) for c, _ in world.store.history if c.verb == "put"]
        assert len({name.identity for name in names}) == 1
        times = [name.time_ms for name in names]
        assert times == sorted(set(times))
        await world.store.aclose()

    in_world(body)


def test_a_batch_held_up_for_long_is_uploaded_again_before_it_is_listed():
    """Goal: no name older than two minutes is ever listed."""

    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "create", "replace", part=MANIFEST)
        async with world.producer(delivery_timeout=3600.0) as producer:
            handle = await producer.produce([b"a"])
            await asyncio.sleep(600)
            world.plan = None
            await handle.watcher.await_durable()
            stats = producer.stats()
            (entry,) = (await world.manifest()).entries()
            assert world.wall_ms() - parse_batch_name(entry.location).time_ms <= 120_000
            assert stats.names_renewed >= 4
            assert stats.listed_late == 0

    in_world(body)


def test_a_name_is_old_by_the_stores_clock_too():
    """Goal: a machine that slept, whose loop's clock stood still, does not list an old name."""

    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "create", "replace", part=MANIFEST)
        async with world.producer() as producer:
            handle = await producer.produce([b"a"])
            await asyncio.sleep(1)
            world.skew_ms += 130_000
            world.plan = None
            await handle.watcher.await_durable()
            assert producer.stats().names_renewed == 1

    in_world(body)


@pytest.mark.parametrize("clock", ["stands", "steps back"])
def test_a_name_is_old_by_the_loops_clock_too(clock):
    """Goal: who sets the wall clock back does not make an old name young."""

    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "create", "replace", part=MANIFEST)
        async with world.producer(delivery_timeout=3600.0) as producer:
            handle = await producer.produce([b"a"])
            await asyncio.sleep(1)
            world.skew_ms -= 200_000 if clock == "stands" else 4_000_000
            await asyncio.sleep(200)
            world.plan = None
            await handle.watcher.await_durable()
            assert producer.stats().names_renewed == 1
            names = [parse_batch_name(c.name) for c, _ in world.store.history if c.verb == "put"]
            assert names[1].time_ms > names[0].time_ms, "names sort in the order they were given"

    in_world(body)


def test_a_batch_listed_under_an_old_name_is_looked_after_for_a_minute():
    """Goal: the swap took three minutes, and the collector deleted the object meanwhile."""

    async def body(world):
        loop = asyncio.get_running_loop()
        world.plan = at(("create", 0, Fault.SLOW, MANIFEST))
        world.store._slow_s = 180.0
        async with world.producer(delivery_timeout=3600.0) as producer:
            handle = await producer.produce([b"a"])
            await asyncio.sleep(181)
            (entry,) = (await world.manifest()).entries()
            listed_at = loop.time()
            await world.inner.delete(entry.location)
            assert handle.watcher.result() is None
            await asyncio.sleep(30)
            assert await world.entries() == [b"a"], "put again"
            await world.inner.delete(entry.location)
            await handle.watcher.await_durable()
            assert await world.entries() == [b"a"]
            assert 58 < loop.time() - listed_at < 70
            stats = producer.stats()
            assert (stats.listed_late, stats.restored) == (1, 2)
            assert stats.buffered_bytes == 0

    in_world(body)


def test_what_was_listed_late_and_dequeued_needs_nobody():
    async def body(world):
        async with world.producer(delivery_timeout=3600.0, flush_size_bytes=1) as producer:
            await producer.produce([b"x."])
            await producer.flush()
            world.plan = lambda call: Fault.LOST_REPLY if call.verb == "replace" else None
            world.store._latency_s = lambda: 60.0
            handles = [await producer.produce([b"a."]), await producer.produce([b"b."])]
            await asyncio.sleep(125)
            world.plan = None
            await world.dequeue(1)
            await asyncio.sleep(100)
            await handles[0].watcher.await_durable()
            assert producer.stats().listed_late == 1, "the second one only"
            await handles[1].watcher.await_durable()

    in_world(body)


def test_a_late_batch_that_cannot_be_checked_fails_as_unclear():
    async def body(world):
        world.plan = at(("create", 0, Fault.SLOW, MANIFEST))
        world.store._slow_s = 130.0
        producer = await world.producer(delivery_timeout=200.0).__aenter__()
        handle = await producer.produce([b"a"])
        await asyncio.sleep(131)
        world.plan = always(Fault.FAIL_BEFORE, "head")
        with pytest.raises(StorageError, match="may be in the queue") as raised:
            await handle.watcher.await_durable()
        assert raised.value.unclear
        await producer.aclose()
        assert producer.stats().buffered_bytes == 0

    in_world(body)


def test_a_late_batch_whose_check_breaks_is_decided_all_the_same():
    """Goal: whatever the check meets, nobody waits for ever, and its bytes are given back."""

    async def body(world):
        world.plan = at(("create", 0, Fault.SLOW, MANIFEST))
        world.store._slow_s = 130.0
        producer = await world.producer(delivery_timeout=200.0).__aenter__()
        handle = await producer.produce([b"a"])
        await asyncio.sleep(131)

        async def broken(name):
            raise RuntimeError(f"no idea what {name} is")

        world.store.head = broken
        async with asyncio.timeout(1000):
            with pytest.raises(StorageError, match="no idea.*may be in the queue") as raised:
                await handle.watcher.await_durable()
            assert raised.value.unclear
            await producer.flush()
            await producer.aclose()
        assert producer.stats().buffered_bytes == 0

    in_world(body)
