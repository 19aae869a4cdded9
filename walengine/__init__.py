"""A write-ahead log for programs that must not lose what they acknowledged.

Append records, make them durable, read them back after a crash::

    from walengine import PortableWalWriter, replay

    with PortableWalWriter("wal.log") as wal:   # a directory, made where there is none
        lsn = wal.append(b"entry1")             # handed to the OS: survives a killed process
        wal.append_batched(b"entry2")           # staged in memory
        wal.append_batched(b"entry3")
        wal.flush_batch()                       # all three are durable: survive power loss

    for record in replay("wal.log"):
        print(record.lsn, record.data, record.crc32c)

Linux and other POSIX systems; one machine, one writer per log, local filesystems.
"""

from walengine.aio import AsyncWalWriter
from walengine.backend import IoUringStatus, io_uring_status, is_io_uring_available
from walengine.batch import RecordBatch
from walengine.config import IoUringConfig, WalConfig
from walengine.errors import (
    ForkedError,
    LockedError,
    LogTruncatedError,
    LsnNotFoundError,
    RecordTooLargeError,
    TrimmedError,
    UnsupportedFilesystemError,
    UnsupportedFormatError,
    WalClosedError,
    WalCorruptionError,
    WalError,
    WalFullError,
    WalOSError,
    WalPoisonedError,
)
from walengine.reader import WalReader, recover, replay, verify
from walengine.types import (
    GroupSize,
    IoUringStatsSnapshot,
    LatencySummary,
    Record,
    RecoveryMode,
    RecoveryReport,
    SegmentCheck,
    SegmentInfo,
    Verdict,
    VerifyReport,
)
from walengine.writer import PortableWalWriter

__version__ = "0.1.0"

__all__ = [
    "AsyncWalWriter",
    "ForkedError",
    "GroupSize",
    "IoUringConfig",
    "IoUringStatsSnapshot",
    "IoUringStatus",
    "LatencySummary",
    "LockedError",
    "LogTruncatedError",
    "LsnNotFoundError",
    "PortableWalWriter",
    "Record",
    "RecordBatch",
    "RecordTooLargeError",
    "RecoveryMode",
    "RecoveryReport",
    "SegmentCheck",
    "SegmentInfo",
    "TrimmedError",
    "UnsupportedFilesystemError",
    "UnsupportedFormatError",
    "Verdict",
    "VerifyReport",
    "WalClosedError",
    "WalConfig",
    "WalCorruptionError",
    "WalError",
    "WalFullError",
    "WalOSError",
    "WalPoisonedError",
    "WalReader",
    "__version__",
    "io_uring_status",
    "is_io_uring_available",
    "recover",
    "replay",
    "verify",
]
