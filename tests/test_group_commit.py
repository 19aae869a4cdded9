"""append_durable, append_many and wait_durable, on every engine."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from engines import config

from walengine import (
    IoUringConfig,
    PortableWalWriter,
    RecordTooLargeError,
    WalPoisonedError,
    _native,
    replay,
)

THREADS = 16


def data_of(log):
    return [record.data for record in replay(log)]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def wal(engine, log):
    writer = PortableWalWriter(log, config())
    yield writer
    _native._fault_clear()
    with contextlib.suppress(WalPoisonedError):
        writer.close()


@pytest.fixture(autouse=True)
def _no_faults():
    yield
    _native._fault_clear()


# ---- append_durable ------------------------------------------------------------------------------


def test_it_is_durable_when_the_call_returns(wal):
    for i in range(1, 20):
        assert wal.append_durable(b"%d" % i) == i
        assert wal.durable_lsn == i
    assert wal.stats().syncs >= 19


def test_what_is_staged_goes_first(wal, log):
    wal.append_batched(b"first")
    assert wal.append_durable(bytearray(b"second")) == 2
    assert wal.durable_lsn == 2
    wal.close()
    assert data_of(log) == [b"first", b"second"]


def test_threads_share_syncs_and_each_finds_its_record(wal, log, scaled, count):
    each = scaled(200)
    found: dict[int, bytes] = {}

    def append(name):
        for i in range(each):
            record = b"%d %d" % (name, i)
            lsn = wal.append_durable(record)
            assert wal.durable_lsn >= lsn
            found[lsn] = record

    threads = [threading.Thread(target=append, args=(name,)) for name in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = wal.stats()
    wal.close()
    assert sorted(found) == list(range(1, THREADS * each + 1))
    assert data_of(log) == [found[lsn] for lsn in sorted(found)]
    assert stats.direct_io or stats.syncs < stats.records_durable
    count(f"records durable by {THREADS} threads", len(found))


def test_a_record_that_is_too_large_is_refused(engine, log):
    with PortableWalWriter(log, config(max_record_bytes=10)) as wal:
        with pytest.raises(RecordTooLargeError):
            wal.append_durable(b"x" * 11)
        assert wal.last_lsn == 0


def test_a_failed_sync_fails_every_waiter_with_one_error(wal):
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO, sticky=True)
    outcomes = []

    def append():
        try:
            outcomes.append(wal.append_durable(b"x"))
        except WalPoisonedError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=append) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == THREADS
    assert {type(outcome) for outcome in outcomes} == {WalPoisonedError}
    assert len(set(map(id, outcomes))) == 1
    assert wal.durable_lsn == 0


# ---- append_many ---------------------------------------------------------------------------------


def test_many_are_staged_and_have_their_lsns(wal, log):
    assert wal.append_many([b"a", bytearray(b"b"), memoryview(b"c")]) == range(1, 4)
    assert wal.pending_batch_ops() == 3
    assert wal.append_many(iter([b"d"])) == range(4, 5)
    assert wal.append_many([]) == range(5, 5)
    assert wal.durable_lsn == 0
    wal.flush_batch()
    assert wal.durable_lsn == 4
    wal.close()
    assert data_of(log) == [b"a", b"b", b"c", b"d"]


def test_many_durable_are_synced_with_what_was_staged(wal):
    wal.append_batched(b"before")
    assert wal.append_many([b"x"] * 1000, durable=True) == range(2, 1002)
    assert (wal.durable_lsn, wal.pending_batch_ops()) == (1001, 0)
    assert wal.append_many([], durable=True) == range(1002, 1002)


def test_a_full_batch_is_flushed(engine, log):
    io = IoUringConfig(registered_buffers=1, buffer_size=4096)
    with PortableWalWriter(log, config(io)) as wal:
        wal.append_many([b"x" * 1000] * 4)
        assert wal.pending_batch_bytes() == 4000
        wal.append_many([b"x" * 100])
        assert (wal.pending_batch_bytes(), wal.durable_lsn) == (0, 5)


@pytest.mark.parametrize("records", [b"record", bytearray(b"r"), "text", [b"a", "b"], [1], 7])
def test_what_is_no_list_of_records_is_refused_whole(wal, records):
    with pytest.raises(TypeError):
        wal.append_many(records, durable=True)
    assert wal.last_lsn == 0


@pytest.mark.parametrize("atomic", [False, True])
def test_one_record_too_large_refuses_all(engine, log, atomic):
    with PortableWalWriter(log, config(max_record_bytes=10)) as wal:
        with pytest.raises(RecordTooLargeError):
            wal.append_many([b"x", b"x" * 11], atomic=atomic)
        assert wal.last_lsn == 0


def test_atomic_groups_come_back_behind_what_was_staged(wal, log):
    wal.append_batched(b"before")
    assert wal.append_many([b"a", b"b"], atomic=True) == range(2, 4)
    group = [b"x" * 400_000] * 5  # more than one frame
    assert wal.append_many(group, atomic=True, durable=True) == range(4, 9)
    assert wal.durable_lsn == 8
    assert wal.append_many([], atomic=True) == range(9, 9)
    wal.close()
    assert data_of(log) == [b"before", b"a", b"b", *group]


GROUPS = """
import sys
from engines import config
from walengine import PortableWalWriter, _native
wal = PortableWalWriter(sys.argv[1], config())
wal.append_durable(b"begin")
_native._fault_set(_native._FAULT_WRITE | _native._FAULT_SYNC, _native._FAULT_KILL, 0,
                   nth=int(sys.argv[2]))
