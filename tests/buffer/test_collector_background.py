"""The collector beside a consumer: its passes, its errors, its clock, its end."""

import asyncio

import pytest
from faults import Fault, FaultyStore
from fed_queue import HOUR_MS, MANIFEST, OWNER, TestQueue, named, now_ms, opened

from walengine.buffer import ObjectStoreConfig
from walengine.buffer._environment import Environment
from walengine.buffer.collector._background import Collector, SteadyClock
from walengine.buffer.collector._choice import Keep
from walengine.buffer.metrics import Metrics
from walengine.buffer.pairing import encode_owner


@pytest.fixture(params=["memory", "local"])
def queue(request, run, tmp_path) -> TestQueue:
    local = request.param == "local"
    queue = TestQueue(ObjectStoreConfig.Local(str(tmp_path / "store")) if local else None)
    run(queue.consumed_once())
    return queue


@pytest.fixture
def memory_queue(run) -> TestQueue:
    queue = TestQueue()
    run(queue.consumed_once())
    return queue


async def survivors(queue) -> set[str]:
    return await queue.objects() - {MANIFEST, OWNER}


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 (what changes tells nobody)
        await asyncio.sleep(0.001)


def consumer_of(queue, store=None):
    """A consumer whose collector runs all the time, by a clock that is ahead."""
    around = Environment(store=store or queue.store, wall_ms=lambda: now_ms() + HOUR_MS)
    config = type(queue.config).from_dict(queue.config.to_dict() | {"gc_interval": "1ms"})
    return type(queue.consumer())(config, environment=around)


def test_a_consumer_collects_beside(run, queue):
    async def scenario():
        garbage = named(0)
        await queue.store.put(garbage, b"1")
        async with consumer_of(queue) as consumer:
            await until(lambda: consumer.stats().metrics["buffer.gc_files_deleted"] == 1)
            assert await survivors(queue) == set()
            stats = consumer.stats()
            assert stats.collector_passes >= 1
            assert stats.warnings == ()
            assert stats.metrics["buffer.gc_duration_seconds"].count >= 1

    run(scenario())


def test_its_errors_are_warnings_until_they_are_over(run, memory_queue, caplog):
    async def scenario():
        queue = memory_queue
        await queue.store.put(named(0), b"1")
        broken = [True]
        store = FaultyStore(
            queue.store,
            lambda call: Fault.FAIL_BEFORE if call.verb == "delete" and broken else None,
        )
        async with consumer_of(queue, store) as consumer:
            await until(lambda: consumer.stats().metrics["buffer.gc_files_failed"] >= 2)
            (warning,) = consumer.stats().warnings
            assert warning.startswith("collector: 1 objects were not deleted: memory://")
            broken.clear()
            await until(lambda: not consumer.stats().warnings)
            assert consumer.stats().metrics["buffer.gc_files_deleted"] == 1
            await queue.store.put(OWNER, encode_owner("other/manifest"))
            await until(lambda: consumer.stats().warnings)
            assert "belongs to manifest other/manifest" in consumer.stats().warnings[0]
        assert caplog.text.count("were not deleted") == 1

    run(scenario())


def test_a_mistake_of_its_own_is_told_and_does_not_end_it(run, memory_queue, caplog):
    class Broken:
        def __getattr__(self, name):
            return getattr(memory_queue.store, name)

        async def list(self, prefix):
            if prefix is None:
                yield
            raise ZeroDivisionError("a mistake")

    async def scenario():
        async with consumer_of(memory_queue, Broken()) as consumer:
            await until(lambda: consumer.stats().collector_passes >= 2)
            assert consumer.stats().warnings == ("collector: ZeroDivisionError('a mistake')",)
        assert "ZeroDivisionError: a mistake" in caplog.text

    run(scenario())


def test_a_collector_that_finds_a_newer_consumer_ends_and_tells_its_own(run, queue):
    async def scenario():
        async with consumer_of(queue) as old:
            async with opened(queue):
                await until(lambda: old.stats().is_fenced)
                await until(old._collecting.done)
                await queue.store.put(named(5 * HOUR_MS), b"1")
            assert len(await survivors(queue)) == 1

    run(scenario())


def test_the_clock_of_a_collector_runs_no_faster_than_time(run, monkeypatch):
    """A machine's clock that is set forward must not make everything old at once."""

    async def scenario():
        wall_ms = [1_000_000]
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: 50.0)
        clock = SteadyClock(Environment(store=None, wall_ms=lambda: wall_ms[0]))
        wall_ms[0] += HOUR_MS
        assert clock.now_ms() == 1_000_000
        monkeypatch.setattr(loop, "time", lambda: 60.0)
        assert clock.now_ms() == 1_010_000
        wall_ms[0] = 1_002_000
        assert clock.now_ms() == 1_002_000
        monkeypatch.undo()

    run(scenario())


def test_a_pass_of_the_background_uses_that_clock(run, memory_queue):
    async def scenario():
        queue = memory_queue
        await queue.store.put(named(0), b"1")
        ahead_ms = [0]
        around = Environment(store=queue.store, wall_ms=lambda: now_ms() + ahead_ms[0])
        queue.queue.environment = around
        one = Collector(
            queue.queue, queue.queue.read_manifest, queue.config, Metrics("consumer"),
            SteadyClock(queue.queue.environment),
        )  # fmt: skip
        ahead_ms[0] = HOUR_MS
        assert (await one.run_once()).kept[Keep.YOUNG] == 1

    run(scenario())
