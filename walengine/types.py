"""What walengine hands out: records, reports and statistics. All of it immutable."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

__all__ = [
    "GroupSize",
    "IoUringStatsSnapshot",
    "LatencySummary",
    "Record",
    "RecoveryMode",
    "RecoveryReport",
    "SegmentCheck",
    "SegmentInfo",
    "Verdict",
    "VerifyReport",
]

Lsn = int
LSN_MAX = 2**64 - 1
TIMEOUT_SECONDS_MAX = 10**9  # 30 years: more is no limit


def checked_lsn(name: str, lsn: Lsn) -> Lsn:
    """Return lsn if it can be the number of a record.

    Raises:
        TypeError: It is no int.
        ValueError: It is below 1 or has more than 64 bits.
    """
    if not isinstance(lsn, int) or isinstance(lsn, bool):
        raise TypeError(f"{name} must be an int, not {type(lsn).__name__}")
    if not 1 <= lsn <= LSN_MAX:
        raise ValueError(f"{name} must be from 1 to 2**64 - 1, not {lsn}")
    return lsn


def checked_timeout(timeout: float | None) -> float | None:
    """Return a time limit in seconds; None for no limit, which infinity is too.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds, not NaN")
    return None if timeout > TIMEOUT_SECONDS_MAX else max(0.0, timeout)


class _RecordFields(NamedTuple):
    lsn: Lsn
    data: bytes
    crc32c: int | None


class Record(tuple[Lsn, bytes, "int | None"]):
    """One record of the log: a tuple of lsn, data and crc32c, made from such a tuple.

    The obvious way is a NamedTuple. Its ``__new__`` is a Python function, which costs half of what
    reading a small record costs; a bare subclass of tuple is made in C. The field descriptors are
    the NamedTuple's own.

    Attributes:
        lsn: Record number, from 1.
        data: The bytes that were appended.
        crc32c: CRC32C that the appender stored beside them (``append_with_checksum``), or None.

    Example:
        >>> record = Record((7, b"entry", None))
        >>> record.lsn, record.data, record.crc32c
        (7, b'entry', None)
        >>> lsn, data, crc32c = record
    """

    __slots__ = ()
    __match_args__ = ("lsn", "data", "crc32c")

    if TYPE_CHECKING:
        lsn: Lsn
        data: bytes
        crc32c: int | None
    else:
        lsn = _RecordFields.lsn
        data = _RecordFields.data
        crc32c = _RecordFields.crc32c

    def __repr__(self) -> str:
        """Show the fields by name."""
        return f"Record(lsn={self.lsn}, data={self.data!r}, crc32c={self.crc32c})"


class RecoveryMode(Enum):
    """What to do about the end of a log that was not closed.

    POINT_IN_TIME drops a torn end and reports it; damage is an error. STRICT makes a torn end an
    error too. SALVAGE, for readers only, skips what is damaged and yields every valid frame.
    """

    POINT_IN_TIME = "point-in-time"
    STRICT = "strict"
    SALVAGE = "salvage"


class Verdict(StrEnum):
    """What the end of the log looks like."""

    NEW = "new"
    CLEAN = "clean"
    UNSEALED = "unsealed"
    TORN = "torn"
    CORRUPT = "corrupt"


