"""Every exception that walengine raises for an operating error.

The tree::

    Exception
    └── WalError                        the log at .path could not do what was asked
        ├── WalPoisonedError            a write or sync failed; .errno, .lost; only reopen() helps
        ├── WalFullError                no space; nothing of the call was taken
        ├── WalCorruptionError          acknowledged bytes are damaged or missing; .report
        ├── LockedError                 another writer has the log open
        ├── WalClosedError              the handle was closed
        ├── ForkedError                 the handle belongs to the parent process
        ├── RecordTooLargeError         the record exceeds max_record_bytes
        ├── UnsupportedFormatError      written by a version this one does not know
        ├── UnsupportedFilesystemError  the filesystem cannot keep the promises
        ├── TrimmedError                the LSN lies below the trim
        ├── LogTruncatedError           the log was rewound below the reader
        ├── WalOSError                  any other failed system call; also an OSError
        └── LsnNotFoundError            no such record (yet); also a LookupError

A wrong argument is a ``TypeError`` or a ``ValueError``: a mistake in the program, which no handler
of operating errors should swallow.

Two leaves are also something else, so that code which already handles that kind of failure goes on
doing so: ``WalOSError`` is an ``OSError`` (it has ``errno``; programs that write to disks catch
``OSError`` and look at it), ``LsnNotFoundError`` is a ``LookupError`` (asking for a record that is
not there is the same mistake as a missing key).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from walengine.types import RecoveryReport, VerifyReport

__all__ = [
    "ForkedError",
    "LockedError",
    "LogTruncatedError",
    "LsnNotFoundError",
    "RecordTooLargeError",
    "TrimmedError",
    "UnsupportedFilesystemError",
    "UnsupportedFormatError",
    "WalClosedError",
    "WalCorruptionError",
    "WalError",
    "WalFullError",
    "WalOSError",
    "WalPoisonedError",
]


class WalError(Exception):
    """The log could not do what was asked; base of the tree.

    Attributes:
        path: Directory of the log, where known.
        segment: File name of the segment concerned, where there is one.
        offset: Byte offset in that segment, where there is one.
        lsn: Record number concerned, where there is one.
        errno: Of the system call that failed, where one did.

    Example:
        >>> import walengine
        >>> try:
        ...     walengine.recover("no/such/log")
        ... except walengine.WalError as error:
        ...     error.path
        'no/such/log'
    """

    path: str | None
    segment: str | None
    offset: int | None
    lsn: int | None
    errno: int | None

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        segment: str | None = None,
        offset: int | None = None,
        lsn: int | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.path = path
        self.segment = segment
        self.offset = offset
        self.lsn = lsn
        self.errno = errno

    def _facts(self) -> dict[str, Any]:
        """Return the keyword arguments that make this error anew."""
        names = ("path", "segment", "offset", "lsn", "errno")
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with all facts: errors cross process pools."""
        return _rebuild, (type(self), self.args[0], self._facts())


def _rebuild(kind: type[WalError], message: str, facts: dict[str, Any]) -> WalError:
    return kind(message, **facts)


class WalPoisonedError(WalError):
    """A write or sync failed earlier: the writer refuses everything but reopen() and close().

    Every waiter and every later call gets this same object. Nothing is retried: after a failed sync
    the next one may report success though the data is gone.

    Attributes:
        errno: Of the write or sync that failed.
        durable_lsn: Everything up to here is synced and safe.
        lost: LSNs that were appended or staged and never became durable. They may or may not
            survive; ``reopen()`` tells.
    """

    def __init__(
        self, message: str, *, durable_lsn: int = 0, lost: range = range(0), **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.durable_lsn = durable_lsn
        self.lost = lost

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {"durable_lsn": self.durable_lsn, "lost": self.lost}


class WalFullError(WalError):
    """There is no space for the record; nothing of the call was taken and the writer goes on."""


class WalCorruptionError(WalError):
    """Bytes that had been acknowledged are damaged or missing.

    Attributes:
        report: What recovery or verification found, with the place of the damage.
    """

    def __init__(
        self, message: str, *, report: RecoveryReport | VerifyReport | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.report = report

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {"report": self.report}


class LockedError(WalError):
    """Another writer has the log open; the message names its process where that is known."""


class WalClosedError(WalError):
    """The writer or reader was closed."""


class ForkedError(WalError):
    """The handle belongs to the parent process: open the log anew in this one."""


class RecordTooLargeError(WalError):
    """The record exceeds ``max_record_bytes``; nothing was staged or written."""


class UnsupportedFormatError(WalError):
    """The log was written by a version of walengine that this one does not know."""


class UnsupportedFilesystemError(WalError):
    """The filesystem cannot keep the promises (NFS, for one)."""


class TrimmedError(WalError):
    """The record was dropped by truncate_before(), or while it was being read."""


class LogTruncatedError(WalError):
    """The log was rewound below the reader's position."""


class WalOSError(WalError, OSError):
    """A system call failed and the writer is still sound; ``errno`` says how."""

    @property
    def strerror(self) -> str:  # type: ignore[override]
        """Text of ``errno``; str() stays the whole message."""
        return os.strerror(self.errno or 0)


class LsnNotFoundError(WalError, LookupError):
    """The log has no record with this LSN (yet)."""


for _name in __all__:
    globals()[_name].__module__ = "walengine"
