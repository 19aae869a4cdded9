"""A file without an engine: ``os.write`` and ``os.fdatasync``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from contenders.base import RECORD_BYTES, Contender

BLOCK_BYTES = RECORD_BYTES << 12


class Plain(Contender):
    """What a program does that has no log: append to a file, sync, and go on.

    Options: O_APPEND; fdatasync, which write(2) and fdatasync(2) of the Linux manual pages name
    for this use. No checksum, no framing: records of one size back to back. Threads write and
    sync each for itself; the kernel orders the writes.
    """

    name = "os.write + fdatasync"

    def open(self, path: Path) -> None:
        """Open one file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._path = path / "records"
        self._fd = os.open(self._path, flags, 0o600)
        directory = os.open(path, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def put(self, record: bytes) -> None:
        """Write and sync."""
        self._write(record)

    def put_many(self, records: Sequence[bytes]) -> None:
        """Write all in one call, and sync."""
        self._write(b"".join(records))

    def _write(self, data: bytes) -> None:
        if os.write(self._fd, data) != len(data):
            raise OSError(f"{self._path}: a short write")
        os.fdatasync(self._fd)

    def scan(self) -> int:
        """Read blocks, and slice them."""
        count = 0
        with self._path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                for at in range(0, len(block), RECORD_BYTES):
                    _record = block[at : at + RECORD_BYTES]
                    count += 1
        return count
