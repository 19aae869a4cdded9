"""The states of a writer: opening and refusing to, closed, full, broken off, reopened."""

from __future__ import annotations

import contextlib
import errno

import pytest

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


# ---- closing -------------------------------------------------------------------------------------


def test_leaving_the_block_makes_staged_records_durable(path):
    with PortableWalWriter(path) as wal:
        wal.append_batched(b"staged")
    assert data_of(path) == [b"staged"]
    assert walengine.recover(path).verdict is walengine.Verdict.CLEAN


def test_leaving_the_block_by_an_exception_does_too(path):
    def work():
        with PortableWalWriter(path) as wal:
            wal.append_batched(b"staged")
            raise KeyError

    with pytest.raises(KeyError):
        work()
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
    assert (wal.path, wal.max_batch_bytes()) == (path, 64 * 65536)
    assert wal.backend in {"io_uring", "pwrite"}
    assert "closed" in repr(wal)


def test_a_closed_writer_still_says_how_far_it_came(path):
    with PortableWalWriter(path) as wal:
        wal.append(b"one")
        wal.append_batched(b"two")
    assert (wal.last_lsn, wal.durable_lsn) == (2, 2)


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
    with pytest.raises(WalError, match=r"wal\.log"):
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
    with pytest.raises(WalError, match=r"wal\.log"):
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


def test_errno_of_a_failed_opening_is_kept(path):
    _native._fault_set(_native._FAULT_OPEN, _native._FAULT_FAIL, errno.EMFILE)
    try:
        with pytest.raises(OSError, match="ulimit") as caught:
            PortableWalWriter(path)
    finally:
        _native._fault_clear()
    assert caught.value.errno == errno.EMFILE
    assert isinstance(caught.value, walengine.WalOSError)


# ---- a full log ----------------------------------------------------------------------------------


def fill(wal):
    """Append until the log is full; the number of records that fitted."""
    count = wal.last_lsn
    with contextlib.suppress(WalFullError):
        while True:
            count = wal.append(bytes(1000))
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


@pytest.mark.parametrize("call", ["append", "append_batched", "append_durable"])
def test_a_record_that_no_trim_makes_room_for_is_refused_at_once(path, call):
    """Staged, it would stand in the way of all others for ever."""
    with PortableWalWriter(path, SMALL_LOG) as wal:
        largest = wal._native.record_bytes_max()
        assert 50_000 < largest < 65536  # a segment of its own, of half of the log
        with pytest.raises(RecordTooLargeError, match=r"max_log_bytes=131072.*raise max_log_bytes"):
            getattr(wal, call)(b"x" * (largest + 1))
        assert not wal.has_pending_batch()
        for lsn in (1, 2, 3):
            assert wal.append_durable(b"x" * largest) == lsn
            wal.truncate_before(lsn)
        with pytest.raises(RecordTooLargeError, match="max_log_bytes"):
            wal.append_many([b"x" * largest, b"y"], atomic=True)
        assert wal.append_durable(b"small") == 4


def test_many_small_records_need_no_segment_of_their_own(path):
    """They go down in one call, and in frames that fit the segments."""
    config = WalConfig(segment_bytes=32768, max_log_bytes=131072)
    with PortableWalWriter(path, config) as wal:
        assert wal.append_many([b"x" * 1000] * 80, durable=True) == range(1, 81)
        sizes = {segment.file_bytes for segment in walengine.WalReader(path).segments}
    assert sizes == {32768}
    assert data_of(path) == [b"x" * 1000] * 80


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


def test_a_full_disk_has_its_errno(path):
    with PortableWalWriter(path, WalConfig(segment_bytes=65536)) as wal:
        _native._fault_set(_native._FAULT_ALLOCATE, _native._FAULT_FAIL, errno.ENOSPC)
        try:
            with pytest.raises(WalFullError, match="Free space or trim the log") as caught:
                for _ in range(1000):
                    wal.append(bytes(1000))
        finally:
            _native._fault_clear()
    assert caught.value.errno == errno.ENOSPC


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

    def append_joined(records, crcs, *, durable, atomic=False):
        nonlocal done
        if done == calls:
            raise KeyboardInterrupt
        done += 1
        return real(records, crcs, durable=durable, atomic=atomic)

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


@pytest.mark.parametrize("way", ["append", "append_in_lane"])
def test_an_interrupt_after_c_took_a_record_does_not_give_it_twice(wal, path, monkeypatch, way):
    real = getattr(wal._native, way)
    wal._quiet = 1 if way == "append" else 0

    def append(record, crc, *, durable):
        real(record, crc, durable=durable)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wal._native, way, append)
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
    wal._quiet = 1  # no lane: there it would not wait
    refusals = []

    def append(record, crc, *, durable):
        for call in (lambda: wal.append(b"inner"), wal.sync, wal.close, wal.reopen):
            with pytest.raises(WalError, match="signal handler") as caught:
                call()
            refusals.append(caught.value)
        wal.append_batched(b"staged by the handler")
        return real(record, crc, durable=durable)

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
