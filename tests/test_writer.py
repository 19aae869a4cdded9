"""PortableWalWriter in one thread: staging, order, durability, limits, states."""

from __future__ import annotations

import array
import json
import logging
import mmap

import pytest
from crc32c import crc32c

import walengine
from walengine import (
    IoUringConfig,
    PortableWalWriter,
    RecordTooLargeError,
    WalConfig,
    _opening,
    replay,
)

SMALL_BATCH = IoUringConfig(registered_buffers=1, buffer_size=4096)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


@pytest.fixture
def wal(path):
    with PortableWalWriter(path, SMALL_BATCH) as wal:
        yield wal


def data_of(path):
    return [record.data for record in replay(path)]


# ---- appending -----------------------------------------------------------------------------------


def test_lsns_are_dense_and_begin_at_one(wal):
    assert [wal.append(b"x") for _ in range(3)] == [1, 2, 3]


def test_lsns_go_on_after_reopening_the_log(path):
    with PortableWalWriter(path) as wal:
        wal.append(b"one")
    with PortableWalWriter(path) as wal:
        assert wal.last_lsn == 1
        assert wal.append(b"two") == 2
    assert data_of(path) == [b"one", b"two"]


def test_append_is_visible_to_readers_before_any_sync(wal, path):
    wal.append(b"handed over")
    assert data_of(path) == [b"handed over"]


def test_append_batched_returns_the_bytes_pending(wal):
    assert [wal.append_batched(b"12345"), wal.append_batched(b"678")] == [5, 8]


def test_staged_records_are_counted_and_not_written(wal, path):
    assert not wal.has_pending_batch()
    wal.append_batched(b"12345")
    wal.append_with_checksum_batched(b"678")
    assert wal.has_pending_batch()
    assert (wal.pending_batch_ops(), wal.pending_batch_bytes()) == (2, 8)
    assert data_of(path) == []


def test_a_staged_record_has_its_lsn(wal):
    wal.append(b"one")
    wal.append_batched(b"two")
    assert (wal.last_lsn, wal.durable_lsn) == (2, 0)


def test_append_hands_over_what_is_staged_first(wal, path):
    wal.append_batched(b"first")
    wal.append_with_checksum_batched(b"second")
    assert wal.append(b"third") == 3
    assert data_of(path) == [b"first", b"second", b"third"]
    assert not wal.has_pending_batch()


@pytest.mark.parametrize("name", ["flush_batch", "sync"])
def test_flushing_makes_everything_durable(wal, name):
    wal.append(b"appended")
    wal.append_batched(b"staged")
    getattr(wal, name)()
    assert (wal.durable_lsn, wal.last_lsn, wal.pending_batch_ops()) == (2, 2, 0)


def test_flushing_nothing_is_allowed(wal):
    wal.flush_batch()
    wal.sync()
    assert (wal.last_lsn, wal.durable_lsn) == (0, 0)


def test_the_call_that_reaches_the_batch_size_flushes(wal):
    assert wal.max_batch_bytes() == 4096
    assert wal.append_batched(bytes(4095)) == 4095
    assert wal.append_batched(b"x") == 0
    assert (wal.durable_lsn, wal.pending_batch_bytes()) == (2, 0)


def test_a_record_larger_than_a_batch_is_flushed_at_once(wal):
    assert wal.append_batched(bytes(10_000)) == 0
    assert wal.durable_lsn == 1


def test_records_without_bytes_are_records(wal, path):
    wal.append(b"")
    assert wal.append_batched(b"") == 0
    assert wal.pending_batch_ops() == 1
    wal.append_with_checksum(b"")
    assert data_of(path) == [b"", b"", b""]


def test_many_empty_records_in_one_batch(wal, path):
    for _ in range(10_000):
        wal.append_batched(b"")
    wal.flush_batch()
    assert data_of(path) == [b""] * 10_000


