"""A program that takes a ring through everything it does, for sanitizers to watch.

Run as: ring_workout.py DIRECTORY RING, with the extension that is to be watched first on the path.
It prints what it did; whatever is wrong with memory, the sanitizer prints.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path

from walengine import (
    IoUringConfig,
    PortableWalWriter,
    WalConfig,
    WalError,
    WalPoisonedError,
    _core,
    io_uring_status,
    replay,
)
from walengine._native import lib

EIO = 5
CQE = lib.WAL_FAULT_CQE_WRITE | lib.WAL_FAULT_CQE_SYNC
UNTIL_CLEARED = 10**9
SHAPES = {
    "buffered": IoUringConfig(registered_buffers=8),
    "small": IoUringConfig(sq_entries=2, max_inflight=2, registered_buffers=3, buffer_size=4096),
    "direct": IoUringConfig(direct_io=True, max_inflight=4, registered_buffers=8),
    "polled": IoUringConfig(kernel_poll=True, sq_poll_idle_ms=1, registered_buffers=8),
    "polled and direct": IoUringConfig(64, True, 1, 8, True, 5),
}
SIZES = (0, 1, 100, 4096, 20_000, 70_000, 300_000)
FAULTS = {
    "error": (lib.WAL_FAULT_FAIL, EIO),
    "interrupted": (lib.WAL_FAULT_FAIL, 4),
    "cancelled": (lib.WAL_FAULT_FAIL, 125),
    "short": (lib.WAL_FAULT_SHORT, 700),
    "late": (lib.WAL_FAULT_STALL, 5),
}


def open_ring(path: Path, io: IoUringConfig) -> PortableWalWriter:
    config = WalConfig(io=io, backend="io_uring", segment_bytes=256 * 1024)
    return PortableWalWriter(path, config)


def every_request(path: Path, io: IoUringConfig) -> None:
    """Every kind of request, by several threads too; rotation, trimming, reopening."""
    count = 0
    with open_ring(path, io) as wal:
        assert wal.stats().ring == sys.argv[2]
        for size in SIZES:
            wal.append(bytes(size))
            wal.append_batched(bytes(size))
            wal.append_with_checksum_batched(bytes(size))
            wal.flush_batch()
            wal.append_with_checksum(bytes(size))
            count += 4
        wal.sync()

        def work() -> None:
            for size in SIZES[:-1]:
                wal.append_batched(bytes(size))
                wal.flush_batch()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        count += 3 * len(SIZES[:-1])
        assert wal.last_lsn == wal.durable_lsn == count
        wal.truncate_before(count // 2)
        wal.reopen()
        wal.append(b"behind it")
    assert sum(1 for _ in replay(path)) == count + 1 - (count // 2 - 1)


def faulty(path: Path, io: IoUringConfig, mask: int, effect: int, value: int) -> bool:
    """The same fault at the first, the second and every completion; whether any poisoned."""
    poisoned = False
    for nth, sticky in ((1, 0), (2, 0), (1, 1)):
        # The filler syncs too, and what its sync meets may poison as late as the close.
        try:
            with open_ring(path, io) as wal:
                poisoned |= one_fault(wal, (mask, nth, sticky, effect, value))
        except WalPoisonedError:
            poisoned = True
    return poisoned


def one_fault(wal: PortableWalWriter, rule: tuple[int, ...]) -> bool:
    poisoned = False
    wal.append_batched(b"good")
    wal.flush_batch()
    lib.wal_fault_set(*rule)
    try:
        for size in (10, 30_000):
            wal.append_batched(bytes(size))
            wal.flush_batch()
    except WalPoisonedError:
        poisoned = True
        lib.wal_fault_clear()
        wal.reopen()
    finally:
        lib.wal_fault_clear()
    wal.append(b"and on")
    wal.sync()
    return poisoned


def forked(path: Path, io: IoUringConfig) -> None:
    """Fork with requests in flight; the child frees what it can and ends in the ordinary way."""
    wal = open_ring(path, io)
    wal.append(b"before")
    lib.wal_fault_set(CQE, 1, 1, lib.WAL_FAULT_STALL, UNTIL_CLEARED)
    thread = threading.Thread(target=wal.append_batched, args=(bytes(wal.max_batch_bytes()),))
    thread.start()
    while lib.wal_fault_hits() == 0:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        lib.wal_fault_clear()
        with contextlib.suppress(WalError):
            wal.append(b"x")
        del wal
        with open_ring(path.with_name(path.name + " of the child"), io) as own:
            own.append(b"mine")
            own.sync()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lib.wal_fault_clear()
    thread.join()
    wal.close()


def closed_in_flight(path: Path, io: IoUringConfig) -> None:
    """Let a writer go, and close one, with requests at a device that is late."""
    for by_close in (False, True):
        wal = open_ring(path, io)
        wal.append(b"before")
        lib.wal_fault_set(CQE, 1, 1, lib.WAL_FAULT_STALL, 40)
        threads = [threading.Thread(target=wal.append, args=(bytes(50_000),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        while lib.wal_fault_count() == 0 and any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
        if by_close:
            try:
                wal.close()
            except WalError as error:
                print("closing:", error)
        for thread in threads:
            thread.join()
        lib.wal_fault_clear()
        wal.close()


def main() -> None:
    base, ring = Path(sys.argv[1]), sys.argv[2]
    logging.getLogger("walengine").setLevel(logging.CRITICAL)
    # A thread that finds the writer closed is no surprise here.
    threading.excepthook = lambda problem: print("thread:", problem.exc_type.__name__)
    print("extension", _core.__file__)
    assert io_uring_status().ring == ring
    poisoned = 0
    for name, io in SHAPES.items():
        every_request(base / f"{name}, requests", io)
        forked(base / f"{name}, forked", io)
        closed_in_flight(base / f"{name}, closed", io)
        for fault, (effect, value) in FAULTS.items():
            for mask in (lib.WAL_FAULT_CQE_WRITE, lib.WAL_FAULT_CQE_SYNC):
                poisoned += faulty(base / f"{name}, {fault}, {mask}", io, mask, effect, value)
        print("done", name)
    print("poisoned", poisoned)
    assert lib.wal_open_files() == 0


main()
