"""Why a writer takes nothing, or not this record: the errors that both writers share."""

from __future__ import annotations

from walengine._status import sentence
from walengine.config import WalConfig
from walengine.errors import (
    ForkedError,
    RecordTooLargeError,
    WalClosedError,
    WalFullError,
    WalPoisonedError,
)
from walengine.types import Lsn


def forked(path: str) -> ForkedError:
    """Return the error of a handle that fork() copied."""
    message = "the writer belongs to the parent process"
    return ForkedError(sentence(path, message, "Open the log anew in this one"), path=path)


def closed(path: str) -> WalClosedError:
    """Return the error of a handle that was closed."""
    return WalClosedError(sentence(path, "the writer is closed", "Open the log anew"), path=path)


def too_large(path: str, size: int, config: WalConfig) -> RecordTooLargeError:
    """Return the error of a record of size bytes."""
    if size > config.max_record_bytes:
        message = f"a record of {size} bytes exceeds max_record_bytes={config.max_record_bytes}"
        hint = "Split the record or raise max_record_bytes"
    else:
        message = (
            f"a record of {size} bytes needs a segment of more than half of "
            f"max_log_bytes={config.max_log_bytes}"
        )
        hint = "Split the record or raise max_log_bytes"
    return RecordTooLargeError(sentence(path, message, hint), path=path)


def gone(error: WalFullError, count: int) -> WalFullError:
    """Return the error of a close that found no room for count staged records."""
    text = f"{error} {count} staged records were not written and are gone."
    return WalFullError(text, path=error.path, errno=error.errno)


def with_loss(error: WalPoisonedError, durable: Lsn, lost: range) -> WalPoisonedError:
    """Return the poison with the records that it may cost."""
    if lost:
        span = f"LSN {lost[0]}" if len(lost) == 1 else f"LSNs {lost[0]} to {lost[-1]}"
        loss = f"{span} may be lost"
    else:
        loss = "Nothing was lost"
    return WalPoisonedError(
        f"{error} {loss}; everything up to LSN {durable} is durable.",
        durable_lsn=durable,
        lost=lost,
        path=error.path,
        segment=error.segment,
        offset=error.offset,
        lsn=error.lsn,
        errno=error.errno,
    )
