"""PortableWalWriter in one thread: staging, order, durability, limits, states."""

from __future__ import annotations

import array
import errno
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
    WalClosedError,
    WalConfig,
    WalError,
    WalFullError,
    _native,
    replay,
)
from walengine import writer as writer_module

SMALL_BATCH = IoUringConfig(registered_buffers=1, buffer_size=4096)
SMALL_LOG = WalConfig(segment_bytes=32768, max_log_bytes=131072, io=SMALL_BATCH)


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
        with pytest.raises(RecordTooLargeError, match="101 bytes.*max_record_bytes=100"):
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
    assert (stats.backend, stats.ring, dict(stats.ring_ops)) == ("pwrite", None, {})
    assert stats.bytes_written > 0
    # The background thread may be zero-filling ahead.
    assert stats.ops_completed + stats.in_flight() == stats.ops_submitted


def test_stats_are_json(wal):
    assert json.loads(json.dumps(wal.stats().as_dict()))["last_lsn"] == 0


def test_properties_say_what_was_opened(wal, path):
    assert (wal.path, wal.backend, wal.first_lsn) == (path, "pwrite", 1)
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


# ---- closing -------------------------------------------------------------------------------------


def test_leaving_the_block_makes_staged_records_durable(path):
    with PortableWalWriter(path) as wal:
        wal.append_batched(b"staged")
    assert data_of(path) == [b"staged"]
    assert walengine.recover(path).verdict is walengine.Verdict.CLEAN


def test_leaving_the_block_by_an_exception_does_too(path):
    with pytest.raises(KeyError), PortableWalWriter(path) as wal:
        wal.append_batched(b"staged")
        raise KeyError
    assert data_of(path) == [b"staged"]
    assert walengine.recover(path).verdict is walengine.Verdict.CLEAN


def test_closing_twice_is_allowed(path):
    wal = PortableWalWriter(path)
    wal.close()
    wal.close()


