"""Programs whose tasks begin at once: a write may be over before whoever began it goes on."""

import asyncio
import secrets

import pytest
from eager import run_eagerly

from walengine.buffer import AsyncConsumer, AsyncProducer, ConsumerConfig, ObjectStoreConfig
from walengine.buffer._environment import Environment
from walengine.buffer.config import ProducerConfig
from walengine.buffer.store.memory import MemoryStore
from walengine.sinks import AsyncCallbackSink, AsyncProducerSink


@pytest.fixture
def where():
    return ObjectStoreConfig.InMemory(f"eager {secrets.token_hex(8)}")


async def entries_of(where):
    """Every entry of the queue, in order; each batch once."""
    found, identities = [], set()
    async with AsyncConsumer(ConsumerConfig(object_store=where)) as consumer:
        while (batch := await consumer.next_batch()) is not None:
            found += batch.entries
            assert batch.identity not in identities
            identities.add(batch.identity)
    return found


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_write_that_ends_at_once_is_one_write(turns):
    async def body():
        taken = []

        async def insert(batch):
            for _ in range(turns):
                await asyncio.sleep(0)
            taken.extend(batch)

        async with AsyncCallbackSink(3, insert) as sink:
            assert await sink.send_all(range(100)) == 100
            assert sink.buffered_count() == 0
        assert taken == list(range(100))

    run_eagerly(body())


def test_a_producer_lists_each_batch_once(where):
    """Nothing of an upload or an append waits here, so that one would begin within the other."""

    async def inline(work):
        return work()

    async def body():
        environment = Environment(store=MemoryStore(where.name), offload=inline)
        config = ProducerConfig(object_store=where, flush_size_bytes=1, max_inflight_batches=2)
        async with AsyncProducer(config, environment=environment) as producer:
            for i in range(50):
                await producer.produce([b"%d" % i])
        assert await entries_of(where) == [b"%d" % i for i in range(50)]

    run_eagerly(body())


def test_a_sink_into_a_producer(where):
    async def body():
        async with (
            AsyncProducer(ProducerConfig(object_store=where)) as producer,
            AsyncProducerSink(producer, 4) as sink,
        ):
            await sink.send_all(b"%d" % i for i in range(50))
        assert await entries_of(where) == [b"%d" % i for i in range(50)]

    run_eagerly(body())
