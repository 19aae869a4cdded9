"""Fencing: of all consumers of a queue, the one that opened last owns the manifest.

Fencing keeps an older consumer from changing the manifest. It cannot keep it from acting on what
was delivered to it before: for that, a sink moves its stored position conditionally.
"""

import asyncio
import json
import os
import signal

import pytest
from faults import Fault, FaultyStore
from fed_queue import MANIFEST, TestQueue, opened
from local_stores import program

from walengine.buffer import (
    BatchMissingError,
    FencedError,
    FormatError,
    ObjectStoreConfig,
    SequenceGapError,
)
from walengine.buffer.manifest import EPOCH_MAX, Manifest


@pytest.fixture(params=["memory", "local"])
def queue(request, tmp_path) -> TestQueue:
    local = request.param == "local"
    return TestQueue(ObjectStoreConfig.Local(str(tmp_path / "store")) if local else None)


async def expect_fenced(call) -> None:
    with pytest.raises(FencedError, match="a newer consumer has taken the queue over"):
        await call


# ---- the older one finds out ---------------------------------------------------------------------


async def read(consumer):
    await consumer.next_batch()


async def read_many(consumer):
    await consumer.next_descriptors(9)


async def iterate(consumer):
    await anext(consumer.batches())


async def ack_through(consumer):
    await consumer.ack_through(1)


async def ack_and_flush(consumer):
    await consumer.ack(0)
    await consumer.flush()


async def ack_and_close(consumer):
    await consumer.ack(0)
    await consumer.aclose()


@pytest.mark.parametrize(
    "call", [read, read_many, iterate, ack_through, ack_and_flush, ack_and_close]
)
def test_each_call_that_uses_the_manifest_finds_out(run, queue, call):
    async def scenario():
        await queue.add(3)
        async with opened(queue) as old:
            await old.next_descriptors(3)
            async with opened(queue) as new:
                before = (await queue.manifest()).data
                await expect_fenced(call(old))
                assert (await queue.manifest()).data == before
                assert (await new.next_batch()).sequence == 0
                assert not new.stats().is_fenced

    run(scenario())


def test_once_fenced_is_fenced_for_good_without_a_word_to_the_store(run):
    async def scenario():
        queue = TestQueue()
        await queue.add(3)
        store = FaultyStore(queue.store, lambda _: None)
        async with opened(queue, store=store) as old:
            await old.next_batch()
            await (await queue.open()).aclose()
            await expect_fenced(old.ack_through(0))
            calls = len(store.history)
            for call in (read, read_many, iterate, ack_through, ack_and_flush):
                await expect_fenced(call(old))
            assert len(store.history) == calls
            assert old.stats().is_fenced
        assert len(store.history) == calls  # closing has nothing to write either

    run(scenario())


def test_the_collector_of_a_fenced_consumer_stops(run, queue):
    async def scenario():
        async with opened(queue) as old:
            collecting = old._collecting
            await (await queue.open()).aclose()
            assert not collecting.done()
            await expect_fenced(old.next_batch())
            await asyncio.sleep(0)
            assert collecting.done()

    run(scenario())


def test_a_snapshot_that_is_old_is_not_delivered_from(run, monkeypatch):
    """A consumer that was stopped for a while must not go on with what it knew."""

    async def scenario():
        queue = TestQueue()
        await queue.add(3)
        async with opened(queue) as old:
            await old.next_batch()
            await (await queue.open()).aclose()
            assert (await old.next_batch()).sequence == 1  # known, and fresh
            loop = asyncio.get_running_loop()
            now_s = loop.time
            monkeypatch.setattr(loop, "time", lambda: now_s() + 1.0)
            await expect_fenced(old.next_batch())

    run(scenario())