CALLS = {
    "append": lambda wal: wal.append(b"x"),
    "append bytearray": lambda wal: wal.append(bytearray(b"x")),
    "append empty": lambda wal: wal.append(b""),
    "append_batched": lambda wal: wal.append_batched(b"x"),
    "append_with_checksum": lambda wal: wal.append_with_checksum(b"x"),
    "append_with_checksum_batched": lambda wal: wal.append_with_checksum_batched(b"x"),
    "flush_batch": lambda wal: wal.flush_batch(),
    "sync": lambda wal: wal.sync(),
    "truncate_before": lambda wal: wal.truncate_before(1),
    "reopen": lambda wal: wal.reopen(),
    "pending_batch_bytes": lambda wal: wal.pending_batch_bytes(),
    "pending_batch_ops": lambda wal: wal.pending_batch_ops(),
    "has_pending_batch": lambda wal: wal.has_pending_batch(),
    "size": lambda wal: wal.size(),
    "stats": lambda wal: wal.stats(),
    "first_lsn": lambda wal: wal.first_lsn,
    "last_lsn": lambda wal: wal.last_lsn,
    "durable_lsn": lambda wal: wal.durable_lsn,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_closed_writer_refuses(path, call):
    wal = PortableWalWriter(path)
    wal.close()
    with pytest.raises(WalClosedError, match="closed"):
        call(wal)


def test_a_closed_writer_still_says_what_it_was(path):
    wal = PortableWalWriter(path)
    wal.close()
    assert (wal.path, wal.backend, wal.max_batch_bytes()) == (path, "pwrite", 64 * 65536)
    assert "closed" in repr(wal)


def test_nothing_stays_open(path):
    before = _native._open_files()
    with PortableWalWriter(path) as wal:
        wal.append(b"x")
        assert _native._open_files() > before
    assert _native._open_files() == before


# ---- opening -------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_with_the_pid(wal, path):
    with pytest.raises(walengine.LockedError, match=r"process \d+"):
        PortableWalWriter(path)


def test_without_create_a_missing_log_is_an_error(path):
    with pytest.raises(WalError, match="wal.log"):
        PortableWalWriter(path, WalConfig(create=False))
    assert not path.exists()


def test_another_owner_is_refused(path):
    PortableWalWriter(path, WalConfig(owner="billing")).close()
    with pytest.raises(WalError, match="owner"):
        PortableWalWriter(path, WalConfig(owner="shipping"))
    PortableWalWriter(path).close()
    assert walengine.recover(path).owner == "billing"


def test_a_path_that_is_a_file_is_refused(path):
    path.write_bytes(b"not a log")
    with pytest.raises(WalError, match="wal.log"):
        PortableWalWriter(path)
    assert path.read_bytes() == b"not a log"


def test_a_shared_directory_needs_permission(path):
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(WalError, match="allow_shared_dir"):
        PortableWalWriter(path)
    PortableWalWriter(path, WalConfig(allow_shared_dir=True)).close()


def test_a_missing_parent_is_an_error_with_its_errno(tmp_path):
    with pytest.raises(WalError, match="no/such") as caught:
        PortableWalWriter(tmp_path / "no" / "such" / "log")
    assert caught.value.path == str(tmp_path / "no" / "such" / "log")


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_impossible_paths_are_wrong_arguments(path):
    with pytest.raises(ValueError, match="path"):
        PortableWalWriter(path)


def test_failed_openings_leave_nothing_open(path):
    path.write_bytes(b"not a log")
    before = _native._open_files()
    with pytest.raises(WalError):
        PortableWalWriter(path)
    assert _native._open_files() == before


# ---- a full log ----------------------------------------------------------------------------------


def fill(wal):
    """Append until the log is full; the number of records that fitted."""
    count = 0
    with pytest.raises(WalFullError):
        while True:
            wal.append(bytes(1000))
            count += 1
    return count


def test_a_full_log_refuses_and_keeps_what_it_has(path):
    with PortableWalWriter(path, SMALL_LOG) as wal:
        count = fill(wal)
        assert count > 20
        assert wal.last_lsn == count
        wal.sync()
        assert wal.durable_lsn == count
    assert len(data_of(path)) == count


def test_staged_records_stay_staged_when_the_log_is_full(path):
    with PortableWalWriter(path, SMALL_LOG) as wal:
        count = fill(wal)
        wal.append_batched(b"a" * 1000)
        wal.append_batched(b"b" * 1000)
        with pytest.raises(WalFullError):
            wal.flush_batch()
        assert (wal.pending_batch_ops(), wal.pending_batch_bytes()) == (2, 2000)
        assert (wal.last_lsn, wal.durable_lsn) == (count + 2, count)
        wal.truncate_before(count)
        wal.flush_batch()
        assert wal.durable_lsn == count + 2
    assert data_of(path)[-2:] == [b"a" * 1000, b"b" * 1000]


def test_the_record_whose_call_flushes_a_full_log_is_not_taken(path):
    with PortableWalWriter(path, SMALL_LOG) as wal:
        count = fill(wal)
        wal.append_batched(b"staged" * 200)
        with pytest.raises(WalFullError):
            wal.append_batched(b"refused" * 600)
        assert (wal.pending_batch_ops(), wal.last_lsn) == (1, count + 1)
        wal.truncate_before(count)
    assert data_of(path)[-1] == b"staged" * 200


def test_the_record_of_a_failed_append_is_not_taken(path):
    with PortableWalWriter(path, SMALL_LOG) as wal:
        count = fill(wal)
        wal.truncate_before(count)
        assert wal.append(b"after") == count + 1


def test_closing_a_full_log_releases_it_and_names_the_loss(path):
    wal = PortableWalWriter(path, SMALL_LOG)
    count = fill(wal)
    wal.append_batched(bytes(1000))
    with pytest.raises(WalFullError, match="1 staged records were not written"):
        wal.close()
    with PortableWalWriter(path, SMALL_LOG) as again:
        assert again.last_lsn == count


# ---- a hand-over that breaks ---------------------------------------------------------------------


def break_after(wal, monkeypatch, calls):
    """Let the native side do so many joined calls, then be interrupted."""
    real = wal._native.append_joined
    done = 0

    def append_joined(records, crcs):
        nonlocal done
        if done == calls:
            raise KeyboardInterrupt
        done += 1
        return real(records, crcs)

    monkeypatch.setattr(wal._native, "append_joined", append_joined)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_what_an_interrupt_kept_from_c_is_staged_again(path, monkeypatch, calls):
    records = [b"%06d" % i * 100 for i in range(600)]
    with PortableWalWriter(path) as wal:
        for record in records:
            wal.append_batched(record)
        with monkeypatch.context() as patch:
            break_after(wal, patch, calls)
            with pytest.raises(KeyboardInterrupt):
                wal.flush_batch()
        taken = len(data_of(path))
        assert (taken > 0) == (calls > 0)
        assert wal.pending_batch_ops() == 600 - taken
        assert wal.pending_batch_bytes() == 600 * (600 - taken)
        assert wal.last_lsn == 600
        wal.append_batched(b"after")
        wal.flush_batch()
    assert data_of(path) == [*records, b"after"]


def test_an_interrupt_after_c_took_a_record_does_not_give_it_twice(wal, path, monkeypatch):
    real = wal._native.append

    def append(record, crc):
        real(record, crc)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wal._native, "append", append)
        with pytest.raises(KeyboardInterrupt):
            wal.append(b"one")
    assert wal.append(b"two") == 2
    assert data_of(path) == [b"one", b"two"]


