"""The producer's back-pressure: bounded by calls, bytes and manifest; fair; cleanly cancelled."""

import asyncio
import random
import time

import pytest
from faults import Fault
from queues import MANIFEST, World, always, in_world

from walengine.buffer import BackpressureError, StorageError
from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.location import BatchNamer
from walengine.buffer.producer._input import Input, Limits
from walengine.buffer.producer._room import Room
from walengine.buffer.producer._waiting import Waiting


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def stuck(world, *verbs):
    """Let nothing of these calls return before the test says so."""
    gate = asyncio.Event()
    inner = world.store._call

    async def call(verb, name, do):
        if verb in verbs:
            await gate.wait()
        return await inner(verb, name, do)

    world.store._call = call
    return gate


def test_calls_wait_in_the_inbox_only_while_every_slot_is_taken():
    async def body(world):
        gate = stuck(world, "put")
        options = {"max_inflight_batches": 2, "max_buffered_inputs": 3, "flush_size_bytes": 1}
        async with world.producer(**options) as producer:
            for i in range(6):
                await producer.produce([b"%d." % i], timeout=0.001)
            stats = producer.stats()
            assert (stats.inflight_batches, stats.buffered_inputs) == (2, 3)
            with pytest.raises(BackpressureError, match="max_buffered_inputs=3"):
                await producer.produce([b"x"], timeout=0.001)
            waiting = asyncio.ensure_future(producer.produce([b"6."]))
            await settle()
            assert producer.stats().calls_waiting == 1
            assert not waiting.done()
            gate.set()
            await waiting
        assert await world.entries() == [b"%d." % i for i in range(7)]

    in_world(body)


def test_sizes_beyond_the_limits_of_a_batch_and_of_the_buffer_only_mean_more_batches():
    """flush_size_bytes may be the largest of the three: the other two seal a batch before."""

    async def body(world):
        options = {"flush_size_bytes": 1 << 30, "max_batch_bytes": 4096, "flush_interval": 50.0,
                   "max_buffered_bytes": 10_000}  # fmt: skip
        async with world.producer(**options) as producer:
            for _ in range(40):
                await producer.produce([bytes(1000)])
            assert asyncio.get_running_loop().time() < 5050, "nobody waited for the interval"
        sizes = [len(batch) for batch in await world.batches()]
        assert (max(sizes), sum(sizes)) == (4, 40)

    in_world(body)


def test_an_open_batch_grows_while_no_slot_is_free():
    """Goal: a slow store gets few large batches, and not many small ones."""

    async def body(world):
        gate = stuck(world, "put")
        async with world.producer(max_inflight_batches=1, flush_interval=0.01) as producer:
            for i in range(50):
                await producer.produce([b"%d" % i])
                await asyncio.sleep(0.02)
            assert producer.stats().inflight_batches == 1
            gate.set()
        assert [len(batch) for batch in await world.batches()] == [1, 49]

    in_world(body)


def test_bytes_that_are_not_durable_are_bounded_and_the_bound_seals_the_open_batch():
    async def body(world):
        loop = asyncio.get_running_loop()
        async with world.producer(max_buffered_bytes=100, flush_interval=60.0) as producer:
            await producer.produce([bytes(50)], bytes(10))
            await producer.produce([bytes(40)])
            begin = loop.time()
            await producer.produce([b"x"])
            assert loop.time() == begin, "nobody waited for the flush interval"
            assert producer.stats().buffered_bytes == 1
        assert [len(batch) for batch in await world.batches()] == [2, 1]

    in_world(body)


