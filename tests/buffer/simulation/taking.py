"""The three ways to take batches from a consumer; each returns the next one, or None for now."""

from __future__ import annotations

import asyncio
from collections import deque

PREFETCH = 3
BATCHES_POLL_S = 20.0


class NextBatch:
    """One call for each batch."""

    def __init__(self, consumer):
        self.consumer = consumer

    async def take(self):
        return await self.consumer.next_batch()

    def skipped(self):
        pass

    async def aclose(self):
        pass


class Descriptors(NextBatch):
    """Where they are first, then several fetches at once."""

    def __init__(self, consumer):
        super().__init__(consumer)
        self.ahead = deque()  # descriptors
        self.fetched = {}  # sequence -> batch

    async def take(self):
        if not self.ahead:
            self.ahead.extend(await self.consumer.next_descriptors(PREFETCH))
        if not self.ahead:
            return None
        first = self.ahead[0]
        if first.sequence not in self.fetched:
            await self.fetch()
        batch = self.fetched.pop(first.sequence)
        if isinstance(batch, BaseException):
            raise batch
        self.ahead.popleft()
        return batch

    async def fetch(self):
        fetch = self.consumer.fetch_handle().fetch
        batches = await asyncio.gather(*map(fetch, self.ahead), return_exceptions=True)
        self.fetched = {
            each.sequence: batch for each, batch in zip(self.ahead, batches, strict=True)
        }

    def skipped(self):
        self.ahead.popleft()


class Batches(NextBatch):
    """The iterator, which fetches ahead; a task waits for it."""

    def __init__(self, consumer):
        super().__init__(consumer)
        self.iterator = None
        self.waiting = None

    async def take(self):
        if self.iterator is None:
            self.iterator = self.consumer.batches(prefetch=PREFETCH, poll_interval=BATCHES_POLL_S)
        if self.waiting is None:
            self.waiting = asyncio.ensure_future(anext(self.iterator))
        await asyncio.wait([self.waiting], timeout=BATCHES_POLL_S / 2)
        if not self.waiting.done():
            return None
        waiting, self.waiting = self.waiting, None
        if waiting.exception() is not None:
            self.iterator = None
        return waiting.result()

    async def aclose(self):
        if self.waiting is not None:
            self.waiting.cancel()
            await asyncio.wait([self.waiting])
        if self.iterator is not None:
            await self.iterator.aclose()


TAKERS = {"next_batch": NextBatch, "descriptors": Descriptors, "batches": Batches}
