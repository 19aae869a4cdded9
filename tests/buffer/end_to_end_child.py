"""The processes of test_end_to_end.py: some produce numbers, one moves batches into PostgreSQL.

Each prints a line whenever something is done for good, and is killed in between.
"""

import asyncio
import os
import sys
from collections import deque

import psycopg

from walengine.buffer import (
    AsyncConsumer,
    AsyncPostgresSink,
    AsyncProducer,
    ConsumerConfig,
    DatabaseError,
    FencedError,
    ObjectStoreConfig,
    ProducerConfig,
)
from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue
from walengine.buffer.store.probe import make_store

FENCED = 7
NUMBERS_A_CALL = 20
CALLS_UNDER_WAY = 3
STALL_TIMEOUT_S = 1


async def produce(store, conninfo, who, total):
    """Send the numbers that are neither in the queue nor in the table."""
    number = await last_number(store, conninfo, who)
    config = ProducerConfig(object_store=store, flush_interval=0.01)
    under_way = deque()
    async with AsyncProducer(config) as producer:
        while number < total:
            numbers = range(number + 1, min(number + NUMBERS_A_CALL, total) + 1)
            number = numbers[-1]
            entries = [f"{who} {each}".encode() for each in numbers]
            handle = await producer.produce(entries, f"{who} {number}".encode())
            under_way.append((handle.watcher, number))
            if len(under_way) == CALLS_UNDER_WAY:
                await report(under_way)
        while under_way:
            await report(under_way)


async def report(under_way):
    watcher, number = under_way.popleft()
    await watcher.await_durable()
    os.write(1, f"{number}\n".encode())


async def last_number(store, conninfo, who):
    """The manifest first and the table second: what is no longer in the one is in the other."""
    environment = Environment(store=make_store(store), owns_store=True)
    queue = Queue(environment, ConsumerConfig(object_store=store))
    manifest = (await queue.read_manifest()).manifest
    await queue.aclose()
    said = [
        item.payload.decode().split() for entry in manifest.entries() for item in entry.metadata
    ]
    listed = [int(number) for name, number in said if name == who]
    with psycopg.connect(conninfo) as connection:
        query = "SELECT coalesce(max(number), 0) FROM numbers WHERE who = %s"
        (stored,) = connection.execute(query, (who,)).fetchone()
    return max([stored, *listed])


async def consume(store, conninfo, total):
    """Move batches until the table has this many rows."""
    config = ConsumerConfig(object_store=store)
    async with AsyncPostgresSink(
        conninfo, "numbers", ["who", "number"], to_rows, stall_timeout=STALL_TIMEOUT_S
    ) as sink:
        table = psycopg.connect(conninfo, autocommit=True)
        async with AsyncConsumer(config, await sink.start_sequence()) as consumer:
            while rows_in(table) < total:
                batch = await consumer.next_batch()
                if batch is None:
                    await asyncio.sleep(0.02)
                    continue
                try:
                    await sink.write(batch)
                except DatabaseError:
                    # Frozen in mid-transaction, its session was ended: again, as users are told.
                    await sink.write(batch)
                await consumer.ack(batch.sequence)
                os.write(1, f"{batch.sequence}\n".encode())
        table.close()


def rows_in(table):
    return table.execute("SELECT count(*) FROM numbers").fetchone()[0]


def to_rows(entry, _):
    who, number = entry.decode().split()
    yield who, int(number)


def main(role, path, conninfo, *rest):
    store = ObjectStoreConfig.Local(path)
    if role == "produce":
        asyncio.run(produce(store, conninfo, rest[0], int(rest[1])))
        return 0
    try:
        asyncio.run(consume(store, conninfo, int(rest[0])))
    except FencedError:
        return FENCED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
