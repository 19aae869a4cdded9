"""Reading a log: no lock, no write access, whole batches or one Record after the other.

The C side puts the records of a block back to back and hands over the memory; a chain of C
iterators cuts them off and makes the Records (batch.py). No bytecode runs for a single record: that
decides how fast a replay is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

from walengine._native_reader import NativeCursor, NativeReader
from walengine._status import sentence
from walengine.batch import RecordBatch
from walengine.errors import LsnNotFoundError, TrimmedError, WalClosedError, WalCorruptionError
from walengine.types import (
    Lsn,
    Record,
    RecoveryMode,
    RecoveryReport,
    SegmentInfo,
    Verdict,
    VerifyReport,
    checked_lsn,
)

__all__ = ["WalReader", "recover", "replay", "verify"]


class WalReader:
    """A look at a log as it is at this moment; a writer may be at work meanwhile.

    Args:
        path: Directory of the log.
        mode: What to do about a torn end and about damage; see RecoveryMode.

    Raises:
        WalError: There is no log at path, or it cannot be read.

    Example:
        >>> from walengine import PortableWalWriter, WalReader
        >>> with PortableWalWriter("wal.log") as wal:
        ...     lsns = [wal.append(b"entry1"), wal.append(b"entry2")]
        >>> with WalReader("wal.log") as reader:
        ...     reader.read(2).data
        b'entry2'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: RecoveryMode = RecoveryMode.POINT_IN_TIME,
    ) -> None:
        if not isinstance(mode, RecoveryMode):
            raise TypeError(f"mode must be a RecoveryMode, not {mode!r}")
        self._path = os.fsdecode(path)
        self._native: NativeReader | None = NativeReader(self._path, mode)
        self._report = self._native.report

    @property
    def path(self) -> Path:
        """Directory of the log."""
        return Path(self._path)

    @property
    def report(self) -> RecoveryReport:
        """What the end of the log looks like."""
        return self._report

    @property
    def first_lsn(self) -> Lsn:
        """Of the oldest record; that of the next one where there is none."""
        return self._report.first_lsn

    @property
    def last_lsn(self) -> Lsn:
        """Of the newest record that is whole."""
        return self._report.last_lsn

    @property
    def segments(self) -> tuple[SegmentInfo, ...]:
        """The segments of the chain, oldest first."""
        native = self.native()
        return tuple(native.segment(index) for index in range(self._report.segments))

    def read(self, lsn: Lsn) -> Record:
        """Return one record.

        Args:
            lsn: Its number.

        Raises:
            TrimmedError: It was dropped by ``truncate_before``.
            LsnNotFoundError: The log does not reach so far (also a LookupError).
            WalCorruptionError: It, or what stands before it in its segment, is damaged.
        """
        checked_lsn("lsn", lsn)
        for record in self.records(lsn, lsn):
            return record
        raise LsnNotFoundError(
            sentence(
                self._path,
                f"there is no record with LSN {lsn}, the last one is {self.last_lsn}",
                "Open a new reader to see what was written since",
            ),
            path=self._path,
            lsn=lsn,
        )

    def records(self, from_lsn: Lsn | None = None, to_lsn: Lsn | None = None) -> Iterator[Record]:
        """Yield records in order, every one before damage, then raise; a torn end just ends.

        Args:
            from_lsn: The first one; None: the oldest.
            to_lsn: The last one, itself included; None: the newest.

        Returns:
            An iterator; it stays valid when the reader is closed no longer than its current block.

        Raises:
            ValueError: An LSN is below 1.
            TrimmedError: from_lsn was dropped by ``truncate_before``.
            WalCorruptionError: By the iterator, at the damage, with the report.
        """
        return chain.from_iterable(self.batches(from_lsn, to_lsn))

    def batches(
        self, from_lsn: Lsn | None = None, to_lsn: Lsn | None = None
    ) -> Iterator[RecordBatch]:
        """Yield the records in order as batches of some hundred kilobytes, or of one large record.

        The way to read much: a batch costs about as much as a few records do. All else is as with
        ``records``: every frame is checked, and what stands before damage comes first.

        Args:
            from_lsn: The first record; None: the oldest.
            to_lsn: The last one, itself included; None: the newest.

        Returns:
            An iterator. Each batch owns its memory and outlives iterator and reader.

        Raises:
            ValueError: An LSN is below 1.
            TrimmedError: from_lsn was dropped by ``truncate_before``.
            WalCorruptionError: By the iterator, at the damage, with the report.

        Example:
            >>> from walengine import PortableWalWriter, WalReader
            >>> with PortableWalWriter("wal.log") as wal:
            ...     lsns = wal.append_many([b"%04d" % i for i in range(1000)], durable=True)
            >>> for batch in WalReader("wal.log").batches():
            ...     print(len(batch), sum(batch.lengths), bytes(batch.data[:8]))
            1000 4000 b'00000001'
        """
        native = self.native()
        if from_lsn is not None:
            checked_lsn("from_lsn", from_lsn)
            if from_lsn < self.first_lsn:
                raise self._trimmed(from_lsn)
        if to_lsn is not None:
            checked_lsn("to_lsn", to_lsn)
        begin = from_lsn or self.first_lsn
        if to_lsn is not None and to_lsn < begin:
            return iter(())
        return self._batches(native.cursor(from_lsn or 0, to_lsn or 0))

    def __iter__(self) -> Iterator[Record]:
        """Yield every record."""
        return self.records()

    def close(self) -> None:
        """Release the log; a second call does nothing."""
        self._native = None

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Show path and range."""
        state = "closed " if self._native is None else ""
        return f"<WalReader {self._path!r} {state}LSNs {self.first_lsn} to {self.last_lsn}>"

    def native(self) -> NativeReader:
        """Return the C side (internal).

        Raises:
            WalClosedError: The reader was closed.
        """
        if self._native is None:
            text = sentence(self._path, "the reader is closed", "Open a new one")
            raise WalClosedError(text, path=self._path)
        return self._native

    def _batches(self, cursor: NativeCursor) -> Iterator[RecordBatch]:
        """Yield the cursor's blocks; damage gets the report that describes it."""
        while True:
            self.native()
            try:
                block = cursor.next_block()
            except WalCorruptionError as error:
                error.report = self._damage(error)
                raise
            if block is None:
                return
            yield RecordBatch(block)

    def _damage(self, error: WalCorruptionError) -> RecoveryReport:
        """Return the report with the place where a cursor met damage."""
        if self._report.verdict is Verdict.CORRUPT or error.segment is None:
            return self._report
        return dataclasses.replace(
            self._report,
            verdict=Verdict.CORRUPT,
            decision="end_past",
            segment=error.segment,
            end_offset=error.offset or 0,
            evidence_lsn=self._report.last_lsn,
        )

    def _trimmed(self, lsn: Lsn) -> TrimmedError:
        message = f"LSN {lsn} was trimmed, the log begins at {self.first_lsn}"
        text = sentence(self._path, message, f"Begin at first_lsn, {self.first_lsn}")
        return TrimmedError(text, path=self._path, lsn=lsn)


