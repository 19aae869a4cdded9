"""The programs that produce: the real AsyncProducer, and who waits for what is durable.

A program that died or gave up is started again as another process, with the calls that are left:
it does not know what became of the others, and makes none of them again.
"""

from __future__ import annotations

import asyncio
import functools
import random

from walengine.buffer import AsyncProducer, ObjectStoreConfig, ProducerConfig, QueueError
from walengine.buffer._environment import Environment

LIVES_MAX = 6
FLUSH_RATE = 0.1
IDENTITY_BITS = 80


class Source:
    """What one producer is to produce, over all of its lives.

    Args:
        run: The run it belongs to.
        number: Which of the producers.
        plan: Its ProducerPlan.
    """

    def __init__(self, run, number, plan):
        self.run = run
        self.plan = plan
        self.name = f"p{number}"
        self.lives = 0
        self.made = 0
        self.process = None

    @property
    def is_twin(self):
        """Twins make the same calls and give them the same identities, for as long as they live."""
        return self.plan.twin and self.lives == 1

    @property
    def done(self):
        left = self.plan.calls - self.made
        return not self.process.running and (left == 0 or self.lives == LIVES_MAX)

    def live(self):
        """Start a process, and another one when that has ended too early."""
        self.lives += 1
        name = f"{self.name}.{self.lives}"
        self.process = self.run.world.start(
            name, self.program, skew_ms=self.plan.skew_ms, random_seed=f"{self.run.seed} {name}"
        )
        self.run.world.after(self.plan.pause_s + 1.0, self.look_after)

    def look_after(self):
        if self.process.running:
            self.run.world.after(self.plan.pause_s + 5.0, self.look_after)
        elif not self.done:
            self.live()

    async def program(self, process):
        environment = Environment(
            store=self.run.client(process, "p"),
            wall_ms=process.wall_ms,
            random=Dice(f"{self.run.seed} {self.label(process)}", process.chance),
            offload=inline,
        )
        confirmations = []
        try:
            producer = await self.open(process, environment)
            try:
                await self.produce_all(process, producer, confirmations)
            finally:
                await producer.aclose(self.plan.closing_s)
        except QueueError as error:
            self.run.refused(process, error)
        await asyncio.gather(*confirmations)

    async def produce_all(self, process, producer, confirmations):
        while self.made < self.plan.calls:
            call = self.made
            self.made += 1
            handle = await self.produce(process, producer, call)
            if handle is not None:
                confirmations.append(asyncio.ensure_future(self.confirm(process, call, handle)))
            await asyncio.sleep(process.chance.expovariate(1 / self.plan.pause_s))
            if process.chance.random() < FLUSH_RATE:
                await self.flush(process, producer)

    async def produce(self, process, producer, call):
        """Make a call; returns None if it was not accepted."""
        try:
            async with asyncio.timeout(self.plan.patience_s):
                return await producer.produce(*self.input(process, call))
        except (TimeoutError, QueueError) as error:
            self.run.oracle.withdrawn(process.name, call)
            if isinstance(error, QueueError):
                self.run.refused(process, error)
                if not transient(error):
                    raise
            return None

    async def flush(self, process, producer):
        try:
            await producer.flush()
        except QueueError as error:
            self.run.refused(process, error)

    def label(self, process):
        return "twin" if self.is_twin else process.name

    async def open(self, process, environment):
        while True:
            try:
                return await AsyncProducer.open(config_of(self.plan), environment=environment)
            except QueueError as error:
                if not transient(error):
                    raise
                await asyncio.sleep(process.chance.uniform(0.1, 60.0))

    def input(self, process, call):
        """Return a call's entries and metadata; each entry is unique, but for twins."""
        label = self.label(process)
        count = 1 + call % 3
        entries = [f"{label} {call} {i}".encode() for i in range(count)]
        self.run.oracle.produced(process.name, call, entries)
        return entries, f"{label} {call}".encode().ljust(self.plan.metadata_bytes, b".")

    async def confirm(self, process, call, handle):
        try:
            await handle.watcher.await_durable()
        except QueueError as error:
            self.run.refused(process, error)
        else:
            self.run.oracle.confirmed(process.name, call)


class Dice(random.Random):
    """Chance for an environment: identities from a seed of their own, which clones share."""

    def __init__(self, seed, other):
        super().__init__(seed)
        self.other = other

    def random(self):
        return self.other.random()

    def getrandbits(self, bits):
        return super().getrandbits(bits) if bits == IDENTITY_BITS else self.other.getrandbits(bits)


async def inline(work, /):
    """Do at once what would go to a thread."""
    return work()


def transient(error):
    """Whether a program would try again."""
    return type(error).__name__ == "StorageError"


@functools.cache
def config_of(plan):
    return ProducerConfig(
        object_store=ObjectStoreConfig.InMemory("unused"),
        flush_interval=plan.flush_interval,
        flush_size_bytes=plan.flush_size_bytes,
        max_inflight_batches=plan.max_inflight_batches,
        delivery_timeout=plan.delivery_timeout,
        max_buffered_inputs=1 if plan.patience_s else 1000,
        max_buffered_bytes=plan.max_buffered_bytes,
        max_manifest_bytes=plan.max_manifest_bytes,
    )
