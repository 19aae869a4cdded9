"""The writer of the C core."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from walengine import errors
from walengine._native import (
    RECOVERY_MODES,
    STATUSES,
    apart,
    encoded,
    failure,
    ffi,
    lib,
    recovery_report,
    wait_flags,
)
from walengine._native_ring import BackendInfo, backend_info, set_options
from walengine._staging import Joined
from walengine.config import WalConfig
from walengine.types import LatencySummary, RecoveryReport

_CREATE: int = lib.WAL_CREATE
_SHARED_DIR: int = lib.WAL_SHARED_DIR
_RECORD_CRC: int = lib.WAL_RECORD_CRC
_DURABLE: int = lib.WAL_DURABLE
_LANE: int = lib.WAL_LANE
_ATOMIC: int = lib.WAL_ATOMIC
_AGAIN: int = lib.WAL_E_AGAIN
_POISONED: int = lib.WAL_E_POISONED

# A look-up in lib costs 20 ns: what is called per batch is bound once.
_append = lib.wal_writer_append
_append_batch = lib.wal_writer_append_batch
_from_buffer = ffi.from_buffer


class _Place(threading.local):
    """Where C puts the outcome of a call in a lane: one for each thread."""

    def __init__(self) -> None:
        self.lsn = ffi.new("uint64_t *")
        self.error = ffi.new("wal_error *")


_place = _Place()


class NativeWriter:
    """A C writer. append and append_joined are called by one thread at a time, all else by any.

    Appending with ``durable`` returns when the records are synced: C then writes and syncs them as
    one. Where that wait is interrupted, the records are handed over all the same.
    """

    def __init__(self, path: str, handle: Any) -> None:
        self._path = path
        self._handle = self.handle = handle
        self._error = ffi.new("wal_error *")
        self._lsn = ffi.new("uint64_t *")
        self._taken = ffi.new("uint32_t *")

    def append(self, record: bytes, crc: int | None, *, durable: bool) -> int:
        """Hand over one record by pointer; return its LSN."""
        flags = wait_flags() if crc is None else wait_flags() | _RECORD_CRC
        if durable:
            flags |= _DURABLE
        size = len(record)
        lsn = self._lsn
        while True:
            lsn[0] = 0
            code = _append(self._handle, record, size, crc or 0, flags, lsn, self._error)
            if code >= 0:
                return int(lsn[0])
            if code != _AGAIN:
                raise self.failed(code, self._error)
            if lsn[0]:
                return self._durable(lsn[0])

    def lanes(self, *, are_open: bool) -> int:
        """Let append_in_lane append, in any number of threads at once, or refuse it from now on.

        Returns:
            The last LSN; while lanes are closed it changes by append and append_joined only.
        """
        last = ffi.new("uint64_t *")
        flags = wait_flags()
        while lib.wal_writer_lanes(self._handle, are_open, flags, last) == _AGAIN:
            pass  # Python runs its signal handlers here
        return int(last[0])

    def append_in_lane(self, record: bytes, crc: int | None, *, durable: bool) -> tuple[int, bool]:
        """Hand over one record if lanes are open.

        Returns:
            Its LSN, 0 if it was not taken; and whether the call did all that was asked for. It did
            not where the lanes are closed, or the wait was interrupted.
        """
        flags = wait_flags()
        if flags:  # a signal handler may come by in the middle, and call this itself
            lsn, error = ffi.new("uint64_t *"), ffi.new("wal_error *")
        else:
            lsn, error = _place.lsn, _place.error
            lsn[0] = 0
        flags |= _LANE
        if durable:
            flags |= _DURABLE
        if crc is not None:
            flags |= _RECORD_CRC
        code = _append(self._handle, record, len(record), crc or 0, flags, lsn, error)
        if code < 0 and code != _AGAIN:
            raise self.failed(code, error)
        return lsn[0], code >= 0

    def append_joined(
        self,
        records: Sequence[bytes],
        crcs: Sequence[int] | None,
        *,
        durable: bool,
        atomic: bool = False,
    ) -> int:
        """Hand over records in one buffer; return the last LSN."""
        flags = wait_flags() if crcs is None else wait_flags() | _RECORD_CRC
        if durable:
            flags |= _DURABLE
        if atomic:
            flags |= _ATOMIC
        while True:
            code = self._append_batch(records, crcs, flags)
            if code >= 0:
                return int(self._lsn[0]) + len(records) - 1
            if code != _AGAIN:
                raise self.failed(code, self._error)
            taken = self._taken[0]
            if taken == len(records):
                return self._durable(self._lsn[0] + taken - 1)
            records = records[taken:]
            crcs = None if crcs is None else crcs[taken:]

    def _durable(self, lsn: int) -> int:
        """Wait for the sync of what was taken; return its LSN."""
        self.commit(lsn)
        return lsn

    def _append_batch(
        self, records: Sequence[bytes], crcs: Sequence[int] | None, flags: int
    ) -> int:
        joined = records if type(records) is Joined else Joined.of(records)
        # The arrays live until the call returns: the views hold them.
        sums = ffi.NULL if crcs is None else _from_buffer("uint32_t[]", array("I", crcs))
        code = _append_batch(
            self._handle,
            joined.data,
            _from_buffer("uint32_t[]", joined.lengths),
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

    def commit_within(self, lsn: int, seconds: float) -> None:
        """Make everything up to lsn durable.

        Raises:
            TimeoutError: It was not, so many seconds from now.
        """
        error = ffi.new("wal_error *")
        end_ns = monotonic_ns() + int(seconds * 1e9)
        while True:
            left_ns = max(0, end_ns - monotonic_ns())
            code = lib.wal_writer_commit_within(self._handle, lsn, left_ns, wait_flags(), error)
            if code >= 0:
                return
            if code != _AGAIN:
                raise self.failed(code, error)
            if left_ns == 0:
                raise TimeoutError(
                    f"{self._path}: LSN {lsn} was not durable within {seconds:g} s; it still may "
                    "become so: wait again"
                )

    def truncate_before(self, lsn: int) -> None:
        """Drop the records below lsn."""
        self._do(lib.wal_writer_truncate_before, lsn)

    def close(self) -> None:
        """Sync, seal and release."""
        self._do(lib.wal_writer_close)

    def _do(self, function: Callable[..., int], *arguments: Any) -> None:
        error = ffi.new("wal_error *")
        flags = wait_flags()
        while (code := function(self._handle, *arguments, flags, error)) == _AGAIN:
            pass  # Python runs its signal handlers here
        if code < 0:
            raise self.failed(code, error)

    def reopen(self) -> RecoveryReport:
        """Recover anew and go on."""
        error = ffi.new("wal_error *")
        report = ffi.new("wal_report *")
        handle = self._handle
        code = apart(lambda: int(lib.wal_writer_reopen(handle, report, error)))
        if code < 0:
            raise failure(code, error, self._path, recovery_report(report))
        return recovery_report(report)

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

    def record_bytes_max(self) -> int:
        """Return the size of the largest record taken; ``max_log_bytes`` may bound it, too."""
        return int(lib.wal_writer_record_bytes_max(self._handle))

    def backend(self) -> BackendInfo:
        """Return what the writer writes with."""
        info = ffi.new("wal_backend_info *")
        lib.wal_writer_backend(self._handle, info)
        return backend_info(info)

    def failed(self, code: int, error: Any) -> errors.WalError:
        """Return the exception; a failed system call that poisoned the writer is poison."""
        if code not in STATUSES and self.position().poisoned:
            error.os_error = error.os_error or -code
            code = _POISONED
        return failure(code, error, self._path)


def open_writer(path: str, config: WalConfig, provider: str) -> tuple[NativeWriter, RecoveryReport]:
    """Open the log for writing; recover it.

    Args:
        path: Directory of the log.
        config: How.
        provider: Of the ring: "auto", "liburing" or "builtin".
    """
    name = encoded(path)
    line = (config.owner or "").encode()
    owner_text = ffi.new("char[]", line)
    options = ffi.new("wal_options *")
    options.segment_bytes = config.segment_bytes
    options.record_bytes_max = config.max_record_bytes
    options.log_bytes_max = config.max_log_bytes or 0
    options.unsynced_bytes_max = config.unsynced_bytes_max
    options.recovery_mode = RECOVERY_MODES[config.recovery]
    options.commit_alignment = config.commit_alignment
    options.flags = (_CREATE if config.create else 0) | (
        _SHARED_DIR if config.allow_shared_dir else 0
    )
    options.owner_bytes = len(line)
    set_options(options.ring, config.io, config.backend, provider)
    report = ffi.new("wal_report *")
    error = ffi.new("wal_error *")

    def run() -> NativeWriter:
        options.owner = ffi.NULL if config.owner is None else owner_text
        out = ffi.new("wal_writer **")
        code = lib.wal_writer_open(name, options, out, report, error)
        if code < 0:
            raise failure(code, error, path, recovery_report(report))
        return NativeWriter(path, ffi.gc(out[0], lib.wal_writer_free))

    return apart(run), recovery_report(report)


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
