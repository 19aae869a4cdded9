"""The synchronous producer: the same promises for threads; and the loop's thread by itself."""

import asyncio
import sys
import threading
import time

import pytest

from walengine.buffer import (
    BackpressureError,
    InvalidInputError,
    ObjectStoreConfig,
    PairingError,
    Producer,
    ProducerConfig,
    QueueError,
    StorageError,
)
from walengine.buffer._environment import Environment
from walengine.buffer._loop_thread import LoopThread
from walengine.buffer.batch import decode_batch
from walengine.buffer.manifest import Manifest
from walengine.buffer.store.memory import MemoryStore


@pytest.fixture
def where(request):
    return ObjectStoreConfig.InMemory(f"twin {request.node.name} {time.time_ns()}")


def queued(where, manifest_path="ingest/manifest"):
    """Every entry of the queue, in order."""

    async def body():
        store = MemoryStore(where.name)
        manifest = Manifest.parse((await store.get(manifest_path)).data, manifest_path)
        locations = [entry.location for entry in manifest.entries()]
        return [
            entry
            for location in locations
            for entry in decode_batch((await store.get(location)).data, location)
        ]

    return asyncio.run(body())


class GatedStore(MemoryStore):
    """Puts nothing before it is told to."""

    def __init__(self, name):
        super().__init__(name)
        self.gate = threading.Event()

    async def put(self, name, data):
        while not self.gate.is_set():  # noqa: ASYNC110 (another thread sets it)
            await asyncio.sleep(0.001)
        await super().put(name, data)


def test_what_is_durable_is_in_the_queue(where):
    with Producer(ProducerConfig(object_store=where)) as producer:
        handle = producer.produce([b"a", bytearray(b"b")], b"who")
        assert handle.watcher.await_durable() is None
        assert handle.watcher.result() is True
        assert abs(handle.ingestion_time_ms - time.time() * 1000) < 60_000
        producer.produce([b"c"])
        producer.flush()
        assert queued(where) == [b"a", b"b", b"c"]
        assert producer.stats().calls_accepted == 2
        assert producer.conflict_rate() == 0.0
        assert producer.metrics.snapshot()["buffer.batches_flushed"] == 2
        producer.produce([b"d"])
        assert "Producer memory://" in repr(producer)
    assert queued(where) == [b"a", b"b", b"c", b"d"]
    assert "closed" in repr(producer)
    assert not [thread for thread in threading.enumerate() if "Producer" in thread.name]


def test_threads_share_a_producer(where, scaled, count):
    calls = scaled(60)
    settings = ProducerConfig(object_store=where, flush_interval=0.005, max_buffered_bytes=200)
    with Producer(settings) as producer:

        def work(name):
            for i in range(calls):
                handle = producer.produce([b"%d %d" % (name, i), b"0 0"])
                if i % 10 == 0:
                    handle.watcher.await_durable(timeout=60)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    entries = [tuple(map(int, entry.split())) for entry in queued(where)]
    for name in range(1, 5):
        assert [i for task, i in entries if task == name] == list(range(calls))
    count("calls of four threads", 4 * calls)


def test_a_wait_may_end_and_the_write_goes_on(where):
    store = GatedStore(where.name)
    environment = Environment(store=store)
    with Producer(ProducerConfig(object_store=where), environment=environment) as producer:
        handle = producer.produce([b"a"])
        with pytest.raises(TimeoutError):
            handle.watcher.await_durable(timeout=0.05)
        assert handle.watcher.result() is None
        store.gate.set()
        handle.watcher.await_durable(timeout=60)
    assert queued(where) == [b"a"]


def test_back_pressure_blocks_the_thread_and_no_other(where):
    store = GatedStore(where.name)
    settings = ProducerConfig(object_store=where, max_buffered_bytes=10)
    with Producer(settings, environment=Environment(store=store)) as producer:
        producer.produce([bytes(10)])
        with pytest.raises(BackpressureError, match="max_buffered_bytes"):
            producer.produce([b"a"], timeout=0.02)
        waiting = threading.Thread(target=producer.produce, args=([b"b"],))
        waiting.start()
        while producer.stats().calls_waiting == 0:
            time.sleep(0.001)
        assert producer.stats().calls_accepted == 1
        store.gate.set()
        waiting.join()
    assert queued(where) == [bytes(10), b"b"]


def test_errors_reach_the_caller(where):
    with Producer(ProducerConfig(object_store=where)) as producer:
        with pytest.raises(TypeError):
            producer.produce(b"bytes")
        with pytest.raises(InvalidInputError):
            producer.produce([])
        producer.produce([b"a"])
    with pytest.raises(QueueError, match="closed"):
        producer.produce([b"b"])
    producer.close()
    other = ProducerConfig(object_store=where, manifest_path="other/manifest")
    with pytest.raises(PairingError):
        Producer.open(other)


def test_closing_in_time_gives_up_what_is_left(where):
    environment = Environment(store=GatedStore(where.name))
    producer = Producer.open(ProducerConfig(object_store=where), environment=environment)
    handle = producer.produce([b"a"])
    with pytest.raises(StorageError, match=r"0\.05 s only"):
        producer.close(timeout=0.05)
    with pytest.raises(StorageError):
        handle.watcher.result()
    with pytest.raises(StorageError):
        handle.watcher.await_durable()
    producer.close()


def test_a_close_that_is_refused_closes_nothing(where):
    producer = Producer.open(ProducerConfig(object_store=where, flush_interval=60.0))
    handle = producer.produce([b"a"])
    with pytest.raises(TypeError, match="timeout"):
        producer.close(timeout="5")
    assert handle.watcher.result() is None
    producer.close(timeout=60)
    assert handle.watcher.result() is True
    assert queued(where) == [b"a"]