def test_what_the_newer_one_collected_is_not_missing(run):
    async def scenario():
        queue = TestQueue()
        locations = await queue.add(2)
        async with opened(queue) as old:
            (descriptor, _) = await old.next_descriptors(2)
            async with opened(queue) as new:
                await new.next_descriptors(2)
                await new.ack_through(1)
                await queue.store.delete(locations[0])
                with pytest.raises(BatchMissingError):  # the handle knows of no manifest
                    await old.fetch_handle().fetch(descriptor)
                await expect_fenced(old.fetch_descriptor(descriptor))

    run(scenario())


# ---- in the middle of a change -------------------------------------------------------------------


class Paused:
    """A store whose next conditional write waits: its caller is frozen between read and swap."""

    def __init__(self, store):
        self.store = store
        self.armed = False
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def replace(self, name, data, etag):
        if self.armed:
            self.armed = False
            self.reached.set()
            await self.go_on.wait()
        return await self.store.replace(name, data, etag)


def test_a_zombie_between_read_and_swap_changes_nothing(run, queue):
    async def scenario():
        await queue.add(3)
        store = Paused(queue.store)
        async with opened(queue, store=store) as old:
            await old.next_descriptors(3)
            store.armed = True
            acking = asyncio.ensure_future(old.ack_through(2))
            await store.reached.wait()
            async with opened(queue) as new:
                store.go_on.set()
                await expect_fenced(acking)
                assert await queue.listed() == [0, 1, 2]
                assert (await new.next_batch()).sequence == 0

    run(scenario())


def test_a_zombie_opening_between_read_and_swap_goes_on_top(run, queue):
    """It was about to raise the epoch that the other one then raised: it must not think it did."""

    async def scenario():
        await queue.add(1)
        store = Paused(queue.store)
        store.armed = True
        opening = asyncio.ensure_future(queue.open(store=store))
        await store.reached.wait()
        async with opened(queue) as other:
            assert other.epoch == 1
            store.go_on.set()
            late = await opening
            assert late.epoch == 2
            await expect_fenced(read_all(other))
            assert (await late.next_batch()).sequence == 0
            await late.aclose()

    run(scenario())


def test_a_position_is_checked_again_when_the_raise_was_lost(run, queue):
    async def scenario():
        await queue.add(3)
        store = Paused(queue.store)
        store.armed = True
        opening = asyncio.ensure_future(queue.open(0, store=store))
        await store.reached.wait()
        async with opened(queue) as other:
            await other.next_descriptors(3)
            await other.ack_through(1)
            store.go_on.set()
            with pytest.raises(SequenceGapError):
                await opening
            await other.flush()

    run(scenario())


async def read_all(consumer):
    while True:
        if await consumer.next_batch() is None:
            raise AssertionError("it is not fenced")


@pytest.mark.parametrize("count", [2, 8])
def test_of_many_that_open_at_once_each_gets_an_epoch_and_one_the_queue(run, queue, count):
    async def scenario():
        await queue.add(1)
        consumers = await asyncio.gather(*(queue.open() for _ in range(count)))
        epochs = [consumer.epoch for consumer in consumers]
        assert sorted(epochs) == list(range(1, count + 1))
        for consumer in consumers:
            if consumer.epoch == count:
                await consumer.next_batch()
                await consumer.ack_through(0)
            else:
                await expect_fenced(read_all(consumer))
            await consumer.aclose()
        assert await queue.listed() == []

    run(scenario())


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.LOST_REQUEST, Fault.LATE, Fault.TIMEOUT])
@pytest.mark.parametrize("verb", ["create", "replace"])
def test_an_unclear_raise_is_raised_again_and_never_adopted(run, verb, fault):
    """Method: its outcome is unclear, and another consumer raises to the same epoch meanwhile.

    Both write the same bytes, so nobody can tell from the manifest whose epoch it is.
    """

    async def scenario():
        queue = TestQueue()
        if verb == "replace":
            await queue.add(1)
        rival = []

        def plan(call):
            due = call.verb == verb and call.name == MANIFEST and not rival
            return fault if due else None

        class Raced(FaultyStore):
            async def get(self, name, *, max_bytes=None):
                await take_over(self, name)
                return await super().get(name, max_bytes=max_bytes)

            async def get_if_changed(self, name, etag, *, max_bytes=None):
                await take_over(self, name)
                return await super().get_if_changed(name, etag, max_bytes=max_bytes)

        async def take_over(store, name):
            if name == MANIFEST and not rival and any(each for _, each in store.history):
                rival.append(await queue.open())

        store = Raced(queue.store, plan)
        consumer = await queue.open(store=store)
        assert len(rival) == 1
        assert consumer.epoch > rival[0].epoch
        await expect_fenced(read_all(rival[0]))
        assert len(await consumer.next_descriptors(9)) == (verb == "replace")
        await rival[0].aclose()
        await consumer.aclose()
        await store.aclose()

    run(scenario())


