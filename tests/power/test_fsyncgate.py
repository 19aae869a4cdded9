"""Block devices that fail writes and flushes: what the kernel says of it, and that logs survive it.

After a failed fdatasync the kernel has marked the pages clean. The second fdatasync returns 0, the
page cache shows the new data, and once it is dropped the old data comes back. So a sync that failed
must never be tried again, nothing may be acknowledged behind it, and recovery must not believe the
page cache.

Method: a real filesystem on a loop device, whose file is served by a FUSE filesystem that fails on
demand (faulty_device.py). A failed flush takes with it what was not flushed before, and is told
once.
"""

import contextlib
import errno
import os
import random
import threading

import pytest
from engines import ENGINES, config
from needs import needs_filesystem, needs_fuse
from places import faulty_disk
from session_child import content
from sessions import Server

import walengine
from walengine import PortableWalWriter, WalPoisonedError, replay

FILESYSTEMS = ["ext4", "xfs", "btrfs"]
FAULTS = {
    "write EIO": ("write", errno.EIO),
    "flush EIO": ("flush", errno.EIO),
    "write ENOSPC": ("write", errno.ENOSPC),
}
GIVEN_UP = {errno.EIO, errno.EROFS}
THREADS = 4
TURNS_MAX = 1000  # a device that fails is noticed long before
DURABLE_BEFORE = 20
BLOCK = 4096


@pytest.fixture(params=FILESYSTEMS)
def device(request, memory_path):
    """A mounted filesystem of this type on a device that can fail."""
    needs_filesystem(request.param)
    needs_fuse()
    with faulty_disk(memory_path, request.param) as made:
        yield made


@pytest.fixture(params=FAULTS)
def fault(request):
    return request.param


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


# ---- what the kernel does ------------------------------------------------------------------------


def outcome(function, *arguments):
    """What it returns, or the errno that it fails with."""
    try:
        return function(*arguments)
    except OSError as error:
        return error.errno


