"""``batches()``: fetched ahead, delivered in order, dropped when the cursor goes elsewhere."""

import asyncio
import contextlib

import pytest
from fed_queue import TestQueue, opened

from walengine.buffer import BatchMissingError


@pytest.fixture
def queue() -> TestQueue:
    return TestQueue()


class Gated:
    """A store whose reads of batches wait for a gate, and are counted; the manifest's are too."""

    def __init__(self, store):
        self.store = store
        self.gate = asyncio.Event()
        self.manifest_gate = asyncio.Event()
        self.manifest_gate.set()
        self.under_way = self.most = self.fetched = self.looked = 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def get_if_changed(self, name, etag, *, max_bytes=None):
        self.looked += 1
        await self.manifest_gate.wait()
        return await self.store.get_if_changed(name, etag, max_bytes=max_bytes)

    async def get(self, name, *, max_bytes=None):
        if not name.endswith(".batch"):
            return await self.store.get(name, max_bytes=max_bytes)
        self.under_way += 1
        self.fetched += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            return await self.store.get(name, max_bytes=max_bytes)
        finally:
            self.under_way -= 1


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def take(batches, count) -> list[int]:
    return [(await anext(batches)).sequence for _ in range(count)]


@pytest.mark.parametrize("prefetch", [1, 3, 8, 100])
def test_so_many_are_fetched_at_once_and_all_are_delivered_in_order(run, queue, prefetch):
    async def scenario():
        await queue.add(20)
        store = Gated(queue.store)
        async with opened(queue, store=store) as consumer:
            batches = consumer.batches(prefetch=prefetch)
            first = asyncio.ensure_future(anext(batches))
            await settle()
            assert store.under_way == min(prefetch, 20)
            store.gate.set()
            assert (await first).sequence == 0
            assert await take(batches, 19) == list(range(1, 20))
            assert (store.most, store.fetched) == (min(prefetch, 20), 20)
            assert store.looked == 0  # the snapshot of the opening served them all
            await batches.aclose()

    run(scenario())


def test_it_waits_for_what_is_not_there_yet(run, queue):
    async def scenario():
        async with (
            opened(queue) as consumer,
            contextlib.aclosing(consumer.batches(poll_interval=0.001)) as batches,
        ):
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await queue.add(2)
            assert (await waiting).sequence == 0
            assert await take(batches, 1) == [1]

    run(scenario())


def test_the_cursor_moves_when_a_batch_is_handed_over(run, queue):
    async def scenario():
        await queue.add(5)
        async with opened(queue) as consumer:
            batches = consumer.batches()
            assert await take(batches, 2) == [0, 1]
            await batches.aclose()
            assert consumer.stats().next_sequence == 2
            assert (await consumer.next_batch()).sequence == 2

    run(scenario())


def test_what_was_fetched_ahead_is_dropped_when_the_cursor_moves(run, queue):
    """Method: a skip, a batch and descriptors taken otherwise, all while batches are held."""

    async def scenario():
        await queue.add(12)
        async with (
            opened(queue) as consumer,
            contextlib.aclosing(consumer.batches(prefetch=4)) as batches,
        ):
            assert await take(batches, 1) == [0]
            await consumer.skip(1, "not wanted")
            assert await take(batches, 1) == [2]
            assert (await consumer.next_batch()).sequence == 3
            assert await take(batches, 2) == [4, 5]
            assert len(await consumer.next_descriptors(5)) == 5
            assert await take(batches, 1) == [11]
            await consumer.ack_through(11)

    run(scenario())


def test_a_batch_that_is_skipped_while_it_is_fetched_is_dropped(run, queue):
    async def scenario():
        await queue.add(3)
        store = Gated(queue.store)
        async with opened(queue, store=store) as consumer:
            batches = consumer.batches(prefetch=2)
            first = asyncio.ensure_future(anext(batches))
            await settle()
            await consumer.skip(0, "too slow")
            store.gate.set()
            assert (await first).sequence == 1
            assert await take(batches, 1) == [2]
            await batches.aclose()

    run(scenario())


def test_the_error_of_a_batch_that_was_skipped_is_not_raised(run, queue):
    """Method: it was fetched ahead already, and once more before the manifest was read."""

    async def scenario():
        locations = await queue.add(3)
        await queue.store.delete(locations[1])
        store = Gated(queue.store)
        store.gate.set()
        async with opened(queue, store=store) as consumer:
            batches = consumer.batches(poll_interval=0)
            assert await take(batches, 1) == [0]
            await settle()
            await consumer.skip(1, "known to be gone")
            assert await take(batches, 1) == [2]
            (location,) = await queue.add(1)
            await queue.add(1)
            await queue.store.delete(location)
            store.manifest_gate.clear()
            waiting = asyncio.ensure_future(anext(batches))
            await settle()
            await consumer.skip(3, "known to be gone")
            store.manifest_gate.set()
            assert (await waiting).sequence == 4
            await batches.aclose()

    run(scenario())


def test_an_error_ends_it_and_the_next_one_goes_on(run, queue):
    async def scenario():
        locations = await queue.add(4)
        data = (await queue.store.get(locations[2])).data
        await queue.store.delete(locations[2])
        async with opened(queue) as consumer:
            batches = consumer.batches()
            assert await take(batches, 2) == [0, 1]
            with pytest.raises(BatchMissingError):
                await anext(batches)
            with pytest.raises(StopAsyncIteration):
                await anext(batches)
            await queue.store.put(locations[2], data)
            async with contextlib.aclosing(consumer.batches()) as again:
                assert await take(again, 2) == [2, 3]

    run(scenario())


def test_fetches_end_with_the_iteration_whether_closed_or_cancelled(run, queue):
    """Method: the fixture fails a test that leaves a task behind."""

    async def scenario():
        await queue.add(9)
        store = Gated(queue.store)
        async with opened(queue, store=store) as consumer:
            task = asyncio.ensure_future(anext(consumer.batches()))
            await settle()
            assert store.under_way == 8
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert store.under_way == 0
            assert consumer.stats().next_sequence == 0
            store.gate.set()
            batches = consumer.batches()
            await take(batches, 1)
            store.gate.clear()
            await take(batches, 3)
            await batches.aclose()
            assert store.under_way == 0

    run(scenario())


@pytest.mark.parametrize(
    ("options", "error"),
    [({"prefetch": 0}, ValueError), ({"poll_interval": -1}, ValueError),
     ({"poll_interval": "1s"}, TypeError)],
)  # fmt: skip
def test_options_are_checked_at_once(run, queue, options, error):
    async def scenario():
        async with opened(queue) as consumer:
            with pytest.raises(error):
                consumer.batches(**options)

    run(scenario())