def replay(
    path: str | os.PathLike[str],
    from_lsn: Lsn | None = None,
    to_lsn: Lsn | None = None,
    mode: RecoveryMode = RecoveryMode.POINT_IN_TIME,
) -> Iterator[Record]:
    """Yield the records of the log at path, as ``WalReader.records`` does.

    Args:
        path: Directory of the log.
        from_lsn: The first record; None: the oldest.
        to_lsn: The last record, itself included; None: the newest.
        mode: What to do about a torn end and about damage.

    Raises:
        WalError: There is no log at path, or it cannot be read.
        TrimmedError: from_lsn was dropped by ``truncate_before``.
        WalCorruptionError: By the iterator, at the damage.

    Example:
        >>> from walengine import PortableWalWriter, replay
        >>> with PortableWalWriter("wal.log") as wal:
        ...     lsn = wal.append(b"entry")
        >>> [(record.lsn, record.data) for record in replay("wal.log")]
        [(1, b'entry')]
    """
    return WalReader(path, mode).records(from_lsn, to_lsn)


def recover(path: str | os.PathLike[str]) -> RecoveryReport:
    """Tell what an open for writing would find and do at path; change nothing.

    Args:
        path: Directory of the log.

    Raises:
        WalError: There is no log at path, or it cannot be read.
    """
    with WalReader(path) as reader:
        return reader.report


def verify(path: str | os.PathLike[str], threads: int | None = None) -> VerifyReport:
    """Check every frame of the log at path, and every record's own CRC32C; change nothing.

    Args:
        path: Directory of the log.
        threads: Segments checked at a time; None: one per processor.

    Raises:
        TypeError: threads is no int.
        ValueError: threads is below 1.
        WalError: There is no log at path, or it cannot be read.
    """
    return check_log(path, threads, lambda _share: None)


def check_log(
    path: str | os.PathLike[str], threads: int | None, advance: Callable[[float], None]
) -> VerifyReport:
    """Verify, calling advance with each segment's share of the work when it is done."""
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool)):
        raise TypeError(f"threads must be an int or None, not {type(threads).__name__}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be from 1, not {threads}")
    begin = perf_counter()
    checks = []
    with WalReader(path) as reader:
        native = reader.native()
        segments = reader.segments
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for check in pool.map(native.check, range(len(segments)), segments):
                checks.append(check)
                advance(1 / len(segments))
        report = reader.report
    damaged = any(check.damaged_offset is not None for check in checks)
    return VerifyReport(
        verdict=Verdict.CORRUPT if damaged else report.verdict,
        recovery=report,
        segments=tuple(checks),
        frames=sum(check.frames for check in checks),
        records=sum(check.records for check in checks),
        bytes=sum(check.bytes for check in checks),
        record_crcs=sum(check.record_crcs for check in checks),
        duration_us=int((perf_counter() - begin) * 1e6),
    )


for _name in __all__:
    globals()[_name].__module__ = "walengine"