def test_the_kernel_tells_of_a_failed_sync_once(device, fault, count):
    """Goal: show what a log on this kernel has to live with, without any log.

    btrfs turns itself read-only when a flush, or a write of its own, fails: that is told for ever.
    """
    operation, number = FAULTS[fault]
    file = os.open(device.path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(file, b"A" * BLOCK * 16, 0)
        os.fsync(file)
        os.sync()
        device.fail(operation, number)
        os.pwrite(file, b"B" * BLOCK, 0)
        assert outcome(os.fdatasync, file) == number
        second = outcome(os.fdatasync, file)
        cached = os.pread(file, 1, 0)
        device.heal()
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        dropped = outcome(os.pread, file, 1, 0)
    finally:
        os.close(file)
    lies = (second, cached, dropped) == (None, b"B", b"A")
    count(f"second fdatasync is 0 and the data is gone, {device.path.name}, {fault}", int(lies))
    assert lies or device.path.name == "btrfs"
    device.power_up()
    assert (device.path / "file").read_bytes()[:1] == b"A" or not lies


# ---- what a log does -----------------------------------------------------------------------------


class Load:
    """Threads that append and sync until the writer is poisoned."""

    def __init__(self, wal):
        self.wal = wal
        self.tried = set()
        self.given = {}  # LSN to data
        self.acknowledged = {}  # the same of what was synced
        self.errors = []
        self.problems = []

    def append(self, data):
        self.tried.add(data)
        lsn = self.wal.append(data)
        self.given[lsn] = data
        self.wal.sync()
        self.acknowledged[lsn] = data

    def work(self, number):
        try:
            for turn in range(1, TURNS_MAX):
                self.append(b"%d.%d " % (number, turn) * (turn * 7 % 60 + 1))
        except WalPoisonedError as error:
            self.errors.append(error)
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self.problems.append(error)
        else:
            self.problems.append("the device failed, and no call said so")

    def until_poisoned(self):
        threads = [threading.Thread(target=self.work, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a thread hangs"
        assert not self.problems, self.problems
        return self.errors

    def check(self, log):
        """Everything acknowledged is there, nothing was invented; what is there."""
        found = {record.lsn: record.data for record in replay(log)}
        assert sorted(found) == list(range(1, len(found) + 1))
        assert [lsn for lsn, data in self.acknowledged.items() if found.get(lsn) != data] == []
        assert set(found.values()) <= self.tried
        assert len(set(found.values())) == len(found)
        assert all(self.given.get(lsn, data) == data for lsn, data in found.items())
        return found


def poisoned_by(device, wal, load, fault, nth):
    """Let the device fail under four threads; nothing is acknowledged behind it; the errno."""
    operation, number = FAULTS[fault]
    device.fail(operation, number, nth)
    errors = load.until_poisoned()
    first = errors[0]
    assert all(error is first for error in errors)
    durable = wal.durable_lsn
    assert max(load.acknowledged) <= durable == first.durable_lsn
    for _ in range(3):
        for call in (wal.sync, wal.flush_batch, lambda: wal.append(b"never")):
            with pytest.raises(WalPoisonedError) as caught:
                call()
            assert caught.value is first
    assert wal.durable_lsn == durable
    device.heal()
    with pytest.raises(WalPoisonedError):
        wal.sync()  # that the device is well again heals nothing
    assert wal.durable_lsn == durable
    return first.errno


def go_on_with_reopen(wal, load, server):
    """The same process; or the filesystem is read-only, and it stays poisoned."""
    try:
        wal.reopen()
    except walengine.WalError:
        with pytest.raises(WalPoisonedError):
            wal.append(b"never")
        return False
    load.append(b"after")
    return True


def go_on_in_a_new_process(wal, load, server):
    """A page cache that lies outlives the process that was lied to."""
    with pytest.raises(WalPoisonedError):
        wal.close()
    session = server.run(wal._path, mode="extend", count=2, close=True, may_fail=True)
    records = {lsn: content(ident) for lsn, ident in session.acks.durable.items()}
    if not records:
        return False  # the filesystem has shut down, or is read-only
    first = min(records)
    assert sorted(records) == [first, first + 1]
    load.given = {lsn: data for lsn, data in load.given.items() if lsn < first} | records
    load.acknowledged |= records
    load.tried |= set(records.values())
    return True


HEIRS = [go_on_with_reopen, go_on_in_a_new_process]


def test_a_log_survives_what_the_kernel_does(device, server, fault, engine, seed, count):
    """Goal: poisoned with the errno of the failure, and every acknowledged record is found.

    Method: every other case goes on with reopen(), the others in a new process; then the
    filesystem is mounted anew, which it needs after it turned read-only.
    """
    filesystem = device.path.name
    case = (
        FILESYSTEMS.index(filesystem) + list(FAULTS).index(fault) + list(ENGINES).index(engine.name)
    )
    log = device.path / "log"
    wal = PortableWalWriter(log, config(segment_bytes=1 << 20))
    load = Load(wal)
    try:
        for number in range(DURABLE_BEFORE):
            load.append(b"before %d" % number)
        told = poisoned_by(device, wal, load, fault, random.Random(seed).randrange(1, 5))
        healed = HEIRS[case % 2](wal, load, server)
    finally:
        with contextlib.suppress(walengine.WalError):
            wal.close()
    if healed:
        load.check(log)
    # A filesystem whose own writes failed answers in its own words, and goes on no more; btrfs
    # does so without giving up.
    in_its_own_words = not healed or filesystem == "btrfs"
    assert told in {FAULTS[fault][1], *(GIVEN_UP if in_its_own_words else ())}
    device.power_up()
    load.check(log)
    with PortableWalWriter(log, config(segment_bytes=1 << 20)) as wal:
        load.wal = wal
        load.append(b"mounted anew")
    load.check(log)
    count(f"failing devices survived, {engine}", 1)
    count(f"records acknowledged before them, {engine}", len(load.acknowledged))
