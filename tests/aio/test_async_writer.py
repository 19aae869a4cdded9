"""What AsyncWalWriter promises when nothing goes wrong, on every engine and both loops."""

import asyncio

import pytest
from engines import config, current

from walengine import (
    AsyncWalWriter,
    IoUringConfig,
    RecordTooLargeError,
    WalClosedError,
    WalError,
    replay,
)

TASKS = 40


def data_of(log):
    return [record.data for record in replay(log)]


# ---- durable -------------------------------------------------------------------------------------


def test_a_record_is_durable_when_the_call_returns(with_wal, log):
    async def body(wal):
        for i in range(1, 20):
            assert await wal.append_durable(b"%d" % i) == i
            assert wal.durable_lsn >= i

    with_wal(body)
    assert data_of(log) == [b"%d" % i for i in range(1, 20)]


def test_tasks_share_syncs_and_each_finds_its_record(with_wal, log, scaled, count):
    each = scaled(50)
    found = {}

    async def append(wal, name):
        for i in range(each):
            record = b"%d %d" % (name, i)
            lsn = await wal.append_durable(record)
            assert wal.durable_lsn >= lsn
            found[lsn] = record

    async def body(wal):
        await asyncio.gather(*(append(wal, name) for name in range(TASKS)))
        return wal.stats()

    stats = with_wal(body)
    assert sorted(found) == list(range(1, TASKS * each + 1))
    assert data_of(log) == [found[lsn] for lsn in sorted(found)]
    assert stats.commits == TASKS * each
    assert stats.syncs < TASKS * each / 4
    count("records of tasks that shared syncs", TASKS * each)


def test_acknowledgements_come_in_the_order_of_lsns(with_wal):
    acknowledged = []

    async def append(wal, i):
        kind = i % 4
        if kind == 0:
            lsn = await wal.append_durable(b"one")
        elif kind == 1:
            lsn = (await wal.append_many([b"a", b"b", b"c"], durable=True))[-1]
        elif kind == 2:
            lsn = (await wal.append_many([b"x", b"y"], durable=True, atomic=True))[-1]
        else:
            await wal.append_batched(b"staged")
            lsn = wal.last_lsn
            await wal.wait_durable(lsn)
        acknowledged.append(lsn)

    async def body(wal):
        for _ in range(5):
            await asyncio.gather(*(append(wal, i) for i in range(TASKS)))
        assert wal.durable_lsn == wal.last_lsn

    with_wal(body)
    assert acknowledged == sorted(acknowledged)
    assert len(acknowledged) == 5 * TASKS


def test_order_is_call_order_whatever_is_called(with_wal, log):
    async def body(wal):
        calls = [
            wal.append_batched(b"0"),
            wal.append_durable(b"1"),
            wal.append(b"2"),
            wal.append_many([b"3", b"4"], atomic=True),
            wal.append_with_checksum(b"5"),
            wal.append_many([b"6", b"7"]),
            wal.append_with_checksum_batched(b"8"),
            wal.append_durable(b"9"),
        ]
        results = await asyncio.gather(*calls)
        assert results[1:4] == [2, 3, range(4, 6)]
        assert results[4:6] == [6, range(7, 9)]
        assert results[7] == 10

    with_wal(body)
    assert data_of(log) == [b"%d" % i for i in range(10)]
    checksums = [record.crc32c is not None for record in replay(log)]
    assert checksums == [i in {5, 8} for i in range(10)]


# ---- handed over and staged ----------------------------------------------------------------------


def test_append_is_with_the_operating_system_when_it_returns(with_wal, log):
    async def body(wal):
        assert await wal.append(b"handed") == 1
        assert not wal.has_pending_batch()
        if current().direct:
            assert wal.durable_lsn == 1
        assert data_of(log) == [b"handed"]
        assert await wal.append_many([b"a", b"b"]) == range(2, 4)
        assert data_of(log) == [b"handed", b"a", b"b"]

    with_wal(body)


def test_what_append_promised_does_not_sit_in_a_ring(with_wal):
    """A linked write dies with the process if it is still queued: append goes another way."""

    async def body(wal):
        await asyncio.gather(wal.append(b"handed"), wal.append_durable(b"durable"))
        linked = wal.stats().ring_ops["linked"]
        await wal.append_durable(b"alone")
        return linked, wal.stats().ring_ops["linked"]

    linked, later = with_wal(body)
    assert linked == 0
    assert later == (1 if current().ring and not current().direct else 0)


def test_staged_records_wait_for_a_flush(with_wal, log):
    async def body(wal):
        assert await wal.append_batched(b"12345") == 5
        assert await wal.append_with_checksum_batched(bytearray(b"678")) == 8
        assert (wal.pending_batch_bytes(), wal.pending_batch_ops()) == (8, 2)
        assert (wal.last_lsn, wal.durable_lsn) == (2, 0)
        assert data_of(log) == []
        await wal.flush_batch()
        assert not wal.has_pending_batch()
        assert wal.durable_lsn == 2

    with_wal(body)


def test_a_full_batch_is_flushed_by_the_call_that_fills_it(with_wal):
    async def body(wal):
        assert wal.max_batch_bytes() == 8192
        assert await wal.append_batched(b"x" * 8000) == 8000
        assert await wal.append_batched(b"x" * 192) == 0
        assert wal.durable_lsn == 2

    with_wal(body, IoUringConfig(registered_buffers=2, buffer_size=4096))


