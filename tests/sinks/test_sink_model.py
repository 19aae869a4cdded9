"""Random histories against a list: what was accepted is written once, in order, whatever fails."""

import asyncio
import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from walengine.sinks import (
    AsyncCallbackSink,
    AsyncFanOutSink,
    BackpressureError,
    CallbackSink,
    FanOutSink,
    SinkOptions,
)


class DownError(Exception):
    """What the destinations of this file raise."""


# ---- one destination -----------------------------------------------------------------------------


class OneDestination(RuleBasedStateMachine):
    """A CallbackSink whose callback fails before, or after it has taken a part."""

    def __init__(self):
        super().__init__()
        self.next = 0
        self.accepted = []
        self.written = []
        self.attempts = []
        self.failures = []
        self.now = 0.0
        options = SinkOptions(
            max_age=10.0, max_bytes=30, size_of=lambda i: i % 9, clock=lambda: self.now
        )
        self.sink = CallbackSink(5, self.on_flush, options)

    def on_flush(self, batch):
        self.attempts.append(list(batch))
        if self.failures:
            part = self.failures.pop()
            del batch[:part]  # taken, and then lost on the way
            raise DownError
        self.written.extend(batch)

    @rule(part=st.integers(0, 4), times=st.integers(1, 3))
    def break_down(self, part, times):
        self.failures = [part] * times

    @rule(seconds=st.sampled_from([1.0, 20.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def send(self):
        self.next += 1
        try:
            self.sink.send(self.next)
        except DownError:
            return
        self.accepted.append(self.next)

    @rule(length=st.integers(0, 12))
    def send_all(self, length):
        source = iter(range(self.next + 1, self.next + 1 + length))
        self.next += length
        while True:
            try:
                self.sink.send_all(source)
                break
            except DownError:
                pass
        self.accepted.extend(range(self.next + 1 - length, self.next + 1))

    @rule()
    def flush(self):
        try:
            self.sink.flush()
        except DownError:
            return
        assert self.written == self.accepted

    @rule()
    def poll(self):
        with contextlib.suppress(DownError):
            self.sink.poll()

    @invariant()
    def nothing_is_lost_or_doubled(self):
        core = self.sink._core
        assert self.written + core.items == self.accepted
        assert len(core.items) == self.sink.buffered_count() == core.accepted - core.written
        assert core._waiting_bytes == sum(i % 9 for i in core.items)
        assert all(len(batch) <= 5 for batch in self.attempts)

    def teardown(self):
        self.failures = []
        self.sink.close()
        assert self.written == self.accepted


TestOneDestination = OneDestination.TestCase
TestOneDestination.settings = settings(stateful_step_count=40)


# ---- several targets -----------------------------------------------------------------------------


class Target:
    """A sink that takes an item or raises; failures is what the next calls do."""

    def __init__(self):
        self.items = []
        self.failures = []
        self.flushed = 0

    def ready(self):
        return True

    def send(self, item):
        if self.failures and self.failures.pop():
            raise DownError
        self.items.append(item)

    def flush(self):
        if self.failures and self.failures.pop():
            raise DownError
        self.flushed = len(self.items)

    close = flush


class SeveralTargets(RuleBasedStateMachine):
    """A FanOutSink whose targets fail apart from each other."""

    def __init__(self):
        super().__init__()
        self.next = 0
        self.accepted = []
        self.targets = [Target() for _ in range(3)]
        self.sink = FanOutSink(self.targets, capacity=4)

    @rule(which=st.integers(0, 2), failures=st.lists(st.booleans(), min_size=1, max_size=5))
    def break_down(self, which, failures):
        self.targets[which].failures = failures

    @rule()
    def send(self):
        self.next += 1
        try:
            self.sink.send(self.next)
        except (DownError, ExceptionGroup):
            assert all(self.next not in target.items for target in self.targets)
            return
        self.accepted.append(self.next)

    @rule()
    def flush(self):
        try:
            self.sink.flush()
        except (DownError, ExceptionGroup):
            return
        assert all(target.flushed == len(self.accepted) for target in self.targets)

    @invariant()
    def every_target_has_a_prefix(self):
        for target in self.targets:
            assert target.items == self.accepted[: len(target.items)]

    def teardown(self):
        for target in self.targets:
            target.failures = []
        self.sink.close()
        assert [target.items for target in self.targets] == [self.accepted] * 3


TestSeveralTargets = SeveralTargets.TestCase
TestSeveralTargets.settings = settings(stateful_step_count=40)


# ---- asynchronous --------------------------------------------------------------------------------


class Slow:
    """Takes each batch after some turns of the loop, or fails; plans is what the next ones do."""

    def __init__(self, plans):
        self.plans = list(plans)
        self.written = []
        self.is_busy = False

    async def __call__(self, batch):
        assert not self.is_busy
        self.is_busy = True
        turns, fails = self.plans.pop() if self.plans else (1, False)
        for _ in range(turns):
            await asyncio.sleep(0)
        self.is_busy = False
        if fails:
            raise DownError
        self.written.extend(batch)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["send", "flush", "ready"]), st.integers(0, 6)),  # then cancel
        st.tuples(st.sampled_from(["nowait", "turn", "send_all"]), st.just(0)),
        st.tuples(st.just("start"), st.just(0)),  # a send that is left to itself
    ),
    max_size=40,
)
plans = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12)


