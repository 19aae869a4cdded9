"""Ends, reopenings and interruptions of AsyncWalWriter that meet something else on its way."""

import asyncio
import errno
import gc
import threading
import time
from pathlib import Path

import pytest
from engines import config, current

from walengine import (
    AsyncWalWriter,
    IoUringConfig,
    PortableWalWriter,
    WalClosedError,
    WalError,
    WalFullError,
    WalPoisonedError,
    _native,
    replay,
)
from walengine._native_poll import PolledWriter

TASKS = 20
FDS = Path("/proc/self/fd")
SMALL_LOG = {"segment_bytes": 65536, "max_log_bytes": 3 * 65536}


def data_of(log):
    return [record.data for record in replay(log)]


def fail_syncs(**when):
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO, **when)


def stall(milliseconds=600_000):
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, milliseconds)


async def outcome(call):
    try:
        return await call
    except Exception as error:  # noqa: BLE001 (compared by the tests)
        return error


async def fill(wal, record_bytes=5000):
    """Append until the log is full."""
    while not isinstance(await outcome(wal.append_durable(b"f" * record_bytes)), WalFullError):
        pass


# ---- reopening -----------------------------------------------------------------------------------


def test_reopening_beside_tasks_that_append_loses_no_record_and_no_wait(with_wal, log):
    """Each append is done, or refused; none is forgotten, and none is numbered wrong."""
    kept = {}

    async def append(wal, name):
        for i in range(30):
            record = b"%d %d" % (name, i)
            lsn = await outcome(wal.append_durable(record))
            if isinstance(lsn, int):
                kept[lsn] = record
            else:
                assert "being reopened" in str(lsn)
                await asyncio.sleep(0.001)

    async def stage(wal):
        for i in range(100):
            result = await outcome(wal.append_batched(b"staged %d" % i))
            if isinstance(result, int):
                kept[wal.last_lsn] = b"staged %d" % i
            await asyncio.sleep(0)

    async def reopen(wal):
        for _ in range(3):
            await asyncio.sleep(0.002)
            await wal.reopen()

    async def body(wal):
        await asyncio.gather(*(append(wal, name) for name in range(8)), stage(wal), reopen(wal))
        await wal.flush_batch()

    with_wal(body)
    assert {record.lsn: record.data for record in replay(log)} == kept


def test_reopenings_at_once_are_one(with_wal, log):
    async def body(wal):
        await wal.append_durable(b"safe")
        fail_syncs()
        await outcome(wal.append_durable(b"lost"))
        _native._fault_clear()
        kept = []

        async def heal():
            await wal.reopen()
            kept.append(await wal.append_durable(b"next"))

        await asyncio.gather(*(heal() for _ in range(TASKS)))
        assert len(kept) == TASKS
        assert kept == sorted(kept)

    with_wal(body)
    assert data_of(log).count(b"next") == TASKS


def test_cancelling_a_reopening_does_not_stop_it(with_wal, log):
    async def body(wal):
        await wal.append_durable(b"safe")
        task = asyncio.create_task(wal.reopen())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wal.reopen()
        assert await wal.append_durable(b"goes on") == 2

    with_wal(body)
    assert data_of(log) == [b"safe", b"goes on"]


def test_a_closed_writer_is_not_reopened(engine, log, run):
    async def main():
        wal = await AsyncWalWriter.open(log, config())
        await wal.aclose()
        with pytest.raises(WalClosedError):
            await wal.reopen()
        with pytest.raises(WalClosedError):
            await wal.append_batched(b"too late")

    run(main())
    assert data_of(log) == []


def test_closing_beside_a_reopening(with_wal, log):
    async def body(wal):
        await wal.append_durable(b"safe")
        reopening = asyncio.create_task(wal.reopen())
        await asyncio.sleep(0)
        await wal.aclose()
        result = await outcome(reopening)
        assert isinstance(result, WalClosedError) or result.last_lsn == 1
        assert isinstance(await outcome(wal.append_batched(b"too late")), WalClosedError)

    with_wal(body)
    assert data_of(log) == [b"safe"]


def test_no_failure_of_before_a_reopening_is_told_behind_it(with_wal, log):
    """The sync that was to make room failed, and nobody had asked for its outcome yet."""
    record = b"r" * 3000

    async def body(wal):
        fail_syncs()
        result = 0
        while isinstance(result, int):
            result = await outcome(wal.append(record))
        assert isinstance(result, WalPoisonedError)
        _native._fault_clear()
        last = (await wal.reopen()).last_lsn
        for i in range(1, 10):
            assert await wal.append(record) == last + i

    with_wal(body, IoUringConfig(registered_buffers=1, buffer_size=4096), max_unsynced_bytes=8192)


# ---- closing -------------------------------------------------------------------------------------


