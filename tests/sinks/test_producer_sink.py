"""ProducerSink and its twin: batches of a sink into a queue."""

import asyncio
import gc
import subprocess
import sys
import textwrap
import time

import pytest

from walengine.buffer import (
    AsyncProducer,
    InvalidInputError,
    ObjectStoreConfig,
    Producer,
    ProducerConfig,
    QueueError,
    StorageError,
)
from walengine.buffer._environment import Environment
from walengine.buffer.batch import decode_batch
from walengine.buffer.manifest import Manifest
from walengine.buffer.store.memory import MemoryStore
from walengine.sinks import AsyncProducerSink, AsyncSink, FanOutSink, ProducerSink, Sink

PATH = "ingest/manifest"


class Down(MemoryStore):
    """Fails to put while it is down."""

    is_down = False

    async def put(self, name, data):
        if self.is_down:
            raise StorageError("the store is down")
        await super().put(name, data)


@pytest.fixture
def store(request):
    return Down(f"sink {request.node.name} {time.time_ns()}")


def options(store, **more):
    settings = {"flush_interval": 600.0, "delivery_timeout": 0.2, **more}
    return ProducerConfig(object_store=ObjectStoreConfig.InMemory(store._name), **settings)


async def queued(store):
    """Every batch of the queue: its entries and the payloads of its metadata."""
    found = await store.get(PATH)
    batches = []
    for entry in Manifest.parse(found.data, PATH).entries() if found else ():
        data = (await store.get(entry.location)).data
        payloads = [item.payload for item in entry.metadata]
        batches.append((decode_batch(data, entry.location), payloads))
    return batches


def queued_now(store):
    return asyncio.run(queued(store))


def test_a_batch_of_the_sink_is_a_batch_of_the_queue_at_once(store):
    with (
        Producer(options(store), environment=Environment(store=store)) as producer,
        ProducerSink(producer, capacity=3, metadata=b"who") as sink,
    ):
        assert isinstance(sink, Sink)
        for i in range(7):
            sink.send(b"%d" % i)
        assert queued_now(store) == [
            ([b"0", b"1", b"2"], [b"who"]), ([b"3", b"4", b"5"], [b"who"]),
        ]  # fmt: skip
        assert sink.buffered_count() == 1
        sink.flush()
        assert producer.stats().calls_undecided == 0
    assert [batch for batch, _ in queued_now(store)][2:] == [[b"6"]]


def test_the_asynchronous_twin(store):
    async def body():
        environment = Environment(store=store)
        async with (
            AsyncProducer(options(store), environment=environment) as producer,
            AsyncProducerSink(producer, capacity=10) as sink,
        ):
            assert isinstance(sink, AsyncSink)
            assert await sink.send_all(b"%d" % i for i in range(95)) == 95
        batches = [batch for batch, _ in await queued(store)]
        assert [len(batch) for batch in batches] == [10] * 9 + [5]
        assert [entry for batch in batches for entry in batch] == [b"%d" % i for i in range(95)]

    asyncio.run(body())


def test_items_are_safe_from_later_changes_and_what_can_be_no_entry_is_refused(store):
    with (
        Producer(options(store, max_buffered_bytes=100)) as producer,
        ProducerSink(producer) as sink,
    ):
        item = bytearray(b"before")
        sink.send(item)
        item[:] = b"behind"
        for wrong, error in (("text", TypeError), (bytes(97), ValueError)):
            with pytest.raises(error):
                sink.send(wrong)
        sink.send(bytes(96))
    assert [entry for batch, _ in queued_now(store) for entry in batch] == [b"before", bytes(96)]


@pytest.mark.parametrize(
    ("metadata", "error"), [("text", TypeError), (bytes(1025), InvalidInputError)]
)
def test_metadata_that_the_producer_would_refuse_with_every_batch(store, metadata, error):
    config = options(store, max_manifest_bytes=4096)
    with Producer(config) as producer, pytest.raises(error, match="metadata"):
        ProducerSink(producer, metadata=metadata)


