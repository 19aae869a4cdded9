"""Readers and cursors of the C core."""

from __future__ import annotations

from typing import Any

from walengine import errors
from walengine._native import (
    RECOVERY_MODES,
    encoded,
    failure,
    ffi,
    lib,
    recovery_report,
    text_of,
)
from walengine.types import RecoveryMode, SegmentCheck, SegmentInfo

_NOT_FOUND: int = lib.WAL_E_NOT_FOUND

_readahead_next = lib.wal_readahead_next  # a look-up in lib costs 20 ns: bound once
_block_free = lib.wal_block_free

# A block: first LSN, how many records, their memory, how many bytes of it are records (the tables
# follow, see wal_cursor_take), is one of them their CRCs, the size of every record or None.
Block = tuple[int, int, memoryview, int, bool, "int | None"]


class NativeReader:
    """A C reader. Closing it leaves open cursors alone: they hold what they need."""

    def __init__(self, path: str, mode: RecoveryMode) -> None:
        name = encoded(path)
        self._path = path
        report = ffi.new("wal_report *")
        error = ffi.new("wal_error *")
        out = ffi.new("wal_reader **")
        code = lib.wal_reader_open(name, RECOVERY_MODES[mode], out, report, error)
        if code < 0:
            raise failure(code, error, path, recovery_report(report))
        self._handle = ffi.gc(out[0], lib.wal_reader_close)
        self.report = recovery_report(report)

    def segment(self, index: int) -> SegmentInfo:
        """Return what the reader knows about a segment of the chain, oldest first."""
        info = ffi.new("wal_segment_info *")
        code = lib.wal_reader_segment(self._handle, index, info)
        if code < 0:
            raise failure(code, ffi.new("wal_error *"), self._path)
        return SegmentInfo(
            segment=text_of(info.file),
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
            raise failure(code, error, self._path, self.report)
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
            message = f"{self._path}: {text_of(error.message) or 'no such record'}"
            return errors.LsnNotFoundError(message, path=self._path, lsn=error.lsn or None)
        return failure(code, error, self._path, self.report)


class NativeCursor:
    """A C cursor: blocks of records, forward."""

    def __init__(self, reader: NativeReader, handle: Any, from_lsn: int, to_lsn: int) -> None:
        self._reader = reader
        self._error = ffi.new("wal_error *")
        self._block = ffi.new("wal_block *")
        out = ffi.new("wal_readahead **")
        code = lib.wal_readahead_open(handle, from_lsn, to_lsn, out, self._error)
        if code < 0:
            raise reader.failure(code, self._error)
        # Cursor and reader may be garbage of one cycle, collected in any order: C counts them.
        self._handle = ffi.gc(out[0], lib.wal_readahead_close)

    def next_block(self) -> Block | None:
        """Return the records of the next block, or None at the end.

        The memory goes when the last view of it does; it outlives the cursor.
        """
        block = self._block
        code = _readahead_next(self._handle, block, self._error)
        if code < 0:
            raise self._reader.failure(code, self._error)
        if code == 0:
            return None
        owner = ffi.gc(block.data, _block_free)
        count, data_bytes, has_crcs = block.count, block.data_bytes, bool(block.crcs)
        size = (data_bytes + 7) // 8 * 8 + count * (16 if has_crcs else 12)
        memory = memoryview(ffi.buffer(owner, size)).toreadonly()
        same = block.length_min if block.length_min == block.length_max else None
        return block.first_lsn, count, memory, data_bytes, has_crcs, same
