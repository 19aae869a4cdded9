"""The consumer in random histories: faults at any call, restarts, and consumers that were replaced.

The oracle is a list of what was written behind the consumer, as a sink would have it.
"""

import random

from faults import FaultyStore, seeded
from fed_queue import TestQueue

from walengine.buffer import FencedError, StorageError

STEPS = 60


def test_under_random_faults_every_batch_comes_in_order_and_none_goes_unasked(
    run, seed, scaled, count
):
    """Method: each step is one call of the newest consumer, or of one that it replaced."""
    chance = random.Random(seed)
    delivered = faults = fenced = 0
    for _ in range(scaled(40)):
        history = History(chance.getrandbits(40))
        run(history.body())
        delivered += history.delivered
        faults += history.faults
        fenced += history.fenced
    count("batches delivered", delivered)
    count("calls that a fault failed", faults)
    count("calls of replaced consumers refused", fenced)


class History:
    """One queue, its sink, and the consumers that came and went.

    Attributes:
        stored: The last sequence that the sink has, -1 for none.
        asked: The last sequence that a consumer was told is done.
        may_be_fenced: The newest consumer may be replaced: the next one's opening failed.
    """

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.queue = TestQueue()
        rate = self.chance.choice((0.0, 0.1, 0.4))
        self.store = FaultyStore(self.queue.store, seeded(seed, rate), seed=seed, slow_s=0)
        self.consumer = None
        self.replaced = []
        self.epoch = 0
        self.may_be_fenced = False
        self.stored = self.asked = -1
        self.produced = self.delivered = self.faults = self.fenced = 0

    async def body(self):
        for _ in range(STEPS):
            step = self.chance.choices(
                (self.produce, self.open, self.take, self.take_many, self.ack, self.ack_through,
                 self.flush, self.use_replaced),
                (3, 1, 8, 2, 8, 2, 1, 2),
            )[0]  # fmt: skip
            try:
                await step()
            except StorageError:
                self.faults += 1
            except FencedError:
                assert self.may_be_fenced
                self.fenced += 1
            await self.check()
        await self.end()

    async def produce(self):
        count = self.chance.randrange(1, 130)
        await self.queue.add(count)
        self.produced += count

    async def open(self):
        position = None if self.stored < 0 else self.stored
        self.asked = self.stored  # a position that is given counts as acked
        self.may_be_fenced = True  # if this fails, the epoch may be raised all the same
        opened = await self.queue.open(position, store=self.store)
        self.may_be_fenced = False
        if self.consumer is not None:
            self.replaced.append(self.consumer)
        self.consumer = opened
        assert self.consumer.epoch > self.epoch
        self.epoch = self.consumer.epoch
        # Without a position it begins with the first one listed: nothing was stored, or acked.
        assert self.consumer.stats().next_sequence == self.stored + 1

    async def take(self):
        if self.consumer is None:
            return
        batch = await self.consumer.next_batch()
        if batch is not None:
            self.store_batch(batch)

    async def take_many(self):
        if self.consumer is None:
            return
        for descriptor in await self.consumer.next_descriptors(self.chance.randrange(1, 150)):
            while True:
                try:
                    self.store_batch(await self.consumer.fetch_descriptor(descriptor))
                    break
                except StorageError:
                    self.faults += 1

    def store_batch(self, batch):
        assert (batch.sequence, batch.entries) == (self.stored + 1, [b"%d" % batch.sequence])
        self.stored = batch.sequence
        self.delivered += 1

    async def ack(self):
        for _ in range(self.chance.choice((1, 10, 150))):
            if self.consumer is None or self.acked() == self.stored:
                return
            self.asked = max(self.asked, self.acked() + 1)
            await self.consumer.ack(self.acked() + 1)

    async def ack_through(self):
        if self.consumer is None or self.acked() == self.stored:
            return
        through = self.chance.randint(self.acked() + 1, self.stored)
        self.asked = max(self.asked, through)
        await self.consumer.ack_through(through)

    async def flush(self):
        if self.consumer is not None:
            await self.consumer.flush()

    def acked(self):
        last = self.consumer.last_acked_sequence
        return -1 if last is None else last

    async def use_replaced(self):
        """Whatever it does must leave the manifest as it is."""
        if not self.replaced:
            return
        old = self.chance.choice(self.replaced)
        await self.settle()
        before = (await self.queue.manifest()).data
        try:
            if old.stats().unacked:
                await old.ack_through(old.stats().next_sequence - 1)
            else:
                await old.next_descriptors(1)
        except FencedError:
            self.fenced += 1
        assert (await self.queue.manifest()).data == before

    async def check(self):
        """Nothing is off the manifest that nobody was asked to ack, and nothing else is missing."""
        manifest = await self.queue.manifest()
        assert manifest.sequences.start <= self.asked + 1 <= self.stored + 1
        assert manifest.next_sequence == self.produced

    async def end(self):
        """Without faults all that is left comes, and the queue is empty."""
        await self.settle()
        last = await self.queue.open(None if self.stored < 0 else self.stored)
        while (batch := await last.next_batch()) is not None:
            self.store_batch(batch)
        assert self.stored == self.produced - 1
        self.asked = self.stored
        await last.flush()
        if self.stored > (last.last_acked_sequence if last.last_acked_sequence is not None else -1):
            await last.ack_through(self.stored)
        assert await self.queue.listed() == []
        await last.aclose()
        for each in (self.consumer, *self.replaced):
            if each is not None:
                try:
                    await each.aclose()
                except (FencedError, StorageError):
                    self.fenced += 1
        await self.settle()

    async def settle(self):
        """Let happen what is late."""
        late = self.store._late
        while late:
            task = late.pop()
            await task
