"""The consumer on a store: order, positions, acks, descriptors, closing."""

import asyncio
import time

import pytest
from fed_queue import MANIFEST, OWNER, TestQueue, fresh_memory, opened

from walengine.buffer import (
    AckOrderError,
    AsyncConsumer,
    BatchDescriptor,
    CompressionType,
    ConsumerConfig,
    FencedError,
    FormatError,
    Metadata,
    ObjectStoreConfig,
    PairingError,
    QueueError,
    SequenceGapError,
    collect_garbage,
)
from walengine.buffer._environment import Environment
from walengine.buffer.consumer import asynchronous
from walengine.buffer.entry import Listing
from walengine.buffer.store.memory import MemoryStore


@pytest.fixture(params=["memory", "local"])
def queue(request, tmp_path) -> TestQueue:
    local = request.param == "local"
    return TestQueue(ObjectStoreConfig.Local(str(tmp_path / "store")) if local else None)


async def drain(consumer) -> list[int]:
    delivered = []
    while (batch := await consumer.next_batch()) is not None:
        assert batch.entries == [b"%d" % batch.sequence]
        delivered.append(batch.sequence)
    return delivered


# ---- delivery ------------------------------------------------------------------------------------


def test_batches_come_in_order_with_what_was_said_of_them(run, queue):
    async def scenario():
        locations = await queue.add(2)
        async with AsyncConsumer(queue.config) as consumer:
            batch = await consumer.next_batch()
            assert (batch.sequence, batch.entries) == (0, [b"0"])
            assert (batch.location, batch.metadata) == (locations[0], (Metadata(0, 1000, b"m"),))
            assert batch.identity == locations[0][-22:-6]
            assert await drain(consumer) == [1]
            assert await consumer.next_batch() is None
            await queue.add(2)
            assert await drain(consumer) == [2, 3]

    run(scenario())


@pytest.mark.parametrize("compression", list(CompressionType))
def test_large_batches_are_decoded_off_the_loop(run, compression):
    """Method: a thread of the executor must not be the loop's; a small batch needs none."""
    offloaded = []

    async def offload(work):
        offloaded.append(work)
        return work()

    async def scenario():
        queue = TestQueue()
        entries = [bytes([i]) * 5000 for i in range(20)]
        await queue.add(entries=entries, compression=compression)
        await queue.add()
        around = Environment(store=queue.store, offload=offload)
        async with AsyncConsumer(queue.config, environment=around) as consumer:
            assert (await consumer.next_batch()).entries == entries
            assert len(offloaded) == 1
            await consumer.next_batch()
            assert len(offloaded) == 1

    run(scenario())


def test_a_new_queue_is_empty_and_is_claimed(run, queue):
    async def scenario():
        async with AsyncConsumer(queue.config) as consumer:
            assert await consumer.next_batch() is None
            assert (consumer.epoch, consumer.queue_length) == (1, 0)
            assert consumer.last_acked_sequence is None
        assert await queue.objects() == {MANIFEST, OWNER}

    run(scenario())


def test_unacked_batches_come_again_to_the_next(run, queue):
    async def scenario():
        await queue.add(3)
        async with opened(queue) as consumer:
            assert await drain(consumer) == [0, 1, 2]
            await consumer.ack(0)
        async with opened(queue) as consumer:
            assert consumer.epoch == 2
            assert await drain(consumer) == [1, 2]
        async with await AsyncConsumer.open(queue.config, 1) as consumer:
            assert consumer.last_acked_sequence == 1
            assert await drain(consumer) == [2]
            assert await queue.listed() == [1, 2]
        assert await queue.listed() == [2]  # what was acked elsewhere went at closing

    run(scenario())


def test_positions_that_the_queue_does_not_have_are_refused(run, queue):
    async def scenario():
        await queue.add(3)
        await queue.change(lambda manifest: manifest.dequeue(1))
        with pytest.raises(PairingError, match="sequence is 3"):
            await queue.open(3)
        with pytest.raises(SequenceGapError, match="allow_gap=True"):
            await queue.open(0)
        assert (await queue.manifest()).epoch == 0  # refused before anything was taken over
        async with opened(queue, 0, allow_gap=True) as consumer:
            assert await drain(consumer) == [2]

    run(scenario())


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_a_position_is_a_sequence(wrong, error):
    with pytest.raises(error, match="last_acked_sequence"):
        AsyncConsumer(ConsumerConfig(object_store=fresh_memory()), wrong)


def test_one_snapshot_serves_many_batches(run):
    async def scenario():
        queue = TestQueue()
        await queue.add(20)
        counting = Counting(queue.config.object_store.name)
        async with opened(queue, store=counting) as consumer:
            counting.calls.clear()
            assert await drain(consumer) == list(range(20))
        manifest_calls = [call for call in counting.calls if call[1] == MANIFEST]
        assert manifest_calls == [("get_if_changed", MANIFEST)]  # the last one, which found nothing

    run(scenario())