def test_at_no_time_more_is_held_than_allowed(seed, scaled, count):
    """Method: tasks that produce as fast as they can; the sum is taken from outside."""
    chance = random.Random(seed)
    calls = scaled(400)

    async def body(world):
        held = most = 0
        releases = set()
        options = {"max_buffered_bytes": 500, "max_buffered_inputs": 4, "flush_interval": 0.02,
                   "max_inflight_batches": 3, "flush_size_bytes": 150}  # fmt: skip
        async with world.producer(**options) as producer:

            async def work():
                nonlocal held, most
                for _ in range(calls // 8):
                    size = chance.randrange(1, 120)
                    handle = await producer.produce([bytes(size)])
                    held += size
                    most = max(most, held)
                    stats = producer.stats()
                    assert stats.buffered_bytes <= 500
                    assert stats.buffered_inputs <= 4
                    assert stats.inflight_batches <= 3
                    releases.add(asyncio.ensure_future(release(handle, size)))

            async def release(handle, size):
                nonlocal held
                await handle.watcher.await_durable()
                held -= size

            await asyncio.gather(*(work() for _ in range(8)))
            await asyncio.gather(*releases)
        assert held == 0
        assert most > 350, "the bound is used"
        assert producer.stats().buffered_bytes == 0

    in_world(body, latency_s=0.005)
    count("calls against a bound", calls)


def test_who_waits_longest_is_first():
    async def body(world):
        gate = stuck(world, "put")
        async with world.producer(max_buffered_bytes=10, flush_interval=0.01) as producer:
            await producer.produce([b"012345678"])
            waiting = [asyncio.ensure_future(producer.produce([b"w%d" % i])) for i in range(20)]
            await settle()
            # A small one that would fit must not overtake those who wait for more.
            last = asyncio.ensure_future(producer.produce([b"z"]))
            await settle()
            assert producer.stats().calls_waiting == 21
            gate.set()
            await asyncio.gather(*waiting, last)
        assert (await world.entries())[1:] == [b"w%d" % i for i in range(20)] + [b"z"]

    in_world(body)


def test_a_list_may_change_while_its_call_waits():
    async def body(world):
        gate = stuck(world, "put")
        async with world.producer(max_buffered_bytes=10, flush_interval=0.01) as producer:
            await producer.produce([b"0123456789"])
            entries = [b"a", b"b"]
            waiting = asyncio.ensure_future(producer.produce(entries))
            await settle()
            entries[0] = b"x"
            entries.clear()
            gate.set()
            await waiting
        assert (await world.entries())[1:] == [b"a", b"b"]

    in_world(body)


def test_a_cancelled_call_leaves_nothing_and_lets_the_next_one_in():
    async def body(world):
        gate = stuck(world, "put")
        async with world.producer(max_buffered_bytes=10, flush_interval=0.01) as producer:
            await producer.produce([b"0123456789"])
            waiting = [asyncio.ensure_future(producer.produce([b"w%d" % i])) for i in range(3)]
            await settle()
            waiting[0].cancel()
            await settle()
            gate.set()
            await asyncio.gather(*waiting[1:])
            assert waiting[0].cancelled()
        assert await world.entries() == [b"0123456789", b"w1", b"w2"]
        assert producer.stats().buffered_bytes == 0

    in_world(body)


def test_a_call_cancelled_in_the_moment_it_is_let_in_is_not_accepted():
    """Method: cancel at each of the loop's turns around the one in which room is made."""

    async def one(world, turns):
        gate = stuck(world, "put")
        async with world.producer(max_buffered_bytes=2, flush_interval=0.01) as producer:
            await producer.produce([b"00"])
            first = asyncio.ensure_future(producer.produce([b"a%d" % (turns % 10)]))
            second = asyncio.ensure_future(producer.produce([b"b."]))
            await asyncio.sleep(0.02)
            gate.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first, second])
        entries = await world.entries()
        accepted = not first.cancelled()
        assert entries == [b"00", *([b"a%d" % (turns % 10)] if accepted else []), b"b."]
        return accepted

    outcomes = [in_world(lambda world, turns=turns: one(world, turns)) for turns in range(40)]
    assert set(outcomes) == {False, True}, "both sides of the moment were met"


def test_room_that_is_gone_again_when_a_call_is_let_in_is_waited_for_anew():
    async def body(world):
        room = Room(max_inputs=1, max_bytes=10)
        waiting = Waiting(room, lambda: None)
        call = Input([b"a"], b"", Limits(100, 10, 100))
        accepted = []

        async def take():
            async with waiting.turn(call):
                accepted.append(room.manifest_is_full)

        room.bytes = 10
        task = asyncio.ensure_future(take())
        await settle()
        room.bytes = 0
        waiting.let_first_in()
        room.manifest_is_full = True
        await settle()
        assert accepted == []
        room.manifest_is_full = False
        waiting.let_first_in()
        await task
        assert accepted == [False]

    in_world(body)


