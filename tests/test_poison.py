"""A failed write or sync poisons the writer: one error for all, nothing retried, reopen() heals."""

from __future__ import annotations

import contextlib
import errno
import threading

import pytest
from engines import config, current, put

from walengine import IoUringConfig, PortableWalWriter, Verdict, WalPoisonedError, _native, replay

pytestmark = pytest.mark.usefixtures("engine")

SMALL_BATCH = IoUringConfig(registered_buffers=1, buffer_size=4096)


@pytest.fixture(autouse=True)
def _faults_end():
    yield
    _native._fault_clear()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


@pytest.fixture
def poisoned(path):
    """A writer with record 1 durable and 2 to 4 (two of them staged) not; and its error."""
    wal = PortableWalWriter(path, config(SMALL_BATCH))
    wal.append(b"durable")
    wal.sync()
    put(wal, b"appended")
    wal.append_batched(b"staged")
    wal.append_batched(b"staged too")
    fail(_native._FAULT_SYNC)
    with pytest.raises(WalPoisonedError) as caught:
        wal.sync()
    _native._fault_clear()
    yield wal, caught.value
    with contextlib.suppress(WalPoisonedError):
        wal.close()


def fail(operation):
    _native._fault_set(operation, _native._FAULT_FAIL, errno.EIO)


def test_the_error_says_what_failed_and_what_may_be_lost(poisoned, path):
    _, error = poisoned
    assert error.errno == errno.EIO
    assert error.durable_lsn == 1
    assert error.lost == range(2, 5)
    assert error.path == str(path)
    for part in (str(path), "LSNs 2 to 4", "up to LSN 1 is durable", "reopen()"):
        assert part in str(error)


@pytest.mark.parametrize(
    "call",
    [
        lambda wal: wal.append(b"x"),
        lambda wal: wal.append_batched(b"x"),
        lambda wal: wal.append_batched(b""),
        lambda wal: wal.append_with_checksum(b"x"),
        lambda wal: wal.append_with_checksum_batched(b"x"),
        lambda wal: wal.flush_batch(),
        lambda wal: wal.sync(),
        lambda wal: wal.truncate_before(1),
        lambda wal: wal.close(),
    ],
)
def test_every_later_call_gets_the_same_error(poisoned, call):
    wal, error = poisoned
    with pytest.raises(WalPoisonedError) as caught:
        call(wal)
    assert caught.value is error


def test_the_tracebacks_of_the_one_error_do_not_pile_up(poisoned):
    wal, error = poisoned
    for _ in range(100):
        with pytest.raises(WalPoisonedError):
            wal.append_batched(b"x")
    depth = 0
    traceback = error.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert depth < 10


def test_what_was_staged_is_dropped(poisoned):
    wal, _ = poisoned
    assert (wal.pending_batch_ops(), wal.pending_batch_bytes()) == (0, 0)


def test_the_durable_lsn_stays(poisoned):
    wal, _ = poisoned
    assert wal.durable_lsn == 1
    assert wal.stats().durable_lsn == 1


def test_a_failed_sync_is_not_tried_again(poisoned):
    wal, _ = poisoned
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO)
    for _ in range(10):
        with pytest.raises(WalPoisonedError):
            wal.sync()
    # A step of the background that was under way when the first one failed may end with its own.
    assert _native._fault_count() <= 1


def test_a_failed_write_poisons(path):
    wal = PortableWalWriter(path, config(SMALL_BATCH))
    wal.append(b"x")
    fail(_native._FAULT_WRITE)
    with pytest.raises(WalPoisonedError) as caught:
        wal.append(b"lost")
    _native._fault_clear()
    assert caught.value.errno == errno.EIO
    # The failed append gave no LSN to anybody; a direct one had, and waited for its sync.
    assert caught.value.lost == (range(2, 3) if current().direct else range(1, 2))
    with pytest.raises(WalPoisonedError):
        wal.close()


def test_a_batch_that_cannot_be_written_poisons(path):
    """The records that C was handed before the failure and those behind it share one fate."""
    wal = PortableWalWriter(path, config())
    for i in range(1000):
        wal.append_batched(b"%04d" % i * 100)
    fail(_native._FAULT_WRITE)
    with pytest.raises(WalPoisonedError) as caught:
        wal.flush_batch()
    _native._fault_clear()
    assert caught.value.lost == range(1, 1001)
    with pytest.raises(WalPoisonedError):
        wal.close()


