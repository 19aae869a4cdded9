"""The programs that consume: the real AsyncConsumer and a sink that is exactly once.

One transaction moves the stored sequence, from the value that this program knows, stores the
batch's identity, and writes the data unless the identity was there.
"""

from __future__ import annotations

import asyncio
import functools

from simulation import decoder
from simulation.database import Connection, ConnectionLostError
from simulation.producing import Dice, inline, transient
from simulation.taking import TAKERS
from walengine.buffer import (
    AsyncConsumer,
    BatchMissingError,
    ConsumerConfig,
    FencedError,
    ObjectStoreConfig,
    QueueError,
    SequenceGapError,
)
from walengine.buffer._environment import Environment

POLL_S_MAX = 60.0
MISSING_MAX = 8
"""A batch that is not there is looked for so often, a minute and more apart, before it is skipped:
its producer may be about to put it again."""


class Drain:
    """One program that consumes into the database until it is fenced, or told to stop.

    Args:
        run: The run it belongs to.
        name: Of its process.
        plan: Its ConsumerPlan.
    """

    def __init__(self, run, name, plan):
        self.run = run
        self.plan = plan
        self.fenced = False
        self.idle = False  # it has been at the queue's end
        self.process = run.world.start(
            name, self.program, skew_ms=plan.skew_ms, random_seed=f"{run.seed} {name}"
        )

    async def program(self, process):
        self.chance = process.chance
        self.connection = Connection(process, self.run.database, self.run.weather)
        self.client = self.run.client(process, "c")
        while not self.fenced:
            try:
                await self.consume()
            except (ConnectionLostError, TakenOverError) as error:
                self.run.world.note(process.name, type(error).__name__)
            except QueueError as error:
                if not transient(error):
                    self.run.refused(process, error)
                    return
            await asyncio.sleep(self.chance.uniform(0.1, 30.0))

    async def consume(self):
        known = await self.sequence()
        consumer = await self.open(known)
        try:
            await self.drain(consumer, known)
        except FencedError:
            self.fenced = not self.plan.stubborn
        finally:
            await self.close(consumer)

    async def open(self, known):
        self.run.oracle.opens_anew(self.process)
        environment = Environment(
            store=self.client,
            wall_ms=self.process.corrected_ms(),
            random=Dice(0, self.chance),
            offload=inline,
        )
        try:
            return await AsyncConsumer.open(
                config_of(self.plan, self.run.plan.grace_s), known, environment=environment
            )
        except SequenceGapError:
            if await self.sequence() != known:
                raise TakenOverError from None  # while this one was about to open
            # An operator looks into it, and gives up what is gone.
            first = self.run.oracle.give_up(known)
            await self.connection.transact(known, first - 1, None, [])
            raise TakenOverError from None

    async def drain(self, consumer, known):
        """Take batch after batch, until an error that another attempt does not cure."""
        poll_s, missing = self.plan.poll_s, 0
        taker = TAKERS[self.plan.takes](consumer)
        try:
            while True:
                try:
                    batch = await taker.take()
                    self.idle = self.idle or batch is None
                except BatchMissingError as error:
                    missing += 1
                    if missing > MISSING_MAX:
                        known = await self.skip(consumer, taker, known, error.sequence)
                    else:
                        await asyncio.sleep(60.0)
                    continue
                except QueueError as error:
                    if not transient(error):
                        raise
                    batch = None
                if batch is not None:
                    known = await self.store(known, batch)
                    await self.acknowledge(consumer, batch.sequence)
                    poll_s, missing = self.plan.poll_s, 0
                else:
                    await self.maybe_flush(consumer)
                    await asyncio.sleep(poll_s)
                    poll_s = min(2 * poll_s, POLL_S_MAX)
        finally:
            await taker.aclose()

    async def store(self, known, batch):
        self.run.oracle.consumed(batch)
        identity = decoder.identity(batch.location)
        if not self.run.sink_knows_identities:
            identity = None
        rows = [bytes(entry) for entry in batch.entries]
        if not await self.connection.transact(known, batch.sequence, identity, rows):
            raise TakenOverError
        return batch.sequence

    async def skip(self, consumer, taker, known, sequence):
        self.run.oracle.skipped(sequence)
        if not await self.connection.transact(known, sequence, None, []):
            raise TakenOverError
        await consumer.skip(sequence, "its object is gone")
        taker.skipped()
        await self.acknowledge(consumer, sequence)
        return sequence

    async def acknowledge(self, consumer, sequence):
        await self.again(lambda: consumer.ack(sequence))
        await self.maybe_flush(consumer)

    async def maybe_flush(self, consumer):
        if self.chance.random() < self.plan.flush_rate:
            await self.again(consumer.flush)

    async def again(self, do):
        """Do it until the store lets it be done."""
        while True:
            try:
                await do()
            except QueueError as error:
                if not transient(error):
                    raise
                await asyncio.sleep(self.chance.uniform(0.1, 10.0))
            else:
                return

    async def sequence(self):
        while True:
            try:
                return await self.connection.sequence()
            except ConnectionLostError:
                await asyncio.sleep(1.0)

    async def close(self, consumer):
        try:
            await consumer.aclose()
        except QueueError as error:
            if not transient(error) and not isinstance(error, FencedError):
                raise


class TakenOverError(Exception):
    """The stored sequence is another one: somebody else consumes into this database."""


@functools.cache
def config_of(plan, grace_s):
    return ConsumerConfig(
        object_store=ObjectStoreConfig.InMemory("unused"),
        gc_interval=plan.gc_interval,
        gc_grace_period=grace_s,
    )
