"""When things fail: nothing is lost, nothing doubled, and the error reaches a caller."""

import asyncio
import logging
import threading
import time

import pytest

from walengine.sinks import (
    AsyncCallbackSink,
    AsyncLogSink,
    CallbackSink,
    SinkClosedError,
    SinkError,
    SinkHandler,
)


class Flaky:
    """A callback that fails while it is down."""

    def __init__(self):
        self.is_down = True
        self.batches = []

    def __call__(self, batch):
        if self.is_down:
            batch.clear()  # what the callback does to its list is its own business
            raise OSError("down")
        self.batches.append(batch)


def test_a_failed_flush_keeps_the_batch_and_a_later_one_retries():
    flaky = Flaky()
    sink = CallbackSink(10, flaky)
    for i in range(4):
        sink.send(i)
    for _ in range(2):
        with pytest.raises(OSError, match="down") as caught:
            sink.flush()
        assert "CallbackSink: Nothing was lost" in caught.value.__notes__[0]
        assert sink.buffered_count() == 4
    flaky.is_down = False
    sink.send(4)
    sink.flush()
    assert flaky.batches == [[0, 1, 2, 3, 4]]
    assert sink.flush_count() == 1


def test_the_item_whose_send_raised_was_not_accepted():
    flaky = Flaky()
    sink = CallbackSink(2, flaky)
    sink.send(1)
    for _ in range(3):
        with pytest.raises(OSError, match="down"):
            sink.send(2)
        assert sink.buffered_count() == 1
    flaky.is_down = False
    sink.send(3)
    assert flaky.batches == [[1, 3]]


def test_an_async_send_with_a_plain_callback_is_withdrawn_too():
    async def run():
        flaky = Flaky()
        sink = AsyncCallbackSink(2, flaky)
        await sink.send(1)
        with pytest.raises(OSError, match="down"):
            await sink.send(2)
        with pytest.raises(OSError, match="down"):
            sink.send_nowait(2)
        assert sink.buffered_count() == 1
        flaky.is_down = False
        await sink.send(3)
        await sink.aclose()
        assert flaky.batches == [[1, 3]]

    asyncio.run(run())


def test_a_failed_background_write_is_raised_by_the_next_send_once(caplog):
    async def run():
        flaky = Flaky()

        async def on_flush(batch):
            await asyncio.sleep(0)
            flaky(batch)

        sink = AsyncCallbackSink(2, on_flush)
        await sink.send(1)
        await sink.send(2)  # accepted; its write fails in the background
        await asyncio.wait([sink._shell._task])
        with pytest.raises(OSError, match="down"):
            await sink.send(3)
        assert sink.buffered_count() == 2
        with pytest.raises(OSError, match="down"):
            await sink.send(3)  # tried again for room, and failed again
        flaky.is_down = False
        await sink.send(3)
        await sink.aclose()
        assert flaky.batches == [[1, 2], [3]]

    asyncio.run(run())


def test_close_that_fails_leaves_the_sink_open():
    flaky = Flaky()
    sink = CallbackSink(10, flaky)
    with pytest.raises(OSError, match="down"), sink:
        sink.send(1)
    assert not sink.closed
    flaky.is_down = False
    sink.send(2)
    sink.close()
    assert flaky.batches == [[1, 2]]

    async def run():
        other = Flaky()
        twin = AsyncCallbackSink(10, other)
        with pytest.raises(OSError, match="down"):
            async with twin:
                await twin.send(1)
        other.is_down = False
        await twin.send(2)
        await asyncio.gather(twin.aclose(), twin.aclose())
        assert other.batches == [[1, 2]]
        with pytest.raises(SinkClosedError):
            await twin.send(3)

    asyncio.run(run())


class AsyncNumbers:
    """An asynchronous iterator of 0 to 6."""

    def __init__(self):
        self.numbers = iter(range(7))

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return next(self.numbers)
        except StopIteration:
            raise StopAsyncIteration from None


@pytest.mark.parametrize("kind", ["sync", "async", "async source"])
def test_send_all_goes_on_with_the_same_iterator(kind):
    flaky = Flaky()
    source = AsyncNumbers() if kind == "async source" else iter(range(7))
    if kind != "sync":
        sink = AsyncCallbackSink(3, flaky)
        send_all = lambda: asyncio.run(sink.send_all(source))  # noqa: E731
    else:
        sink = CallbackSink(3, flaky)
        send_all = lambda: sink.send_all(source)  # noqa: E731
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            send_all()
        assert sink.buffered_count() == 3
    flaky.is_down = False
    assert send_all() == 4
    assert flaky.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_discard_gives_up_what_can_never_be_written():
    flaky = Flaky()
    sink = CallbackSink(10, flaky)
    sink.send(1)
    with pytest.raises(OSError, match="down"):
        sink.flush()
    assert sink.discard() == [1]
    sink.close()
    assert flaky.batches == []


def test_a_coroutine_is_no_plain_callback():
    async def on_flush(batch):
        pass

    with pytest.raises(TypeError, match="AsyncCallbackSink"):
        CallbackSink(1, on_flush)
    sink = CallbackSink(1, lambda batch: on_flush(batch))  # noqa: PLW0108 (hides the coroutine)
    with pytest.raises(TypeError, match="AsyncCallbackSink"):
        sink.send(1)
    assert sink.discard() == []


def test_a_destination_that_comes_back_to_its_sink():
    """A nested send is buffered, a nested flush refused, and neither is lost or hangs."""
    batches, errors = [], []

    def on_flush(batch):
        batches.append(batch)
        if len(batches) == 1:
            sink.send("nested")
            for call in (sink.flush, sink.close, sink.discard):
                with pytest.raises(SinkError) as caught:
                    call()
                errors.append(caught.value)

    sink = CallbackSink(2, on_flush)
    sink.send(1)
    sink.send(2)
    assert len(errors) == 3
    assert sink.buffered_count() == 1
    sink.close()
    assert batches == [[1, 2], ["nested"]]


