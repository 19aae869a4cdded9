"""The only module that touches the C core: calls, waits, and its structs as Python objects.

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
from array import array
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, TypeVar
from uuid import UUID

from walengine import errors
from walengine._library import ffi, lib
from walengine._status import Statuses
from walengine.types import (
    LatencySummary,
    RecoveryMode,
    RecoveryReport,
    SegmentCheck,
    SegmentInfo,
    Verdict,
)

T = TypeVar("T")

CREATE: int = lib.WAL_CREATE
SHARED_DIR: int = lib.WAL_SHARED_DIR
_RECORD_CRC: int = lib.WAL_RECORD_CRC
_INTERRUPTIBLE: int = lib.WAL_INTERRUPTIBLE
_AGAIN: int = lib.WAL_E_AGAIN
_POISONED: int = lib.WAL_E_POISONED
_NOT_FOUND: int = lib.WAL_E_NOT_FOUND

# A look-up in lib costs 20 ns: what is called per batch or per block is bound once.
_append = lib.wal_writer_append
_append_batch = lib.wal_writer_append_batch
_cursor_next = lib.wal_cursor_next
_from_buffer = ffi.from_buffer
_get_ident = threading.get_ident

_STATUSES = Statuses(lib)
_RECOVERY_MODES = {
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
_WARNINGS = {
    lib.WAL_WARN_NOT_DURABLE_FS: "the filesystem is kept in memory: nothing survives power loss",
    lib.WAL_WARN_UNTESTED_FS: "the filesystem is not one that was tested (ext4, xfs, btrfs)",
    lib.WAL_WARN_META_SLOT: "one of META's two slots is damaged; the other one serves",
    lib.WAL_WARN_COW: "the filesystem refused NOCOW: a full disk may poison the writer",
    lib.WAL_WARN_DIRECT_READ: "no direct reads here: recovery dropped the page cache instead",
}


def _failure(
    code: int, error: Any, path: str, report: RecoveryReport | None = None
) -> errors.WalError:
    """Return the exception for a failed call."""
    return _STATUSES.exception(
        code,
        _text(error.message) or _text(lib.wal_status_text(code)),
        path,
        segment=_text(error.file) or None,
        offset=error.offset,
        lsn=error.lsn,
        os_error=error.os_error,
        report=report,
    )


def _text(chars: Any) -> str:
    return str(ffi.string(chars).decode("utf-8", "replace"))


def _encoded(path: str) -> bytes:
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


def _wait_flags() -> int:
    """Return WAL_INTERRUPTIBLE where signals are handled."""
    return _INTERRUPTIBLE if _get_ident() == _main_thread else 0


def _apart(function: Callable[[], T]) -> T:
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

    threading.Thread(target=run, name="walengine-open", daemon=True).start()
    done.wait()
    if problem:
        raise problem[0]
    return outcome[0]


# ---- the writer ----------------------------------------------------------------------------------


class NativeWriter:
    """A C writer. The append calls are made by one thread at a time, all others by any."""

    def __init__(self, path: str, handle: Any) -> None:
        self._path = path
        self._handle = handle
        self._error = ffi.new("wal_error *")
        self._lsn = ffi.new("uint64_t *")
        self._taken = ffi.new("uint32_t *")

    def append(self, record: bytes, crc: int | None) -> int:
        """Hand over one record by pointer; return its LSN."""
        flags = _wait_flags() if crc is None else _wait_flags() | _RECORD_CRC
        size = len(record)
        while True:
            code = _append(self._handle, record, size, crc or 0, flags, self._lsn, self._error)
            if code >= 0:
                return int(self._lsn[0])
            if code != _AGAIN:
                raise self._failed(code, self._error)

    def append_joined(self, records: Sequence[bytes], crcs: Sequence[int] | None) -> int:
        """Hand over small records in one buffer; return the last LSN."""
        flags = _wait_flags() if crcs is None else _wait_flags() | _RECORD_CRC
        while True:
            code = self._append_batch(records, crcs, flags)
            if code >= 0:
                return int(self._lsn[0]) + len(records) - 1
            if code != _AGAIN:
                raise self._failed(code, self._error)
            taken = self._taken[0]
            records = records[taken:]
            crcs = None if crcs is None else crcs[taken:]

    def _append_batch(
        self, records: Sequence[bytes], crcs: Sequence[int] | None, flags: int
    ) -> int:
        # The arrays live until the call returns: the views below hold them.
        lengths = _from_buffer("uint32_t[]", array("I", map(len, records)))
        sums = ffi.NULL if crcs is None else _from_buffer("uint32_t[]", array("I", crcs))
        code = _append_batch(
            self._handle,
            b"".join(records),
            lengths,
            sums,
            len(records),
            flags,
            self._lsn,
            self._taken,
            self._error,
        )
        return int(code)

    def commit(self, lsn: int) -> None:
        """Make everything up to lsn durable."""
        self._do(lib.wal_writer_commit, lsn)

    def truncate_before(self, lsn: int) -> None:
        """Drop the records below lsn."""
        self._do(lib.wal_writer_truncate_before, lsn)

    def close(self) -> None:
        """Sync, seal and release."""
        self._do(lib.wal_writer_close)

    def _do(self, function: Callable[..., int], *arguments: Any) -> None:
        error = ffi.new("wal_error *")
        flags = _wait_flags()
        while (code := function(self._handle, *arguments, flags, error)) == _AGAIN:
            pass  # Python runs its signal handlers here
        if code < 0:
            raise self._failed(code, error)

    def reopen(self) -> RecoveryReport:
        """Recover anew and go on."""
        error = ffi.new("wal_error *")
        report = ffi.new("wal_report *")
        handle = self._handle
        code = _apart(lambda: int(lib.wal_writer_reopen(handle, report, error)))
        if code < 0:
            raise _failure(code, error, self._path, _recovery_report(report))
        return _recovery_report(report)

    def abandon(self) -> None:
        """Leave the C writer to the end of the process: freeing it would wait for a stuck disk."""
        ffi.gc(self._handle, None)

    def position(self) -> Any:
        """Return the struct wal_position of this moment."""
        position = ffi.new("wal_position *")
        lib.wal_writer_position(self._handle, position)
        return position

    def stats(self) -> Any:
        """Return the struct wal_stats of this moment."""
        stats = ffi.new("wal_stats *")
        lib.wal_writer_stats(self._handle, stats)
        return stats

    def _failed(self, code: int, error: Any) -> errors.WalError:
        """Return the exception; a failed system call that poisoned the writer is poison."""
        if code not in _STATUSES and self.position().poisoned:
            error.os_error = error.os_error or -code
            code = _POISONED
        return _failure(code, error, self._path)


def open_writer(
    path: str,
    *,
    segment_bytes: int,
    record_bytes_max: int,
    log_bytes_max: int,
    unsynced_bytes_max: int,
    recovery_mode: RecoveryMode,
    commit_alignment: int,
    flags: int,
    owner: str | None,
) -> tuple[NativeWriter, RecoveryReport]:
    """Open the log for writing; recover it."""
    name = _encoded(path)
    line = (owner or "").encode()
    owner_text = ffi.new("char[]", line)
    options = ffi.new("wal_options *")
    options.segment_bytes = segment_bytes
    options.record_bytes_max = record_bytes_max
    options.log_bytes_max = log_bytes_max
    options.unsynced_bytes_max = unsynced_bytes_max
    options.recovery_mode = _RECOVERY_MODES[recovery_mode]
    options.commit_alignment = commit_alignment
    options.flags = flags
    options.owner_bytes = len(line)
    report = ffi.new("wal_report *")
    error = ffi.new("wal_error *")

    def run() -> NativeWriter:
        options.owner = ffi.NULL if owner is None else owner_text
        out = ffi.new("wal_writer **")
        code = lib.wal_writer_open(name, options, out, report, error)
        if code < 0:
            raise _failure(code, error, path, _recovery_report(report))
        return NativeWriter(path, ffi.gc(out[0], lib.wal_writer_free))

    return _apart(run), _recovery_report(report)


# ---- readers -------------------------------------------------------------------------------------

# What a block holds: first LSN, how many records, their bytes, their CRCs where they carry one.
Block = tuple[int, int, Iterator[bytes], "list[int] | None"]


class NativeReader:
    """A C reader. Closing it leaves open cursors alone: they hold what they need."""

    def __init__(self, path: str, mode: RecoveryMode) -> None:
        name = _encoded(path)
        self._path = path
        report = ffi.new("wal_report *")
        error = ffi.new("wal_error *")
        out = ffi.new("wal_reader **")
        code = lib.wal_reader_open(name, _RECOVERY_MODES[mode], out, report, error)
        if code < 0:
            raise _failure(code, error, path, _recovery_report(report))
        self._handle = ffi.gc(out[0], lib.wal_reader_close)
        self.report = _recovery_report(report)

    def segment(self, index: int) -> SegmentInfo:
        """Return what the reader knows about a segment of the chain, oldest first."""
        info = ffi.new("wal_segment_info *")
        code = lib.wal_reader_segment(self._handle, index, info)
        if code < 0:
            raise _failure(code, ffi.new("wal_error *"), self._path)
        return SegmentInfo(
            segment=_text(info.file),
            segment_id=info.segment_id,
            base_lsn=info.base_lsn,
            last_lsn=info.last_lsn,
            end_offset=info.end_offset,
            file_bytes=info.file_bytes,
            created_us=info.created_us,
            commit_alignment=info.commit_alignment,
            sealed=bool(info.sealed),
        )

    def check(self, index: int, info: SegmentInfo) -> SegmentCheck:
        """Check every frame of a segment."""
        check = ffi.new("wal_segment_check *")
        error = ffi.new("wal_error *")
        code = lib.wal_reader_verify(self._handle, index, check, error)
        if code < 0:
            raise _failure(code, error, self._path, self.report)
        return SegmentCheck(
            segment=info.segment,
            segment_id=info.segment_id,
            frames=check.frames,
            records=check.records,
            bytes=check.bytes,
            record_crcs=check.record_crcs,
            damaged_offset=check.damaged_offset if code else None,
            damaged_lsn=check.damaged_lsn if code else None,
        )

    def cursor(self, from_lsn: int, to_lsn: int) -> NativeCursor:
        """Return a cursor over from_lsn (0: the first) to to_lsn (0: the last)."""
        return NativeCursor(self, self._handle, from_lsn, to_lsn)

    def failure(self, code: int, error: Any) -> errors.WalError:
        """Return the exception for a failed call of one of the cursors."""
        if code == _NOT_FOUND:
            message = f"{self._path}: {_text(error.message) or 'no such record'}"
            return errors.LsnNotFoundError(message, path=self._path, lsn=error.lsn or None)
        return _failure(code, error, self._path, self.report)


class NativeCursor:
    """A C cursor: blocks of records, forward."""

    def __init__(self, reader: NativeReader, handle: Any, from_lsn: int, to_lsn: int) -> None:
        self._reader = reader
        self._error = ffi.new("wal_error *")
        self._block = ffi.new("wal_block *")
        out = ffi.new("wal_cursor **")
        code = lib.wal_cursor_open(handle, from_lsn, to_lsn, out, self._error)
        if code < 0:
            raise reader.failure(code, self._error)
        # Cursor and reader may be garbage of one cycle, collected in any order: C counts them.
        self._handle = ffi.gc(out[0], lib.wal_cursor_close)

    def next_block(self) -> Block | None:
        """Return the records of the next block, or None at the end.

        They stand back to back, and BytesIO.read cuts them off in C, one when it is asked for:
        measured at 145 ns a record of 256 bytes, Record included, where a list of slices takes
        205. What it reads is a copy, so a block outlives its cursor.
        """
        code = _cursor_next(self._handle, self._block, self._error)
        if code < 0:
            raise self._reader.failure(code, self._error)
        if code == 0:
            return None
        block, count = self._block, self._block.count
        data = _view(block.data, block.data_bytes)
        crcs = ffi.unpack(block.crcs, count) if block.crcs else None
        if count == 1:  # perhaps a large one: copied once
            return block.first_lsn, 1, iter((bytes(data),)), crcs
        lengths = array("I")
        lengths.frombytes(_view(block.lengths, 4 * count))
        return block.first_lsn, count, map(BytesIO(data).read, lengths), crcs


def _view(pointer: Any, size: int) -> Any:
    """Return memory of the core as a buffer; a null pointer goes with size 0."""
    return ffi.buffer(pointer, size) if size else b""


# ---- structs as Python objects -------------------------------------------------------------------


def _recovery_report(report: Any) -> RecoveryReport:
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
        segment=_text(report.file),
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


def latency_summary(latency: Any) -> LatencySummary:
    """Return a struct wal_latency as Python sees it."""
    return LatencySummary(
        latency.count,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
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
