"""The producer in random histories: faults at any call, two producers, somebody who dequeues.

The oracle deduplicates by identity, as a sink does, and compares what is left with what watchers
were told.
"""

import asyncio
import contextlib
import random
import time

from faults import seeded
from queues import MANIFEST, World, in_world

from walengine.buffer import QueueError, StorageError
from walengine.buffer._environment import Environment
from walengine.buffer.batch import decode_batch
from walengine.buffer.location import parse_batch_name
from walengine.buffer.manifest import Manifest
from walengine.buffer.store.local import LocalStore


def test_under_random_faults_what_is_durable_is_there_once_and_in_order(seed, scaled, count):
    """Method: two producers, faults at every other call, now and then a consumer that dequeues."""
    chance = random.Random(seed)
    durable = failed = 0
    for round_ in range(scaled(60)):
        round_seed = chance.getrandbits(40)

        async def body(world, round_seed=round_seed):
            return await one_history(world, random.Random(round_seed))

        plan = seeded(round_seed, chance.choice((0.05, 0.3, 0.5)))
        done = in_world(body, plan=plan, seed=round_seed, latency_s=0.003 * (round_ % 3))
        durable += done[0]
        failed += done[1]
    count("calls durable under faults", durable)
    count("calls failed under faults", failed)


def test_on_a_directory_under_random_faults_too(run, tmp_path, seed, scaled, count):
    """Goal: real files, threads and time. Two producers, a fifth of the calls meet a fault."""
    durable = 0
    for round_ in range(scaled(3)):
        inner = LocalStore(tmp_path / f"{round_}")
        world = World(seeded(seed + round_, 0.2), seed=seed + round_, inner=inner)
        world.wall_ms = lambda: time.time_ns() // 1_000_000
        real = Environment(store=world.store)
        world.environment = lambda real=real: real
        world.store._slow_s = 0.003
        durable += run(
            closing(one_history(world, random.Random(seed + round_), pause_s=0.1), inner)
        )[0]
    count("calls durable on a directory under faults", durable)


async def closing(history, store):
    try:
        return await history
    finally:
        await store.aclose()


async def one_history(world, chance, pause_s=1.0):
    seen, outcomes, doubled = [], [{}, {}], [0, 0]
    ended = asyncio.Event()

    async def consume():
        while not ended.is_set():
            await asyncio.sleep(chance.random() * pause_s)
            if (found := await world.inner.get(MANIFEST)) is None:
                continue
            manifest = Manifest.parse(found.data, MANIFEST)
            taken = manifest.sequences[: chance.randrange(3)]
            if not taken:
                continue
            dequeued = manifest.dequeue(taken[-1])
            if await world.inner.replace(MANIFEST, dequeued.data, found.etag):
                seen.extend([manifest.entry(sequence).location for sequence in taken])

    async def produce(name, producer):
        for i in range(chance.randrange(5, 25)):
            with contextlib.suppress(QueueError):
                handle = await producer.produce([b"%d %d" % (name, i)])
                outcomes[name][i] = handle.watcher
            await asyncio.sleep(chance.random() * 0.05)
        with contextlib.suppress(QueueError):
            await producer.aclose()
        doubled[name] = producer.stats().maybe_doubled

    world.plan, plan = None, world.plan  # opening is no part of the history
    producers = [await world.producer(**options_at_random(chance)).__aenter__() for _ in range(2)]
    world.plan = plan
    consumer = asyncio.ensure_future(consume())
    await asyncio.gather(*map(produce, range(2), producers))
    ended.set()
    await consumer
    await asyncio.gather(*world.store._late, return_exceptions=True)
    seen += [entry.location for entry in (await world.manifest()).entries()]
    return await verdict(world, seen, outcomes, doubled)


def options_at_random(chance):
    return {
        "delivery_timeout": chance.choice((0.3, 1.0, 20.0)),
        "flush_interval": 0.02,
        "flush_size_bytes": 30,
        "max_inflight_batches": chance.choice((1, 2, 16)),
    }


async def verdict(world, seen, outcomes, doubled):
    """Deduplicate by identity as a sink does; compare with what watchers were told."""
    identities, delivered, again = set(), [], 0
    for location in seen:
        identity = parse_batch_name(location).identity
        if identity in identities:
            again += 1
            continue
        identities.add(identity)
        data = (await world.inner.get(location)).data
        delivered += [tuple(map(int, entry.split())) for entry in decode_batch(data, location)]
    assert again <= sum(doubled), "listed twice without a reason"
    durable = failed = 0
    for name in range(2):
        calls = [i for task, i in delivered if task == name]
        assert calls == sorted(set(calls)), "in order, each once"
        for i, watcher in outcomes[name].items():
            what = outcome_of(watcher)
            assert what != ("clear" if i in calls else True), (name, i, what)
            durable += what is True
            failed += what is not True
    return durable, failed


def outcome_of(watcher):
    try:
        return watcher.result()
    except StorageError as error:
        return "unclear" if error.unclear else "clear"