class Report:
    """as_dict() for frozen dataclasses: values that JSON knows, under the fields' names."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Report):
        return value.as_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, range):
        return [value[0], value[-1]] if value else []
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value


@dataclasses.dataclass(frozen=True, slots=True)
class RecoveryReport(Report):
    """What opening, ``recover()`` or ``reopen()`` found at the end of the log.

    Attributes:
        verdict: new, clean, unsealed (killed, or at work), torn or corrupt.
        decision: Label of the case in the decision table (docs/DURABILITY.md).
        next_step: What the next append does: continue, new-segment or bypass. It says nothing where
            the verdict is corrupt (as_dict: None).
        warnings: What the operator should know about this filesystem or this log.
        first_lsn: Of the oldest record kept; ``last_lsn + 1`` in an empty log.
        last_lsn: Of the newest record kept.
        lost: LSNs that were given and do not exist any more; none of them had been acknowledged as
            durable. After a crash: as far as the dropped frames tell. as_dict: [first, last] or [].
        segments: Number of segments in the chain.
        segment: File name of the newest segment, or of the damaged one.
        segment_id: Its number.
        end_offset: Where the log ends in it, or where the damage begins.
        dropped_frames: Frames behind the end that were seen and dropped.
        dropped_records: Their records, as far as their headers tell.
        dropped_bytes: From the end to the last of them.
        evidence_offset: Corrupt: offset of the frame or fact that shows it; else 0 (as_dict: None).
        evidence_lsn: Corrupt: this LSN had been durable; else 0 (as_dict: None).
        bytes_scanned: Bytes read to find out.
        duration_us: Time it took, in microseconds.
        log_uuid: Identity of the log.
        owner: The owner line of META, or None.
        commit_alignment: Of the newest segment, in bytes.

    Example:
        >>> import walengine
        >>> with walengine.PortableWalWriter("wal.log") as wal:
        ...     lsn = wal.append(b"entry")
        >>> walengine.recover("wal.log").last_lsn
        1
    """

    verdict: Verdict
    decision: str
    next_step: str
    warnings: tuple[str, ...]
    first_lsn: Lsn
    last_lsn: Lsn
    lost: range
    segments: int
    segment: str
    segment_id: int
    end_offset: int
    dropped_frames: int
    dropped_records: int
    dropped_bytes: int
    evidence_offset: int
    evidence_lsn: Lsn
    bytes_scanned: int
    duration_us: int
    log_uuid: str
    owner: str | None
    commit_alignment: int

    @property
    def records(self) -> int:
        """Number of records kept."""
        return self.last_lsn - self.first_lsn + 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; None where a field says nothing here."""
        facts = Report.as_dict(self)
        if self.verdict is Verdict.CORRUPT:
            facts["next_step"] = None
        for name in ("evidence_offset", "evidence_lsn"):
            facts[name] = facts[name] or None
        return facts


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentInfo(Report):
    """One segment of the chain, as its header, START and end slot tell.

    Attributes:
        segment: File name.
        segment_id: Its number, never reused.
        base_lsn: Of the first record in it.
        last_lsn: Of the last record in it; ``base_lsn - 1`` where there is none.
        end_offset: Where its frames end, in bytes.
        file_bytes: Size of the file.
        created_us: Microseconds since 1970, UTC.
        commit_alignment: 8 or 4096.
        sealed: No frame will be added to it.
    """

    segment: str
    segment_id: int
    base_lsn: Lsn
    last_lsn: Lsn
    end_offset: int
    file_bytes: int
    created_us: int
    commit_alignment: int
    sealed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentCheck(Report):
    """What verification found in one segment.

    Attributes:
        segment: File name.
        segment_id: Its number.
        frames: Valid frames.
        records: Records in them.
        bytes: Bytes of those frames, headers and padding included.
        record_crcs: Records whose own CRC32C was checked.
        damaged_offset: Where the first damage begins, or None.
        damaged_lsn: The LSN expected there, or None.
    """

    segment: str
    segment_id: int
    frames: int
    records: int
    bytes: int
    record_crcs: int
    damaged_offset: int | None
    damaged_lsn: Lsn | None


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyReport(Report):
    """What ``verify()`` found: the end of the log, and every frame of every segment.

    Attributes:
        verdict: Of the whole log; corrupt where any frame is damaged.
        recovery: What recovery would find at the end.
        segments: One check per segment of the chain, oldest first.
        frames: Valid frames in all.
        records: Records in them.
        bytes: Bytes of those frames.
        record_crcs: Records whose own CRC32C was checked.
        duration_us: Time it took, in microseconds.

    Example:
        >>> import walengine
        >>> with walengine.PortableWalWriter("wal.log") as wal:
        ...     lsn = wal.append(b"entry")
        >>> walengine.verify("wal.log").ok
        True
    """

    verdict: Verdict
    recovery: RecoveryReport
    segments: tuple[SegmentCheck, ...]
    frames: int
    records: int
    bytes: int
    record_crcs: int
    duration_us: int

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged (a torn end is no damage)."""
        return self.verdict is not Verdict.CORRUPT

    @property
    def damaged(self) -> tuple[SegmentCheck, ...]:
        """The segments with damage in them."""
        return tuple(check for check in self.segments if check.damaged_offset is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class LatencySummary(Report):
    """Latencies of one kind of operation, in microseconds, each within 1/32."""

    count: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSize(Report):
    """Records made durable by one sync."""

    mean: float
    max: int


@dataclasses.dataclass(frozen=True, slots=True)
class IoUringStatsSnapshot(Report):
    """Counters of one writer since it was opened; the same names on either backend.

    Attributes:
        ops_submitted: I/O operations begun: ring entries, or system calls on pwrite.
        ops_completed: Of those, the ones that came back.
        bytes_written: Bytes handed to the operating system, zero-filling included.
        bytes_read: Bytes read, recovery included.
        cqe_overflows: Completions that found the ring's queue full; the kernel kept them aside.
        sq_dropped: Entries that the kernel refused as malformed.
        records_appended: Records handed over by this writer.
        records_durable: Of those, the synced ones.
        commits: Callers who asked for durability and got it.
        syncs: Syncs of the log's frames: group commits.
        sync_latency: How long those took.
        group_size: How many records each made durable.
        ring_ops: Ring entries by opcode: nop, fsync, write, write_fixed; and, counted among those,
            linked (to the entry behind them) and rwf_dsync (writes that sync their own bytes). All
            0 on pwrite.
        padding_bytes: Zeros written to fill blocks.
        pending_bytes: Staged, not yet handed over.
        pending_ops: Records staged.
        durable_lsn: Everything up to here is synced.
        last_lsn: Of the newest record, staged ones included.
        segments: In the chain.
        segments_recycled: Trimmed segments that were used again.
        preparation_failures: Segments that could not be prepared ahead of time.
        backend: "io_uring" or "pwrite".
        ring: Whose functions drive the ring: "liburing", "builtin", or None on pwrite.
        ring_version: Of liburing, such as "2.15"; else None.
        sq_entries: Submission entries of the ring; 0 on pwrite.
        kernel_poll: A kernel thread submits.
        max_inflight: Groups that can be at the device at once.
        direct_io: Writes go past the page cache.
        registered_buffers: Buffers pinned for the kernel; 0: plain memory.
        registered_files: Files that the ring knows; 0: none.
        fallbacks: Names of what was asked for and is not in use: io_uring, kernel_poll,
            registered_buffers, registered_files, direct_io, sq_entries, liburing.

    Example:
        >>> import walengine
        >>> with walengine.PortableWalWriter("wal.log") as wal:
        ...     lsn = wal.append(b"entry")
        ...     wal.stats().records_appended
        1
    """

    ops_submitted: int
    ops_completed: int
    bytes_written: int
    bytes_read: int
    cqe_overflows: int
    sq_dropped: int
    records_appended: int
    records_durable: int
    commits: int
    syncs: int
    sync_latency: LatencySummary
    group_size: GroupSize
    ring_ops: Mapping[str, int]
    padding_bytes: int
    pending_bytes: int
    pending_ops: int
    durable_lsn: Lsn
    last_lsn: Lsn
    segments: int
    segments_recycled: int
    preparation_failures: int
    backend: str
    ring: str | None
    ring_version: str | None
    sq_entries: int
    kernel_poll: bool
    max_inflight: int
    direct_io: bool
    registered_buffers: int
    registered_files: int
    fallbacks: tuple[str, ...]

    def in_flight(self) -> int:
        """Return the operations begun and not yet back."""
        return self.ops_submitted - self.ops_completed

    def completion_rate(self) -> float:
        """Return completed by submitted; 1.0 before the first operation."""
        return self.ops_completed / self.ops_submitted if self.ops_submitted else 1.0


for _name in __all__:
    globals()[_name].__module__ = "walengine"
