"""The producer, asynchronous: what a caller sees when the store does its work.

In memory and in virtual time, but for the tests on a directory.
"""

import asyncio
import random

import pytest
from queues import START_MS, World, config, in_world

from walengine.buffer import (
    AsyncProducer,
    BackpressureError,
    CompressionType,
    InvalidInputError,
    ObjectStoreConfig,
    PairingError,
    ProducerConfig,
    QueueError,
    StorageError,
)
from walengine.buffer.batch import decode_batch
from walengine.buffer.location import parse_batch_name
from walengine.buffer.manifest import Manifest
from walengine.buffer.store.probe import ClockReading


def test_what_is_durable_is_stored_and_listed():
    async def body(world):
        async with world.producer() as producer:
            handle = await producer.produce([b"a", bytearray(b"b"), memoryview(b"c")], b"who")
            assert handle.watcher.result() is None
            assert await handle.watcher.await_durable() is None
            assert handle.watcher.result() is True
            assert await world.batches() == [[b"a", b"b", b"c"]]
        (entry,) = (await world.manifest()).entries()
        assert parse_batch_name(entry.location, "ingest") is not None
        assert entry.metadata == ((0, handle.ingestion_time_ms, b"who"),)
        assert handle.ingestion_time_ms == START_MS + 5_000_000

    in_world(body)


def test_every_call_is_an_item_of_metadata_with_its_start_index():
    async def body(world):
        async with world.producer() as producer:
            await producer.produce([b"a", b"b"], b"first")
            await producer.produce([b"c"])
            await producer.produce([b"d", b"e"], bytearray(b"third"))
        (entry,) = (await world.manifest()).entries()
        assert [(item.start_index, item.payload) for item in entry.metadata] == [
            (0, b"first"), (2, b""), (3, b"third"),
        ]  # fmt: skip

    in_world(body)


def test_entries_are_safe_from_later_changes():
    async def body(world):
        async with world.producer() as producer:
            entry, metadata, entries = bytearray(b"before"), bytearray(b"before"), [b"x"]
            entries.append(entry)
            await producer.produce(entries, metadata)
            entry[:] = metadata[:] = b"behind"
            entries.clear()
        assert await world.entries() == [b"x", b"before"]
        assert next((await world.manifest()).entries()).metadata[0].payload == b"before"

    in_world(body)


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        (b"bytes", TypeError), ("text", TypeError), (bytearray(b"b"), TypeError),
        (["text"], TypeError), ([b"a", 5], TypeError), (7, TypeError),
        ([], InvalidInputError), (iter(()), InvalidInputError), ([bytes(5000)], InvalidInputError),
        ([b""] * 1100, InvalidInputError),
    ],
)  # fmt: skip
def test_what_can_be_no_batch_is_refused_and_nothing_is_accepted(entries, error):
    async def body(world):
        async with world.producer(max_batch_bytes=4096) as producer:
            with pytest.raises(error):
                await producer.produce(entries)
            assert producer.stats().calls_accepted == 0
        assert await world.entries() == []

    in_world(body)


@pytest.mark.parametrize(
    ("options", "entry_bytes", "metadata_bytes", "words"),
    [
        ({"max_buffered_bytes": 1000}, 1001, 0, "max_buffered_bytes"),
        ({"max_batch_bytes": 4096}, 4093, 0, "max_batch_bytes"),
        ({"max_manifest_bytes": 4096}, 1, 1009, "max_manifest_bytes"),
    ],
)
def test_a_call_that_no_batch_can_hold_is_refused_by_its_limit(
    options, entry_bytes, metadata_bytes, words
):
    async def body(world):
        async with world.producer(**options) as producer:
            with pytest.raises(InvalidInputError, match=words):
                await producer.produce([bytes(entry_bytes)], bytes(metadata_bytes))
            handle = await producer.produce(
                [bytes(entry_bytes - 1)], bytes(metadata_bytes and 1008)
            )
            await handle.watcher.await_durable()

    in_world(body)


# ---- batches -------------------------------------------------------------------------------------


