"""Producers and consumers that do not mean the same queue find out, and say what both sides say."""

import asyncio
import logging

import pytest
from faults import Fault, FaultyStore, scripted
from fed_queue import MANIFEST, OWNER, TestQueue, fresh_memory, opened

from walengine.buffer import (
    Adoption,
    ConsumerConfig,
    FormatError,
    ObjectStoreConfig,
    PairingError,
    ProducerConfig,
    StorageError,
    adopt,
)
from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue
from walengine.buffer.pairing import check_owner, decode_owner, encode_owner, ensure_owner
from walengine.buffer.store.probe import ClockReading


@pytest.fixture(params=["memory", "local"])
def queue(request, tmp_path) -> TestQueue:
    local = request.param == "local"
    return TestQueue(ObjectStoreConfig.Local(str(tmp_path / "store")) if local else None)


def other_config(queue, kind=ConsumerConfig):
    """The same prefix with another manifest."""
    return kind(object_store=queue.config.object_store, manifest_path="other/manifest")


# ---- the owner object ----------------------------------------------------------------------------


def test_what_is_written_is_read_and_is_for_people_too():
    assert decode_owner(encode_owner(MANIFEST), "o") == MANIFEST
    assert (
        encode_owner(MANIFEST) == b'{\n  "manifest_path": "ingest/manifest",\n  "version": 1\n}\n'
    )
    assert decode_owner(b'{"version": 2, "manifest_path": "m", "more": {}}', "o") == "m"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", b'{"manifest_path": 1}', b'{"manifest_path": "../up"}',
     b'{"manifest_path": ""}', b"\xff\xfe", b"[" * 10_000],
)  # fmt: skip
def test_an_owner_object_that_names_no_manifest_is_an_error(run, queue, data):
    async def scenario():
        await queue.store.put(OWNER, data)
        with pytest.raises(FormatError, match="names no manifest path.*walengine buffer adopt"):
            await queue.open()

    run(scenario())


def test_the_first_to_come_claims_the_prefix(run, queue):
    async def scenario():
        assert not await check_owner(queue.store, "ingest", MANIFEST)
        await ensure_owner(queue.store, "ingest", MANIFEST)
        assert await check_owner(queue.store, "ingest", MANIFEST)
        await ensure_owner(queue.store, "ingest", MANIFEST)
        with pytest.raises(PairingError):
            await ensure_owner(queue.store, "ingest", "other/manifest")

    run(scenario())


def test_of_two_that_claim_at_once_one_is_refused(run, queue):
    async def scenario():
        claims = (ensure_owner(queue.store, "ingest", f"m{i}") for i in range(8))
        results = await asyncio.gather(*claims, return_exceptions=True)
        assert [type(each) for each in results].count(PairingError) == 7
        owner = decode_owner((await queue.store.get(OWNER)).data, OWNER)
        assert results[int(owner[1:])] is None

    run(scenario())


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.LOST_REQUEST, Fault.LATE,
                                   Fault.PRECONDITION, Fault.CONFLICT])  # fmt: skip
def test_an_unclear_claim_is_looked_up(run, fault):
    async def scenario():
        queue = TestQueue()
        store = FaultyStore(queue.store, scripted(None, fault))
        await ensure_owner(store, "ingest", MANIFEST)
        assert await check_owner(store, "ingest", MANIFEST)
        await store.aclose()

    run(scenario())


def test_a_claim_that_fails_is_an_error(run):
    async def scenario():
        queue = TestQueue()
        with pytest.raises(StorageError, match="refused"):
            await ensure_owner(
                FaultyStore(queue.store, scripted(None, Fault.FAIL_BEFORE)), "ingest", MANIFEST
            )
        for fault, text in (
            (Fault.UNAVAILABLE, "503"),
            (Fault.PRECONDITION, "was created 5 times"),
        ):
            store = FaultyStore(
                queue.store, lambda call, f=fault: f if call.verb == "create" else None
            )
            with pytest.raises(StorageError, match=text):
                await ensure_owner(store, "ingest", MANIFEST)

    run(scenario())


# ---- who means something else --------------------------------------------------------------------


