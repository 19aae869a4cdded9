"""The Python layer when the disk fails: poison, wake-ups, reopening.

Method: the fault seam of the shipped extension makes operations on real files fail. The C suites
fail every operation in turn; here it is what a Python program sees.
"""

import contextlib
import errno
import threading
import time

import pytest
from engines import config, current, put

import walengine
from walengine import PortableWalWriter, WalFullError, WalPoisonedError, _native, replay

pytestmark = pytest.mark.usefixtures("engine")

SEGMENT_BYTES = 65536
WAITERS = 32


@pytest.fixture(autouse=True)
def no_faults_left():
    yield
    _native._fault_clear()


@pytest.fixture
def log(memory_path):
    return memory_path / "log"


@pytest.fixture
def wal(log):
    """An open log with one durable record; the test leaves it open or closed, poisoned or not."""
    wal = PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES))
    wal.append(b"durable")
    wal.sync()
    yield wal
    _native._fault_clear()
    with contextlib.suppress(WalPoisonedError):
        wal.close()


def data_of(log):
    return [record.data for record in replay(log)]


def fail(op, number, **when):
    _native._fault_set(op, _native._FAULT_FAIL, number, **when)


def outcomes_of_threads(calls):
    """Run the calls at once, a thread each; what each returned or raised."""
    outcomes = []
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        try:
            outcomes.append(call())
        except Exception as error:  # noqa: BLE001 (what it raises is the answer)
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a waiter was not woken"
    return outcomes


# ---- a sync that fails ---------------------------------------------------------------------------


def test_a_failed_sync_poisons_with_one_error_for_all_calls(wal):
    """Goal: nothing is retried; every later call raises the very same object."""
    put(wal, b"lost?")
    fail(_native._FAULT_SYNC, errno.EIO, sticky=False)
    with pytest.raises(WalPoisonedError) as caught:
        wal.sync()
    first = caught.value
    assert first.errno == errno.EIO
    calls = [
        wal.sync,
        wal.flush_batch,
        lambda: wal.append(b"x"),
        lambda: wal.append_batched(b"x"),
        lambda: wal.append_with_checksum(b"x"),
        lambda: wal.append_with_checksum_batched(b"x"),
        lambda: wal.truncate_before(1),
    ]
    for call in calls:
        with pytest.raises(WalPoisonedError) as caught:
            call()
        assert caught.value is first
    assert all(error is first for error in outcomes_of_threads(calls))
    assert _native._fault_hits() == 1


def test_a_failed_sync_moves_nothing_and_names_what_may_be_lost(wal):
    put(wal, b"second")
    put(wal, b"third")
    fail(_native._FAULT_SYNC, errno.EIO, sticky=False)
    with pytest.raises(WalPoisonedError) as caught:
        wal.sync()
    assert wal.durable_lsn == 1
    assert caught.value.durable_lsn == 1
    assert caught.value.lost == range(2, 4)
    assert wal.durable_lsn == 1


def test_every_waiter_of_a_stalled_disk_is_woken(wal):
    """Method: 32 threads wait for one stalled sync, which then fails."""
    arrived = threading.Semaphore(0)

    def append_and_sync():
        put(wal, b"x" * 100)
        arrived.release()
        wal.sync()

    def fail_the_sync():
        for _ in range(WAITERS):
            arrived.acquire()
        fail(_native._FAULT_SYNC, errno.EIO)

    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 60_000)
    failing = threading.Thread(target=fail_the_sync)
    failing.start()
    outcomes = outcomes_of_threads([append_and_sync] * WAITERS)
    failing.join()
    errors = [outcome for outcome in outcomes if isinstance(outcome, WalPoisonedError)]
    assert len(outcomes) == WAITERS
    # The stalled sync itself went on when the rule changed: whoever it covers is durable.
    assert len({id(error) for error in errors}) <= 1
    assert outcomes.count(None) + len(errors) == WAITERS
    # With direct I/O a record that failed was never handed over, and last_lsn does not count it.
    assert all(error.lost for error in errors)
    assert errors or wal.durable_lsn == wal.last_lsn


