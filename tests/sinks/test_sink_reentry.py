"""Calls that come back to the sink: from callbacks between writes, and from the write itself."""

import asyncio
import threading

import pytest

from walengine.sinks import (
    AsyncCallbackSink,
    AsyncFanOutSink,
    AsyncStatsSink,
    BackpressureError,
    CallbackSink,
    SinkClosedError,
    SinkError,
    SinkOptions,
    StatsSink,
)

HANG_S = 10


def within(coroutine):
    """Run it; a lost wake-up is a TimeoutError."""

    async def bounded():
        return await asyncio.wait_for(coroutine, HANG_S)

    return asyncio.run(bounded())


class Refill:
    """Sends what it holds whenever it is called, as far as there is room."""

    def __init__(self, items):
        self.left = list(items)
        self.sink = None

    def __call__(self, *_):
        while self.left:
            try:
                self.sink.send_nowait(self.left[0])
            except BackpressureError:
                return
            del self.left[0]


def taker(got, *, is_plain):
    """Return a callback that takes batches: a plain function, or a coroutine function."""

    async def take(batch):
        await asyncio.sleep(0)
        got.extend(batch)

    return got.extend if is_plain else take


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("hook", ["back-pressure", "listener"])
def test_a_callback_may_send_more_at_the_end_of_a_write(hook, is_plain):
    """Goal: who waited for that write is woken, and each item goes down once."""
    got, refill = [], Refill(range(100, 120))

    async def body():
        options = SinkOptions(
            high_watermark=0.5,
            low_watermark=0.0,
            on_backpressure=(lambda on: on or refill()) if hook == "back-pressure" else None,
        )
        refill.sink = sink = AsyncCallbackSink(2, taker(got, is_plain=is_plain), options)
        if hook == "listener":
            sink.add_batch_listener(refill)
        for i in range(2):
            await sink.send(i)
        while refill.left or sink.buffered_count():
            await sink.flush()
            refill()
        await sink.aclose()

    within(body())
    assert got == [0, 1, *range(100, 120)]


class FlakyTarget(AsyncStatsSink):
    """Has no room at once, and fails while it is down."""

    is_down = True

    def send_nowait(self, item):
        raise BackpressureError(f"wait with {item}")

    async def send(self, item):
        await asyncio.sleep(0)
        if self.is_down:
            raise OSError("down")
        await super().send(item)


def test_a_callback_may_discard_what_a_failed_write_left():
    """Goal: positions in items that were given up do not count for those that follow."""
    got, dropped, flaky = [], [], FlakyTarget()

    def give_up(on):
        if on and got == [1]:
            dropped.extend(sink.discard())

    async def body():
        nonlocal sink
        options = SinkOptions(on_backpressure=give_up, high_watermark=1.0, low_watermark=0.0)
        sink = AsyncFanOutSink([AsyncCallbackSink(1, got.extend), flaky], 1, options)
        await sink.send(1)
        with pytest.raises(OSError, match="down"):
            await sink.flush()
        flaky.is_down = False
        got.append("given up")
        await sink.send(2)
        await sink.aclose()

    sink = None
    within(body())
    assert dropped == [1]
    assert got == [1, "given up", 2]


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_listener_that_raises_is_logged_and_stops_nobody(is_plain, caplog):
    got = []

    def listener(_count):
        raise RuntimeError("its own fault")

    async def body():
        sink = AsyncCallbackSink(2, taker(got, is_plain=is_plain))
        sink.add_batch_listener(listener)
        await sink.send(1)
        await sink.flush()
        await sink.aclose()

    within(body())
    with CallbackSink(2, got.extend) as twin:
        twin.add_batch_listener(listener)
        twin.send(2)
    assert got == [1, 2]
    assert caplog.text.count("a batch listener failed") == 2