def test_another_manifest_for_one_prefix_is_refused_and_shows_both(run, queue):
    async def scenario():
        await (await queue.open()).aclose()
        config = other_config(queue)
        with pytest.raises(PairingError) as caught:
            await TestQueue(config.object_store, manifest_path="other/manifest").open()
        text = str(caught.value)
        assert "means manifest other/manifest with the prefix ingest" in text
        assert f"{OWNER} says that the prefix belongs to manifest {MANIFEST}" in text
        assert caught.value.object == OWNER
        assert "other/manifest" not in await queue.objects()

    run(scenario())


def test_batches_beside_no_manifest_are_a_warning(run, queue, caplog):
    async def scenario():
        location = await queue.put([b"1"])
        async with opened(queue) as consumer:
            (warning,) = consumer.stats().warnings
            assert f"there is no manifest, but there are batches, {location}" in warning
        async with opened(queue) as consumer:
            assert consumer.stats().warnings == ()
        assert caplog.record_tuples[0][:2] == ("walengine.buffer", logging.WARNING)

    run(scenario())


def test_what_is_no_batch_is_no_warning(run, queue):
    async def scenario():
        await queue.store.put("ingest/notes.txt", b"")
        await queue.store.put(queue.namer.new().location.replace("ingest/", "ingest/below/"), b"")
        async with opened(queue) as consumer:
            assert consumer.stats().warnings == ()

    run(scenario())


def test_a_clock_far_from_the_stores_is_a_warning(run):
    async def scenario():
        queue = TestQueue()
        for skew_ms, count in ((150_000, 0), (150_001, 1), (-150_001, 1)):
            around = Environment(store=queue.store, clock=ClockReading(skew_ms, 0))
            consumer = type(queue.consumer())(queue.config, environment=around)
            async with consumer:
                warnings = consumer.stats().warnings
                assert len(warnings) == count
                assert not count or "150.001 s" in warnings[0]

    run(scenario())


# ---- adopting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ProducerConfig, ConsumerConfig])
def test_adopting_changes_the_owner_whoever_it_was(run, queue, kind):
    async def scenario():
        config = other_config(queue, kind)
        assert await adopt(config) == Adoption(OWNER, "other/manifest", None)
        assert await adopt(config) == Adoption(OWNER, "other/manifest", "other/manifest")
        assert await adopt(queue.config) == Adoption(OWNER, MANIFEST, "other/manifest")
        async with opened(queue):
            pass
        await queue.store.put(OWNER, b"broken")
        assert await adopt(config) == Adoption(OWNER, "other/manifest", None)
        with pytest.raises(PairingError):
            await queue.open()

    run(scenario())


def test_adopting_leaves_an_environment_that_was_given_open(run):
    async def scenario():
        queue = TestQueue()
        await adopt(queue.config, environment=Environment(store=queue.store))
        assert await queue.objects() == {OWNER}

    run(scenario())


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.LOST_REQUEST, Fault.PRECONDITION])
def test_an_unclear_adoption_is_looked_up(run, fault):
    async def scenario():
        queue = TestQueue()
        await queue.store.put(OWNER, encode_owner("old/manifest"))
        store = FaultyStore(queue.store, scripted(None, fault))
        around = Environment(store=store)
        if fault is Fault.LOST_REPLY:
            assert (await adopt(queue.config, environment=around)).previous == "old/manifest"
        else:
            kind = PairingError if fault is Fault.PRECONDITION else StorageError
            with pytest.raises(kind):
                await adopt(queue.config, environment=around)
        owner = decode_owner((await queue.store.get(OWNER)).data, OWNER)
        assert owner == (MANIFEST if fault is Fault.LOST_REPLY else "old/manifest")

    run(scenario())


def test_a_producers_side_is_checked_alike(run):
    async def scenario():
        config = ProducerConfig(object_store=fresh_memory())
        queue = TestQueue(config.object_store)
        await Queue(Environment(store=queue.store), config).pair()
        assert await check_owner(queue.store, "ingest", MANIFEST)
        with pytest.raises(PairingError):
            await Queue(Environment(store=queue.store), other_config(queue, ProducerConfig)).pair()

    run(scenario())
