"""Operations on files fail at random under four threads; whoever meets the poison reopens the log.

Goal: whatever fails, what a sync acknowledged stays, in its place, byte for byte; nobody hangs, and
the log that is left is whole.
"""

import contextlib
import errno
import random
import threading
import time

import pytest
from engines import config

import walengine
from walengine import PortableWalWriter, WalFullError, WalPoisonedError, _native, replay

THREADS = 4
FAULTS = 24

OPERATIONS = [_native._FAULT_WRITE, _native._FAULT_SYNC, _native._FAULT_ALL]
ERRORS = [errno.EIO, errno.ENOSPC, errno.ENOMEM]


class Load:
    """Threads that append, sync and reopen until they are stopped."""

    def __init__(self, wal):
        self.wal = wal
        self.acknowledged = {}  # LSN to data
        self.reopened = 0
        self.stopping = False
        self.problems = []
        self.reopening = threading.Lock()
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def work(self, name):
        turn = 0
        try:
            while not self.stopping:
                turn += 1
                self.append(b"%d.%d " % (name, turn) * (turn % 50 + 1))
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self.problems.append(error)

    def append(self, record):
        try:
            lsn = self.wal.append(record)
            self.wal.sync()
            self.acknowledged[lsn] = record
        except WalPoisonedError as error:
            with self.reopening:
                self.reopen_behind(error)
        except (WalFullError, walengine.WalOSError):
            pass  # nothing was taken

    def reopen_behind(self, error):
        """Reopen, unless another thread has done so since this error was raised."""
        with contextlib.suppress(walengine.WalError):  # the next fault may meet the reopening
            try:
                self.wal.append_batched(b"")
            except WalPoisonedError as now:
                if now is error:
                    self.wal.reopen()
                    self.reopened += 1

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a thread hangs"
        assert not self.problems, self.problems


@pytest.mark.parametrize("strict_sectors", [False, True], ids=["packed", "strict-sectors"])
def test_what_was_acknowledged_survives_failures(
    memory_path, engine, seed, scaled, count, strict_sectors
):
    """Method: every 20 ms one operation fails, once: a write, a sync, or any other."""
    log = memory_path / "log"
    rng = random.Random(seed)
    faults = 0
    wal = PortableWalWriter(log, config(segment_bytes=65536, strict_sectors=strict_sectors))
    load = Load(wal)
    for _ in range(scaled(FAULTS)):
        nth = rng.randrange(1, 30)
        error = rng.choice(ERRORS)
        operation = rng.choice(OPERATIONS)
        _native._fault_set(operation, _native._FAULT_FAIL, error, nth=nth, sticky=False)
        time.sleep(0.02)
        faults += _native._fault_hits()
    _native._fault_clear()
    load.stop()
    with contextlib.suppress(WalPoisonedError):
        wal.close()
    found = {record.lsn: record.data for record in replay(log)}
    assert sorted(found) == list(range(1, len(found) + 1))
    assert [lsn for lsn, data in load.acknowledged.items() if found.get(lsn) != data] == []
    assert load.reopened > 0
    shape = "strict sectors" if strict_sectors else "packed"
    count(f"failures, {shape}, {engine}", faults)
    count(f"reopenings, {shape}, {engine}", load.reopened)
    count(f"acknowledged between them, {shape}, {engine}", len(load.acknowledged))
