"""The seam below producers and consumers: the manifest, read and swapped."""

import asyncio

import pytest
from faults import Fault, FaultyStore, scripted

from walengine.buffer import (
    ConsumerConfig,
    FormatError,
    ManifestLostError,
    ObjectStoreConfig,
    ObjectTooLargeError,
    StorageError,
)
from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue, Snapshot, went_back
from walengine.buffer.entry import Listing
from walengine.buffer.manifest import Manifest
from walengine.buffer.store.memory import MemoryStore
from walengine.buffer.store.probe import ClockReading

PATH = "ingest/manifest"
CONFIG = ConsumerConfig(object_store=ObjectStoreConfig.InMemory())


def queue(store, **options) -> Queue:
    return Queue(Environment(store=store), ConsumerConfig(**{
        "object_store": ObjectStoreConfig.InMemory(), **options}))  # fmt: skip


@pytest.fixture
def store(request):
    return MemoryStore(request.node.nodeid)


def listed(count: int) -> Manifest:
    return Manifest.empty(PATH).append([Listing(f"ingest/{i}") for i in range(count)])


def test_a_missing_manifest_reads_as_empty(run, store):
    async def scenario():
        snapshot = await queue(store).read_manifest()
        assert not snapshot.exists
        assert (len(snapshot.manifest), snapshot.manifest.epoch) == (0, 0)

    run(scenario())


def test_what_was_swapped_in_is_read_and_read_only_once(run, store):
    calls = []

    def plan(call):
        calls.append(call.verb)

    async def scenario():
        mine = queue(FaultyStore(store, plan))
        first = await mine.read_manifest()
        second = await mine.swap(first, listed(2))
        assert await mine.read_manifest() is second
        assert calls == ["get", "create", "get_if_changed"]
        other = queue(store)
        theirs = await other.read_manifest()
        assert theirs.manifest.data == second.manifest.data
        third = await other.swap(theirs, theirs.manifest.dequeue(0))
        assert (await mine.read_manifest()).etag == third.etag

    run(scenario())


def test_of_two_swaps_from_one_snapshot_one_is_made(run, store):
    async def scenario():
        one, two = queue(store), queue(store)
        for _ in range(2):
            mine, theirs = await one.read_manifest(), await two.read_manifest()
            more = mine.manifest.append([Listing("ingest/more")])
            assert await one.swap(mine, more) is not None
            assert await two.swap(theirs, more.raise_epoch()) is None
        assert (await two.read_manifest()).manifest.epoch == 0

    run(scenario())


@pytest.mark.parametrize("fault", [Fault.LOST_REQUEST, Fault.LOST_REPLY, Fault.UNAVAILABLE])
def test_an_unclear_swap_says_so_and_is_not_believed(run, store, fault):
    async def scenario():
        mine = queue(FaultyStore(store, scripted(None, fault)))
        snapshot = await mine.read_manifest()
        with pytest.raises(StorageError) as caught:
            await mine.swap(snapshot, listed(1))
        assert caught.value.unclear
        assert mine.latest is snapshot
        assert (await mine.read_manifest()).exists == (fault is Fault.LOST_REPLY)

    run(scenario())


@pytest.mark.parametrize(
    ("instead", "what"),
    [
        (None, "is gone; it was at sequence 3"),
        (listed(2).raise_epoch(), "next sequence went back from 3 to 2"),
        (listed(3), "epoch went back from 1 to 0"),
        (listed(3).raise_epoch(), "first sequence went back from 1 to 0"),
    ],
)
def test_a_manifest_that_went_back_is_lost(run, store, instead, what):
    async def scenario():
        mine = queue(store)
        await store.put(PATH, listed(3).raise_epoch().dequeue(0).data)
        await mine.read_manifest()
        if instead is None:
            await store.delete(PATH)
        else:
            await store.put(PATH, instead.data)
        for _ in range(2):
            with pytest.raises(ManifestLostError, match=what):
                await mine.read_manifest()

    run(scenario())


def test_what_goes_forth_has_not_gone_back():
    before = listed(3)
    for after in (before, before.append([Listing("ingest/3")]), before.dequeue(1)):
        assert went_back(Snapshot(before, "a"), Snapshot(after, "b")) is None
    assert went_back(Snapshot(Manifest.empty(PATH), None), Snapshot(before, "a")) is None


def test_an_older_read_that_returns_last_changes_nothing(run, store):
    """Method: the first of two reads is slow; what it brings was read before the second's."""

    class Slow(MemoryStore):
        async def get(self, name, *, max_bytes=None):
            found = await store.get(name, max_bytes=max_bytes)
            if self.gates:
                await self.gates.pop().wait()
            return found

    async def scenario():
        slow = Slow("slow")
        gate = asyncio.Event()
        slow.gates = [gate]
        mine = queue(slow)
        await store.put(PATH, listed(1).data)
        first = asyncio.create_task(mine.read_manifest())
        await asyncio.sleep(0)
        await store.put(PATH, listed(2).data)
        second = await mine.read_manifest()
        gate.set()
        assert (await first).manifest.next_sequence == 1
        assert mine.latest is second

    run(scenario())


def test_broken_framing_and_size_name_the_manifest(run, store):
    async def scenario():
        await store.put(PATH, b"short")
        with pytest.raises(FormatError, match="manifest ingest/manifest: 5 bytes"):
            await queue(store).read_manifest()
        await store.put(PATH, bytes(5000))
        with pytest.raises(ObjectTooLargeError, match="more than 4096 bytes.*max_manifest_bytes"):
            await queue(store, max_manifest_bytes=4096).read_manifest()

    run(scenario())


def test_a_large_manifest_is_parsed_off_the_loop(run, store):
    offloaded = []

    async def offload(work):
        offloaded.append(work)
        return work()

    async def scenario():
        big = listed(1).append([Listing("ingest/big", extension=bytes(300_000))])
        await store.put(PATH, big.data)
        mine = Queue(Environment(store=store, offload=offload), CONFIG)
        assert (await mine.read_manifest()).manifest.next_sequence == 2
        assert len(offloaded) == 1

    run(scenario())


def test_a_clock_that_is_far_off_is_a_warning(store):
    def warning(skew_ms):
        around = Environment(store=store, clock=ClockReading(skew_ms, 0))
        return around.skew_warning(1000)

    assert warning(1000) is None
    assert "1.001 s behind" in warning(1001)
    assert "2 s ahead of" in warning(-2000)