def test_an_interrupt_behind_the_last_part_leaves_nothing_to_produce(store):
    """Ctrl-C may come when all of a batch is durable and the sink has not taken note."""
    with Producer(options(store)) as producer, ProducerSink(producer) as sink:
        sink.send(b"a")
        sink._shell.destination.write([b"a"])
        sink._shell.destination._durable = 1
        sink.flush()
        assert sink.buffered_count() == 0
    assert queued_now(store) == [([b"a"], [b""])]


def test_a_large_batch_goes_in_as_many_calls_as_the_producer_takes(store):
    with (
        Producer(options(store, max_buffered_bytes=100)) as producer,
        ProducerSink(producer, capacity=50) as sink,
    ):
        for i in range(50):
            sink.send(b"%06d" % i)
    batches = [batch for batch, _ in queued_now(store)]
    assert [len(batch) for batch in batches] == [10] * 5
    assert [entry for batch in batches for entry in batch] == [b"%06d" % i for i in range(50)]


def test_a_failed_write_loses_nothing_and_doubles_nothing_that_is_durable(store):
    config = options(store, max_buffered_bytes=100)
    with Producer(config, environment=Environment(store=store)) as producer:
        sink = ProducerSink(producer, capacity=20)
        for i in range(19):
            sink.send(b"%06d" % i)
        original, puts = store.put, 0

        async def second_fails(name, data):
            nonlocal puts
            puts += 1
            store.is_down = puts > 1
            await original(name, data)

        store.put = second_fails
        with pytest.raises(StorageError, match="the store is down"):
            sink.flush()
        assert sink.buffered_count() == 19
        del store.put
        store.is_down = False
        sink.close()
    entries = [entry for batch, _ in queued_now(store) for entry in batch]
    assert entries == [b"%06d" % i for i in range(19)]


def test_an_asynchronous_write_that_failed_is_tried_again(store):
    async def body():
        environment = Environment(store=store)
        async with AsyncProducer(options(store), environment=environment) as producer:
            sink = AsyncProducerSink(producer, capacity=2)
            store.is_down = True
            await sink.send(b"a")
            await sink.send(b"b")
            with pytest.raises(StorageError):
                await sink.flush()
            store.is_down = False
            await sink.send(b"c")
            await sink.aclose()
        entries = [entry for batch, _ in await queued(store) for entry in batch]
        assert entries == [b"a", b"b", b"c"]

    asyncio.run(body())


def test_a_closed_producer_keeps_the_items_in_the_sink(store):
    with Producer(options(store)) as producer:
        sink = ProducerSink(producer)
        sink.send(b"a")
    with pytest.raises(QueueError, match="closed"):
        sink.flush()
    assert sink.discard() == [b"a"]
    sink.close()


def test_it_is_one_target_of_several(store):
    with (
        Producer(options(store)) as producer,
        FanOutSink([ProducerSink(producer, 2), ProducerSink(producer, 2)]) as sink,
    ):
        sink.send(b"a")
    assert [batch for batch, _ in queued_now(store)] == [[b"a"], [b"a"]]


def collect(held):
    held.clear()
    gc.collect()


def test_a_sink_that_nobody_closed_is_a_warning_with_the_count(store):
    with Producer(options(store)) as producer:
        held = [ProducerSink(producer)]
        held[0].send(b"a")
        held[0].send(b"b")
        with pytest.warns(ResourceWarning, match="items that were not written: 2"):
            collect(held)


def test_at_interpreter_exit_it_warns_and_does_not_hang(tmp_path):
    source = """
    import sys
    from walengine.buffer import ObjectStoreConfig, Producer, ProducerConfig
    from walengine.sinks import ProducerSink
    config = ProducerConfig(object_store=ObjectStoreConfig.Local(sys.argv[1]))
    producer = Producer.open(config)
    sink = ProducerSink(producer)
    sink.send(b"a")
    """
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(source), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert "ProducerSink was not closed; items that were not written: 1" in done.stderr
    assert "Traceback" not in done.stderr
