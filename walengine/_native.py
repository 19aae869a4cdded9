"""The C core in Python: what the modules beside it share, and the test seams.

Only this family touches the core: this module, which alone imports it, ``_native_writer``,
``_native_reader`` and ``_native_ring``. They make the calls and turn structs into Python objects.

Lifetime. A handle is freed when the last reference to it goes (``ffi.gc``), and a call in flight
holds one: so no close, by whatever thread, frees memory under a call. Closing is a call of its own
that C makes wait for the others; a closed handle stays valid and answers so.

Waits. Signals are handled by the main thread only, so only there a call is interruptible: C comes
back after at most 50 ms with "not done yet", Python runs its signal handlers, and the call is made
again. Opening and reopening have no such form; they run in a thread of their own, and the main
thread waits for that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from walengine import errors
from walengine._library import ffi, lib
from walengine._status import Statuses
from walengine.types import RecoveryMode, RecoveryReport, Verdict

__all__ = [
    "DIRECT_WRITE_WARNING",
    "INTERRUPTIBLE",
    "RECOVERY_MODES",
    "STATUSES",
    "apart",
    "encoded",
    "failure",
    "ffi",
    "lib",
    "recovery_report",
    "text_of",
    "wait_flags",
]

T = TypeVar("T")

INTERRUPTIBLE: int = lib.WAL_INTERRUPTIBLE

_get_ident = threading.get_ident

STATUSES = Statuses(lib)
RECOVERY_MODES = {
    RecoveryMode.POINT_IN_TIME: lib.WAL_RECOVERY_POINT_IN_TIME,
    RecoveryMode.STRICT: lib.WAL_RECOVERY_STRICT,
    RecoveryMode.SALVAGE: lib.WAL_RECOVERY_SALVAGE,
}
_VERDICTS = {
    lib.WAL_VERDICT_NEW: Verdict.NEW,
    lib.WAL_VERDICT_CLEAN: Verdict.CLEAN,
    lib.WAL_VERDICT_UNSEALED: Verdict.UNSEALED,
    lib.WAL_VERDICT_TORN: Verdict.TORN,
    lib.WAL_VERDICT_CORRUPT: Verdict.CORRUPT,
}
_CASES = {
    getattr(lib, name): name.removeprefix("WAL_CASE_").lower()
    for name in dir(lib)
    if name.startswith("WAL_CASE_")
}
_NEXT_STEPS = {
    lib.WAL_NEXT_CONTINUE: "continue",
    lib.WAL_NEXT_NEW_SEGMENT: "new-segment",
    lib.WAL_NEXT_BYPASS: "bypass",
}
DIRECT_WRITE_WARNING = "direct_io was asked for and is not used on this filesystem"
_WARNINGS = {
    lib.WAL_WARN_NOT_DURABLE_FS: "the filesystem is kept in memory: nothing survives power loss",
    lib.WAL_WARN_UNTESTED_FS: "the filesystem is not one that was tested (ext4, xfs, btrfs)",
    lib.WAL_WARN_META_SLOT: "one of META's two slots is damaged; the other one serves",
    lib.WAL_WARN_COW: "the filesystem refused NOCOW: a full disk may poison the writer",
    lib.WAL_WARN_DIRECT_READ: "no direct reads here: recovery dropped the page cache instead",
    lib.WAL_WARN_DIRECT_WRITE: DIRECT_WRITE_WARNING,
}


def failure(
    code: int, error: Any, path: str, report: RecoveryReport | None = None
) -> errors.WalError:
    """Return the exception for a failed call."""
    return STATUSES.exception(
        code,
        text_of(error.message) or text_of(lib.wal_status_text(code)),
        path,
        segment=text_of(error.file) or None,
        offset=error.offset,
        lsn=error.lsn,
        os_error=error.os_error,
        report=report,
    )


def text_of(chars: Any) -> str:
    return str(ffi.string(chars).decode("utf-8", "replace"))


def encoded(path: str) -> bytes:
    name = os.fsencode(path)
    if not name or b"\0" in name:
        raise ValueError("the path of a log must not be empty or hold a NUL")
    return name


# ---- waits ---------------------------------------------------------------------------------------

_main_thread: int | None = threading.main_thread().ident


def _after_fork_in_child() -> None:
    global _main_thread  # noqa: PLW0603 (a fact of the process, read on every call)
    _main_thread = threading.main_thread().ident


os.register_at_fork(after_in_child=_after_fork_in_child)


def wait_flags() -> int:
    """Return WAL_INTERRUPTIBLE where signals are handled."""
    return INTERRUPTIBLE if _get_ident() == _main_thread else 0


def apart(function: Callable[[], T]) -> T:
    """Run what C cannot interrupt so that Ctrl-C ends the wait for it.

    The thread of an abandoned call ends when the call does, and what it made is released with it.
    """
    if _get_ident() != _main_thread:
        return function()
    outcome: list[T] = []
    problem: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 (carried over to the caller's thread)
            problem.append(error)
        done.set()

    try:
        threading.Thread(target=run, name="walengine-open", daemon=True).start()
    except RuntimeError:  # no thread is to be had (RLIMIT_NPROC): rather a wait that nothing ends
        return function()
    done.wait()
    if problem:
        raise problem[0]
    return outcome[0]


# ---- structs as Python objects -------------------------------------------------------------------


def recovery_report(report: Any) -> RecoveryReport:
    uuid = bytes(ffi.buffer(report.log_uuid))
    owner = bytes(ffi.buffer(report.owner, report.owner_bytes)).decode("utf-8", "replace")
    return RecoveryReport(
        verdict=_VERDICTS[report.verdict],
        decision=_CASES[report.decision],
        next_step=_NEXT_STEPS[report.next_step],
        warnings=tuple(text for bit, text in _WARNINGS.items() if report.warnings & bit),
        first_lsn=report.first_lsn,
        last_lsn=report.last_lsn,
        lost=range(report.last_lsn + 1, report.last_lsn + 1 + report.dropped_records),
        segments=report.segments,
        segment=text_of(report.file),
        segment_id=report.segment_id,
        end_offset=report.end_offset,
        dropped_frames=report.dropped_frames,
        dropped_records=report.dropped_records,
        dropped_bytes=report.dropped_bytes,
        evidence_offset=report.evidence_offset,
        evidence_lsn=report.evidence_lsn,
        bytes_scanned=report.bytes_scanned,
        duration_us=report.duration_us,
        log_uuid=str(UUID(bytes=uuid)),
        owner=owner or None,
        commit_alignment=report.commit_alignment,
    )


# ---- test seams ----------------------------------------------------------------------------------

_FAULT_WRITE: int = lib.WAL_FAULT_WRITE
_FAULT_SYNC: int = lib.WAL_FAULT_SYNC
_FAULT_READ: int = lib.WAL_FAULT_READ
_FAULT_OPEN: int = lib.WAL_FAULT_OPEN
_FAULT_ALLOCATE: int = lib.WAL_FAULT_ALLOCATE
_FAULT_ALL: int = lib.WAL_FAULT_ALL
_FAULT_FAIL: int = lib.WAL_FAULT_FAIL
_FAULT_SHORT: int = lib.WAL_FAULT_SHORT
_FAULT_STALL: int = lib.WAL_FAULT_STALL
_FAULT_SKIP: int = lib.WAL_FAULT_SKIP
_FAULT_KILL: int = lib.WAL_FAULT_KILL

_fault_clear = lib.wal_fault_clear
_fault_count = lib.wal_fault_count
_fault_hits = lib.wal_fault_hits
_alloc_fail = lib.wal_alloc_fail
_open_files = lib.wal_open_files


def _fault_set(
    op_mask: int, effect: int, value: int = 0, *, nth: int = 1, sticky: bool = True
) -> None:
    """Make I/O operations of this process misbehave until _fault_clear()."""
    lib.wal_fault_set(op_mask, nth, int(sticky), effect, value)


def _fail_point_arm(name: str, nth: int = 1) -> None:
    """Kill this process when it passes a fail point for the nth time; "" disarms."""
    lib.wal_fail_point_arm(name.encode(), nth)


def _crc32c(data: bytes, crc: int = 0) -> int:
    """Return the core's CRC32C, to be compared with the package's."""
    return int(lib.wal_crc32c(crc, data, len(data)))
