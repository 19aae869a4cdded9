"""What tests of the queue share: a world of virtual time around one queue in memory."""

import asyncio
import random
import secrets
from collections import Counter

from faults import FaultyStore
from virtual_time import run

from walengine.buffer import AsyncProducer, ObjectStoreConfig, ProducerConfig
from walengine.buffer._environment import Environment
from walengine.buffer.batch import decode_batch
from walengine.buffer.manifest import Manifest
from walengine.buffer.store.memory import MemoryStore

MANIFEST = "ingest/manifest"
START_MS = 1_750_000_000_000


async def inline(work):
    return work()


class World:
    """A queue in memory behind a store that fails as told, and a clock that tests may set.

    Attributes:
        inner: The store without faults.
        store: The same with them.
        plan: Asked before each call, if there is one; a test may set another.
        skew_ms: Added to the wall clock.
    """

    def __init__(self, plan=None, *, latency_s=0.0, seed=1, inner=None):
        self.plan = plan
        self.inner = inner or MemoryStore(f"world {secrets.token_hex(8)}")
        self.store = FaultyStore(self.inner, self._fault, seed=seed, latency_s=lambda: latency_s)
        self.skew_ms = 0
        self.random = random.Random(seed)

    def _fault(self, call):
        return self.plan(call) if self.plan else None

    def wall_ms(self):
        return START_MS + self.skew_ms + int(asyncio.get_running_loop().time() * 1000)

    def environment(self, **changes):
        given = {"store": self.store, "wall_ms": self.wall_ms, "random": self.random,
                 "offload": inline}  # fmt: skip
        return Environment(**{**given, **changes})

    def producer(self, environment=None, **options):
        return AsyncProducer(config(**options), environment=environment or self.environment())

    async def manifest(self):
        found = await self.inner.get(MANIFEST)
        return Manifest.parse(found.data, MANIFEST) if found else Manifest.empty(MANIFEST)

    async def write(self, manifest):
        """Be somebody else who changes the manifest."""
        await self.inner.put(MANIFEST, manifest.data)

    async def dequeue(self, through_sequence):
        await self.write((await self.manifest()).dequeue(through_sequence))

    async def batches(self):
        """The entries of each batch in the queue, in order."""
        return [
            decode_batch((await self.inner.get(entry.location)).data, entry.location)
            for entry in (await self.manifest()).entries()
        ]

    async def entries(self):
        return [entry for batch in await self.batches() for entry in batch]

    def calls(self, verb, name=MANIFEST):
        """How often the producer called."""
        return sum(call.verb == verb and call.name == name for call, _ in self.store.history)


def config(**options):
    return ProducerConfig(**{"object_store": ObjectStoreConfig.InMemory("unused"), **options})


def at(*points):
    """A plan from (verb, which call of that verb on such names, fault, part of the name)."""
    counts = Counter()

    def plan(call):
        chosen = None
        for index, (verb, number, fault, *part) in enumerate(points):
            if call.verb == verb and (not part or part[0] in call.name):
                if counts[index] == number:
                    chosen = fault
                counts[index] += 1
        return chosen

    return plan


def always(fault, *verbs, part=""):
    return lambda call: fault if call.verb in verbs and part in call.name else None


def in_world(function, **options):
    """Run function(world) in virtual time."""

    async def body():
        return await function(World(**options))

    return run(body())
