"""Many records of one call: joined as they come, and staged one by one where that goes wrong."""

from __future__ import annotations

import asyncio

from walengine import WalError, WalFullError, replay

SMALL = {"segment_bytes": 65536, "max_log_bytes": 4 * 65536}


def data_of(log):
    return [record.data for record in replay(log)]


def test_what_waits_beside_a_long_run_keeps_its_place(with_wal, log):
    long = [b"%04d" % i * 20 for i in range(3000)]

    async def body(wal):
        await wal.append_batched(b"first")
        lsns = await asyncio.gather(
            wal.append_durable(b"before"),
            wal.append_many(long, durable=True),
            wal.append_durable(b"between"),
            wal.append_many(long[:70]),
            wal.append_many([b"few"] * 2, durable=True),
            wal.append_durable(b"after"),
        )
        assert lsns == [
            2,
            range(3, 3003),
            3003,
            range(3004, 3074),
            range(3074, 3076),
            3076,
        ]
        assert wal.durable_lsn == 3076
        assert wal.pending_batch_bytes() == 0

    with_wal(body)
    expected = [b"first", b"before", *long, b"between", *long[:70], b"few", b"few", b"after"]
    assert data_of(log) == expected


def test_a_run_that_finds_no_room_stays_staged(with_wal, log):
    records = [b"%05d" % i + bytes(995) for i in range(600)]

    async def body(wal):
        try:
            await wal.append_many(records, durable=True)
        except WalFullError:
            pass
        else:
            raise AssertionError("it fits")
        assert wal.last_lsn == 600
        handed = 600 - wal.pending_batch_ops()
        assert 0 < handed < 600
        assert wal.pending_batch_bytes() == 1000 * wal.pending_batch_ops()
        found = []
        while wal.pending_batch_ops():
            found += [r.data for r in replay(log, from_lsn=len(found) + 1)]
            await wal.truncate_before(len(found) + 1)
            try:
                await wal.flush_batch()
            except WalFullError:
                assert wal.last_lsn - wal.pending_batch_ops() > len(found)
        found += [r.data for r in replay(log, from_lsn=len(found) + 1)]
        assert found == records

    with_wal(body, **SMALL)


def test_cancelling_the_call_leaves_its_records_staged(with_wal, log):
    async def body(wal):
        task = asyncio.create_task(wal.append_many([b"x" * 300] * 500, durable=True))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert wal.last_lsn == 500
        assert await wal.append_durable(b"after") == 501

    with_wal(body)
    assert data_of(log) == [b"x" * 300] * 500 + [b"after"]


def test_a_full_log_refuses_who_waits_behind_a_run(with_wal, log):
    async def body(wal):
        outcomes = await asyncio.gather(
            wal.append_many([bytes(1000)] * 600, durable=True),
            wal.append_durable(b"behind"),
            return_exceptions=True,
        )
        assert [isinstance(each, WalError) for each in outcomes] == [True, True]
        await wal.truncate_before(wal.durable_lsn + 1)
        assert await wal.append_many([], durable=True) == range(wal.last_lsn + 1, wal.last_lsn + 1)

    with_wal(body, **SMALL)
    assert b"behind" not in data_of(log)