def test_closing_a_full_log_serves_those_whose_records_went_down(with_wal, log):
    async def body(wal):
        await fill(wal, 30000)
        last = wal.last_lsn + 1
        assert await wal.append_durable(b"unsealed") == last
        stall()
        waiting = [asyncio.create_task(wal.append_durable(b"fits")) for _ in range(2)]
        await asyncio.sleep(0.005)
        assert not any(task.done() for task in waiting)
        too_much = [b"does not fit" * 1000] * 9
        assert isinstance(await outcome(wal.append_many(too_much)), WalFullError)
        closing = asyncio.create_task(outcome(wal.aclose()))
        await asyncio.sleep(0.005)
        _native._fault_clear()
        results = await asyncio.gather(*map(outcome, waiting))
        assert isinstance(await closing, WalFullError)
        assert results == [last + 1, last + 2]

    with_wal(body, IoUringConfig(registered_buffers=1, buffer_size=8192), **SMALL_LOG)


def test_closing_needs_no_executor(engine, log, run):
    """A program may have shut it down, or filled it with calls that wait for this one."""

    async def main():
        wal = await AsyncWalWriter.open(log, config())
        await wal.append_batched(b"staged")
        await asyncio.get_running_loop().shutdown_default_executor()
        await wal.truncate_before(1)
        await wal.reopen()
        await wal.aclose()

    run(main())
    PortableWalWriter(log, config()).close()
    assert data_of(log) == [b"staged"]


def test_closing_beside_every_other_call(with_wal, log):
    async def body(wal):
        await wal.append_many([b"x" * 1000] * 50, durable=True)
        calls = [
            *(wal.append_durable(b"d") for _ in range(TASKS)),
            wal.append_many([b"y"] * 100, durable=True, atomic=True),
            wal.append_many([b"z" * 1000] * 100),
            wal.truncate_before(20),
            wal.flush_batch(),
            wal.wait_durable(50),
            wal.append_batched(b"b"),
        ]
        tasks = [asyncio.create_task(outcome(call)) for call in calls]
        await asyncio.sleep(0)
        await asyncio.gather(*(wal.aclose() for _ in range(3)))
        results = await asyncio.gather(*tasks)
        failed = [result for result in results if isinstance(result, Exception)]
        assert all(type(error) is WalClosedError for error in failed)  # the trim's, at most
        assert len(failed) <= 1
        assert wal.durable_lsn == wal.last_lsn == 50 + TASKS + 100 + 100 + 1

    with_wal(body, segment_bytes=65536)


def test_a_loop_that_is_closed_while_the_log_is_closing(engine, log, run):
    async def main():
        wal = await AsyncWalWriter.open(log, config())
        await wal.append_batched(b"staged")
        stall(5)
        closing = asyncio.create_task(wal.aclose())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return wal, closing

    wal, closing = run(main())
    del wal, closing
    gc.collect()
    assert data_of(log) == [b"staged"]
    PortableWalWriter(log, config()).close()


# ---- opening -------------------------------------------------------------------------------------


def test_a_cancelled_opening_leaves_no_descriptor(engine, log, run):
    async def use(cancelled):
        for _ in range(cancelled):
            opening = asyncio.create_task(AsyncWalWriter.open(log, config()))
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        async with AsyncWalWriter(log, config()):  # waits for the lock
            pass

    run(use(0))
    before = len(list(FDS.iterdir()))
    run(use(5))
    while len(list(FDS.iterdir())) > before:  # pytest's own limit ends a hopeless wait
        time.sleep(0.005)


class BlindLoop(asyncio.SelectorEventLoop):
    """A loop that watches no descriptors, as the one that Windows uses."""

    def add_reader(self, fd, callback, *args):
        raise NotImplementedError


def test_a_loop_that_watches_no_descriptors_is_refused_with_a_word(engine, log):
    async def main():
        with pytest.raises(NotImplementedError, match="cannot watch a file descriptor.*Portable"):
            await AsyncWalWriter.open(log, config())
        PortableWalWriter(log, config()).close()

    with asyncio.Runner(loop_factory=BlindLoop) as runner:
        runner.run(main())


# ---- the way down --------------------------------------------------------------------------------


def test_appends_alone_come_back_at_once(with_wal, log):
    """Goal: a direct write is begun by its call, not by the next thing that happens by chance."""
    began = []

    async def body(wal):
        await wal.append(b"0")
        await asyncio.sleep(0.3)  # nothing in the background is at work any more
        begin = asyncio.get_running_loop().time()
        for i in range(1, 6):
            await asyncio.wait_for(wal.append(b"%d" % i), 10)
            await asyncio.sleep(0.03)
        began.append(asyncio.get_running_loop().time() - begin)

    with_wal(body)
    assert data_of(log) == [b"%d" % i for i in range(6)]


