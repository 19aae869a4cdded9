"""What a sink promises when nothing fails: batches, triggers, watermarks, phases."""

import asyncio
from datetime import timedelta

import pytest

from walengine.sinks import (
    AsyncBatchSink,
    AsyncCallbackSink,
    AsyncSink,
    AsyncStatsSink,
    BackpressureError,
    BatchSink,
    CallbackSink,
    FanOutSink,
    LogSink,
    Sink,
    SinkClosedError,
    SinkError,
    SinkOptions,
    StatsSink,
    WalSink,
)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def twins(capacity, options=None):
    """Each twin as (send, flush, into_batches) that a plain test can call."""
    runner = asyncio.Runner()
    sink = BatchSink(capacity, options)
    yield sink, sink.send, sink.flush, sink.into_batches
    twin = AsyncBatchSink(capacity, options)
    yield (
        twin,
        lambda item: runner.run(twin.send(item)),
        lambda: runner.run(twin.flush()),
        lambda: runner.run(twin.into_batches()),
    )
    runner.close()


def test_a_full_batch_is_written():
    for sink, send, _, into_batches in twins(3):
        for i in range(1, 10):
            send(i)
        assert (sink.buffered_count(), sink.flushed_count()) == (0, 3)
        assert into_batches() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_flush_writes_a_partial_batch():
    for sink, send, flush, into_batches in twins(3):
        for i in range(1, 6):
            send(i)
        assert sink.buffered_count() == 2
        flush()
        assert sink.buffered_count() == 0
        flush()
        assert sink.flushed_count() == 2  # an empty batch is none
        assert into_batches() == [[1, 2, 3], [4, 5]]


def test_into_batches_flushes_and_closes():
    for sink, send, _, into_batches in twins(10):
        send(1)
        assert into_batches() == [[1]]
        assert sink.closed
        with pytest.raises(SinkClosedError):
            send(2)
        with pytest.raises(SinkClosedError):
            into_batches()


def test_callback_sink_counts():
    collected = []
    sink = CallbackSink(2, collected.extend)
    for i in range(1, 5):
        sink.send(i)
    assert sink.flush_count() == 2
    assert collected == [1, 2, 3, 4]


def test_stats_sink_counts_by_hand():
    for stats in (StatsSink(), AsyncStatsSink()):
        for size in (3, 5, 2):
            stats.record_batch(size)
        assert stats.stats() == (10, 3, 5)
        with pytest.raises(ValueError):
            stats.record_batch(-1)


def test_bytes_trigger():
    for sink, send, _, into_batches in twins(100, SinkOptions(max_bytes=10)):
        send(b"12345")
        assert sink.flushed_count() == 0
        send("ffü78")  # 6 bytes in UTF-8
        send(b"x" * 50)
        send(bytearray(3))
        assert into_batches() == [[b"12345", "ffü78"], [b"x" * 50], [bytearray(3)]]


def test_an_item_without_a_size_is_refused():
    for sink, send, *_ in twins(100, SinkOptions(max_bytes=10)):
        with pytest.raises(TypeError, match="size_of"):
            send(5)
        assert sink.buffered_count() == 0
    sink = BatchSink(100, SinkOptions(max_bytes=10, size_of=int))
    sink.send(10)
    assert sink.flushed_count() == 1


def test_a_size_or_a_clock_that_fails_leaves_the_sink_as_it_was():
    """Goal: the item is not accepted, and nothing of it is counted."""
    now = [0.0]
    options = SinkOptions(max_bytes=8, size_of=lambda item: item, max_age=1, clock=lambda: now[0])
    sink = BatchSink(100, options)
    sink.send(4)
    for size in (None, "4"):
        with pytest.raises(TypeError):
            sink.send(size)
    now.clear()
    with pytest.raises(IndexError):
        sink.send(4)
    now.append(0.0)
    assert sink.buffered_count() == 1
    assert (sink._core._sizes, sink._core._waiting_bytes, len(sink._core._times)) == ([4], 4, 1)


def test_age_trigger_in_send_and_poll():
    clock = Clock()
    sink = BatchSink(100, SinkOptions(max_age=timedelta(seconds=2), clock=clock))
    sink.send(1)
    clock.now += 1
    sink.send(2)
    assert not sink.poll()
    clock.now += 1  # the first one is two seconds old
    assert sink.poll()
    assert sink.buffered_count() == 0
    assert not sink.poll()
    sink.send(3)
    clock.now += 5
    sink.send(4)
    assert sink.into_batches() == [[1, 2], [3, 4]]


def test_age_trigger_on_the_loop():
    async def run():
        written = asyncio.Event()

        async def on_flush(batch):
            assert batch == [1]
            written.set()

        async with AsyncCallbackSink(100, on_flush, SinkOptions(max_age=0.01)) as sink:
            await sink.send(1)
            await written.wait()
            await sink.flush()
            assert sink.flush_count() == 1

    asyncio.run(run())


def test_the_timer_retries_and_the_error_reaches_a_caller():
    async def run():
        calls = []
        failed, healed = asyncio.Event(), asyncio.Event()

        async def on_flush(batch):
            calls.append(batch)
            if len(calls) < 3:
                failed.set()
                raise OSError("down")
            healed.set()

        async with AsyncCallbackSink(100, on_flush, SinkOptions(max_age=0.01)) as sink:
            await sink.send(1)
            await failed.wait()
            with pytest.raises(OSError, match="down"):
                await sink.send(2)
            await healed.wait()
        assert calls == [[1], [1], [1]]

    asyncio.run(run())