def test_many_waiters_of_a_failed_sync_get_one_error(wal):
    """Method: every sync fails; 32 threads append and sync at once."""
    fail(_native._FAULT_SYNC, errno.EIO)

    def append_and_sync():
        wal.append(b"x")
        wal.sync()

    outcomes = outcomes_of_threads([append_and_sync] * WAITERS)
    assert all(type(outcome) is WalPoisonedError for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 1
    # Direct groups fly side by side, each with a sync of its own.
    assert current().direct or _native._fault_hits() == 1, "a failed sync was tried again"
    assert wal.durable_lsn == 1


def test_reopening_goes_on_behind_what_the_device_holds(wal, log):
    """Goal: after reopen() appends and syncs work, and nothing durable is gone."""
    put(wal, b"unsure")
    unsure = wal.last_lsn
    fail(_native._FAULT_SYNC, errno.EIO, sticky=False)
    with pytest.raises(WalPoisonedError):
        wal.sync()
    report = wal.reopen()
    assert report.last_lsn in {unsure - 1, unsure}
    assert wal.append(b"after") == report.last_lsn + 1
    wal.sync()
    assert wal.durable_lsn == wal.last_lsn
    wal.close()
    found = data_of(log)
    assert (found[0], found[-1]) == (b"durable", b"after")
    assert set(found[1:-1]) <= {b"unsure"}


def test_reopening_on_a_disk_that_still_fails_leaves_the_poison(wal):
    put(wal, b"unsure")
    fail(_native._FAULT_SYNC, errno.EIO)
    with pytest.raises(WalPoisonedError):
        wal.sync()
    with pytest.raises(walengine.WalError):
        wal.reopen()
    with pytest.raises(WalPoisonedError):
        wal.append(b"x")
    _native._fault_clear()
    wal.reopen()
    wal.append(b"after")
    wal.sync()


def test_a_poisoned_writer_never_seals(wal, log):
    """Goal: close() tells of the poison, releases the log, and recovery does not call it clean."""
    put(wal, b"unsure")
    fail(_native._FAULT_SYNC, errno.EIO, sticky=False)
    with pytest.raises(WalPoisonedError):
        wal.sync()
    with pytest.raises(WalPoisonedError):
        wal.close()
    assert walengine.recover(log).verdict != "clean"
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as again:
        assert again.append(b"after") == again.last_lsn


def test_a_sync_broken_by_a_signal_poisons_like_any_other(wal):
    """Goal: EINTR of a sync is final: whether it reached the device is unknown."""
    put(wal, b"unsure")
    fail(_native._FAULT_SYNC, errno.EINTR, sticky=False)
    with pytest.raises(WalPoisonedError) as caught:
        wal.sync()
    assert caught.value.errno == errno.EINTR


# ---- writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN])
def test_a_write_that_a_signal_broke_is_finished_inside(wal, log, number):
    fail(_native._FAULT_WRITE, number, sticky=False)
    wal.append(b"whole")
    assert _native._fault_hits() == 1
    wal.sync()
    assert data_of(log) == [b"durable", b"whole"]


@pytest.mark.parametrize("written", [1, 7, 63, 64, 65, 100])
def test_a_short_write_is_finished_inside(wal, log, written):
    """Method: every write of the frame stops after so many bytes."""
    _native._fault_set(_native._FAULT_WRITE, _native._FAULT_SHORT, written)
    record = bytes(range(256)) * 4
    wal.append(record)
    wal.sync()
    _native._fault_clear()
    wal.close()
    assert data_of(log) == [b"durable", record]


def test_a_failed_write_poisons(wal, log):
    fail(_native._FAULT_WRITE, errno.EIO, sticky=False)
    with pytest.raises(WalPoisonedError) as caught:
        wal.append(b"never")
    assert caught.value.errno == errno.EIO
    with pytest.raises(WalPoisonedError) as again:
        wal.sync()
    assert again.value is caught.value
    assert wal.reopen().last_lsn == 1
    assert data_of(log) == [b"durable"]


def test_no_space_in_the_background_poisons_nothing(wal, log):
    """Goal: the next segment cannot be prepared; the writer says so in stats() and goes on."""
    fail(_native._FAULT_ALLOCATE, errno.ENOSPC)
    record = b"x" * 1000
    frame_bytes = 4096 if current().direct else len(record)
    for _ in range(SEGMENT_BYTES // 2 // frame_bytes + 2):
        wal.append(record)
    wal.sync()
    wait_for(lambda: wal.stats().preparation_failures > 0)
    wal.append(b"still at work")
    wal.sync()
    assert wal.durable_lsn == wal.last_lsn
    with pytest.raises(WalFullError):
        for _ in range(SEGMENT_BYTES // len(record)):
            wal.append(record)
    last = wal.last_lsn
    _native._fault_clear()
    assert wal.append(b"space again") == last + 1
    wal.close()
    assert len(data_of(log)) == last + 1


def wait_for(condition):
    """Wait for what a background thread does; pytest's own limit ends a hopeless wait."""
    while not condition():
        time.sleep(0.005)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_segment_that_cannot_be_made_poisons_nothing(wal, log, number):
    """Goal: a failed open, on the way to the next segment, takes no record and breaks nothing."""
    fail(_native._FAULT_OPEN, number)
    record = b"x" * 1000
    taken = 1
    with pytest.raises(walengine.WalError) as caught:
        for _ in range(2 * SEGMENT_BYTES // len(record)):
            wal.append(record)
            taken += 1
    assert not isinstance(caught.value, WalPoisonedError)
    assert caught.value.errno == number
    assert wal.last_lsn == taken
    _native._fault_clear()
    assert wal.append(record) == taken + 1
    wal.close()
    assert len(data_of(log)) == taken + 1