def test_staged_bytes_do_not_change_with_their_bytearray(wal, path):
    data = bytearray(b"before")
    wal.append_batched(data)
    wal.append_with_checksum_batched(data)
    data[:] = b"after!"
    wal.flush_batch()
    assert data_of(path) == [b"before", b"before"]


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"12345678"),
        memoryview(b"12345678"),
        memoryview(b"_12345678_")[1:-1],
        array.array("B", b"12345678"),
        array.array("Q", b"12345678"),
        type("Sub", (bytes,), {})(b"12345678"),
    ],
    ids=lambda data: type(data).__name__,
)
def test_any_contiguous_bytes_like_object_is_a_record(wal, path, data):
    wal.append(data)
    assert wal.append_batched(data) == 8
    wal.append_with_checksum(data)
    assert data_of(path) == [b"12345678"] * 3


def test_a_memory_map_is_a_record(wal, path):
    with mmap.mmap(-1, 16) as area:
        area[:] = b"0123456789abcdef"
        wal.append(area)
    assert data_of(path) == [b"0123456789abcdef"]


METHODS = ["append", "append_batched", "append_with_checksum", "append_with_checksum_batched"]


@pytest.mark.parametrize("name", METHODS)
def test_text_is_refused_with_the_way_out(wal, name):
    with pytest.raises(TypeError, match="encode"):
        getattr(wal, name)("text")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("data", [None, 5, [1, 2], object()], ids=lambda data: type(data).__name__)
def test_what_has_no_bytes_is_refused(wal, name, data):
    with pytest.raises(TypeError):
        getattr(wal, name)(data)


@pytest.mark.parametrize("name", METHODS)
def test_a_strided_view_is_refused(wal, name):
    with pytest.raises(TypeError, match="contiguous"):
        getattr(wal, name)(memoryview(b"123456")[::2])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_record_too_large_is_refused_and_nothing_staged(path, name, kind):
    with PortableWalWriter(path, WalConfig(max_record_bytes=100)) as wal:
        with pytest.raises(RecordTooLargeError, match=r"101 bytes.*max_record_bytes=100"):
            getattr(wal, name)(kind(101))
        assert (wal.last_lsn, wal.pending_batch_ops()) == (0, 0)
        getattr(wal, name)(kind(100))
        assert wal.last_lsn == 1


def test_a_refused_record_leaves_what_is_staged(path):
    with PortableWalWriter(path, WalConfig(max_record_bytes=100)) as wal:
        wal.append_batched(b"staged")
        with pytest.raises(RecordTooLargeError):
            wal.append(bytes(101))
        assert wal.pending_batch_ops() == 1
    assert data_of(path) == [b"staged"]


def test_large_and_small_records_keep_their_order(path):
    sizes = [10, 70_000, 0, 65_536, 65_537, 1, 200_000, 2_000_000, 3, 40_000, 60_000, 50_000, 9]
    records = [bytes([i]) * size for i, size in enumerate(sizes)]
    with PortableWalWriter(path) as wal:
        for i, record in enumerate(records):
            append = wal.append_with_checksum_batched if i % 3 == 0 else wal.append_batched
            append(record)
        wal.flush_batch()
    read = list(replay(path))
    assert [record.data for record in read] == records
    assert [record.lsn for record in read] == list(range(1, len(sizes) + 1))
    assert [record.crc32c is not None for record in read] == [i % 3 == 0 for i in range(len(sizes))]


def test_checksummed_records_carry_their_crc(wal, path):
    wal.append(b"plain")
    wal.append_with_checksum(b"appended")
    wal.append_with_checksum_batched(b"staged")
    wal.append_batched(b"plain again")
    wal.flush_batch()
    assert [record.crc32c for record in replay(path)] == [
        None,
        crc32c(b"appended"),
        crc32c(b"staged"),
        None,
    ]