for group in range(int(sys.argv[3])):
    lsns = wal.append_many([b"%d" % group * 400_000] * 5, atomic=True, durable=True)
    print(lsns.stop - 1, flush=True)
print("end", flush=True)
"""


@pytest.mark.not_quick
def test_after_a_kill_a_group_is_there_or_not(engine, tmp_path, count, scaled):
    """Method: SIGKILL before the 1st, 2nd, ... write or sync, until none is left."""
    kills = 0
    for nth in range(1, 1000):
        log = tmp_path / str(nth)
        child = subprocess.run(
            [sys.executable, "-c", GROUPS, str(log), str(nth), str(scaled(1))],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        )
        told = child.stdout.split()
        if told[-1:] == ["end"]:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
        kills += 1
        found = data_of(log)
        acknowledged = int(told[-1]) if told else 1
        assert len(found) >= acknowledged
        assert len(found) % 5 == 1, "half a group"
        assert found == [b"begin", *(b"%d" % (i // 5) * 400_000 for i in range(len(found) - 1))]
    assert kills >= 2
    count(f"kills around atomic groups, {engine}", kills)


# ---- wait_durable --------------------------------------------------------------------------------


def test_waiting_hands_over_and_syncs(wal):
    wal.append_batched(b"a")
    wal.append_batched(b"b")
    wal.wait_durable(2)
    assert wal.durable_lsn == 2
    wal.wait_durable(1)
    wal.wait_durable(2, timeout=0)


@pytest.mark.parametrize("lsn", [2, 1000])
def test_an_lsn_that_was_not_given_is_refused(wal, lsn):
    wal.append(b"a")
    with pytest.raises(ValueError, match=f"LSN {lsn} was not given yet; the last one is 1"):
        wal.wait_durable(lsn)


def test_a_time_limit_ends_the_wait_and_changes_nothing(engine, log):
    with PortableWalWriter(log, config()) as wal:
        wal.append_batched(b"a")
        _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 60_000, sticky=True)
        with pytest.raises(TimeoutError, match="LSN 1 was not durable within 0.05 s"):
            wal.wait_durable(1, timeout=0.05)
        assert (wal.durable_lsn, wal.last_lsn) == (0, 1)
        _native._fault_clear()
        wal.wait_durable(1)
        assert wal.durable_lsn == 1


def test_a_thread_with_a_time_limit_gets_away_from_a_stuck_disk(engine, log):
    """Goal: a limit holds in a thread that no signal reaches, too."""
    outcomes = []

    def wait(wal):
        try:
            wal.wait_durable(1, timeout=0.02)
        except TimeoutError as error:
            outcomes.append(error)

    with PortableWalWriter(log, config()) as wal:
        wal.append_batched(b"a")
        _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 60_000, sticky=True)
        thread = threading.Thread(target=wait, args=(wal,))
        thread.start()
        thread.join(timeout=30)
        assert not thread.is_alive()
        _native._fault_clear()
    assert len(outcomes) == 1


def test_waiters_of_a_log_that_is_reopened_hear_of_it(wal):
    """Goal: an LSN that was given anew says nothing about the record that was meant."""
    wal.append_batched(b"a")
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO, sticky=True)
    with pytest.raises(WalPoisonedError) as caught:
        wal.wait_durable(1)
    with pytest.raises(WalPoisonedError) as again:
        wal.append_many([b"b"])
    assert again.value is caught.value
    _native._fault_clear()
    wal.reopen()
    assert wal.append_durable(b"c") == wal.last_lsn


@pytest.mark.parametrize(
    ("timeout", "error"), [("1", TypeError), (True, TypeError), (float("nan"), ValueError)]
)
def test_a_time_limit_that_is_none_is_refused(wal, timeout, error):
    wal.append_batched(b"staged")
    with pytest.raises(error, match="timeout must be a number of seconds"):
        wal.wait_durable(1, timeout=timeout)
    assert wal.pending_batch_ops() == 1
    wal.wait_durable(1, timeout=float("inf"))
    assert wal.durable_lsn == 1
