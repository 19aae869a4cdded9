"""What AsyncWalWriter promises when the disk does not: poison, full logs, stuck disks."""

import asyncio
import errno

import pytest
from engines import config, current

from walengine import (
    AsyncWalWriter,
    IoUringConfig,
    RecordTooLargeError,
    WalFullError,
    WalPoisonedError,
    _native,
    replay,
)

TASKS = 30


def data_of(log):
    return [record.data for record in replay(log)]


def fail_syncs():
    """The sync, or the write that syncs itself."""
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO)


async def outcome(call):
    try:
        return await call
    except Exception as error:  # noqa: BLE001 (compared by the tests)
        return error


# ---- poison --------------------------------------------------------------------------------------


def test_a_failed_sync_wakes_everybody_once_with_the_same_error(with_wal):
    async def body(wal):
        await wal.append_durable(b"safe")
        fail_syncs()
        woken = []

        async def wait(call):
            woken.append(await outcome(call))

        await asyncio.gather(
            *(wait(wal.append_durable(b"%d" % i)) for i in range(TASKS)),
            wait(wal.append_many([b"a", b"b"], durable=True)),
            wait(wal.append_many([b"a", b"b"], durable=True, atomic=True)),
            wait(wal.flush_batch()),
        )
        assert len(woken) == TASKS + 3
        assert {type(error) for error in woken} == {WalPoisonedError}
        assert len(set(map(id, woken))) == 1
        error = woken[0]
        assert (error.durable_lsn, error.errno) == (1, errno.EIO)
        # The background thread syncs too: if it met the failure first, nothing had been appended.
        assert error.lost in (range(2, TASKS + 6), range(2, 2))
        for call in (
            wal.append_durable(b"x"),
            wal.append(b"x"),
            wal.sync(),
            wal.append_batched(b"x"),
        ):
            assert await outcome(call) is error
        assert wal.durable_lsn == 1
        assert "poisoned" in repr(wal)

    with_wal(body)


def test_a_failed_write_poisons_too(with_wal):
    async def body(wal):
        await wal.append_durable(b"safe")
        _native._fault_set(_native._FAULT_WRITE, _native._FAULT_FAIL, errno.EIO)
        results = await asyncio.gather(*(outcome(wal.append_durable(b"x")) for _ in range(TASKS)))
        assert {type(error) for error in results} == {WalPoisonedError}
        assert await outcome(wal.append(b"x")) is results[0]

    with_wal(body)


def test_reopening_after_poison_goes_on_behind_what_is_durable(with_wal, log):
    async def body(wal):
        await wal.append_durable(b"safe")
        fail_syncs()
        failed = await outcome(wal.append_durable(b"lost"))
        assert isinstance(failed, WalPoisonedError)
        _native._fault_clear()
        report = await wal.reopen()
        kept = [b"safe", b"lost"][: report.last_lsn]
        assert await wal.append_durable(b"next") == report.last_lsn + 1
        assert data_of(log) == [*kept, b"next"]

    with_wal(body)


def test_what_was_durable_before_the_failure_is_acknowledged(with_wal, scaled, log):
    """At each sync in turn: who was acknowledged is in the log, all others got the error."""

    async def body(wal):
        for nth in range(1, 4 + scaled(6)):
            before = wal.last_lsn
            _native._fault_set(
                _native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO, nth=nth, sticky=False
            )
            kept = {}

            async def append(name, kept=kept):
                for i in range(5):
                    record = b"%d %d" % (name, i)
                    lsn = await outcome(wal.append_durable(record))
                    if isinstance(lsn, WalPoisonedError):
                        return
                    kept[lsn] = record

            await asyncio.gather(*(append(name) for name in range(8)))
            _native._fault_clear()
            await wal.reopen()
            assert sorted(kept) == list(range(before + 1, before + 1 + len(kept)))
            found = {record.lsn: record.data for record in replay(log)}
            assert kept.items() <= found.items()

    with_wal(body)


def test_closing_a_poisoned_writer_says_what_is_lost(with_wal):
    async def body(wal):
        await wal.append_durable(b"safe")
        await wal.append_batched(b"staged")
        fail_syncs()
        with pytest.raises(WalPoisonedError, match="LSN 2 may be lost"):
            await wal.aclose()
        await wal.aclose()

    with_wal(body)


# ---- a stuck disk --------------------------------------------------------------------------------


def test_a_stuck_sync_blocks_nobody_else_on_the_loop(with_wal):
    async def body(wal):
        await wal.append_durable(b"1")
        _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 600_000)
        stuck = [asyncio.create_task(wal.append_durable(b"stuck")) for _ in range(TASKS)]
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in stuck)
        with pytest.raises(TimeoutError, match="LSN 2 was not durable within"):
            await wal.wait_durable(2, timeout=0.01)
        if not current().direct:
            assert await wal.append(b"handed over all the same") == TASKS + 2
        _native._fault_clear()
        assert await asyncio.gather(*stuck) == list(range(2, TASKS + 2))

    with_wal(body)


