"""Sinks that nobody closed: collection, interpreter exit, the child of a fork."""

import asyncio
import gc
import os
import subprocess
import sys

import pytest

from walengine import replay
from walengine.sinks import AsyncBatchSink, BatchSink, CallbackSink, SinkOptions


def fail(batch):
    raise OSError("down")


def test_a_sync_sink_is_flushed_when_it_is_collected():
    batches = []
    sink = CallbackSink(10, batches.append)
    sink.send(1)
    del sink
    gc.collect()
    assert batches == [[1]]


def test_a_collected_sink_that_cannot_flush_says_what_is_lost(caplog):
    sink = CallbackSink(10, fail)
    sink.send(1)
    sink.send(2)
    del sink
    gc.collect()
    assert "CallbackSink was not closed; items that are lost: 2, for OSError('down')" in caplog.text


def test_an_async_sink_warns_with_the_count():
    sink = AsyncBatchSink(10)
    asyncio.run(sink.send(1))
    with pytest.warns(ResourceWarning, match="AsyncBatchSink.* not written: 1"):  # noqa: PT031
        del sink
        gc.collect()


def test_closed_sinks_end_in_silence(caplog):
    sink = BatchSink(10, SinkOptions(max_age=1))
    sink.send(1)
    sink.close()
    twin = AsyncBatchSink(10, SinkOptions(max_age=1))
    asyncio.run(twin.send(1))
    asyncio.run(twin.aclose())
    del sink, twin
    gc.collect()
    assert caplog.text == ""


EXIT = """
import tempfile, weakref
class Thing: pass
thing = Thing()
weakref.finalize(thing, int)  # before walengine: its exit hook then runs last
from walengine import PortableWalWriter
from walengine.sinks import CallbackSink, WalSink, FanOutSink
wal = PortableWalWriter("exit.log")
sink = WalSink(wal)
callback = CallbackSink(10, print)
fan = FanOutSink([sink, callback], capacity=10)
sink.send(b"first")
fan.send(b"second")
"""


def test_sync_sinks_are_flushed_at_interpreter_exit(tmp_path):
    run = [sys.executable, "-W", "error", "-c", EXIT]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[b'second']\n"
    assert [r.data for r in replay(tmp_path / "exit.log")] == [b"first", b"second"]


CHAIN = """
from walengine.sinks import CallbackSink
sinks = [CallbackSink(100, print)]
for _ in range(20):
    def feed(batch, into=sinks[-1]):
        for item in batch:
            into.send(item)
    sinks.append(CallbackSink(100, feed))
def fail(batch):
    raise OSError("down")
broken = CallbackSink(100, fail)
broken.send(1)
sinks[-1].send("first")
"""


def test_sinks_that_feed_one_another_are_flushed_at_exit_in_any_order():
    """Goal: what a flush at exit hands to a sink that had its turn is not lost; one loss, told."""
    run = [sys.executable, "-W", "error", "-c", CHAIN]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout == "['first']\n"
    lost = "CallbackSink was not closed; items that are lost: 1, for OSError('down')"
    assert done.stderr == f"{lost}\n"


CIRCLE = """
from walengine.sinks import CallbackSink
one = CallbackSink(100, lambda batch: two.send(batch))
two = CallbackSink(100, lambda batch: one.send(batch))
one.send("round")
"""


def test_sinks_that_feed_each_other_in_a_circle_end_at_exit_with_a_word():
    run = [sys.executable, "-W", "error", "-c", CIRCLE]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert (
        "items that are lost: 1, for SinkError('sinks feed each other in a circle')" in done.stderr
    )


def test_a_forked_child_does_not_write_what_its_parent_buffered():
    written = []
    sink = CallbackSink(10, written.extend)
    twin = AsyncBatchSink(10)
    asyncio.run(twin.send(1))
    sink.send("parent's")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        sink.send("child's")
        sink.flush()
        os.write(writer, repr((written, twin.buffered_count())).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b'(["child\'s"], 0)'
    os.close(reader)
    os.close(writer)
    sink.flush()
    assert written == ["parent's"]
    assert asyncio.run(twin.into_batches()) == [[1]]
