"""What each status of the C core means to a user: the exception, and the next step."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from walengine import errors
from walengine.types import RecoveryReport

_STATUSES: dict[str, tuple[type[errors.WalError], str]] = {
    "WAL_E_POISONED": (
        errors.WalPoisonedError,
        "Check the device (kernel log), then call reopen() or open the log anew",
    ),
    "WAL_E_FULL": (
        errors.WalFullError,
        "Free space or trim the log; the writer stays usable and goes on then",
    ),
    "WAL_E_CORRUPT": (
        errors.WalCorruptionError,
        (
            "Keep a copy of the directory; 'walengine verify' names every damaged place, "
            "'walengine replay --salvage' writes what is whole"
        ),
    ),
    "WAL_E_LOCKED": (
        errors.LockedError,
        "Readers, such as replay(), need no lock",
    ),
    "WAL_E_CLOSED": (errors.WalClosedError, "Open the log anew"),
    "WAL_E_FORKED": (errors.ForkedError, "Open the log anew after the fork"),
    "WAL_E_TOO_LARGE": (
        errors.RecordTooLargeError,
        "Split what is appended at once, or raise that limit",
    ),
    "WAL_E_UNSUPPORTED_FORMAT": (
        errors.UnsupportedFormatError,
        "Use the version of walengine that wrote it, or a newer one",
    ),
    "WAL_E_UNSUPPORTED_FILESYSTEM": (
        errors.UnsupportedFilesystemError,
        "Put the log on a local filesystem: ext4, xfs or btrfs",
    ),
    "WAL_E_TRIMMED": (errors.TrimmedError, "Begin at first_lsn"),
    "WAL_E_LOG_TRUNCATED": (errors.LogTruncatedError, "Open a new reader"),
    "WAL_E_INVALID": (errors.WalError, "Compare the arguments with the log's"),
    "WAL_E_NOT_A_LOG": (
        errors.WalError,
        "One that does not exist yet is made by a writer",
    ),
    "WAL_E_UNSAFE": (
        errors.WalError,
        "Keep a log where its user alone writes, or accept others with allow_shared_dir=True",
    ),
    "WAL_E_NO_IO_URING": (
        errors.WalError,
        "Or use backend='auto' or 'pwrite', which keep the same promises",
    ),
    "WAL_E_NOT_FOUND": (
        errors.WalError,
        "Check the path; 'walengine append' makes a log, and so does a writer with create=True",
    ),
}

_OS_HINTS = {
    errno.EACCES: "Check the permissions of the directory and of the files in it",
    errno.EPERM: "Check the permissions of the directory and of the files in it",
    errno.ENOTDIR: "Give a path whose parents are directories",
    errno.ENOENT: "Create the parent directory first",
    errno.EROFS: "The filesystem is mounted read-only: remount it, or only read",
    errno.EMFILE: "Raise this process's limit of open files (ulimit -n)",
    errno.ENFILE: "Raise the system's limit of open files (sysctl fs.file-max)",
    errno.ENOSPC: "Free space on the filesystem",
    errno.EDQUOT: "Free space, or raise the quota",
    errno.ENOMEM: "Free memory, or write smaller records",
    errno.ENAMETOOLONG: "Give a shorter path",
    errno.ELOOP: "Give the path of the directory itself instead of a symbolic link",
}


class Statuses:
    """The exceptions of one binding: status numbers come from its constants.

    Args:
        constants: Object with the names of enum wal_status as attributes.
    """

    def __init__(self, constants: Any) -> None:
        self._known = {getattr(constants, name): what for name, what in _STATUSES.items()}

    def __contains__(self, code: int) -> bool:
        """Tell whether the code is a status of the core, not a negative errno."""
        return code in self._known

    def exception(
        self,
        code: int,
        message: str,
        path: str,
        *,
        segment: str | None,
        offset: int,
        lsn: int,
        os_error: int,
        report: RecoveryReport | None,
    ) -> errors.WalError:
        """Return the exception for a failed call: path, place and next step in its message."""
        kind, hint = self._known.get(code) or (errors.WalOSError, _os_hint(-code))
        facts: dict[str, Any] = {
            "path": path,
            "segment": segment,
            "offset": offset if segment else None,
            "lsn": lsn or None,
            "errno": os_error or (None if code in self else -code),
        }
        if kind is errors.WalCorruptionError:
            facts["report"] = report
        text = sentence(path, message, hint, segment, facts["offset"] or None, facts["lsn"])
        return kind(text, **facts)


def sentence(
    path: str,
    message: str,
    hint: str,
    segment: str | None = None,
    offset: int | None = None,
    lsn: int | None = None,
) -> str:
    """Return a message with the facts that it does not name itself, and the next step."""
    facts = []
    if segment is not None and segment not in message:
        facts.append(segment)
    if offset is not None and not _names(message, offset):
        facts.append(f"offset {offset}")
    if lsn is not None and not _names(message, lsn):
        facts.append(f"LSN {lsn}")
    place = f" ({', '.join(facts)})" if facts else ""
    return f"{path}: {message.rstrip('.')}{place}. {hint}."


def _names(message: str, number: int) -> bool:
    return re.search(rf"\b{number}\b", message) is not None


def _os_hint(number: int) -> str:
    default = f"Check the device and the kernel log ({os.strerror(number)})"
    return _OS_HINTS.get(number, default)