def test_many_more_bytes_than_a_batch_stay_bounded(with_wal, log):
    """Nothing is staged without end: who fills the batch waits for its sync."""
    record = b"y" * 1000
    most = 0

    async def produce(wal):
        nonlocal most
        for _ in range(60):
            await wal.append_batched(record)
            most = max(most, wal.pending_batch_bytes())

    async def body(wal):
        await asyncio.gather(*(produce(wal) for _ in range(10)))

    with_wal(body, IoUringConfig(registered_buffers=2, buffer_size=4096))
    assert most <= 8192 + 10 * len(record)
    assert len(data_of(log)) == 600


def test_changing_a_bytearray_later_changes_no_record(with_wal, log):
    async def body(wal):
        data = bytearray(b"before")
        task = asyncio.create_task(wal.append_durable(data))
        await asyncio.sleep(0)
        data[:] = b"after!"
        await task

    with_wal(body)
    assert data_of(log) == [b"before"]


# ---- wait_durable --------------------------------------------------------------------------------


def test_wait_durable_syncs_what_nobody_else_does(with_wal):
    async def body(wal):
        await wal.append(b"1")
        await wal.append_batched(b"2")
        await wal.wait_durable(1)
        assert wal.durable_lsn >= 1
        await wal.wait_durable(2, timeout=30)
        assert wal.durable_lsn == 2
        await wal.wait_durable(1)

    with_wal(body)


def test_wait_durable_refuses_what_was_not_given(with_wal):
    async def body(wal):
        with pytest.raises(ValueError, match=r"LSN 1 was not given yet; the last one is 0"):
            await wal.wait_durable(1)
        with pytest.raises(ValueError, match="lsn"):
            await wal.wait_durable(0)

    with_wal(body)


# ---- sizes, types, states ------------------------------------------------------------------------


def test_records_of_every_size(with_wal, log):
    sizes = [0, 1, 4095, 4096, 65536, 65537, 300_000, 2_000_000, 7]
    records = [bytes([i]) * size for i, size in enumerate(sizes)]

    async def body(wal):
        assert await wal.append_many(records, durable=True) == range(1, len(sizes) + 1)
        lsns = await asyncio.gather(*(wal.append_durable(record) for record in records))
        assert lsns == list(range(len(sizes) + 1, 2 * len(sizes) + 1))

    with_wal(body)
    assert data_of(log) == records * 2


def test_it_rotates_while_tasks_append(with_wal, log):
    """Every few records there is no room: the committer makes it, and the bell rings."""
    record = b"z" * 3000

    async def append(wal):
        for _ in range(10):
            await wal.append_durable(record)

    async def body(wal):
        await asyncio.gather(*(append(wal) for _ in range(20)))
        return wal.stats().segments

    assert with_wal(body, segment_bytes=65536) >= 9
    assert len(data_of(log)) == 200


def test_bad_input_is_refused_and_nothing_is_staged(with_wal, log):
    async def body(wal):
        with pytest.raises(TypeError, match="encode the text first"):
            await wal.append_durable("text")
        with pytest.raises(TypeError, match="append_many takes an iterable"):
            await wal.append_many(b"one record")
        with pytest.raises(RecordTooLargeError, match="max_record_bytes=100"):
            await wal.append_durable(b"x" * 101)
        with pytest.raises(RecordTooLargeError):
            await wal.append_many([b"fits", b"x" * 101])
        assert wal.last_lsn == 0
        assert await wal.append_many([]) == range(1, 1)
        assert await wal.append_durable(memoryview(b"fits")) == 1

    with_wal(body, max_record_bytes=100)
    assert data_of(log) == [b"fits"]


def test_trimming(with_wal):
    async def body(wal):
        for _ in range(30):
            await wal.append_many([b"q" * 2000] * 5, durable=True)
        await wal.append_batched(b"last")
        await wal.truncate_before(140)
        assert wal.first_lsn > 1
        assert wal.durable_lsn == 151
        assert await wal.append_durable(b"goes on") == 152

    with_wal(body, segment_bytes=65536)


def test_reopening_a_sound_writer(with_wal, log):
    async def body(wal):
        await wal.append_batched(b"1")
        report = await wal.reopen()
        assert (report.last_lsn, list(report.lost)) == (1, [])
        assert wal.recovery_report is report
        assert await wal.append_durable(b"2") == 2

    with_wal(body)
    assert data_of(log) == [b"1", b"2"]


def test_the_context_manager_and_what_a_closed_writer_answers(engine, log, run):
    async def main():
        wal = AsyncWalWriter(log, config())
        assert "not opened" in repr(wal)
        with pytest.raises(RuntimeError, match="not open yet"):
            await wal.append_durable(b"early")
        assert not log.exists()
        async with wal:
            await wal.append_batched(b"staged")
            assert "open, last_lsn=1" in repr(wal)
            with pytest.raises(RuntimeError, match="opened already"):
                await wal._open()
        assert "closed" in repr(wal)
        assert (wal.last_lsn, wal.durable_lsn, wal.path) == (1, 1, log)
        assert wal.backend == engine.backend
        for call in (wal.append_durable(b"x"), wal.flush_batch(), wal.append_many([b"x"])):
            with pytest.raises(WalClosedError):
                await call
        for look in (wal.stats, wal.size, wal.pending_batch_ops):
            with pytest.raises(WalClosedError):
                look()
        await wal.aclose()

    run(main())
    assert data_of(log) == [b"staged"]


def test_an_error_of_the_block_goes_on_and_what_is_staged_is_kept(engine, log, run):
    async def main():
        async with AsyncWalWriter(log, config()) as wal:
            await wal.append_batched(b"staged")
            raise KeyError("the block's own")

    with pytest.raises(KeyError, match="the block's own"):
        run(main())
    assert data_of(log) == [b"staged"]


def test_a_log_that_cannot_be_opened(log, run):
    log.write_bytes(b"a file")

    async def main():
        with pytest.raises(WalError, match="directory"):
            await AsyncWalWriter.open(log)

    run(main())