def test_a_large_batch_is_whole(path):
    records = [b"%d" % i * (i % 50) for i in range(50_000)]
    with PortableWalWriter(path) as wal:
        for record in records:
            wal.append_batched(record)
    assert data_of(path) == records


# ---- looking -------------------------------------------------------------------------------------


def test_size_grows_by_frames(wal):
    before = wal.size()
    wal.append(bytes(1000))
    assert wal.size() >= before + 1064
    wal.append_batched(bytes(1000))
    assert wal.size() < before + 2064


def test_stats_count_what_happened(wal):
    wal.append(b"one")
    wal.append_batched(b"two")
    wal.append_batched(b"three")
    wal.sync()
    wal.append_batched(b"four")
    stats = wal.stats()
    assert (stats.records_appended, stats.records_durable) == (3, 3)
    assert (stats.commits, stats.syncs, stats.sync_latency.count) == (1, 1, 1)
    assert (stats.group_size.mean, stats.group_size.max) == (3.0, 3)
    assert (stats.pending_ops, stats.pending_bytes) == (1, 4)
    assert (stats.last_lsn, stats.durable_lsn) == (4, 3)
    assert stats.backend == wal.backend
    assert stats.bytes_written > 0
    # The background thread may be zero-filling ahead.
    assert stats.ops_completed + stats.in_flight() == stats.ops_submitted


def test_stats_are_json(wal):
    assert json.loads(json.dumps(wal.stats().as_dict()))["last_lsn"] == 0


def test_properties_say_what_was_opened(wal, path):
    assert (wal.path, wal.backend, wal.first_lsn) == (path, wal.stats().backend, 1)
    assert wal.recovery_report.verdict is walengine.Verdict.NEW
    assert repr(path)[11:-2] in repr(wal)


def test_a_relative_path_as_text_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with PortableWalWriter("wal.log") as wal:
        wal.append(b"x")
    assert data_of(tmp_path / "wal.log") == [b"x"]


# ---- trimming ------------------------------------------------------------------------------------


def test_trimming_drops_the_records_below(wal, path):
    for i in range(10):
        wal.append(b"%d" % i)
    wal.truncate_before(6)
    assert (wal.first_lsn, wal.last_lsn) == (6, 10)
    assert [record.lsn for record in replay(path)] == [6, 7, 8, 9, 10]


def test_trimming_syncs_and_keeps_what_is_not_there_yet(wal):
    wal.append_batched(b"one")
    wal.truncate_before(1_000_000)
    assert (wal.first_lsn, wal.last_lsn, wal.durable_lsn) == (2, 1, 1)
    assert wal.append(b"two") == 2


@pytest.mark.parametrize("lsn", [0, -1, 2**64])
def test_trimming_refuses_what_is_no_lsn(wal, lsn):
    with pytest.raises(ValueError, match="lsn must be from 1"):
        wal.truncate_before(lsn)


def test_trimming_refuses_what_is_no_number(wal):
    with pytest.raises(TypeError):
        wal.truncate_before("5")


# ---- the log of events ---------------------------------------------------------------------------


def test_opening_logs_the_verdict(path, caplog):
    caplog.set_level(logging.INFO, "walengine")
    PortableWalWriter(path).close()
    assert "opened, new" in caplog.text


def test_a_slow_sync_is_logged(wal, caplog, monkeypatch):
    monkeypatch.setattr(_opening, "SLOW_SYNC_SECONDS", 0.0)
    wal.append(b"x")
    wal.sync()
    assert "a sync took" in caplog.text


def test_direct_io_aligns_commits(path):
    with PortableWalWriter(path, IoUringConfig(direct_io=True)) as wal:
        wal.append(b"x")
    assert walengine.recover(path).commit_alignment == 4096


def test_strict_sectors_align_commits(path):
    with PortableWalWriter(path, WalConfig(strict_sectors=True)) as wal:
        wal.append(b"x")
        assert wal.size() % 4096 == 0
        assert wal.stats().padding_bytes > 0