class Counting(MemoryStore):
    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    async def get(self, name, *, max_bytes=None):
        self.calls.append(("get", name))
        return await super().get(name, max_bytes=max_bytes)

    async def get_if_changed(self, name, etag, *, max_bytes=None):
        self.calls.append(("get_if_changed", name))
        version = self._version(name)
        if version is not None and version.etag == etag:
            return await super().get_if_changed(name, etag, max_bytes=max_bytes)
        return await super().get(name, max_bytes=max_bytes)


def test_a_queue_in_every_kind_of_store(run, store_config):
    """Memory, a directory, two servers of S3's protocol: opened as configured, with the probe."""

    async def scenario():
        queue = TestQueue(store_config)
        async with AsyncConsumer(queue.config) as consumer:
            locations = await queue.add(5)
            assert await drain(consumer) == list(range(5))
            await consumer.ack_through(1)
            assert await queue.listed() == [2, 3, 4]
            async with AsyncConsumer(queue.config, 2) as newer:
                assert await drain(newer) == [3, 4]
                await newer.ack_through(3)
                with pytest.raises(FencedError):
                    await consumer.ack_through(4)
            assert await queue.listed() == [4]
        around = Environment(store=queue.store, wall_ms=lambda: time.time_ns() // 10**6 + 3_600_000)
        found = await collect_garbage(queue.config, environment=around)
        assert {each.name for each in found.deleted} == set(locations[:4])
        assert await queue.objects() == {MANIFEST, OWNER, locations[4]}
        await queue.store.aclose()

    run(scenario())


# ---- descriptors ---------------------------------------------------------------------------------


def test_descriptors_are_fetched_in_any_order_and_at_once(run, queue):
    async def scenario():
        locations = await queue.add(5)
        async with opened(queue) as consumer:
            descriptors = await consumer.next_descriptors(3)
            assert descriptors == [
                BatchDescriptor(i, locations[i], (Metadata(0, 1000, b"m"),)) for i in range(3)
            ]
            assert descriptors[0].identity == locations[0][-22:-6]
            handle = consumer.fetch_handle()
            batches = await asyncio.gather(*map(handle.fetch, reversed(descriptors)))
            assert [batch.entries for batch in batches] == [[b"2"], [b"1"], [b"0"]]
            assert (await consumer.fetch_descriptor(descriptors[0])).entries == [b"0"]
            assert [each.sequence for each in await consumer.next_descriptors(9)] == [3, 4]
            assert await consumer.next_descriptors(9) == []
            await consumer.ack_through(4)
            with pytest.raises(ValueError, match="max_count"):
                await consumer.next_descriptors(0)

    run(scenario())


def test_calls_at_once_deliver_each_batch_once(run, queue):
    async def scenario():
        await queue.add(12)
        async with opened(queue, store=Slow(queue.store)) as consumer:
            # Each fetch takes a few turns of the loop.
            calls = (consumer.next_batch() for _ in range(15))
            batches = await asyncio.gather(*calls)
        assert [batch and batch.sequence for batch in batches] == [*range(12), None, None, None]

    run(scenario())


class Slow:
    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def get(self, name, *, max_bytes=None):
        await asyncio.sleep(0)
        return await self.store.get(name, max_bytes=max_bytes)


# ---- acks ----------------------------------------------------------------------------------------


def test_every_hundredth_ack_takes_off_what_is_acked(run, queue):
    async def scenario():
        await queue.add(205)
        async with opened(queue) as consumer:
            await drain(consumer)
            lengths = []
            for sequence in range(205):
                await consumer.ack(sequence)
                lengths.append(len(await queue.listed()))
            assert lengths[98:100] == [205, 105]
            assert lengths[198:] == [105, 5, 5, 5, 5, 5, 5]
            assert consumer.queue_length == 5
            await consumer.flush()
            assert (await queue.listed(), consumer.queue_length) == ([], 0)
        assert consumer.stats().metrics["buffer.acks"] == 205

    run(scenario())


def test_ack_through_is_one_write(run, queue):
    async def scenario():
        await queue.add(50)
        async with opened(queue) as consumer:
            await consumer.next_descriptors(40)
            writes = consumer.stats().metrics["buffer.manifest_writes"]
            await consumer.ack_through(29)
            assert await queue.listed() == list(range(30, 50))
            assert consumer.stats().metrics["buffer.manifest_writes"] == writes + 1
            assert consumer.stats().metrics["buffer.acks"] == 30
            for wrong in (29, 40):
                with pytest.raises(AckOrderError):
                    await consumer.ack_through(wrong)
            await consumer.ack(30)
            assert consumer.last_acked_sequence == 30

    run(scenario())


def test_acks_out_of_order_are_refused_and_change_nothing(run, queue):
    async def scenario():
        await queue.add(3)
        async with opened(queue) as consumer:
            with pytest.raises(AckOrderError, match="was not delivered"):
                await consumer.ack(0)
            await drain(consumer)
            with pytest.raises(AckOrderError, match="the next to be acked is 0") as caught:
                await consumer.ack(1)
            assert caught.value.sequence == 1
            assert consumer.stats().unacked == 3
            for sequence in range(3):
                await consumer.ack(sequence)

    run(scenario())


def test_producers_go_on_while_acks_are_written(run, queue):
    """Method: batches are listed at each manifest read of a dequeue, so that its swap fails."""

    async def scenario():
        await queue.add(4)
        busy = Busy(queue, 6)
        async with opened(queue, store=busy) as consumer:
            await drain(consumer)
            busy.is_on = True
            await consumer.ack_through(3)
            assert consumer.stats().metrics["buffer.manifest_conflicts"] == 6
        assert await queue.listed() == list(range(4, 10))

    run(scenario())


def test_many_conflicts_in_a_row_make_it_wait_a_part_of_a_trip(run, monkeypatch):
    slept_s = []
    sleep = asyncio.sleep

    async def sleeping(delay_s):
        if delay_s < 60:  # not the collector's
            slept_s.append(delay_s)
        await sleep(0 if delay_s < 60 else delay_s)

    async def scenario():
        queue = TestQueue()
        await queue.add(1)
        busy = Busy(queue, 6)
        async with opened(queue, store=busy) as consumer:
            await consumer.next_batch()
            busy.is_on = True
            monkeypatch.setattr(asyncio, "sleep", sleeping)
            await consumer.ack_through(0)
            monkeypatch.undo()
        # Seven attempts: three lost ones are tried again at once, the last three after a wait.
        assert len(slept_s) == 3
        assert all(0 <= delay_s < 1 for delay_s in slept_s)

    run(scenario())


class Busy:
    """A store where somebody lists a batch before each of the first swaps."""

    def __init__(self, queue, count):
        self.queue, self.left, self.is_on = queue, count, False

    def __getattr__(self, name):
        return getattr(self.queue.store, name)

    async def replace(self, name, data, etag):
        if self.is_on and self.left:
            self.left -= 1
            await self.queue.enqueue(Listing("ingest/other"))
        return await self.queue.store.replace(name, data, etag)


# ---- opening and closing -------------------------------------------------------------------------


def test_a_consumer_is_opened_once_and_closed_for_good(run, queue):
    async def scenario():
        consumer = queue.consumer()
        assert repr(consumer).endswith("ingest/manifest: not open>")
        with pytest.raises(QueueError, match="it is not open"):
            await consumer.next_batch()
        with pytest.raises(QueueError, match="it is not open"):
            consumer.stats()
        async with consumer, consumer:
            assert consumer.is_open
        await consumer.aclose()
        assert consumer.stats().epoch == 1
        assert repr(consumer).endswith("ingest/manifest: epoch 1, next sequence 0, closed>")
        for call in (consumer.next_batch, consumer.flush, lambda: consumer.ack(0),
                     lambda: consumer.next_descriptors(1), lambda: anext(consumer.batches()),
                     lambda: consumer.skip(0, ""), consumer.__aenter__):  # fmt: skip
            with pytest.raises(QueueError, match=r"it is closed|opened before"):
                await call()

    run(scenario())


def test_an_environment_that_was_given_stays_open(run):
    async def scenario():
        queue = TestQueue()
        around = Environment(store=queue.store, owns_store=True)
        async with AsyncConsumer(queue.config, environment=around):
            pass
        assert MANIFEST in await queue.objects()

    run(scenario())


def test_the_store_is_closed_with_the_consumer(run, queue):
    async def scenario():
        async with AsyncConsumer(queue.config) as consumer:
            store = consumer._opened().queue.store
        with pytest.raises(QueueError, match="the store is closed"):
            await store.get(MANIFEST)

    run(scenario())


def test_the_store_is_closed_when_opening_fails(run, monkeypatch):
    async def scenario():
        queue = TestQueue()
        await queue.store.put(MANIFEST, b"broken")
        store = MemoryStore(queue.config.object_store.name)

        async def give(_config):
            return Environment(store=store, owns_store=True)

        monkeypatch.setattr(asynchronous, "open_environment", give)
        with pytest.raises(FormatError):
            await queue.open()
        with pytest.raises(QueueError, match="the store is closed"):
            await store.get(MANIFEST)

    run(scenario())


def test_an_error_of_the_block_is_not_covered_by_one_of_closing(run, caplog):
    async def scenario():
        queue = TestQueue()
        await queue.add(1)
        with pytest.raises(ZeroDivisionError):
            async with queue.consumer() as consumer:
                await drain(consumer)
                await consumer.ack(0)
                await queue.store.delete(MANIFEST)
                raise ZeroDivisionError
        assert "the manifest is gone" in caplog.text

    run(scenario())


def test_a_consumer_that_nobody_closes_is_a_warning(run):
    async def scenario():
        queue = TestQueue()
        await queue.add(3)
        consumer = await queue.open(store=queue.store)
        await drain(consumer)
        await consumer.ack(0)
        await consumer.ack(1)
        with pytest.warns(ResourceWarning, match="was not closed: .* delivered again: 2"):
            del consumer
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the collector's task sees that it is cancelled

    run(scenario())