def test_a_nested_item_survives_the_withdrawal_of_the_one_before_it():
    flaky = Flaky()

    def on_flush(batch):
        if flaky.is_down:
            sink.send("nested")
        flaky(batch)

    sink = CallbackSink(3, on_flush)
    sink.send(1)
    sink.send(2)
    with pytest.raises(OSError, match="down"):
        sink.send(3)
    flaky.is_down = False
    sink.close()
    assert flaky.batches == [[1, 2, "nested"]]


def test_an_async_destination_that_comes_back_is_refused():
    async def run():
        errors = []

        async def on_flush(batch):
            await asyncio.sleep(0)
            try:
                await sink.flush()
            except SinkError as error:
                errors.append(error)

        sink = AsyncCallbackSink(2, on_flush)
        await sink.send(1)
        await sink.flush()
        assert "mid-write" in str(errors[0])

    asyncio.run(run())


# ---- cancellation --------------------------------------------------------------------------------


def test_a_cancelled_send_took_nothing_and_a_cancelled_flush_writes_once():
    async def run():
        gate, batches = asyncio.Event(), []

        async def on_flush(batch):
            await gate.wait()
            batches.append(batch)

        sink = AsyncCallbackSink(2, on_flush)
        for i in range(4):
            await sink.send(i)
        for call in (sink.send(4), sink.flush(), sink.ready(), sink.aclose()):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.001)
        assert sink.buffered_count() == 4
        gate.set()
        await sink.send(4)
        await sink.aclose()
        assert batches == [[0, 1], [2, 3], [4]]

    asyncio.run(run())


def test_a_write_that_dies_with_its_loop_is_not_lost():
    batches = []

    async def stuck(batch):
        await asyncio.Event().wait()

    async def send(turns):
        await sink.send(1)  # begins a write
        for _ in range(turns):
            await asyncio.sleep(0)

    for turns in (0, 1):  # its task has not run yet, or it has
        sink = AsyncCallbackSink(1, stuck)
        asyncio.run(send(turns))
        assert sink.buffered_count() == 1
        sink._shell.destination._on_flush = batches.append
        asyncio.run(sink.aclose())
    assert batches == [[1], [1]]


def test_who_waits_for_room_is_not_overtaken():
    """Method: a task that looks at every turn sends as soon as the first of two waiters is in."""

    async def run():
        gate, written, returned = asyncio.Event(), [], []

        async def on_flush(batch):
            await gate.wait()
            written.extend(batch)

        async def send(item):
            await sink.send(item)
            returned.append(item)

        async def overtake():
            while not returned:  # noqa: ASYNC110 (an event would wake it too late)
                await asyncio.sleep(0)
            await send(6)

        sink = AsyncCallbackSink(2, on_flush)
        for i in range(4):
            await sink.send(i)
        tasks = [asyncio.create_task(each) for each in (send(4), send(5), overtake())]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        await sink.aclose()
        assert written == list(range(7))

    asyncio.run(run())


def test_a_write_in_a_thread_that_outlives_its_loop_is_counted():
    class Writer:
        lines = ""

        def write(self, text):
            released.wait()
            self.lines += text

        def flush(self):
            pass

    async def run():
        await sink.send("one")
        await asyncio.sleep(0)  # the thread is at it
        threading.Timer(0.02, released.set).start()

    released = threading.Event()
    writer = Writer()
    sink = AsyncLogSink(writer, chunk_lines=1)
    asyncio.run(run())
    assert sink.buffered_count() == 0
    asyncio.run(sink.aclose())
    assert writer.lines == "one\n"


# ---- threads -------------------------------------------------------------------------------------


def test_threads_share_a_sync_sink(scaled, count):
    per_thread = scaled(2000)
    items = []

    def on_flush(batch):
        time.sleep(0)
        items.extend(batch)

    sink = CallbackSink(7, on_flush)

    def send(k):
        for i in range(per_thread):
            sink.send((k, i))
            if i % 50 == 0:
                sink.flush()

    threads = [threading.Thread(target=send, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert len(items) == 4 * per_thread
    for k in range(4):
        assert [i for thread, i in items if thread == k] == list(range(per_thread))
    count("items from 4 threads", len(items))


def test_the_handler_and_its_sink_cannot_lock_each_other_out():
    """Method: one thread flushes while its destination logs; another one logs meanwhile."""
    inside, outside, out = threading.Event(), threading.Event(), []
    logger = logging.getLogger("test_sinks.deadlock")
    logger.propagate = False

    def on_flush(batch):
        inside.set()
        outside.wait()
        time.sleep(0.02)  # the other thread is at a lock by now
        out.extend(batch)
        if len(out) < 3:
            logger.warning("from the destination")

    sink = CallbackSink(50, on_flush)
    handler = SinkHandler(sink)
    logger.addHandler(handler)
    logger.warning("first")
    flusher = threading.Thread(target=sink.flush)
    flusher.start()
    inside.wait()
    outside.set()
    for _ in range(200):
        logger.warning("from outside")
    flusher.join()
    logger.removeHandler(handler)
    handler.close()
    assert out.count("from outside") == 200
    assert out[0] == "first"
    assert "from the destination" in out


def test_ctrl_c_in_a_write_loses_nothing():
    def on_flush(batch):
        if not written:
            written.append([])
            raise KeyboardInterrupt
        written.append(batch)

    written = []
    sink = CallbackSink(10, on_flush)
    sink.send(1)
    with pytest.raises(KeyboardInterrupt):
        sink.flush()
    sink.close()
    assert written == [[], [1]]
