"""Write and sync in one native call: where it is made, what it leaves behind when it breaks.

The calls are watched, or made to answer what C answers at its worst moments; that the disk then has
what was acknowledged is what the crash suites show.
"""

from __future__ import annotations

import threading

import pytest
from processes import output_of

from walengine import (
    IoUringConfig,
    PortableWalWriter,
    WalConfig,
    WalPoisonedError,
    _native,
    _native_writer,
    _opening,
    is_io_uring_available,
    replay,
)

BACKENDS = ["pwrite", *(["io_uring"] if is_io_uring_available() else [])]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


@pytest.fixture
def wal(path):
    with PortableWalWriter(path) as opened:
        yield opened


def data_of(path):
    return [record.data for record in replay(path)]


# ---- which calls are made ------------------------------------------------------------------------


@pytest.fixture
def calls(wal, monkeypatch):
    """The native calls of a writer: name, number of records, durable."""
    no_slices(monkeypatch)
    made = []
    native = wal._native
    append, append_joined, commit = native.append, native.append_joined, native.commit
    append_in_lane = native.append_in_lane

    def spy_append(record, crc, *, durable):
        made.append(("append", 1, durable))
        return append(record, crc, durable=durable)

    def spy_append_joined(records, crcs, *, durable, atomic=False):
        made.append(("append_joined", len(records), durable))
        return append_joined(records, crcs, durable=durable, atomic=atomic)

    def spy_append_in_lane(record, crc, *, durable):
        made.append(("append_in_lane", 1, durable))
        return append_in_lane(record, crc, durable=durable)

    def spy_commit(lsn):
        made.append(("commit", lsn))
        commit(lsn)

    monkeypatch.setattr(native, "append", spy_append)
    monkeypatch.setattr(native, "append_joined", spy_append_joined)
    monkeypatch.setattr(native, "append_in_lane", spy_append_in_lane)
    monkeypatch.setattr(native, "commit", spy_commit)
    return made


def no_slices(monkeypatch):
    """The main thread comes back now and then for its signals, and a slow disk adds a call."""
    monkeypatch.setattr(_native, "_main_thread", None)


def in_another_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_a_flush_writes_and_syncs_in_one_call(wal, calls):
    wal.append_batched(b"one")
    wal.append_batched(b"two")
    wal.flush_batch()
    assert calls == [("append_joined", 2, True)]
    assert wal.durable_lsn == 2


def test_only_the_last_call_of_a_flush_syncs(wal, calls):
    for size in (10, 100_000, 20):
        wal.append_batched(bytes(size))
    wal.sync()
    assert calls == [("append", 1, False), ("append", 1, False), ("append", 1, True)]
    assert wal.durable_lsn == 3


def test_the_append_that_fills_the_batch_syncs_with_it(path, monkeypatch):
    no_slices(monkeypatch)
    with PortableWalWriter(path, IoUringConfig(registered_buffers=1, buffer_size=4096)) as wal:
        monkeypatch.setattr(wal._native, "commit", lambda _lsn: pytest.fail("a second call"))
        assert wal.append_batched(bytes(4000)) == 4000
        assert wal.append_batched(bytes(96)) == 0
        assert wal.durable_lsn == 2


def test_an_append_does_not_sync(wal, calls):
    wal.append(b"one")
    assert calls == [("append_in_lane", 1, False)] or wal.stats().direct_io


def test_a_flush_with_nothing_staged_syncs_what_was_appended(wal, calls):
    wal.append(b"one")
    wal.flush_batch()
    assert calls == [("append_in_lane", 1, False), ("commit", 1)]
    assert wal.durable_lsn == 1


def test_a_durable_append_is_one_call(wal, calls):
    for _ in range(2):
        wal.append_durable(b"mine")
        in_another_thread(lambda: wal.append_durable(b"another one's"))
    assert calls == [("append_in_lane", 1, True)] * 4
    assert wal.durable_lsn == 4


def test_a_flush_of_a_shared_writer_waits_without_the_lock(wal, calls):
    """Goal: no thread's append waits for another one's sync."""
    wal.append(b"mine")
    in_another_thread(lambda: wal.append(b"another one's"))
    calls.clear()
    wal.append_batched(b"three")
    wal.flush_batch()
    assert calls == [("append", 1, False), ("commit", 3)]
    assert wal.durable_lsn == 3


def test_a_writer_that_moved_to_one_other_thread_is_not_shared(wal, calls):
    """Opened here, used there."""

    def use():
        wal.append_batched(b"one")
        wal.flush_batch()

    in_another_thread(use)
    assert calls == [("append", 1, True)]


def test_a_slow_flush_is_logged(wal, caplog, monkeypatch):
    monkeypatch.setattr(_opening, "SLOW_SYNC_SECONDS", 0.0)
    wal.append_batched(b"x")
    wal.flush_batch()
    assert "a sync took" in caplog.text


def test_a_failed_sync_in_the_same_call_poisons(path):
    with pytest.raises(WalPoisonedError), PortableWalWriter(path) as wal:
        wal.append(b"one")
        wal.sync()
        wal.append_batched(b"two")
        wal.append_batched(b"three")
        _native._fault_set(
            _native._FAULT_SYNC | _native.lib.WAL_FAULT_CQE_SYNC, _native._FAULT_FAIL, 5
        )
        try:
            with pytest.raises(WalPoisonedError) as caught:
                wal.flush_batch()
        finally:
            _native._fault_clear()
        assert (caught.value.durable_lsn, caught.value.lost) == (1, range(2, 4))
        assert wal.pending_batch_ops() == 0


# ---- past the page cache -------------------------------------------------------------------------


