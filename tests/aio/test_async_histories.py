"""Random histories of an AsyncWalWriter against a list: every call, and all that may befall it.

Method: rounds of calls at once, some of them cancelled, beside trims, reopenings and failing disks,
on random shapes of the ring and the log; then the writer is closed, cancelled while it closes, or
left alone with its loop; and the next life begins on the same log. history.py judges.
"""

import asyncio
import contextlib
import errno
import gc
import random
import threading
import warnings

import pytest
from engines import config
from history import FACTORIES, History, assert_settled_once

from walengine import (
    AsyncWalWriter,
    IoUringConfig,
    WalError,
    _native,
)

LIVES = 5  # of one log
ROUNDS = 8  # of one life
LOGS = 2  # at scale 1, on each engine

FAULTS = [
    (_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO),
    (_native._FAULT_WRITE, _native._FAULT_FAIL, errno.EIO),
    (_native._FAULT_WRITE, _native._FAULT_SHORT, 100),
    (_native._FAULT_ALLOCATE, _native._FAULT_FAIL, errno.ENOSPC),
    (_native._FAULT_SYNC, _native._FAULT_STALL, 3),
    (_native._FAULT_OPEN, _native._FAULT_FAIL, errno.EMFILE),
]


def shape(chance, limit):
    """A random configuration."""
    buffers, buffer_bytes = chance.choice([(1, 4096), (2, 16384), (8, 8192)])
    io = IoUringConfig(
        sq_entries=chance.choice([2, 8, 64]),
        max_inflight=chance.choice([1, 2, 32]),
        registered_buffers=buffers,
        buffer_size=buffer_bytes,
    )
    return config(
        io,
        segment_bytes=32768,
        strict_sectors=chance.random() < 0.3,
        max_log_bytes=limit,
        max_record_bytes=100_000,
        max_unsynced_bytes=chance.choice([4096, None]),
    )


class Life:
    """One writer, from opening to its end."""

    def __init__(self, wal, history, chance):
        self.wal, self.history, self.chance = wal, history, chance

    def some_call(self):
        wal, history, chance = self.wal, self.history, self.chance
        size = chance.choice([0, 1, 100, 3000, 9000, 70_000 if chance.random() < 0.1 else 10])
        count = chance.choice([0, 1, 3, 40, 100])
        return chance.choices(
            [
                lambda: history.durable(wal, size),
                lambda: history.plain(wal, size),
                lambda: history.batched(wal, size),
                lambda: history.many(wal, count, size // 4, durable=True, atomic=True),
                lambda: history.many(wal, count, size // 4, durable=False, atomic=True),
                lambda: history.many(wal, count, size // 4, durable=True, atomic=False),
                lambda: history.many(wal, count, size // 4, durable=False, atomic=False),
                lambda: history.flush(wal),
                self.wait,
                self.trim,
                self.reopen,
            ],
            [20, 8, 12, 3, 3, 3, 3, 4, 4, 2, 1],
        )[0]()

    async def wait(self):
        lsn = self.chance.randint(1, self.wal.last_lsn + 1)
        limit = self.chance.choice([0, 0.001, None])
        with contextlib.suppress(ValueError, TimeoutError, WalError):
            await self.wal.wait_durable(lsn, limit)
            assert self.wal.durable_lsn >= lsn

    async def trim(self):
        with contextlib.suppress(WalError):
            await self.wal.truncate_before(self.chance.randint(1, self.wal.last_lsn + 1))

    async def reopen(self):
        with contextlib.suppress(WalError):
            await self.wal.reopen()

    async def round(self):
        chance = self.chance
        fault = chance.random() < 0.4
        self.history.may_refuse |= fault
        if fault:
            op, effect, value = chance.choice(FAULTS)
            _native._fault_set(op, effect, value, nth=chance.randint(1, 8), sticky=False)
        tasks = []
        for _ in range(chance.randint(1, 14)):
            tasks.append(asyncio.create_task(self.some_call()))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
            chance.choice(tasks).cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception() is None, task.exception()
        _native._fault_clear()
        while "poisoned" in repr(self.wal):
            self.history.note_poison()
            # One that was begun while files could not be opened may be under way.
            await asyncio.gather(*(self.reopen() for _ in range(chance.randint(1, 3))))
        assert self.wal.durable_lsn <= self.wal.last_lsn

    async def end(self):
        """Close; or be cancelled meanwhile, which stops nothing; or go away."""
        way = self.chance.choice(["close", "close", "cancel", "leave"])
        if way == "leave":
            for thread in threading.enumerate():
                if thread.name == "walengine-aio":  # a cancelled trim goes on, with the writer
                    await asyncio.to_thread(thread.join)
            return
        beside = [asyncio.create_task(self.some_call()) for _ in range(self.chance.randint(0, 5))]
        await asyncio.sleep(0)
        closing = asyncio.create_task(self.wal.aclose())
        if way == "cancel":
            await asyncio.sleep(0)
            closing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await closing
        try:
            await self.wal.aclose()
        except WalError:
            self.history.note_loss()
        await asyncio.gather(*beside)


async def live(log, history, chance, limit):
    asyncio.get_running_loop().set_exception_handler(history.note_trouble)
    wal = await AsyncWalWriter.open(log, shape(chance, limit))
    life = Life(wal, history, chance)
    for _ in range(ROUNDS):
        await asyncio.wait_for(life.round(), 30)
    await asyncio.wait_for(life.end(), 30)
    if "closed" in repr(wal):
        assert_settled_once()


def one_life(log, history, chance, limit):
    with asyncio.Runner(
        loop_factory=chance.choice(FACTORIES), debug=chance.random() < 0.2
    ) as runner:
        runner.run(live(log, history, chance, limit))


@pytest.fixture(autouse=True)
def _left_alone():
    """A writer that is left alone says so, also when its log is full."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", pytest.PytestUnraisableExceptionWarning)
        yield


@pytest.mark.usefixtures("short_runs")
def test_histories_agree_with_a_list(engine, memory_path, seed, scaled, count):
    records = waits = poisonings = 0
    for number in range(scaled(LOGS)):
        chance = random.Random(f"{seed} {number} {engine}")
        log = memory_path / f"log{number}"
        history = History()
        limit = chance.choice([None, None, 6 * 32768, 20 * 32768])
        history.may_refuse = limit is not None
        for _ in range(LIVES):
            one_life(log, history, chance, limit)
            gc.collect()
            assert not history.troubles
            if limit is not None:
                history.note_loss()  # one that was left alone may have met the full log
            records += history.judge(log)
        waits += history.waits_ended
        poisonings += history.poisonings
    count(f"records found, {engine}", records)
    count(f"waits ended, {engine}", waits)
    count(f"poisonings, {engine}", poisonings)
