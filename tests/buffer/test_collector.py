"""The collector: what it deletes, and each guard that keeps it from deleting more.

Times are set by the names that batches are given, and by a clock that is ahead of the store's.
"""

import pytest
from faults import Fault, FaultyStore
from fed_queue import HOUR_MS, MANIFEST, OWNER, TestQueue, named, now_ms, opened
from test_consumer_errors import unreadable

from walengine.buffer import (
    Collection,
    ManifestLostError,
    ObjectStoreConfig,
    PairingError,
    StorageError,
    collect_garbage,
)
from walengine.buffer._environment import Environment
from walengine.buffer.collector import _pass
from walengine.buffer.collector._choice import Candidate, Keep, References, judge
from walengine.buffer.entry import Listing
from walengine.buffer.location import BatchNamer
from walengine.buffer.manifest import Manifest
from walengine.buffer.pairing import encode_owner
from walengine.buffer.store import ObjectInfo

GRACE_MS = 600_000


@pytest.fixture(params=["memory", "local"])
def queue(request, run, tmp_path) -> TestQueue:
    """A queue whose only batch was taken off long ago."""
    local = request.param == "local"
    queue = TestQueue(ObjectStoreConfig.Local(str(tmp_path / "store")) if local else None)
    run(queue.consumed_once())
    return queue


@pytest.fixture
def memory_queue(run) -> TestQueue:
    queue = TestQueue()
    run(queue.consumed_once())
    return queue


async def collect(queue, *, ahead_ms=HOUR_MS, store=None, **options) -> Collection:
    """A pass of a collector whose clock is ahead, so that what is written now is old."""
    around = Environment(store=store or queue.store, wall_ms=lambda: now_ms() + ahead_ms)
    return await collect_garbage(queue.config, environment=around, **options)


async def survivors(queue) -> set[str]:
    return await queue.objects() - {MANIFEST, OWNER}


# ---- what is deleted -----------------------------------------------------------------------------


def test_what_nobody_lists_is_deleted_when_it_is_old(run, queue):
    async def scenario():
        garbage = {named(0), named(HOUR_MS)}
        for name in garbage:
            await queue.store.put(name, b"12345")
        epoch = (await queue.manifest()).epoch
        found = await collect(queue)
        assert {each.name for each in found.deleted} == garbage
        assert (found.deleted_bytes, found.objects) == (10, 4)
        assert (found.refused, found.failed) == (None, [])
        assert found.kept == {Keep.FOREIGN: 2}
        assert await survivors(queue) == set()
        assert (await queue.manifest()).epoch == epoch

    run(scenario())


def test_a_dry_run_tells_and_deletes_nothing(run, queue):
    async def scenario():
        await queue.store.put(named(0), b"1")
        found = await collect(queue, dry_run=True)
        assert len(found.deleted) == 1
        assert {each.name for each in found.deleted} == await survivors(queue)

    run(scenario())


def test_a_queue_that_was_consumed_is_collected_but_for_its_last_batches(run, queue):
    async def scenario():
        locations = await queue.add(5)
        async with opened(queue) as consumer:
            await consumer.next_descriptors(5)
            await consumer.ack_through(3)
        assert (await collect(queue)).kept[Keep.LISTED] == 2
        assert await survivors(queue) == set(locations[3:])

    run(scenario())


# ---- the guards of one object --------------------------------------------------------------------


async def stays(queue, name, reason, **options) -> None:
    await queue.store.put(name, b"1")
    found = await collect(queue, **options)
    assert (found.deleted, found.refused) == ([], None)
    assert found.kept[reason] >= 1
    assert name in await queue.objects()


def test_a_listed_batch_stays(run, queue):
    """Also one that is older than all the others in the list."""

    async def scenario():
        old, older = named(5 * HOUR_MS), named(9 * HOUR_MS)
        await queue.enqueue(Listing(old), Listing(older))
        await queue.store.put(older, b"1")
        await stays(queue, old, Keep.LISTED)
        assert older in await queue.objects()

    run(scenario())


@pytest.mark.parametrize("later_ms", [1, HOUR_MS])
def test_what_is_newer_than_the_oldest_listed_stays(run, queue, later_ms):
    async def scenario():
        await queue.enqueue(Listing(named(0)), Listing(named(5 * HOUR_MS)), Listing("ingest/other"))
        await stays(queue, named(5 * HOUR_MS - later_ms), Keep.NEWER_THAN_OLDEST)

    run(scenario())


def test_without_a_time_to_go_by_everything_is_newer(run, queue):
    async def scenario():
        await queue.enqueue(Listing("ingest/of-another-client"))
        await stays(queue, named(5 * HOUR_MS), Keep.NEWER_THAN_OLDEST)

    run(scenario())


