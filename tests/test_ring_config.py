"""Every field of IoUringConfig has the effect that its name says: seen by the kernel, not by us."""

from __future__ import annotations

import os
import re
import threading

import pytest
from needs import needs_linux, needs_ring
from rings import (
    KINDS,
    deltas,
    each_kind,
    each_provider,
    environment,
    faults,
    flags_of_open,
    kernels_ring,
    maintain,
    no_threads,
    open_kind,
    polling_threads,
    wait_until,
)
from traces import between_marks, traced

from walengine import IoUringConfig, io_uring_status, replay
from walengine._native import lib

UNTIL_CLEARED = 10**9  # milliseconds
THREADS = 12
DIRECT = IoUringConfig(direct_io=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


# ---- the queues ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "made"), [(1, 1), (3, 4), (128, 128), (129, 256), (1024, 1024), (32768, 32768)]
)
@each_provider
def test_sq_entries_is_the_next_power_of_two(path, provider, asked, made):
    needs_ring(provider)
    with open_kind(path, provider, IoUringConfig(sq_entries=asked)) as wal:
        assert kernels_ring().sq_entries == wal.stats().sq_entries == made
        wal.append_batched(b"x" * 300_000)
        wal.flush_batch()
    assert [len(record.data) for record in replay(path)] == [300_000]


@pytest.mark.parametrize("sq_entries", [1, 2, 4096])
@each_provider
def test_the_completion_queue_holds_all_groups_in_flight(path, provider, sq_entries):
    """Goal: max_inflight groups, a write and a sync each, and never an overflow."""
    needs_ring(provider)
    io = IoUringConfig(sq_entries=sq_entries, max_inflight=700)
    with open_kind(path, provider, io):
        assert kernels_ring().cq_entries >= 2 * 2 * 700


@each_provider
def test_more_than_the_ring_holds_is_written_in_portions(path, provider):
    """Goal: two entries are room for a flush that needs sixteen writes."""
    needs_ring(provider)
    io = IoUringConfig(sq_entries=2, registered_buffers=16, buffer_size=4096)
    with no_threads(), open_kind(path, provider, io) as wal:
        before = wal.stats()
        wal.append_batched(b"x" * 60_000)
        wal.flush_batch()
        moved = deltas(before, wal.stats())
    assert moved["write_fixed"] >= 15
    assert moved["linked"] == 0, "a chain is whole or is none"
    assert [len(record.data) for record in replay(path)] == [60_000]


# ---- the kernel's thread -------------------------------------------------------------------------

POLLED = """
from rings import maintain, no_threads, open_kind
path, kind, rest_ms = sys.argv[1:]
io = IoUringConfig(kernel_poll=True, sq_poll_idle_ms=int(rest_ms))
with no_threads(), open_kind(path, kind, io) as wal:
    wal.append_batched(b"first")
    wal.flush_batch()
    maintain(wal)
    os.getppid()
    for i in range(8):
        time.sleep(0.05)
        wal.append_batched(b"record %d" % i)
        wal.flush_batch()
    os.getppid()
"""


def idle_and_wakings(path, provider, rest_ms):
    """The idle time that the kernel was told, and how often the thread had to be woken."""
    calls, _ = traced(
        POLLED, path, provider, rest_ms,
        calls="io_uring_setup,io_uring_enter", directory=path.parent,
    )  # fmt: skip
    (setup,) = [call for call in calls if call.name == "io_uring_setup"]
    assert "IORING_SETUP_SQPOLL" in setup.arguments
    idle = int(re.search(r"sq_thread_idle=(\d+)", setup.arguments)[1])
    enters = [call for call in between_marks(calls) if call.name == "io_uring_enter"]
    return idle, sum("IORING_ENTER_SQ_WAKEUP" in call.arguments for call in enters)


@each_provider
def test_a_thread_with_much_patience_is_not_woken(path, provider):
    needs_ring(provider)
    assert idle_and_wakings(path, provider, 600_000) == (600_000, 0)