def test_completions_that_come_late_and_out_of_order(with_wal, log, scaled):
    """Every third sync is held back for a while; with direct writes the next ones overtake it."""

    async def append(wal, acknowledged, name):
        for i in range(scaled(10)):
            acknowledged.append(await wal.append_durable(b"%d %d" % (name, i)))

    async def body(wal):
        acknowledged = []
        for nth in (1, 2, 3):
            _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 20, nth=nth, sticky=False)
            await asyncio.gather(*(append(wal, acknowledged, name) for name in range(8)))
        assert acknowledged == list(range(1, len(acknowledged) + 1))

    with_wal(body)
    assert len(data_of(log)) == 3 * 8 * scaled(10)


# ---- a full log ----------------------------------------------------------------------------------


def test_a_full_log_refuses_and_goes_on_once_there_is_room(with_wal, log):
    record = b"f" * 5000

    async def body(wal):
        taken = 0
        while True:
            result = await outcome(wal.append_durable(record))
            if isinstance(result, WalFullError):
                break
            taken += 1
            assert result == taken
        assert 0 < taken == wal.last_lsn
        results = await asyncio.gather(
            *(outcome(wal.append_durable(record)) for _ in range(TASKS)),
            outcome(wal.append_many([record] * 3, durable=True, atomic=True)),
            outcome(wal.append(record)),
        )
        assert {type(result) for result in results} == {WalFullError}
        assert wal.last_lsn == taken
        assert not wal.has_pending_batch()
        await wal.truncate_before(taken)
        assert await wal.append_durable(record) == taken + 1

    with_wal(body, segment_bytes=65536, max_log_bytes=3 * 65536)


def test_what_is_staged_in_a_full_log_stays_staged(with_wal, log):
    record = b"f" * 5000

    async def body(wal):
        while not isinstance(await outcome(wal.append_durable(record)), WalFullError):
            pass
        last = wal.last_lsn
        await wal.append_batched(b"staged" * 1000)
        with pytest.raises(WalFullError):
            await wal.flush_batch()
        with pytest.raises(WalFullError):
            await wal.append_many([b"also" * 1000, b"staged" * 1000], durable=True)
        assert wal.pending_batch_ops() == 3
        await wal.truncate_before(last)
        await wal.flush_batch()
        assert wal.durable_lsn == last + 3
        return last

    last = with_wal(body, segment_bytes=65536, max_log_bytes=3 * 65536)
    found = {record.lsn: record.data for record in replay(log)}
    assert [found[last + i][:6] for i in (1, 2, 3)] == [b"staged", b"alsoal", b"staged"]


def test_a_record_that_no_trim_makes_room_for_is_refused_at_once(with_wal):
    """Staged, it would stand in the way of all others; and they would be told its error."""

    async def body(wal):
        calls = [wal.append, wal.append_durable, wal.append_batched]
        results = await asyncio.gather(
            *(outcome(wal.append_durable(b"%d" % i)) for i in range(TASKS)),
            *(outcome(call(b"x" * 110_000)) for call in calls),
            *(outcome(wal.append_durable(b"%d" % i)) for i in range(TASKS)),
        )
        refused = [result for result in results if not isinstance(result, int)]
        assert [type(error) for error in refused] == [RecordTooLargeError] * 3
        assert "max_log_bytes" in str(refused[0])
        assert not wal.has_pending_batch()
        assert wal.last_lsn == 2 * TASKS

    with_wal(body, segment_bytes=65536, max_log_bytes=3 * 65536)


def test_closing_a_full_log_releases_it_and_says_what_is_gone(with_wal, log):
    async def body(wal):
        while not isinstance(await outcome(wal.append_durable(b"f" * 5000)), WalFullError):
            pass
        await wal.append_batched(b"staged" * 1000)
        with pytest.raises(WalFullError, match="1 staged records were not written and are gone"):
            await wal.aclose()
        again = await AsyncWalWriter.open(log, config())
        await again.aclose()

    with_wal(body, segment_bytes=65536, max_log_bytes=3 * 65536)


# ---- back-pressure -------------------------------------------------------------------------------


def test_a_small_ring_with_a_slow_disk_loses_nothing(with_wal, log, scaled):
    """One group in flight at most, four entries: what does not fit waits in its order."""

    async def append(wal, name):
        return [await wal.append_durable(b"%d %d" % (name, i) * 100) for i in range(scaled(20))]

    async def body(wal):
        _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 2)
        lsns = await asyncio.gather(*(append(wal, name) for name in range(TASKS)))
        _native._fault_clear()
        assert sorted(lsn for each in lsns for lsn in each) == list(range(1, wal.last_lsn + 1))

    small = IoUringConfig(sq_entries=4, max_inflight=1, registered_buffers=2, buffer_size=16384)
    with_wal(body, small)
    assert len(data_of(log)) == TASKS * scaled(20)