def test_a_write_that_sends_is_refused_where_others_wait_for_room_before_it():
    """They wait for this write, and it would wait for them."""
    got, refused = [], []

    async def on_flush(batch):
        await asyncio.sleep(0.01)
        if batch == [1]:
            with pytest.raises(SinkError, match="mid-write"):
                await sink.send("nested")
            refused.append("send")
            with pytest.raises(SinkError, match="mid-write"):
                await sink.send_all(["nested"])
            refused.append("send_all")
        got.extend(batch)

    async def body():
        nonlocal sink
        sink = AsyncCallbackSink(1, on_flush)
        await asyncio.gather(*(sink.send(i) for i in range(1, 5)))
        await sink.aclose()

    sink = None
    within(body())
    assert got == [1, 2, 3, 4]
    assert refused == ["send", "send_all"]


def test_a_write_that_closes_the_sink_in_the_middle_of_a_close_is_refused():
    got = []

    async def on_flush(batch):
        await asyncio.sleep(0)
        with pytest.raises(SinkError, match="mid-write"):
            await sink.aclose()
        got.extend(batch)

    async def body():
        nonlocal sink
        sink = AsyncCallbackSink(5, on_flush)
        await sink.send(1)
        await sink.aclose()

    sink = None
    within(body())
    assert got == [1]
    assert sink.closed


def test_a_send_from_the_last_write_of_a_close_is_refused():
    """Goal: nothing is accepted that a closed sink would keep for ever."""
    got = []

    def on_flush(batch):
        with pytest.raises(SinkClosedError):
            sink.send("nested")
        got.extend(batch)

    sink = CallbackSink(5, on_flush)
    sink.send(1)
    sink.close()
    assert got == [1]
    assert sink.buffered_count() == 0


def test_a_close_that_failed_leaves_the_sink_open_for_sends():
    got, is_down = [], True

    def on_flush(batch):
        if is_down:
            raise OSError("down")
        got.extend(batch)

    sink = CallbackSink(5, on_flush)
    sink.send(1)
    with pytest.raises(OSError, match="down"):
        sink.close()
    sink.send(2)
    is_down = False
    sink.close()
    assert got == [1, 2]


def test_an_item_that_a_callback_sent_is_not_the_one_that_is_withdrawn():
    """Method: the callback writes the item of the send that it is in, and sends one of its own."""
    got, now, is_down = [], 0.0, False

    def on_flush(batch):
        if is_down:
            raise OSError("down")
        got.extend(batch)

    def on_backpressure(is_on):
        nonlocal now, is_down
        if is_on:
            sink.flush()
            sink.send("nested")
            now, is_down = 100.0, True

    options = SinkOptions(
        on_backpressure=on_backpressure,
        high_watermark=0.5,
        low_watermark=0.25,
        max_age=50,
        clock=lambda: now,
    )
    sink = CallbackSink(4, on_flush, options)
    sink.send("first")
    sink.send("outer")  # writes what is old, in vain: the error waits for the next send
    with pytest.raises(OSError, match="down"):
        sink.send("refused")
    is_down = False
    sink.close()
    assert got == ["first", "outer", "nested"]


def test_a_callback_that_meets_the_error_of_a_send_does_not_take_it_away():
    """Method: the withdrawal turns back-pressure off, and the callback sends, in vain."""
    got, is_down = [], True

    def on_flush(batch):
        if is_down:
            raise OSError("down")
        got.extend(batch)

    def on_backpressure(is_on):
        if not is_on and is_down:
            sink.send_nowait("nested")

    async def body():
        nonlocal sink, is_down
        options = SinkOptions(on_backpressure=on_backpressure, high_watermark=1.0)
        sink = AsyncCallbackSink(2, on_flush, options)
        await sink.send("first")
        with pytest.raises(OSError, match="down"):
            await sink.send("second")
        is_down = False
        await sink.aclose()

    sink = None
    within(body())
    assert got == ["first"]


def test_a_signals_handler_may_ask_for_stats_while_they_change():
    sink = StatsSink()
    found = []

    def interrupted():
        with sink._counter.lock:
            sink.record_batch(3)
            found.append(tuple(sink.stats()))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert found == [(3, 1, 3)]