def test_ctrl_c_in_a_close_gives_nothing_up_and_it_may_be_called_again(where, monkeypatch):
    store = GatedStore(where.name)
    producer = Producer.open(
        ProducerConfig(object_store=where), environment=Environment(store=store)
    )
    handle = producer.produce([b"a"])

    def interrupted(work, _=None):
        future = producer._thread.submit(work)
        while producer._inner._closing is None:
            time.sleep(0.001)
        future.cancel()  # as run() does
        raise KeyboardInterrupt

    monkeypatch.setattr(producer._thread, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        producer.close()
    monkeypatch.undo()
    store.gate.set()
    producer.close()
    assert handle.watcher.result() is True
    assert queued(where) == [b"a"]


def test_a_closed_producer_is_not_opened_again(where):
    with Producer(ProducerConfig(object_store=where)) as producer:
        producer.produce([b"a"])
    with pytest.raises(QueueError, match="closed: open another"):
        producer.__enter__()
    assert not [thread for thread in threading.enumerate() if "Producer" in thread.name]


def test_other_threads_may_look_while_calls_come_and_go(where, scaled):
    """Goal: counting what is held must not trip over the loop that changes it."""
    settings = ProducerConfig(
        object_store=where, flush_interval=0.001, flush_size_bytes=1, max_inflight_batches=1
    )
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Producer(settings) as producer:

            def work():
                for _ in range(scaled(100)):
                    producer.produce([b"a"])

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                assert producer.stats().calls_undecided >= 0
                assert "calls undecided" in repr(producer)
    finally:
        sys.setswitchinterval(before)


def test_a_producer_that_was_not_opened_says_so(where):
    producer = Producer(ProducerConfig(object_store=where))
    with pytest.raises(QueueError, match="not open"):
        producer.produce([b"a"])
    producer.close()


def test_a_watcher_that_comes_while_the_producer_closes_is_told_the_outcome(where, monkeypatch):
    producer = Producer.open(ProducerConfig(object_store=where))
    handle = producer.produce([b"a"])
    run = producer._thread.run

    def late(work, timeout_s=None):
        monkeypatch.undo()
        producer.close()
        return run(work, timeout_s)

    monkeypatch.setattr(producer._thread, "run", late)
    handle.watcher.await_durable()
    assert handle.watcher.result() is True


def test_handles_outlive_the_producer(where):
    with Producer(ProducerConfig(object_store=where)) as producer:
        handle = producer.produce([b"a"])
    handle.watcher.await_durable()
    assert handle.watcher.result() is True


def test_in_a_callback_of_its_own_loop_it_refuses_to_wait_for_itself(where):
    thread = LoopThread("x")
    thread.start()

    async def inside():
        thread.run(lambda: asyncio.sleep(0))

    with pytest.raises(QueueError, match="would wait for itself"):
        thread.run(inside)
    thread.stop()


# ---- the loop's thread ---------------------------------------------------------------------------


def test_work_runs_on_the_loop_and_returns_or_raises():
    thread = LoopThread("x")
    with pytest.raises(QueueError, match="not open"):
        thread.run(lambda: asyncio.sleep(0))
    thread.start()
    thread.start()

    async def divide(by):
        await asyncio.sleep(0)
        return 1 / by

    assert thread.run(lambda: divide(2)) == 0.5
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: divide(0))
    thread.stop()
    thread.stop()
    assert not thread.is_running


def test_a_time_out_cancels_the_work():
    thread = LoopThread("x")
    thread.start()
    seen = []

    async def long():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        thread.run(long, timeout_s=0.01)
    thread.run(lambda: asyncio.sleep(0))
    assert seen == ["cancelled"]
    thread.stop()


def test_stopping_lets_every_task_see_its_cancellation():
    thread = LoopThread("x")
    thread.start()
    seen, started = [], []

    async def work():
        started.append(True)
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    errors = []

    def wait():
        with pytest.raises(QueueError, match="closed meanwhile") as raised:
            thread.run(work)
        errors.append(raised.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not started:
        time.sleep(0.001)
    thread.stop()
    waiting.join()
    assert (seen, len(errors)) == (["ended"], 1)


@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_finalizer_may_stop_it_in_the_middle_of_a_call(monkeypatch, when):
    """A twin may be collected wherever this thread allocates: in a watcher's call as well."""
    thread = LoopThread("x")
    thread.start()
    hand_over = asyncio.run_coroutine_threadsafe

    def collecting(work, loop):
        goes_on = threading.Event()
        loop.call_soon_threadsafe(goes_on.wait)
        if when == "before":
            thread.stop(wait=False)
        future = hand_over(work, loop)
        thread.stop(wait=False)
        goes_on.set()
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", collecting)
    errors = []

    def call():
        with pytest.raises(QueueError, match="closed") as raised:
            thread.run(lambda: asyncio.sleep(60))
        errors.append(raised.value)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(60)
    assert (caller.is_alive(), len(errors)) == (False, 1)
    thread._thread.join(60)
    assert not thread.is_running


def test_a_signals_handler_may_close_it_in_the_middle_of_a_call(monkeypatch):
    thread = LoopThread("x")
    thread.start()
    hand_over = asyncio.run_coroutine_threadsafe

    def interrupted(work, loop):
        thread.stop()
        return hand_over(work, loop)

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    errors = []

    def call():
        with pytest.raises(QueueError, match="closed") as raised:
            thread.run(lambda: asyncio.sleep(60))
        errors.append(raised.value)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(60)
    assert (caller.is_alive(), len(errors)) == (False, 1)
