"""A queue to test consumers on: batches put and listed by hand, as some producer would."""

import contextlib
import secrets
import time

from walengine.buffer import AsyncConsumer, CompressionType, ConsumerConfig, ObjectStoreConfig
from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue
from walengine.buffer.batch import encode_batch
from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.location import BatchNamer
from walengine.buffer.pairing import encode_owner
from walengine.buffer.store.probe import make_store

HOUR_MS = 3_600_000
MANIFEST = "ingest/manifest"
OWNER = "ingest/_queue.json"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def named(age_ms: int) -> str:
    """The name of a batch that was stamped so long ago; negative: that will be."""
    return BatchNamer("ingest", clock_ms=lambda: now_ms() - age_ms).new().location


def fresh_memory() -> ObjectStoreConfig:
    return ObjectStoreConfig.InMemory(f"t{secrets.token_hex(8)}")


class TestQueue:
    """A queue in a store, with what a test does to it.

    Attributes:
        store: Its objects, for the test's own hands.
        config: For consumers.
    """

    __test__ = False

    def __init__(self, store_config=None, **options):
        options = {"object_store": store_config or fresh_memory(), **options}
        self.config = ConsumerConfig(**options)
        self.store = make_store(self.config.object_store)
        self.queue = Queue(Environment(store=self.store), self.config)
        self.namer = BatchNamer(self.config.data_path_prefix)

    def consumer(self, last_acked=None, *, store=None, **options):
        """A consumer that is not open; around another store, if one is given."""
        around = None if store is None else Environment(store=store)
        return AsyncConsumer(self.config, last_acked, environment=around, **options)

    async def open(self, last_acked=None, *, store=None, **options) -> AsyncConsumer:
        return await self.consumer(last_acked, store=store, **options).__aenter__()

    async def put(self, entries, *, compression=CompressionType.NONE) -> str:
        """Put a batch that is not listed; return its location."""
        location = self.namer.new().location
        await self.store.put(location, encode_batch(entries, compression))
        return location

    async def enqueue(self, *listings: Listing) -> None:
        """List batches, whether they are there or not."""
        await self.change(lambda manifest: manifest.append(listings))

    async def add(self, count=1, *, entries=None, compression=CompressionType.NONE) -> list[str]:
        """Put and list batches; the entries of each say its sequence."""
        first = (await self.manifest()).next_sequence
        locations = []
        for sequence in range(first, first + count):
            mine = [b"%d" % sequence] if entries is None else entries
            locations.append(await self.put(mine, compression=compression))
        await self.enqueue(*(Listing(each, [Metadata(0, 1000, b"m")]) for each in locations))
        return locations

    async def change(self, how) -> None:
        """Swap the manifest, as somebody else would."""
        snapshot = await self.queue.read_manifest()
        assert await self.queue.swap(snapshot, how(snapshot.manifest)) is not None

    async def consumed_once(self) -> None:
        """Give the queue an empty list and a past: a batch that was taken off long ago."""
        await self.store.put(OWNER, encode_owner(MANIFEST))
        await self.enqueue(Listing("ingest/consumed"))
        await self.change(lambda manifest: manifest.dequeue(0))

    async def manifest(self):
        return (await self.queue.read_manifest()).manifest

    async def listed(self) -> list[int]:
        return list((await self.manifest()).sequences)

    async def objects(self) -> set[str]:
        return {info.name async for info in self.store.list()}


@contextlib.asynccontextmanager
async def opened(queue: TestQueue, *arguments, **options):
    """A consumer that is closed at the end, whatever its last words."""
    consumer = await queue.open(*arguments, **options)
    try:
        yield consumer
    finally:
        await consumer.aclose()
