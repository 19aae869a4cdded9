"""Every I/O in turn fails under an AsyncWalWriter with several groups in flight.

Method: twelve tasks append in every way that there is, across rotations. The Nth write, sync,
completion, preallocation, or allocation of memory fails; then the log is healed and goes on. What
was acknowledged must be found, every wait must end exactly once, and nothing may hang.
"""

import asyncio
import contextlib
import errno
import random

import pytest
from engines import config, current
from history import FACTORIES, History, assert_settled_once

from walengine import AsyncWalWriter, IoUringConfig, WalError, WalPoisonedError, _native

FAIL, SHORT = _native._FAULT_FAIL, _native._FAULT_SHORT
CQE_WRITE, CQE_SYNC = _native.lib.WAL_FAULT_CQE_WRITE, _native.lib.WAL_FAULT_CQE_SYNC

FAULTS = {
    "write EIO": (_native._FAULT_WRITE, FAIL, errno.EIO),
    "write ENOSPC": (_native._FAULT_WRITE, FAIL, errno.ENOSPC),
    "short write": (_native._FAULT_WRITE, SHORT, 7),
    "sync EIO": (_native._FAULT_SYNC, FAIL, errno.EIO),
    "no space for a segment": (_native._FAULT_ALLOCATE, FAIL, errno.ENOSPC),
    "completion of a write EIO": (CQE_WRITE, FAIL, errno.EIO),
    "completion of a write ENOSPC": (CQE_WRITE, FAIL, errno.ENOSPC),
    "short completion": (CQE_WRITE, SHORT, 4096),
    "completion of a sync EIO": (CQE_SYNC, FAIL, errno.EIO),
    "no memory": None,
}
NTH_MAX = 400
PER_FAULT = 5  # runs at scale 1


@pytest.fixture(autouse=True)
def _all_is_well_again():
    yield
    _native._fault_clear()
    _native._alloc_fail(0)


def arm(fault, nth):
    if FAULTS[fault] is None:
        _native._alloc_fail(nth)
    else:
        op, effect, value = FAULTS[fault]
        _native._fault_set(op, effect, value, nth=nth, sticky=False)


def disarm(fault):
    """How many operations there were that might have failed."""
    if FAULTS[fault] is None:
        return _native._alloc_fail(0)
    count = _native._fault_count()
    _native._fault_clear()
    return count


async def workload(wal, history):
    async def client(name):
        for i in range(3):
            kind = (name + i) % 6
            if kind < 2:
                await history.durable(wal, 500 * name)
            elif kind == 2:
                await history.many(wal, 4, 700, durable=True, atomic=True)
            elif kind == 3:
                await history.many(wal, 3, 900, durable=False, atomic=False)
            elif kind == 4:
                await history.plain(wal, 1500)
            else:
                await history.batched(wal, 3000)
                await history.flush(wal)

    await asyncio.gather(*(client(name) for name in range(12)))


async def heal(wal, history):
    """Reopen what is poisoned; the writer must be of use again."""
    with contextlib.suppress(WalPoisonedError):
        await wal.flush_batch()
    if "poisoned" in repr(wal):
        history.note_loss()
        await wal.reopen()
    for _ in range(2):
        result = await history.durable(wal, 10)
        assert isinstance(result, int), result


async def life(log, fault, nth, history):
    io = IoUringConfig(sq_entries=64, max_inflight=4, registered_buffers=4, buffer_size=8192)
    wal = await AsyncWalWriter.open(log, config(io, segment_bytes=32768))
    await history.durable(wal, 10)
    arm(fault, nth)
    await asyncio.wait_for(workload(wal, history), 20)
    count = disarm(fault)
    await asyncio.wait_for(heal(wal, history), 20)
    arm(fault, 1 + nth % 4)  # and while it closes
    try:
        await asyncio.wait_for(wal.aclose(), 20)
    except WalError:
        history.note_loss()
    disarm(fault)
    assert_settled_once()
    return count


def happens(fault):
    """Is there such a completion?"""
    if fault.startswith("completion of a sync"):
        return current().ring is not None and not current().direct
    return "completion" not in fault or current().ring is not None


def one_run(log, fault, nth, factory):
    """Return how many operations might have failed, and how many waits ended."""
    history = History()
    with asyncio.Runner(loop_factory=factory) as runner:
        operations = runner.run(life(log, fault, nth, history))
    history.judge(log)
    return max(1, operations), history.waits_ended


@pytest.mark.usefixtures("short_runs")
def test_the_nth_operation_fails(engine, memory_path, seed, scaled, count):
    runs = waits = 0
    for fault in filter(happens, FAULTS):
        chance = random.Random(f"{seed} {fault} {engine}")
        operations = nth = NTH_MAX  # the first one finds out how many there are
        for run in range(scaled(PER_FAULT)):
            try:
                log = memory_path / f"{fault} {run}"
                operations, ended = one_run(log, fault, nth, FACTORIES[run % 2])
            except BaseException as error:
                error.add_note(f"{fault}, number {nth}")
                raise
            nth = 1 + chance.randrange(operations)
            runs += 1
            waits += ended
    count(f"runs with a failure, {engine}", runs)
    count(f"waits ended, {engine}", waits)