def test_an_old_name_that_was_written_lately_stays(run, queue):
    run(stays(queue, named(5 * HOUR_MS), Keep.YOUNG, ahead_ms=GRACE_MS - 60_000))


def test_an_old_object_with_a_young_name_stays(run, queue):
    """As with a producer whose clock is ahead: its name is taken at its word."""
    run(stays(queue, named(-HOUR_MS), Keep.YOUNG))


OLD = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize(
    "name",
    [
        f"ingest/nested/{OLD}.batch",
        f"ingest/{OLD}.tmp",
        f"ingest/{OLD.lower()}.batch",
        "ingest/notes.txt",
        "ingest/8ZZZZZZZZZZZZZZZZZZZZZZZZZ.batch",  # no ULID: too large
        "ingest/run/0000000000000001",
    ],
)
def test_what_is_no_batch_of_this_queue_stays(run, memory_queue, name):
    run(stays(memory_queue, name, Keep.FOREIGN))


def test_the_same_name_where_it_belongs_goes(run, memory_queue):
    async def scenario():
        await memory_queue.store.put(f"ingest/{OLD}.batch", b"1")
        assert len((await collect(memory_queue)).deleted) == 1

    run(scenario())


def test_other_queues_are_not_even_looked_at(run, queue):
    async def scenario():
        for prefix in ("ingest2", "other"):
            await queue.store.put(f"{prefix}/{OLD}.batch", b"1")
        assert (await collect(queue)).objects == 2
        assert len(await survivors(queue)) == 2

    run(scenario())


def judged(info: ObjectInfo, references: References, at_ms: int) -> Candidate | Keep:
    return judge(info, references, data_path_prefix="ingest", now_ms=at_ms, grace_ms=GRACE_MS)


@pytest.mark.parametrize("field", ["name", "last_modified"])
def test_the_grace_period_is_over_when_it_is_over(field):
    name = BatchNamer("ingest", clock_ms=lambda: 10**12 if field == "name" else 0).new()
    info = ObjectInfo(name.location, 1, 10**12 if field == "last_modified" else 0)
    nothing = References.of(Manifest.empty(MANIFEST))
    assert judged(info, nothing, 10**12 + GRACE_MS) is Keep.YOUNG
    assert isinstance(judged(info, nothing, 10**12 + GRACE_MS + 1), Candidate)


def test_the_oldest_listed_is_of_all_and_not_the_first():
    names = [BatchNamer("ingest", clock_ms=lambda at=at: at).new().location for at in (7, 5, 6)]
    references = References.of(Manifest.empty(MANIFEST).append(map(Listing, names)))
    assert references.oldest_ms == 5
    assert references.keep("x", 4) is None
    assert references.keep("x", 5) is Keep.NEWER_THAN_OLDEST
    assert references.keep(names[0], 0) is Keep.LISTED


# ---- the guards of the whole pass ----------------------------------------------------------------


async def refused(queue, text, **options) -> None:
    name = named(5 * HOUR_MS)
    await queue.store.put(name, b"1")
    found = await collect(queue, **options)
    assert text in found.refused
    assert found.deleted == []
    assert name in await queue.objects()


def test_nothing_is_deleted_without_a_manifest(run, queue):
    async def scenario():
        await queue.store.delete(MANIFEST)
        await refused(queue, "there is no manifest")

    run(scenario())


@pytest.mark.parametrize("epochs", [0, 3])
def test_nothing_is_deleted_on_the_word_of_a_manifest_that_never_listed_a_batch(run, queue, epochs):
    async def scenario():
        manifest = Manifest.empty(MANIFEST)
        for _ in range(epochs):
            manifest = manifest.raise_epoch()
        await queue.store.put(MANIFEST, manifest.data)
        await refused(queue, "has never listed a batch")

    run(scenario())


def test_nothing_is_deleted_while_an_entry_cannot_be_read(run, queue):
    async def scenario():
        await unreadable(queue)
        await refused(queue, "nobody knows which batch sequence 1 means")

    run(scenario())


def test_nothing_is_deleted_below_a_prefix_that_nobody_owns(run, queue):
    async def scenario():
        await queue.store.delete(OWNER)
        await refused(queue, "nobody owns the prefix")
        assert OWNER not in await queue.objects()  # a collector claims nothing

    run(scenario())


def test_nothing_is_deleted_below_another_queues_prefix(run, queue):
    async def scenario():
        name = named(5 * HOUR_MS)
        await queue.store.put(name, b"1")
        await queue.store.put(OWNER, encode_owner("other/manifest"))
        with pytest.raises(PairingError, match="belongs to manifest other/manifest"):
            await collect(queue)
        assert name in await queue.objects()

    run(scenario())