def test_a_batch_is_written_when_it_is_old_enough():
    async def body(world):
        loop = asyncio.get_running_loop()
        async with world.producer(flush_interval=0.5) as producer:
            begin = loop.time()
            handle = await producer.produce([b"a"])
            await asyncio.sleep(0.3)
            later = await producer.produce([b"b"])
            await handle.watcher.await_durable()
            assert loop.time() - begin == pytest.approx(0.5, abs=0.001)
            assert later.watcher.result() is True, "the batch's age is that of its first call"
        assert await world.batches() == [[b"a", b"b"]]

    in_world(body)


def test_a_batch_does_not_fail_for_having_waited_to_be_written():
    """A flush_interval beyond delivery_timeout would fail each batch before its first request."""

    async def body(world):
        loop = asyncio.get_running_loop()
        async with world.producer(flush_interval=600.0, delivery_timeout=8.0) as producer:
            begin = loop.time()
            handle = await producer.produce([b"a"])
            await handle.watcher.await_durable()
            assert loop.time() - begin == pytest.approx(4.0, abs=0.001)
        assert await world.batches() == [[b"a"]]

    in_world(body)


def test_a_batch_is_written_when_it_exceeds_the_flush_size():
    async def body(world):
        async with world.producer(flush_interval=50.0, flush_size_bytes=100) as producer:
            exact = await producer.produce([bytes(90)], bytes(10))
            await asyncio.sleep(1)
            assert exact.watcher.result() is None
            more = await producer.produce([b"x"])
            await more.watcher.await_durable()
            assert exact.watcher.result() is True
            assert asyncio.get_running_loop().time() < 5010
        assert [len(batch) for batch in await world.batches()] == [2]

    in_world(body)