def test_a_tight_loop_lets_the_event_loop_turn(run):
    """Goal: who never waits must not keep the producer from writing. In real time."""

    async def body():
        world = World()
        environment = world.environment(wall_ms=lambda: time.time_ns() // 1_000_000)
        async with world.producer(environment, flush_interval=0.01) as producer:
            watcher = (await producer.produce([b"first"])).watcher
            for _ in range(2_000_000):
                await producer.produce([b"more"])
                if watcher.result():
                    return
            raise AssertionError("never durable")

    run(body())


# ---- the manifest --------------------------------------------------------------------------------


def large_manifest(manifest, payload_bytes):
    name = BatchNamer("ingest").new().location
    return manifest.append([Listing(name, [Metadata(0, 0, bytes(payload_bytes))])])


def test_a_full_manifest_pushes_back_until_the_consumer_has_caught_up():
    async def body(world):
        async with world.producer(max_manifest_bytes=4096) as producer:
            await world.write(large_manifest(await world.manifest(), 3990))
            handle = await producer.produce([b"a"])
            await asyncio.sleep(3)
            assert handle.watcher.result() is None
            stats = producer.stats()
            assert stats.manifest_is_full
            with pytest.raises(BackpressureError, match="max_manifest_bytes"):
                await producer.produce([b"b"], timeout=2)
            waiting = asyncio.ensure_future(producer.produce([b"c"]))
            await settle()
            await world.dequeue(0)
            await waiting
            await handle.watcher.await_durable()
            assert not producer.stats().manifest_is_full
            assert len((await world.inner.get(MANIFEST)).data) <= 4096
        assert await world.entries() == [b"a", b"c"]

    in_world(body)


def test_what_somebody_else_listed_for_us_pushes_back_no_longer():
    """Method: a copy of this machine, with the same batch in memory, is faster."""

    async def body(world):
        async with world.producer(max_manifest_bytes=4096) as producer:
            await world.write(large_manifest(await world.manifest(), 3990))
            handle = await producer.produce([b"a"])
            await asyncio.sleep(1)
            assert producer.stats().manifest_is_full
            (name,) = [call.name for call, _ in world.store.history if call.verb == "put"]
            emptied = (await world.manifest()).dequeue(0)
            await world.write(emptied.append([Listing(name)]))
            await handle.watcher.await_durable()
            await settle()
            assert not producer.stats().manifest_is_full
            await producer.produce([b"b"], timeout=1)
        assert await world.entries() == [b"a", b"b"]

    in_world(body)


def test_calls_are_let_in_when_the_manifest_has_room_and_not_when_the_line_is_empty():
    async def body(world):
        options = {"max_manifest_bytes": 4096, "flush_size_bytes": 1, "max_inflight_batches": 2,
                   "delivery_timeout": 600.0}  # fmt: skip
        async with world.producer(**options) as producer:
            await world.write(large_manifest(await world.manifest(), 3990))
            await producer.produce([b"a."])
            await asyncio.sleep(1)
            world.plan = lambda call: Fault.SLOW if call.verb == "replace" else None
            world.store._slow_s = 60.0
            waiting = asyncio.ensure_future(producer.produce([b"b."]))
            await world.dequeue(0)
            await asyncio.sleep(5)
            assert waiting.done(), "it waits for the append to return, and not for room"

    in_world(body)


@pytest.mark.parametrize("opened", ["before", "behind"])
def test_a_manifest_larger_than_what_is_read_pushes_back_too(opened):
    async def body(world):
        large = large_manifest(await world.manifest(), 9000)
        if opened == "behind":
            await world.write(large)
        async with world.producer(max_manifest_bytes=4096) as producer:
            if opened == "before":
                await world.write(large)
            handle = await producer.produce([b"a"])
            await asyncio.sleep(3)
            assert producer.stats().manifest_is_full
            await world.dequeue(0)
            await handle.watcher.await_durable()
        assert await world.entries() == [b"a"]

    in_world(body)


def test_a_group_takes_no_more_than_what_fits():
    async def body(world):
        plan = always(Fault.FAIL_BEFORE, "create", part=MANIFEST)
        world.plan = plan
        options = {"max_manifest_bytes": 4096, "flush_size_bytes": 1, "delivery_timeout": 20.0}
        producer = await world.producer(**options).__aenter__()
        handles = [await producer.produce([b"%d." % i], bytes(1000)) for i in range(5)]
        await asyncio.sleep(1)
        world.plan = None
        await asyncio.sleep(4)
        assert len(await world.manifest()) == 3
        assert [handle.watcher.result() for handle in handles] == [True] * 3 + [None] * 2
        await world.dequeue(0)
        await asyncio.sleep(1)
        assert len(await world.manifest()) == 3
        with pytest.raises(StorageError, match="delivery_timeout"):
            await handles[4].watcher.await_durable()
        await producer.aclose()
        assert await world.entries() == [b"1.", b"2.", b"3."]

    in_world(body)


def test_a_failure_makes_room():
    async def body(world):
        world.plan = always(Fault.FAIL_BEFORE, "put")
        options = {"max_buffered_bytes": 4, "delivery_timeout": 2.0}
        async with world.producer(**options) as producer:
            failed = await producer.produce([b"aaaa"])
            waiting = asyncio.ensure_future(producer.produce([b"bbbb"]))
            with pytest.raises(StorageError):
                await failed.watcher.await_durable()
            world.plan = None
            await waiting
        assert await world.entries() == [b"bbbb"]

    in_world(body)