def test_closing_releases_the_log_all_the_same(poisoned, path):
    wal, error = poisoned
    with pytest.raises(WalPoisonedError) as caught:
        wal.close()
    assert caught.value is error
    wal.close()
    with PortableWalWriter(path, config()) as again:
        assert again.last_lsn >= 1


def test_the_error_of_the_block_is_not_replaced(path):
    with pytest.raises(WalPoisonedError) as caught, PortableWalWriter(path, config()) as wal:
        put(wal, b"x")
        fail(_native._FAULT_SYNC)
        wal.sync()
    assert not getattr(caught.value, "__notes__", [])


def test_another_error_of_the_block_gets_a_note(path):
    def work():
        with PortableWalWriter(path, config()) as wal:
            put(wal, b"x")
            fail(_native._FAULT_SYNC)
            raise KeyError

    with pytest.raises(KeyError) as caught:
        work()
    assert "closing the log failed too" in caught.value.__notes__[0]


def test_reopening_heals(poisoned, path):
    wal, _ = poisoned
    report = wal.reopen()
    assert report.last_lsn in (1, 2, 3, 4)
    assert wal.recovery_report is report
    lsn = wal.append(b"after")
    assert lsn == report.last_lsn + 1
    wal.sync()
    assert wal.durable_lsn == lsn
    assert [record.data for record in replay(path)][-1] == b"after"


def test_reopening_names_what_was_lost(poisoned):
    wal, _ = poisoned
    report = wal.reopen()
    assert report.lost == range(report.last_lsn + 1, 5)


def test_what_was_durable_survives_reopening(poisoned, path):
    wal, _ = poisoned
    wal.reopen()
    assert next(iter(replay(path))).data == b"durable"


def test_a_second_poisoning_is_a_second_error(poisoned):
    wal, error = poisoned
    wal.reopen()
    wal.append(b"again")
    put(wal, b"and again")
    fail(_native._FAULT_SYNC)
    with pytest.raises(WalPoisonedError) as caught:
        wal.sync()
    _native._fault_clear()
    assert caught.value is not error
    wal.reopen()
    wal.append(b"healed")
    wal.sync()


def test_a_reopening_that_fails_leaves_the_poison(poisoned):
    wal, error = poisoned
    fail(_native._FAULT_READ)
    with pytest.raises(OSError, match="EIO|Input/output|device"):
        wal.reopen()
    _native._fault_clear()
    with pytest.raises(WalPoisonedError) as caught:
        wal.append_batched(b"x")
    assert caught.value is error
    assert wal.reopen().verdict in (Verdict.UNSEALED, Verdict.TORN)


def test_a_commit_from_before_the_reopening_is_not_believed(poisoned):
    """Goal: an LSN that was given anew and is durable now says nothing about its first record."""
    wal, error = poisoned
    wal.reopen()
    for _ in range(10):
        wal.append(b"other")
    with pytest.raises(WalPoisonedError) as caught:
        wal._commit(3, None)
    assert caught.value is error


def test_an_lsn_that_a_reopening_under_way_has_dropped_is_poison(poisoned, monkeypatch):
    """C is sound again, and does not know the LSN; Python does not know yet what was cured."""
    wal, error = poisoned
    native, resume = wal._native, wal._resume
    real_commit = native.commit
    is_dropped, is_asked = threading.Event(), threading.Event()
    outcome = []

    def commit(lsn):
        is_asked.set()
        is_dropped.wait(20)
        real_commit(lsn + 100)

    def wait_for_the_commit(report):
        is_dropped.set()
        thread.join(0.3)  # it has its answer from C by then, and may not give it away yet
        resume(report)

    def ask():
        try:
            wal._commit(2, None)
        except Exception as met:  # noqa: BLE001 (looked at below)
            outcome.append(met)

    monkeypatch.setattr(native, "commit", commit)
    monkeypatch.setattr(wal, "_resume", wait_for_the_commit)
    thread = threading.Thread(target=ask)
    thread.start()
    assert is_asked.wait(20)
    wal.reopen()
    thread.join(20)
    assert outcome == [error]
    monkeypatch.undo()
    assert wal.append_durable(b"goes on") > 1