@each_provider
def test_a_thread_with_little_patience_falls_asleep(path, provider):
    """Goal: 0 counts as 1; and a writer behind a sleeping thread does not hang."""
    needs_ring(provider)
    idle, wakings = idle_and_wakings(path, provider, 0)
    assert idle == 1
    assert wakings > 0


@each_provider
def test_kernel_poll_is_off_unless_asked_for(path, provider):
    needs_ring(provider)
    assert wait_until(lambda: polling_threads() == [])
    with open_kind(path, provider) as wal:
        assert not wal.stats().kernel_poll
        assert polling_threads() == []


# ---- groups in flight ----------------------------------------------------------------------------


def appended_while_stalled(wal, fault, stalled):
    """What the counters moved by while THREADS appends met a device that answers nothing.

    Method: stalled() tells that the device has all that it is going to get; a moment later nothing
    more has come. Then everything is let go, and everybody returns.
    """
    wal.append(b"by this thread")
    second = threading.Thread(
        target=wal.append, args=(b"and a second: a flush lets others in now",)
    )
    second.start()
    second.join()
    maintain(wal)
    workers = [threading.Thread(target=wal.append, args=(b"%d" % i,)) for i in range(THREADS)]
    before = wal.stats()
    with faults(fault, lib.WAL_FAULT_STALL, UNTIL_CLEARED):
        for worker in workers:
            worker.start()
        assert wait_until(lambda: stalled(deltas(before, wal.stats())))
        threading.Event().wait(0.05)
        held = deltas(before, wal.stats())
        assert wal.durable_lsn == 2
    for worker in workers:
        worker.join()
    assert wal.durable_lsn == 2 + THREADS
    return held, deltas(before, wal.stats())


@pytest.mark.parametrize("max_inflight", [1, 3, 7])
@each_provider
def test_max_inflight_is_the_number_of_groups_at_the_device(path, provider, max_inflight):
    needs_ring(provider)
    io = IoUringConfig(direct_io=True, max_inflight=max_inflight)
    with no_threads(), open_kind(path, provider, io) as wal:
        assert wal.stats().max_inflight == max_inflight
        held, all_of_it = appended_while_stalled(
            wal, lib.WAL_FAULT_CQE_WRITE, lambda moved: moved["rwf_dsync"] >= max_inflight
        )
    assert (held["rwf_dsync"], held["syncs"]) == (max_inflight, 0)
    assert all_of_it["rwf_dsync"] == all_of_it["syncs"] == THREADS


@each_provider
def test_the_buffers_bound_what_is_in_flight(path, provider):
    """Goal: five blocks of buffers hold five groups of a block, whatever max_inflight is."""
    needs_ring(provider)
    io = IoUringConfig(direct_io=True, registered_buffers=5, buffer_size=4096)
    with no_threads(), open_kind(path, provider, io) as wal:
        held, all_of_it = appended_while_stalled(
            wal, lib.WAL_FAULT_CQE_WRITE, lambda moved: moved["rwf_dsync"] >= 5
        )
    assert held["rwf_dsync"] == 5
    assert all_of_it["write_fixed"] == all_of_it["syncs"] == THREADS


@each_provider
def test_through_the_page_cache_one_sync_is_under_way(path, provider):
    needs_ring(provider)
    io = IoUringConfig(max_inflight=7)
    with no_threads(), open_kind(path, provider, io) as wal:
        workers = [threading.Thread(target=flush_one, args=(wal, i)) for i in range(THREADS)]
        wal.append(b"x")
        wal.sync()
        maintain(wal)
        before = wal.stats()
        with faults(lib.WAL_FAULT_CQE_SYNC, lib.WAL_FAULT_STALL, UNTIL_CLEARED):
            for worker in workers:
                worker.start()
            assert wait_until(lambda: deltas(before, wal.stats())["fsync"] >= 1)
            threading.Event().wait(0.05)
            assert deltas(before, wal.stats())["fsync"] == 1
        for worker in workers:
            worker.join()
        assert wal.durable_lsn == wal.last_lsn == 1 + THREADS