def test_the_last_epoch_is_refused_and_stays(run, queue):
    async def scenario():
        last = Manifest([], [], 0, EPOCH_MAX - 1, MANIFEST)
        await queue.store.put(MANIFEST, last.data)
        async with opened(queue) as consumer:
            assert consumer.epoch == EPOCH_MAX
        before = (await queue.manifest()).data
        with pytest.raises(FormatError, match="cannot be raised"):
            await queue.open()
        assert (await queue.manifest()).data == before

    run(scenario())


# ---- processes -----------------------------------------------------------------------------------

RACING = """
from walengine.buffer import Consumer, ConsumerConfig, FencedError, ObjectStoreConfig

config = ConsumerConfig(object_store=ObjectStoreConfig.Local(path))
epochs = []
for _ in range(int(sys.argv[2])):
    with Consumer(config) as consumer:
        epochs.append(consumer.epoch)
print(*epochs)
"""


def test_processes_that_open_at_once_each_get_an_epoch_of_their_own(run, tmp_path, count):
    path = tmp_path / "store"
    queue = TestQueue(ObjectStoreConfig.Local(str(path)))
    children = [program(RACING, path, 25, stdout=-1) for _ in range(4)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    epochs = [int(epoch) for output in outputs for epoch in output.split()]
    assert sorted(epochs) == list(range(1, 101))
    assert run(queue.manifest()).epoch == 100
    count("epochs raised by processes at once", len(epochs))


STOPPED = """
import json, signal
from walengine.buffer import ConsumerConfig, Consumer, FencedError, ObjectStoreConfig

config = ConsumerConfig(object_store=ObjectStoreConfig.Local(path))
with Consumer(config) as consumer:
    consumer.next_batch()
    consumer.ack(0)
    consumer.next_descriptors(9)
    os.kill(os.getpid(), signal.SIGSTOP)
    found = []
    for call in (consumer.next_batch, lambda: consumer.ack_through(1), consumer.flush):
        try:
            call()
        except FencedError as error:
            found.append(type(error).__name__)
    print(json.dumps([consumer.stats().is_fenced, found]))
"""


def test_a_stopped_process_that_wakes_up_replaced_is_fenced(run, tmp_path):
    path = tmp_path / "store"
    queue = TestQueue(ObjectStoreConfig.Local(str(path)))
    run(queue.add(4))
    child = program(STOPPED, path, stdout=-1, stderr=-1)
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), child.communicate()

        async def replace():
            async with opened(queue) as new:
                assert new.epoch == 2
                assert [each.sequence for each in await new.next_descriptors(9)] == [0, 1, 2, 3]
                await new.ack_through(0)

        run(replace())
        before = run(queue.manifest()).data
        os.kill(child.pid, signal.SIGCONT)
        output, errors = child.communicate(timeout=60)
    finally:
        if child.returncode is None:
            child.kill()
            child.communicate()
    assert (child.returncode, errors) == (0, "")
    assert json.loads(output) == [True, ["FencedError"] * 3]
    assert run(queue.manifest()).data == before