def test_a_record_whose_caller_went_away_stays_staged_in_a_full_log(with_wal, log):
    async def body(wal):
        await fill(wal)
        last = wal.last_lsn
        task = asyncio.create_task(wal.append_durable(b"staged" * 1000))
        group = asyncio.create_task(wal.append_many([b"group" * 1000] * 2, atomic=True))
        await asyncio.sleep(0)
        task.cancel()
        group.cancel()
        with pytest.raises(WalFullError):
            await wal.flush_batch()
        assert wal.pending_batch_ops() == 3
        await wal.truncate_before(last)
        await wal.flush_batch()
        return last

    last = with_wal(body, **SMALL_LOG)
    found = {record.lsn: record.data for record in replay(log)}
    assert [found[last + i][:5] for i in (1, 2, 3)] == [b"stage", b"group", b"group"]


def test_time_limits_on_a_stuck_disk_pile_nothing_up(with_wal):
    async def body(wal):
        await wal.append_durable(b"1")
        stall()
        task = asyncio.create_task(wal.append_durable(b"2"))
        await asyncio.sleep(0)
        for _ in range(1000):
            with pytest.raises(TimeoutError):
                await wal.wait_durable(2, timeout=0)
        assert len(wal._driver._waits) < 200
        _native._fault_clear()
        assert await task == 2

    with_wal(body)


def test_appends_without_syncs_pile_nothing_up(with_wal):
    async def body(wal):
        for i in range(500):
            await wal.append(b"%d" % i)
        assert len(wal._driver._flying) < 200

    with_wal(body)


class Interrupted(KeyboardInterrupt):
    """What a signal handler raises."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_in_the_middle_of_a_hand_over_doubles_and_loses_nothing(
    engine, log, monkeypatch, when
):
    """KeyboardInterrupt comes between any two bytecodes, and C keeps count."""
    loop = asyncio.new_event_loop()
    hand_over = PolledWriter.hand_over

    def interrupted(self, *args, **kwargs):
        monkeypatch.setattr(PolledWriter, "hand_over", hand_over)
        if when == "after":
            hand_over(self, *args, **kwargs)
        raise Interrupted

    async def use(wal):
        return await asyncio.gather(*(wal.append_durable(b"%d" % i) for i in range(1, TASKS)))

    wal = loop.run_until_complete(AsyncWalWriter.open(log, config()))
    loop.run_until_complete(wal.append_durable(b"0"))
    task = loop.create_task(use(wal))
    monkeypatch.setattr(PolledWriter, "hand_over", interrupted)
    with pytest.raises(Interrupted):
        loop.run_until_complete(task)
    assert loop.run_until_complete(asyncio.wait_for(task, 20)) == list(range(2, TASKS + 1))
    loop.run_until_complete(wal.aclose())
    loop.close()
    assert data_of(log) == [b"%d" % i for i in range(TASKS)]


def test_no_memory_for_a_hand_over_is_told_and_the_writer_goes_on(with_wal, monkeypatch, log):
    hand_over = PolledWriter.hand_over

    def no_memory(self, *args, **kwargs):
        monkeypatch.setattr(PolledWriter, "hand_over", hand_over)
        raise MemoryError

    async def body(wal):
        monkeypatch.setattr(PolledWriter, "hand_over", no_memory)
        results = await asyncio.gather(*(outcome(wal.append_durable(b"x")) for _ in range(5)))
        assert {type(result) for result in results} == {WalError}
        assert "memory" in str(results[0])
        assert await wal.append_durable(b"kept") == 1

    with_wal(body)
    assert data_of(log) == [b"kept"]


def test_a_failed_look_is_made_again(with_wal, monkeypatch):
    """C had no memory to begin a sync: nothing is lost, and nobody else would ask again."""
    poll = PolledWriter.poll

    def no_memory(self, lsn):
        monkeypatch.setattr(PolledWriter, "poll", poll)
        raise WalError("out of memory", errno=errno.ENOMEM)

    async def body(wal):
        await wal.append(b"1")
        monkeypatch.setattr(PolledWriter, "poll", no_memory)
        await wal.flush_batch()
        assert wal.durable_lsn == 1

    with_wal(body)


def test_a_loop_in_a_thread_of_its_own_at_exit(engine, log):
    """Goal: what that thread hands over while the interpreter goes is not handed over twice."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def append(wal, name):
        i = 0
        while not isinstance(await outcome(wal.append_durable(b"%d %d" % (name, i))), Exception):
            i += 1

    async def begin():
        wal = await AsyncWalWriter.open(log, config())
        tasks = [asyncio.create_task(append(wal, name)) for name in range(TASKS)]
        for i in range(5):
            await wal.append_durable(b"between them %d" % i)
        return wal, tasks

    wal, tasks = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    wal.close_at_exit()

    async def end():
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    found = data_of(log)
    assert len(set(found)) == len(found) > TASKS
    assert not current().direct or wal.durable_lsn == len(found)
