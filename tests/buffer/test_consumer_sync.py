"""The synchronous consumer: the same promises over a loop in a thread."""

import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE

import pytest
from fed_queue import TestQueue
from local_stores import program

from walengine.buffer import AckOrderError, Consumer, FencedError, ObjectStoreConfig, QueueError


@pytest.fixture(params=["memory", "local"])
def queue(request, run, tmp_path) -> TestQueue:
    local = request.param == "local"
    queue = TestQueue(ObjectStoreConfig.Local(str(tmp_path / "store")) if local else None)
    run(queue.add(30))
    return queue


def test_batches_are_taken_and_acked(run, queue):
    with Consumer(queue.config) as consumer:
        assert consumer.is_open
        assert consumer.next_batch().entries == [b"0"]
        descriptors = consumer.next_descriptors(4)
        with ThreadPoolExecutor(4) as pool:
            batches = list(pool.map(consumer.fetch_handle().fetch, descriptors))
        assert [batch.sequence for batch in batches] == [1, 2, 3, 4]
        assert consumer.fetch_descriptor(descriptors[0]).entries == [b"1"]
        consumer.ack(0)
        with pytest.raises(AckOrderError):
            consumer.ack(2)
        consumer.ack_through(4)
        consumer.skip(5, "not wanted")
        delivered = []
        for batch in consumer.batches(prefetch=3, poll_interval=0):
            delivered.append(batch.sequence)
            consumer.ack(batch.sequence)
            if batch.sequence == 29:
                break
        assert delivered == list(range(6, 30))
        assert consumer.next_batch() is None
        consumer.flush()
        assert (consumer.queue_length, consumer.last_acked_sequence) == (0, 29)
        assert (consumer.epoch, consumer.stats().epoch) == (1, 1)
        assert consumer.metrics.snapshot()["buffer.acks"] == 30
        assert consumer.config is queue.config
        assert repr(consumer).startswith(f"<Consumer {queue.store.url} ingest/manifest: epoch 1")
    assert not consumer.is_open
    assert run(queue.listed()) == []


def test_threads_share_one_and_each_batch_is_delivered_once(queue):
    with Consumer(queue.config) as consumer, ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: consumer.next_batch(), range(40)))
    assert sorted(batch.sequence for batch in batches if batch) == list(range(30))


def test_a_newer_consumer_fences_this_one(queue):
    with Consumer(queue.config) as old:
        old.next_descriptors(30)
        with Consumer.open(queue.config):
            for _ in range(2):
                with pytest.raises(FencedError):
                    old.next_batch()
    with pytest.raises(QueueError, match="closed"):
        old.next_batch()
    old.close()


def test_a_failed_opening_leaves_no_thread(run, queue):
    run(queue.store.put("ingest/manifest", b"broken"))
    with pytest.raises(QueueError):
        Consumer.open(queue.config)
    assert "walengine-Consumer" not in [thread.name for thread in threading.enumerate()]


def test_an_error_of_the_block_is_not_covered_by_one_of_closing(run, queue):
    with pytest.raises(ZeroDivisionError), Consumer(queue.config) as consumer:
        consumer.next_batch()
        consumer.ack(0)
        run(queue.store.delete("ingest/manifest"))
        raise ZeroDivisionError


def test_a_child_of_fork_is_refused_and_the_parent_goes_on(queue):
    with Consumer(queue.config) as consumer:
        consumer.next_batch()
        child = os.fork()
        if child == 0:
            try:
                consumer.next_batch()
            except QueueError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert consumer.next_batch().sequence == 1


def test_one_that_nobody_closes_is_a_warning_and_its_thread_ends(queue):
    consumer = Consumer.open(queue.config)
    consumer.next_batch()
    consumer.ack(0)
    thread = consumer._thread._thread
    with pytest.warns(ResourceWarning, match="delivered again: 1"):
        del consumer
    thread.join(10)
    assert not thread.is_alive()


def test_batches_keep_their_consumer(queue):
    """Goal: a loop over Consumer.open(config).batches() is not ended by the collector."""
    batches = Consumer.open(queue.config).batches()
    gc.collect()
    assert [next(batches).sequence for _ in range(3)] == [0, 1, 2]
    batches.close()


def test_batches_that_are_collected_wait_for_nobody(queue):
    """A collection may come anywhere: in a step that the loop's thread itself waits for."""
    with Consumer(queue.config) as consumer:
        batches = consumer.batches()
        next(batches)
        goes_on = threading.Event()
        consumer._thread._loop.call_soon_threadsafe(goes_on.wait)
        closing = threading.Thread(target=batches.close)
        closing.start()
        closing.join(5)
        hung = closing.is_alive()
        goes_on.set()
        closing.join()
        assert not hung
        assert consumer.next_batch().sequence == 1


# ---- processes -----------------------------------------------------------------------------------

PREAMBLE = """
from walengine.buffer import Consumer, ConsumerConfig, ObjectStoreConfig
config = ConsumerConfig(object_store=ObjectStoreConfig.Local(path))
"""

FORGOTTEN = (
    PREAMBLE
    + """
consumer = Consumer.open(config)
consumer.next_batch()
consumer.ack(0)
"""
)

INTERRUPTED = (
    PREAMBLE
    + """
with Consumer(config) as consumer:
    try:
        for batch in consumer.batches():
            consumer.ack(batch.sequence)
            if batch.sequence == 2:
                print("waiting", flush=True)
    except KeyboardInterrupt:
        print(consumer.last_acked_sequence, consumer.next_batch())
"""
)


@pytest.fixture
def stored(run, tmp_path) -> TestQueue:
    queue = TestQueue(ObjectStoreConfig.Local(str(tmp_path / "store")))
    run(queue.add(3))
    return queue


def finished(child) -> tuple[int, str, str]:
    try:
        output, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    return child.returncode, output, errors


def start(code, queue):
    environment = os.environ | {"PYTHONWARNINGS": "always::ResourceWarning"}
    return program(code, queue.config.object_store.path, stdout=PIPE, stderr=PIPE, env=environment)


def test_a_program_that_forgets_to_close_ends_and_is_told(run, stored):
    code, _, errors = finished(start(FORGOTTEN, stored))
    assert code == 0
    assert "was not closed: acked batches that are still listed" in errors
    assert run(stored.listed()) == [0, 1, 2]


def test_ctrl_c_ends_a_wait_and_nothing_else(run, stored):
    child = start(INTERRUPTED, stored)
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGINT)
    assert finished(child) == (0, "2 None\n", "")
    assert run(stored.listed()) == []