def flush_one(wal, number):
    wal.append_batched(b"%d" % number)
    wal.flush_batch()


# ---- buffers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(1, 4096), (3, 12288), (64, 65536)])
@each_provider
def test_buffers_are_pinned_as_many_and_as_large_as_asked(path, provider, count, size):
    needs_ring(provider)
    io = IoUringConfig(registered_buffers=count, buffer_size=size)
    with open_kind(path, provider, io) as wal:
        assert kernels_ring().buffers == [size] * count
        assert wal.stats().registered_buffers == count
        assert wal.max_batch_bytes() == count * size
    with environment(WALENGINE_RING=provider):
        assert io_uring_status(io).registered_buffers == count


@each_kind
def test_the_batch_is_flushed_at_the_bytes_of_all_buffers(path, kind):
    needs_ring(kind)
    io = IoUringConfig(registered_buffers=2, buffer_size=4096)
    with open_kind(path, kind, io) as wal:
        assert wal.append_batched(bytes(8191)) == 8191
        assert wal.durable_lsn == 0
        assert wal.append_batched(b"x") == 0
        assert wal.durable_lsn == 2


@each_provider
def test_a_write_ends_where_its_buffer_ends(path, provider):
    """Goal: WRITE_FIXED names one buffer; a frame over several is several entries of one chain."""
    needs_ring(provider)
    io = IoUringConfig(registered_buffers=8, buffer_size=4096)
    with no_threads(), open_kind(path, provider, io) as wal:
        wal.append_batched(b"x")
        wal.flush_batch()
        maintain(wal)
        before = wal.stats()
        wal.append_batched(bytes(12_000))
        wal.flush_batch()
        moved = deltas(before, wal.stats())
    assert moved["linked"] == moved["write_fixed"] >= 3
    assert (moved["write"], moved["fsync"], moved["syncs"]) == (0, 1, 1)


@each_provider
def test_what_is_larger_than_the_buffers_goes_without_them(path, provider):
    needs_ring(provider)
    io = IoUringConfig(registered_buffers=1, buffer_size=4096, direct_io=True)
    with no_threads(), open_kind(path, provider, io) as wal:
        wal.append(b"x")
        maintain(wal)
        before = wal.stats()
        wal.append(bytes(40_000))
        moved = deltas(before, wal.stats())
    assert (moved["write"], moved["write_fixed"], moved["rwf_dsync"]) == (1, 0, 1)
    assert [len(record.data) for record in replay(path)] == [1, 40_000]


# ---- direct_io -----------------------------------------------------------------------------------


@pytest.mark.parametrize("direct_io", [False, True], ids=["buffered", "direct"])
@each_kind
def test_direct_io_is_o_direct_on_the_tail(path, kind, direct_io):
    needs_linux()
    needs_ring(kind)
    with open_kind(path, kind, IoUringConfig(direct_io=direct_io)) as wal:
        wal.append(b"x")
        assert wal.stats().direct_io is direct_io
        (segment,) = path.glob("*.seg")
        flags = flags_of_open(segment)
        assert flags
        assert {bool(flag & os.O_DIRECT) for flag in flags} == {direct_io}
        assert wal.durable_lsn == (1 if direct_io else 0), "append() is synced with direct_io only"


def test_every_field_of_the_configuration_has_a_test_here():
    """Goal: a new field is not forgotten."""
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123 (this very file)
        source = file.read().replace("def test_every_field", "")
    tested = set(re.findall(r"\b(\w+)=", source))
    assert sorted(set(IoUringConfig.__dataclass_fields__) - tested) == []
    assert len(KINDS) == 3