DIRECT = IoUringConfig(direct_io=True)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_direct_append_is_durable(path, name):
    with PortableWalWriter(path, WalConfig(io=DIRECT, backend=name)) as wal:
        stats = wal.stats()
        assert stats.direct_io is not ("direct_io" in stats.fallbacks)
        for lsn in range(1, 20):
            assert wal.append(b"%d" % lsn) == lsn
            if stats.direct_io:
                assert wal.durable_lsn == lsn
    assert data_of(path) == [b"%d" % lsn for lsn in range(1, 20)]


@pytest.mark.parametrize("name", BACKENDS)
def test_direct_appends_of_threads_are_durable_and_in_order(path, name):
    order = {}

    def work(i):
        for j in range(25):
            data = b"%d %d" % (i, j)
            lsn = wal.append(data)
            assert wal.durable_lsn >= lsn or not wal.stats().direct_io
            order[lsn] = data

    with PortableWalWriter(path, WalConfig(io=DIRECT, backend=name)) as wal:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert data_of(path) == [order[lsn] for lsn in range(1, 101)]


def test_a_direct_append_is_one_call_and_a_batch_waits_for_its_last(wal, calls, monkeypatch):
    monkeypatch.setattr(wal, "_is_direct", True)
    wal.append(b"one")
    assert calls == [("append_in_lane", 1, True)]
    calls.clear()
    wal.append_batched(bytes(100_000))
    wal.append_batched(b"three")
    wal.flush_batch()
    assert calls == [("append_joined", 1, False), ("append", 1, True)]


def test_direct_appends_of_a_shared_writer_wait_without_the_lock(wal, calls, monkeypatch):
    """Goal: the groups of several threads are at the device at once, also without lanes."""
    monkeypatch.setattr(wal, "_is_direct", True)
    wal._quiet = 2
    wal.append(b"mine")
    calls.clear()
    in_another_thread(lambda: wal.append(b"another one's"))
    assert calls == [("append_joined", 1, False), ("commit", 2)]


# ---- taken, and not synced yet -------------------------------------------------------------------


AGAIN = _native.lib.WAL_E_AGAIN


def taken_but_not_synced(monkeypatch):
    """Let each append come back as an interruptible one does whose sync takes its time."""
    append, append_batch = _native_writer._append, _native_writer._append_batch

    def append_again(*arguments):
        assert append(*arguments) == 0
        return AGAIN

    def append_batch_again(*arguments):
        assert append_batch(*arguments) == 0
        return AGAIN

    monkeypatch.setattr(_native_writer, "_append", append_again)
    monkeypatch.setattr(_native_writer, "_append_batch", append_batch_again)


def test_what_was_taken_is_waited_for_and_not_given_again(wal, path, monkeypatch):
    taken_but_not_synced(monkeypatch)
    assert wal.append(b"one") == 1
    wal.append_batched(b"two")
    wal.flush_batch()
    wal.append_batched(b"three")
    wal.append_batched(b"four")
    wal.flush_batch()
    assert (wal.last_lsn, wal.durable_lsn) == (4, 4)
    assert data_of(path) == [b"one", b"two", b"three", b"four"]


def test_what_was_not_taken_is_given_again(wal, path, monkeypatch):
    """Method: every second call takes nothing, the others one record of theirs."""
    real = _native_writer._append_batch
    offered = []

    def take_one(handle, joined, lengths, sums, count, flags, first_lsn, taken, error):
        offered.append(count)
        if len(offered) % 2 == 0:
            first_lsn[0] = taken[0] = 0
            return AGAIN
        one = lengths[0]
        code = real(handle, joined[:one], lengths, sums, 1, flags, first_lsn, taken, error)
        assert (code, taken[0]) == (0, 1)
        return AGAIN

    records = [b"one", b"twenty-two", b"three"]
    for record in records:
        wal.append_batched(record)
    with monkeypatch.context() as patch:
        patch.setattr(_native_writer, "_append_batch", take_one)
        wal.flush_batch()
    assert offered == [3, 2, 2, 1, 1]
    assert (wal.durable_lsn, data_of(path)) == (3, records)


@pytest.mark.parametrize("count", [1, 3])
def test_an_interrupt_in_that_wait_leaves_the_records_handed_over(wal, path, monkeypatch, count):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    records = [b"record %d" % i for i in range(count)]
    for record in records:
        wal.append_batched(record)
    with monkeypatch.context() as patch:
        taken_but_not_synced(patch)
        patch.setattr(wal._native, "commit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            wal.flush_batch()
    assert (wal.pending_batch_ops(), wal.last_lsn) == (0, count)
    wal.append_batched(b"after")
    wal.flush_batch()
    assert wal.durable_lsn == count + 1
    assert data_of(path) == [*records, b"after"]


def test_ctrl_c_ends_a_flush_whose_sync_is_stuck(path):
    """Method: a stalled device under a flush that writes and syncs in one call."""
    output_of(
        """
wal = PortableWalWriter(sys.argv[1], WalConfig(backend="pwrite"))
wal.append(b"one")
wal.sync()
wal.append_batched(b"two")
wal.append_batched(b"three")
_native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 600_000)
def work():
    while _native._fault_hits() == 0:
        time.sleep(0.001)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=work, daemon=True).start()
try:
    wal.flush_batch()
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("it was not interrupted")
assert (wal.pending_batch_ops(), wal.last_lsn, wal.durable_lsn) == (0, 3, 1)
_native._fault_clear()
wal.sync()
assert wal.durable_lsn == 3
wal.close()
""",
        path,
    )
    assert data_of(path) == [b"one", b"two", b"three"]