def test_no_call_is_split_and_no_batch_exceeds_its_limit():
    async def body(world):
        async with world.producer(max_batch_bytes=4096, flush_interval=1.0) as producer:
            for size in (3000, 2000, 90, 4000):
                await producer.produce([bytes(size // 2), bytes(size - size // 2)])
        sizes = [[len(entry) for entry in batch] for batch in await world.batches()]
        assert sizes == [[1500, 1500], [1000, 1000, 45, 45], [2000, 2000]]

    in_world(body)


def test_flush_writes_the_open_batch_at_once():
    async def body(world):
        loop = asyncio.get_running_loop()
        async with world.producer(flush_interval=50.0) as producer:
            begin = loop.time()
            await producer.produce([b"a"])
            await producer.flush()
            await producer.flush()
            assert loop.time() == begin
            assert await world.entries() == [b"a"]

    in_world(body)


def test_leaving_the_block_flushes_also_on_an_exception():
    async def body(world):
        with pytest.raises(ZeroDivisionError):
            async with world.producer(flush_interval=50.0) as producer:
                await producer.produce([b"a"])
                raise ZeroDivisionError
        assert await world.entries() == [b"a"]

    in_world(body)


def test_compressed_batches_are_read_back():
    async def body(world):
        async with world.producer(batch_compression=CompressionType.ZSTD) as producer:
            await producer.produce([b"again and again " * 100] * 50)
        (entry,) = (await world.manifest()).entries()
        data = (await world.inner.get(entry.location)).data
        assert len(data) < 1000
        assert decode_batch(data, "batch") == [b"again and again " * 100] * 50

    in_world(body)


def test_uploads_overlap_and_one_append_lists_several_in_order():
    """Method: every call of the store takes a second; eight batches take far less than eight."""

    async def body(world):
        loop = asyncio.get_running_loop()
        async with world.producer(flush_size_bytes=1) as producer:
            begin = loop.time()
            for i in range(8):
                await producer.produce([b"%d" % i, b"."])
                await asyncio.sleep(0.1)
            await producer.flush()
            assert loop.time() - begin < 4.5
            assert producer.stats().swaps < 8
        assert await world.entries() == [x for i in range(8) for x in (b"%d" % i, b".")]

    in_world(body, latency_s=1.0)


def test_order_is_the_order_of_calls_however_long_uploads_take():
    async def body(world):
        async with world.producer(flush_size_bytes=1) as producer:
            sizes = [int(world.random.random() * 100) + 2 for _ in range(100)]
            delays = random.Random(5)
            world.store._latency_s = delays.random
            for i, size in enumerate(sizes):
                await producer.produce([b"%d" % i, bytes(size)])
        assert (await world.entries())[::2] == [b"%d" % i for i in range(100)]

    in_world(body)


def test_several_tasks_share_a_producer():
    async def body(world):
        async with world.producer(max_buffered_inputs=3, flush_size_bytes=50) as producer:

            async def work(name):
                for i in range(50):
                    await producer.produce([b"%d %d" % (name, i)])

            await asyncio.gather(*map(work, range(8)))
        entries = [tuple(map(int, entry.split())) for entry in await world.entries()]
        for name in range(8):
            assert [i for task, i in entries if task == name] == list(range(50))

    in_world(body, latency_s=0.01)


# ---- opening and closing -------------------------------------------------------------------------


def test_a_producer_is_opened_by_hand_too():
    async def body(world):
        producer = await AsyncProducer.open(config(), environment=world.environment())
        await producer.produce([b"a"])
        await producer.aclose()
        await producer.aclose()
        with pytest.raises(QueueError, match="closed"):
            await producer.produce([b"b"])
        with pytest.raises(QueueError, match="closed"):
            await producer.flush()
        assert producer.stats().calls_accepted == 1
        assert await world.entries() == [b"a"]
        async with world.producer() as second:
            await second.produce([b"c"])
        assert await world.entries() == [b"a", b"c"]

    in_world(body)


def test_a_producer_that_is_not_open_says_how_to_open_it():
    async def body(world):
        producer = world.producer()
        with pytest.raises(QueueError, match="async with"):
            await producer.produce([b"a"])
        assert "not open" in repr(producer)
        await producer.aclose()
        with pytest.raises(QueueError, match="closed"):
            await producer.__aenter__()

    in_world(body)
    with pytest.raises(TypeError, match="ProducerConfig"):
        AsyncProducer({"object_store": {"type": "InMemory"}})


def test_a_constructor_does_no_io(tmp_path):
    AsyncProducer(ProducerConfig(object_store=ObjectStoreConfig.Local(str(tmp_path / "q"))))
    assert list(tmp_path.iterdir()) == []


def test_another_manifest_below_the_same_prefix_is_refused():
    async def body(world):
        async with world.producer():
            pass
        with pytest.raises(PairingError, match="ingest/manifest"):
            async with world.producer(manifest_path="other/manifest"):
                pass

    in_world(body)


def test_batches_without_a_manifest_are_a_warning_in_stats():
    async def body(world):
        async with world.producer() as producer:
            await producer.produce([b"a"])
        await world.inner.delete("ingest/manifest")
        async with world.producer() as producer:
            assert "no manifest" in producer.stats().warnings[0]

    in_world(body)


def test_a_clock_far_off_is_a_warning_in_stats():
    async def body(world):
        for skew_ms, count in ((59_000, 0), (-61_000, 1)):
            environment = world.environment(clock=ClockReading(skew_ms, 0))
            async with world.producer(environment) as producer:
                assert len(producer.stats().warnings) == count

    in_world(body)


def test_a_broken_manifest_is_met_at_opening():
    async def body(world):
        await world.inner.put("ingest/manifest", b"no manifest, but long enough for a footer")
        with pytest.raises(QueueError, match="ingest/manifest"):
            await world.producer().__aenter__()

    in_world(body)


def test_calls_in_a_closing_producer_are_refused_and_waiting_ones_too():
    async def body(world):
        producer = await world.producer(max_buffered_bytes=10, flush_interval=1.0).__aenter__()
        await producer.produce([bytes(10)])
        waiting = asyncio.ensure_future(producer.produce([b"a"]))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(producer.aclose())
        await asyncio.sleep(0)
        with pytest.raises(QueueError, match="closed"):
            await producer.produce([b"b"])
        await closing
        with pytest.raises(QueueError, match="closed"):
            await waiting
        assert await world.entries() == [bytes(10)]

    in_world(body, latency_s=0.1)


def test_closing_twice_at_once_is_closing_once():
    async def body(world):
        producer = await world.producer().__aenter__()
        await producer.produce([b"a"])
        await asyncio.gather(producer.aclose(), producer.aclose(), producer.aclose())
        assert await world.entries() == [b"a"]

    in_world(body, latency_s=0.1)


def test_a_cancelled_close_leaves_the_producer_open():
    async def body(world):
        producer = await world.producer().__aenter__()
        await producer.produce([b"a"])
        closing = asyncio.ensure_future(producer.aclose())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await producer.produce([b"b"])
        await producer.aclose()
        assert await world.entries() == [b"a", b"b"]

    in_world(body, latency_s=0.1)


def test_the_store_is_closed_if_the_producer_opened_it():
    async def body(world):
        for owns_store in (False, True):
            inner = World().inner
            async with world.producer(world.environment(store=inner, owns_store=owns_store)):
                pass
            if owns_store:
                with pytest.raises(StorageError, match="closed"):
                    await inner.get("a")
            else:
                assert await inner.get("a") is None

    in_world(body)


def test_a_producer_belongs_to_its_loop():
    producers = []

    async def body(world):
        producers.append(await world.producer().__aenter__())

    in_world(body)

    async def other():
        with pytest.raises(QueueError, match="another event loop"):
            await producers[0].produce([b"a"])

    asyncio.run(other())


# ---- figures -------------------------------------------------------------------------------------


def test_stats_tell_what_is_held_and_what_was_done():
    async def body(world):
        async with world.producer(flush_interval=1.0) as producer:
            assert producer.conflict_rate() == 0.0
            await producer.produce([b"ab", b"c"], b"de")
            held = producer.stats()
            assert (held.calls_undecided, held.entries_undecided, held.buffered_bytes) == (1, 2, 5)
            await producer.flush()
            done = producer.stats()
            assert (done.calls_undecided, done.buffered_bytes, done.inflight_batches) == (0, 0, 0)
            assert (done.swaps, done.conflicts, done.queue_length) == (1, 0, 1)
            assert done.manifest_bytes == len((await world.manifest()).data)
            assert done.metrics["buffer.batches_flushed"] == 1
            assert done.metrics["buffer.entries_flushed"] == 2
            assert done.metrics["buffer.bytes_flushed"] == 5
            assert done.metrics["buffer.bytes_written"] == 2 * 4 + 3 + 7
            assert done.metrics["buffer.flush_duration_seconds"].count == 1
            assert done.as_dict()["metrics"]["buffer.manifest_writes"] == 1
            assert producer.metrics.snapshot() == done.metrics

    in_world(body)


def test_on_a_directory_every_entry_arrives_in_order(run, tmp_path, scaled, count):
    """Goal: the real store and real time, six producers at once in one process."""
    where = ObjectStoreConfig.Local(str(tmp_path / "queue"))
    calls = scaled(40)

    async def work(name):
        settings = ProducerConfig(object_store=where, flush_interval=0.01, flush_size_bytes=400)
        async with AsyncProducer(settings) as producer:
            for i in range(calls):
                handle = await producer.produce([b"%d %d %d" % (name, i, j) for j in range(10)])
                if i % 5 == 0:
                    await handle.watcher.await_durable()
            return producer.stats()

    async def body():
        return await asyncio.gather(*map(work, range(6)))

    stats = run(body())
    root = tmp_path / "queue"
    manifest = Manifest.parse((root / "ingest/manifest").read_bytes(), "manifest")
    entries = []
    for entry in manifest.entries():
        data = (root / entry.location).read_bytes()
        entries += [tuple(map(int, each.split())) for each in decode_batch(data, entry.location)]
    for name in range(6):
        expected = [(name, i, j) for i in range(calls) for j in range(10)]
        assert [entry for entry in entries if entry[0] == name] == expected
    assert sum(each.swaps - each.conflicts for each in stats) <= len(manifest)
    count("entries of six producers on a directory", len(entries))
    count("conflicts among them", sum(each.conflicts for each in stats))


def test_back_pressure_by_time_is_an_error_that_says_why():
    async def body(world):
        async with world.producer(max_buffered_bytes=10, flush_interval=9.0) as producer:
            await producer.produce([bytes(10)])
            with pytest.raises(BackpressureError, match="max_buffered_bytes=10"):
                await producer.produce([b"a"], timeout=0.5)
            assert producer.stats().calls_waiting == 0
            await producer.produce([b"b"], timeout=30)
        assert await world.entries() == [bytes(10), b"b"]

    in_world(body, latency_s=1.0)