class During:
    """A store where something happens while objects are listed."""

    def __init__(self, store, happen):
        self.store, self.happen = store, happen

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def list(self, prefix):
        async for info in self.store.list(prefix):
            yield info
        await self.happen()


def test_what_is_listed_during_the_pass_stays(run, queue):
    """A producer that keeps no limit on the age of its names, and was slow."""

    async def scenario():
        name, other = named(5 * HOUR_MS), named(6 * HOUR_MS)
        for each in (name, other):
            await queue.store.put(each, b"1")

        async def enqueue():
            await queue.enqueue(Listing(name))

        found = await collect(queue, store=During(queue.store, enqueue))
        assert [each.name for each in found.deleted] == [other]
        assert found.kept[Keep.LISTED] == 1
        assert await survivors(queue) == {name}

    run(scenario())


def test_what_is_newer_than_one_listed_during_the_pass_stays(run, queue):
    async def scenario():
        async def enqueue():
            await queue.enqueue(Listing(named(6 * HOUR_MS)))

        await stays(
            queue, named(5 * HOUR_MS), Keep.NEWER_THAN_OLDEST, store=During(queue.store, enqueue)
        )

    run(scenario())


class Deleting:
    """A store where something happens behind the first deletion."""

    def __init__(self, store, happen):
        self.store, self.happen = store, happen

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def delete(self, name):
        happen, self.happen = self.happen, None
        await self.store.delete(name)
        if happen is not None:
            await happen()


@pytest.mark.parametrize("is_old", [False, True])
def test_a_look_at_the_manifest_is_taken_again_once_it_is_old(run, queue, monkeypatch, is_old):
    """Goal: a collector that is stopped while it deletes does not go on as if nothing had passed.

    Method: a batch is listed behind the first deletion; with time passing, or without.
    """
    monkeypatch.setattr(_pass, "DELETES_AT_ONCE", 1)

    async def scenario():
        names = [named(hours * HOUR_MS) for hours in (7, 6, 5)]
        for each in names:
            await queue.store.put(each, b"1")
        ahead_ms = [HOUR_MS]

        async def stopped():
            ahead_ms[0] += 3600_000 * is_old
            last = max(await survivors(queue))
            await queue.enqueue(Listing(last))

        around = Environment(
            store=Deleting(queue.store, stopped), wall_ms=lambda: now_ms() + ahead_ms[0]
        )
        found = await collect_garbage(queue.config, environment=around)
        assert len(found.deleted) == (2 if is_old else 3)
        assert found.kept[Keep.LISTED] == is_old

    run(scenario())


def test_nothing_is_deleted_when_a_newer_consumer_comes_during_the_pass(run, queue):
    async def scenario():
        async def take_over():
            await queue.change(lambda manifest: manifest.raise_epoch())

        await refused(queue, "a newer consumer", store=During(queue.store, take_over))

    run(scenario())


@pytest.mark.parametrize("instead", [None, Manifest.empty(MANIFEST)], ids=["gone", "anew"])
def test_nothing_is_deleted_when_the_manifest_goes_during_the_pass(run, queue, instead):
    async def scenario():
        name = named(5 * HOUR_MS)
        await queue.store.put(name, b"1")

        async def lose():
            await queue.store.delete(MANIFEST)
            if instead is not None:
                await queue.store.put(MANIFEST, instead.data)

        with pytest.raises(ManifestLostError):
            await collect(queue, store=During(queue.store, lose))
        assert name in await queue.objects()

    run(scenario())


# ---- failures ------------------------------------------------------------------------------------


def test_a_deletion_that_fails_is_told_and_tried_again_by_the_next_pass(run, memory_queue):
    async def scenario():
        queue = memory_queue
        names = [named(0) for _ in range(40)]
        for name in names:
            await queue.store.put(name, b"1")
        failing = {names[3], names[30]}
        store = FaultyStore(
            queue.store,
            lambda call: (
                Fault.FAIL_BEFORE if call.verb == "delete" and call.name in failing else None
            ),
        )
        found = await collect(queue, store=store)
        assert len(found.deleted) == 38
        assert {each.name for each, _ in found.failed} == failing == await survivors(queue)
        assert "the connection was refused" in found.failed[0][1]
        assert len((await collect(queue)).deleted) == 2

    run(scenario())


@pytest.mark.parametrize("verb", ["get", "get_if_changed", "list"])
def test_a_pass_that_cannot_see_everything_deletes_nothing(run, memory_queue, verb):
    async def scenario():
        name = named(5 * HOUR_MS)
        await memory_queue.store.put(name, b"1")
        store = FaultyStore(
            memory_queue.store, lambda call: Fault.FAIL_BEFORE if call.verb == verb else None
        )
        with pytest.raises(StorageError):
            await collect(memory_queue, store=store)
        assert name in await memory_queue.objects()

    run(scenario())
