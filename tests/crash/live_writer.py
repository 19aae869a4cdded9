"""A writer that rotates, trims and recycles as fast as it can, until its standard input closes.

Arguments: the log, how many records a trim keeps, records per sync, whether strict_sectors is on.
Prints "ready", and at the end how many records it appended and segments it recycled.
"""

import logging
import sys
import threading

from walengine import PortableWalWriter, WalConfig

TRIM_EVERY = 3  # syncs


def content(lsn: int) -> bytes:
    """The record with this LSN: a reader knows what it must find."""
    return b"%d " % lsn * (lsn * 7919 % 60)


def write_group(wal: PortableWalWriter, first: int, count: int) -> None:
    for lsn in range(first, first + count):
        call = wal.append if lsn % 3 else wal.append_batched
        call(content(lsn))
    wal.flush_batch()


def main() -> None:
    logging.disable()
    path, kept, durable_every, strict_sectors = sys.argv[1:]
    config = WalConfig(segment_bytes=32768, strict_sectors=strict_sectors == "True")
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    with PortableWalWriter(path, config) as wal:
        write_group(wal, 1, int(kept))
        print("ready", flush=True)
        groups = 0
        while not stop.is_set():
            write_group(wal, wal.last_lsn + 1, int(durable_every))
            groups += 1
            if groups % TRIM_EVERY == 0:
                wal.truncate_before(wal.last_lsn - int(kept) + 1)
        print(wal.last_lsn, wal.stats().segments_recycled, flush=True)


if __name__ == "__main__":
    main()