class Driver:
    """Runs steps on an asynchronous sink and keeps the list of what was accepted."""

    def __init__(self, sink):
        self.sink = sink
        self.next = 0
        self.accepted = set()
        self.left = []

    async def send(self, item):
        try:
            await self.sink.send(item)
        except (DownError, ExceptionGroup):
            return
        self.accepted.add(item)

    async def cancelled_after(self, coroutine, turns):
        task = asyncio.create_task(coroutine)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            assert task.exception() is None or isinstance(
                task.exception(), (DownError, ExceptionGroup)
            )

    async def step(self, verb, turns):
        self.next += 1
        match verb:
            case "send":
                await self.cancelled_after(self.send(self.next), turns)
            case "flush":
                await self.cancelled_after(self.sink.flush(), turns)
            case "ready":
                await self.cancelled_after(self.sink.ready(), turns)
            case "nowait":
                try:
                    self.sink.send_nowait(self.next)
                    self.accepted.add(self.next)
                except (BackpressureError, DownError, ExceptionGroup):
                    pass
            case "send_all":
                source = iter([self.next, self.next + 1, self.next + 2])
                self.accepted |= {self.next, self.next + 1, self.next + 2}
                self.next += 2
                await self.send_all(source)
            case "start":
                self.left.append(asyncio.create_task(self.send(self.next)))
                await asyncio.sleep(0)
            case "turn":
                await asyncio.sleep(0)

    async def send_all(self, source):
        while True:
            with contextlib.suppress(DownError, ExceptionGroup):
                await self.sink.send_all(source)
                return

    async def run(self, history):
        for verb, turns in history:
            await self.step(verb, turns)
        while self.left:
            await self.left.pop()

    async def close(self):
        while not self.sink.closed:
            with contextlib.suppress(DownError, ExceptionGroup):
                await self.sink.aclose()


@given(history=steps, plan=plans, capacity=st.integers(1, 4))
def test_async_histories(history, plan, capacity):
    """Goal: no send that returned is lost, none that raised or was cancelled is written."""

    async def run():
        slow = Slow(plan)
        driver = Driver(AsyncCallbackSink(capacity, slow))
        await driver.run(history)
        await driver.close()
        assert slow.written == sorted(driver.accepted)

    asyncio.run(run())


@given(history=steps, plan=st.lists(plans, min_size=2, max_size=3), capacity=st.integers(1, 3))
def test_async_fan_out_histories(history, plan, capacity):
    async def run():
        slows = [Slow(each) for each in plan]
        targets = [AsyncCallbackSink(2, slow) for slow in slows]
        driver = Driver(AsyncFanOutSink(targets, capacity))
        await driver.run(history)
        await driver.close()
        for slow in slows:
            assert slow.written == sorted(driver.accepted)

    asyncio.run(run())
