"""Random histories with callbacks that come back: what was accepted is written once, all of it."""

import asyncio
import contextlib
import random

from walengine.sinks import (
    AsyncCallbackSink,
    AsyncFanOutSink,
    CallbackSink,
    FanOutSink,
    SinkError,
    SinkOptions,
)

HANG_S = 60


class DownError(Exception):
    """What the destinations of this file raise."""


REFUSED = (DownError, SinkError, ExceptionGroup)


class History:
    """A sink, what its targets have, and what was accepted."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.targets = [[] for _ in range(self.random.choice([1, 1, 2]))]
        self.accepted = []
        self.sent = 0
        self.depth = 0
        self.nests = self.chance(0.5)
        self.is_plain = self.chance(0.3)

    def chance(self, share):
        return self.random.random() < share

    def make(self, kind, fan_out):
        options = SinkOptions(
            max_bytes=self.random.choice([None, 3, 10]),
            size_of=lambda item: item % 4,
            max_age=self.random.choice([None, 0.0001]),
            high_watermark=self.random.choice([0.3, 0.8, 1.0]),
            low_watermark=0.2,
            on_backpressure=self.hook if self.chance(0.5) else None,
        )
        takers = [self.taker(items) for items in self.targets]
        if len(takers) == 1:
            sink = kind(self.random.randint(1, 4), takers[0], options)
        else:
            targets = [kind(self.random.randint(1, 3), taker) for taker in takers]
            sink = fan_out(targets, self.random.randint(1, 3), options)
        if self.chance(0.3):
            sink.add_batch_listener(self.hook)
        return sink

    def hook(self, *_):
        """Come back to the sink, in a callback of it."""
        if self.depth < 3 and self.chance(0.5):
            self.depth += 1
            self.come_back()
            self.depth -= 1

    def take(self, items, batch):
        if self.chance(0.3):
            raise DownError
        items.extend(batch)

    def next_item(self):
        self.sent += 1
        return self.sent

    def send_by(self, send):
        item = self.next_item()
        with contextlib.suppress(*REFUSED):
            send(item)
            self.accepted.append(item)

    def check(self):
        for items in self.targets:
            assert len(items) == len(set(items)), "written twice"
            assert set(items) == set(self.accepted)
            assert items == self.targets[0]


class SyncHistory(History):
    def __init__(self, seed):
        super().__init__(seed)
        self.sink = self.make(CallbackSink, FanOutSink)

    def taker(self, items):
        def take(batch):
            if self.nests:
                self.hook()
            self.take(items, batch)

        return take

    def come_back(self):
        self.act()

    def act(self):
        if self.chance(0.75):
            self.send_by(self.sink.send)
            return
        with contextlib.suppress(*REFUSED):
            self.random.choice([self.sink.flush, self.sink.poll])()

    def run(self):
        for _ in range(self.random.randint(1, 25)):
            self.act()
        while not self.sink.closed:
            with contextlib.suppress(*REFUSED):
                self.sink.close()


class AsyncHistory(History):
    def __init__(self, seed):
        super().__init__(seed)
        self.sink = self.make(AsyncCallbackSink, AsyncFanOutSink)

    def taker(self, items):
        async def take(batch):
            for _ in range(self.random.randint(0, 3)):
                await asyncio.sleep(0)
            self.take(items, batch)

        return (lambda batch: self.take(items, batch)) if self.is_plain else take

    def come_back(self):
        self.send_by(self.sink.send_nowait)

    async def act(self):
        if self.chance(0.6):
            item = self.next_item()
            await self.sink.send(item)
            self.accepted.append(item)
        elif self.chance(0.5):
            self.send_by(self.sink.send_nowait)
        else:
            await self.random.choice([self.sink.flush, self.sink.ready])()

    async def act_often(self):
        for _ in range(self.random.randint(1, 10)):
            await asyncio.sleep(0)
            with contextlib.suppress(*REFUSED):
                await self.act()

    async def close(self):
        with contextlib.suppress(*REFUSED):
            await self.sink.aclose()

    async def cancelled_at_times(self, coroutines):
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        for _ in range(self.random.randint(0, 25)):
            await asyncio.sleep(0)
            if self.chance(0.3):
                self.random.choice(tasks).cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def run(self):
        await self.cancelled_at_times([self.act_often() for _ in range(self.random.randint(1, 6))])
        while not self.sink.closed:
            await self.cancelled_at_times([self.close()])


def test_sync_sinks_and_callbacks_that_come_back(seed, scaled, count):
    sent = 0
    for i in range(scaled(1000)):
        history = SyncHistory(seed + i)
        history.run()
        history.check()
        sent += history.sent
    count("items of sync histories", sent)


def test_async_sinks_callbacks_and_cancellations(seed, scaled, count):
    """Method: tasks that send and flush are cancelled at any await; a hang is a time-out."""
    sent = 0

    async def run(number):
        history = AsyncHistory(number)
        await asyncio.wait_for(history.run(), HANG_S)
        return history

    for i in range(scaled(500)):
        history = asyncio.run(run(seed + i))
        history.check()
        sent += history.sent
    count("items of async histories", sent)