def test_an_unsettled_hand_over_is_settled_by_the_next(wal, path, monkeypatch):
    """Goal: even an interrupt inside the clean-up loses nothing; the next caller does it."""
    wal.append_batched(b"one")
    wal.append_batched(b"two")
    with monkeypatch.context() as patch:
        break_after(wal, patch, 0)
        patch.setattr(wal, "_settle", lambda: None)
        with pytest.raises(KeyboardInterrupt):
            wal.flush_batch()
    assert wal.last_lsn == 2
    wal.append(b"three")
    assert data_of(path) == [b"one", b"two", b"three"]


def test_a_handler_in_the_middle_of_a_hand_over_is_told_so(wal, monkeypatch):
    """A signal handler that appends would wait for the call it interrupted."""
    real = wal._native.append
    refusals = []

    def append(record, crc):
        for call in (lambda: wal.append(b"inner"), wal.sync, wal.close, wal.reopen):
            with pytest.raises(WalError, match="signal handler") as caught:
                call()
            refusals.append(caught.value)
        wal.append_batched(b"staged by the handler")
        return real(record, crc)

    with monkeypatch.context() as patch:
        patch.setattr(wal._native, "append", append)
        assert wal.append(b"outer") == 1
    assert len(refusals) == 4
    assert wal.last_lsn == 2


# ---- reopening a sound writer --------------------------------------------------------------------


def test_reopening_a_sound_writer_keeps_everything(wal, path):
    wal.append(b"one")
    wal.append_batched(b"two")
    report = wal.reopen()
    assert (report.last_lsn, list(report.lost)) == (2, [])
    assert wal.recovery_report is report
    assert wal.append(b"three") == 3
    wal.sync()
    assert data_of(path) == [b"one", b"two", b"three"]


# ---- the log of events ---------------------------------------------------------------------------


def test_opening_logs_the_verdict(path, caplog):
    caplog.set_level(logging.INFO, "walengine")
    PortableWalWriter(path).close()
    assert "opened, new" in caplog.text


def test_a_slow_sync_is_logged(wal, caplog, monkeypatch):
    monkeypatch.setattr(writer_module, "SLOW_SYNC_SECONDS", 0.0)
    wal.append(b"x")
    wal.sync()
    assert "a sync took" in caplog.text


def test_direct_io_falls_back_and_says_so(path, caplog):
    with PortableWalWriter(path, IoUringConfig(direct_io=True)) as wal:
        wal.append(b"x")
    assert "direct_io falls back" in caplog.text
    assert walengine.recover(path).commit_alignment == 4096


def test_strict_sectors_align_commits(path):
    with PortableWalWriter(path, WalConfig(strict_sectors=True)) as wal:
        wal.append(b"x")
        assert wal.size() % 4096 == 0
        assert wal.stats().padding_bytes > 0


def test_io_uring_is_refused_by_a_build_without_it(path):
    with pytest.raises(WalError, match="only pwrite"):
        PortableWalWriter(path, WalConfig(backend="io_uring"))


def test_errno_of_a_failed_opening_is_kept(path):
    _native._fault_set(_native._FAULT_OPEN, _native._FAULT_FAIL, errno.EMFILE)
    try:
        with pytest.raises(OSError, match="ulimit") as caught:
            PortableWalWriter(path)
    finally:
        _native._fault_clear()
    assert caught.value.errno == errno.EMFILE
    assert isinstance(caught.value, walengine.WalOSError)
