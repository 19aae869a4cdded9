"""How producers end that nobody closed: collected, at interpreter exit, in the child of a fork."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from queues import in_world

from walengine.buffer import AsyncProducer, ObjectStoreConfig, Producer, ProducerConfig, QueueError


def program(source, *arguments, warnings="default"):
    """Run a program; return (status, what it printed, what it complained of)."""
    done = subprocess.run(
        [sys.executable, "-W", warnings, "-c", textwrap.dedent(source), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def collect(held):
    held.clear()
    gc.collect()


HEAD = """
    import asyncio, os, sys
    from walengine.buffer import AsyncProducer, ObjectStoreConfig, Producer, ProducerConfig
    config = ProducerConfig(object_store=ObjectStoreConfig.Local(sys.argv[1]), flush_interval=60.0)
"""


def test_a_collected_producer_is_a_warning_with_the_count():
    async def body(world):
        held = [await world.producer(flush_interval=60.0).__aenter__()]
        await held[0].produce([b"a", b"b"])
        await held[0].produce([b"c"])
        pipeline = held[0]._pipeline
        with pytest.warns(ResourceWarning, match="may be lost: 3 of 2 calls"):
            collect(held)
        await pipeline.stop()

    in_world(body)


def test_a_collected_producer_that_holds_nothing_is_no_warning(recwarn):
    async def body(world):
        producer = await world.producer().__aenter__()
        await producer.produce([b"a"])
        await producer.flush()
        del producer
        gc.collect()

    in_world(body)
    assert not [each for each in recwarn if issubclass(each.category, ResourceWarning)]


def test_a_collected_synchronous_producer_stops_its_thread(tmp_path):
    where = ObjectStoreConfig.Local(str(tmp_path))
    held = [Producer.open(ProducerConfig(object_store=where, flush_interval=60.0))]
    held[0].produce([b"a"])
    (thread,) = [each for each in threading.enumerate() if "Producer" in each.name]
    with pytest.warns(ResourceWarning, match="may be lost: 1 of 1 calls"):
        collect(held)
    thread.join(30)
    assert not thread.is_alive()


ASYNCHRONOUS = """
async def main():
    global p
    p = await AsyncProducer.open(config)
    await p.produce([b"a", b"b"])
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        ("p = Producer.open(config); p.produce([b'a', b'b'])", True),
        ("p = Producer.open(config); p.produce([b'a']).watcher; p.flush()", False),
        ("p = Producer.open(config); p.produce([b'a']); p.close()", False),
        ("p = Producer(config)", False),
        (ASYNCHRONOUS, True),
    ],
    ids=["open", "flushed", "closed", "never opened", "asynchronous"],
)
def test_interpreter_exit_warns_of_what_is_not_durable_and_hangs_never(tmp_path, body, lost):
    source = textwrap.dedent(HEAD) + body
    status, _, complaints = program(source, tmp_path)
    assert status == 0, complaints
    assert ("entries that may be lost: 2 of 1 calls" in complaints) == lost, complaints
    assert "Traceback" not in complaints
    if not lost:
        assert complaints == ""


def test_exit_in_the_middle_of_uploads_is_quiet_but_for_the_warning(tmp_path):
    """Goal: thread pools that refuse work at exit are no failure of the batches."""
    body = """
    config = ProducerConfig(object_store=config.object_store, flush_size_bytes=1)
    p = Producer.open(config)
    for i in range(50):
        p.produce([bytes(100_000)] * 3)
    """
    for _ in range(3):
        status, _, complaints = program(textwrap.dedent(HEAD) + textwrap.dedent(body), tmp_path)
        assert status == 0, complaints
        assert "Traceback" not in complaints, complaints
        assert "bug" not in complaints, complaints


def test_in_the_child_of_a_fork_a_producer_refuses_and_the_parent_goes_on(tmp_path):
    body = """
    with Producer(config) as p:
        handle = p.produce([b"the parent's"])
        pid = os.fork()
        if pid == 0:
            try:
                p.produce([b"the child's"])
            except Exception as error:
                print(type(error).__name__, error, flush=True)
            try:
                handle.watcher.await_durable()
            except Exception as error:
                print(type(error).__name__, error, flush=True)
            p.close()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        p.flush()
        print("parent", handle.watcher.result())
    """
    status, output, complaints = program(textwrap.dedent(HEAD) + textwrap.dedent(body), tmp_path)
    assert (status, complaints) == (0, "")
    child, wait, parent = output.splitlines()
    assert child.startswith("QueueError")
    assert "parent process" in child
    assert "parent process" in wait
    assert parent == "parent True"


def test_an_asynchronous_producer_refuses_in_the_child_of_a_fork(tmp_path):
    config = ProducerConfig(object_store=ObjectStoreConfig.Local(str(tmp_path)))

    async def body():
        async with AsyncProducer(config) as producer:
            await producer.produce([b"a"])
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    await producer.produce([b"b"])
                except QueueError as error:
                    status = 0 if "parent" in str(error) else 2
                await producer.aclose()
                os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222 (nothing else is to run)
            await producer.flush()

    asyncio.run(body())