def test_watermarks():
    seen = []
    sink = BatchSink(10, SinkOptions(on_backpressure=seen.append))
    for i in range(7):
        sink.send(i)
    assert sink.ready()
    assert not sink.backpressure
    sink.send(7)
    assert not sink.ready()
    assert sink.backpressure
    sink.flush()
    assert sink.ready()
    assert seen == [True, False]


def test_backpressure_stays_until_the_low_watermark():
    """Method: a write of three leaves items below the high and above the low mark."""

    async def run():
        gate = asyncio.Event()
        sink = AsyncCallbackSink(10, lambda _: gate.wait(), SinkOptions(low_watermark=0.1))
        for i in range(10):
            sink.send_nowait(i)  # the tenth begins a write
        assert not sink.backpressure
        for i in range(8):
            sink.send_nowait(i)
        assert sink.backpressure
        waiting = asyncio.create_task(sink.ready())
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.set()
        await waiting
        await sink.aclose()
        assert not sink.backpressure

    asyncio.run(run())


def test_what_on_backpressure_raises_is_logged_only(caplog):
    sink = BatchSink(2, SinkOptions(on_backpressure=lambda _: 1 / 0))
    sink.send(1)
    sink.send(2)
    assert "on_backpressure failed" in caplog.text
    assert sink.into_batches() == [[1, 2]]


def test_a_sink_may_raise_instead_of_writing():
    sink = BatchSink(2, SinkOptions(when_full="raise"))
    sink.send(1)
    sink.send(2)
    with pytest.raises(BackpressureError, match="flush"):
        sink.send(3)
    assert sink.flushed_count() == 0
    assert sink.poll()
    sink.send(3)
    assert sink.into_batches() == [[1, 2], [3]]
    with pytest.raises(ValueError, match="send_nowait"):
        AsyncBatchSink(2, SinkOptions(when_full="raise"))


def test_send_nowait_raises_when_full():
    async def run():
        gate = asyncio.Event()
        sink = AsyncCallbackSink(2, lambda _: gate.wait())
        for i in range(4):
            sink.send_nowait(i)  # two in flight, two waiting
        with pytest.raises(BackpressureError):
            sink.send_nowait(4)
        assert sink.buffered_count() == 4
        gate.set()
        await sink.ready()
        sink.send_nowait(4)
        await sink.aclose()
        assert sink.flush_count() == 3

    asyncio.run(run())


@pytest.mark.parametrize("is_async_source", [False, True])
def test_send_all_keeps_one_batch_in_flight(is_async_source):
    async def run():
        in_flight, most, filled, batches = 0, 0, [], []
        sink = None

        async def on_flush(batch):
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            for _ in range(20):
                await asyncio.sleep(0)
            filled.append(sink.buffered_count() - len(batch))
            batches.append(batch)
            in_flight -= 1

        async def numbers():
            for i in range(20):
                yield i

        sink = AsyncCallbackSink(5, on_flush)
        count = await sink.send_all(numbers() if is_async_source else range(20))
        assert count == 20
        assert batches == [list(range(i, i + 5)) for i in (0, 5, 10, 15)]
        assert most == 1
        assert filled[:3] == [5, 5, 5]  # the next batch had filled meanwhile
        await sink.aclose()

    asyncio.run(run())


def test_send_all_flushes_and_counts():
    sink = BatchSink(3)
    assert sink.send_all(iter("abcde")) == 5
    assert sink.buffered_count() == 0
    assert sink.into_batches() == [["a", "b", "c"], ["d", "e"]]


def test_closing_twice_does_nothing_and_nothing_goes_after():
    sink = BatchSink(3)
    with sink:
        sink.send(1)
    sink.close()
    for call in (lambda: sink.send(2), sink.flush, sink.poll, lambda: sink.send_all([2])):
        with pytest.raises(SinkClosedError):
            call()
    assert sink.into_batches() == [[1]]


def test_an_exception_in_the_block_flushes_too():
    sink = BatchSink(3)
    with pytest.raises(KeyError), sink:
        sink.send(1)
        raise KeyError
    assert sink.into_batches() == [[1]]


def test_the_protocols_can_be_checked_at_run_time(tmp_path):
    with (tmp_path / "lines").open("w") as file:
        sinks = [BatchSink(1), CallbackSink(1, print), LogSink(file, 1), StatsSink()]
        for sink in [*sinks, FanOutSink([BatchSink(1)])]:
            assert isinstance(sink, Sink)
            assert not isinstance(sink, AsyncSink)
    for sink in (AsyncBatchSink(1), AsyncCallbackSink(1, print), AsyncStatsSink()):
        assert isinstance(sink, AsyncSink)
    assert not isinstance([], Sink)
    assert issubclass(WalSink, BatchSink.__mro__[2])


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"max_age": 0},
        {"max_age": float("nan")},
        {"max_age": timedelta(seconds=-1)},
        {"high_watermark": 1.5},
        {"high_watermark": 0.5},
        {"low_watermark": -0.1},
        {"when_full": "drop"},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SinkOptions(**options)


def test_bad_capacities_are_refused():
    with pytest.raises(ValueError, match="capacity is 0"):
        BatchSink(0)
    for capacity in (True, 2.5, "3"):
        with pytest.raises(TypeError, match="capacity"):
            BatchSink(capacity)


def test_one_loop_after_the_other_but_not_two_at_once():
    sink = AsyncBatchSink(3)
    asyncio.run(sink.send(1))
    asyncio.run(sink.send(2))
    assert asyncio.run(sink.into_batches()) == [[1, 2]]
    sink = AsyncBatchSink(3)
    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(sink.send(1))
        with pytest.raises(SinkError, match="another event loop"):
            other.run(sink.send(2))
        one.run(sink.aclose())
