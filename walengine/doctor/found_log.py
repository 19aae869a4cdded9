"""A log that is there already: its format, its owner, its end; only reads."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walengine.config import BLOCK_BYTES
from walengine.doctor.findings import Finding, Findings, size
from walengine.errors import WalError
from walengine.reader import WalReader, recover
from walengine.types import RecoveryReport, SegmentInfo, Verdict

HEADER = struct.Struct("<8sII")  # magic, CRC, format version: struct wal_disk_segment in format.h
MAGIC = b"WALENG1\0"


@dataclass(frozen=True, slots=True)
class FoundLog:
    """What reading a log came to.

    Attributes:
        report: Of recover(), or None.
        segments: Of the chain, oldest first; none where the chain is broken.
        format_version: Of the newest segment, or None.
        error: Why there is no report.
    """

    report: RecoveryReport | None
    segments: tuple[SegmentInfo, ...]
    format_version: int | None
    error: WalError | None

    @property
    def segment_bytes(self) -> int | None:
        """Size of the newest segment."""
        return self.segments[-1].file_bytes if self.segments else None


def read_log(path: Path) -> FoundLog:
    """Read what recovery reads; nothing is changed, and no lock is taken."""
    try:
        report = recover(path)
    except WalError as error:
        return FoundLog(None, (), _format_version(path, None), error)
    try:
        with WalReader(path) as reader:
            segments = reader.segments
    except WalError:  # damaged, or a writer moved on: the report stands
        segments = ()
    return FoundLog(report, segments, _format_version(path, report.segment), None)


def examine(found: FoundLog) -> list[Finding]:
    """Say what the log is, and what its next writer would find."""
    say = Findings("log")
    if found.report is None:
        say.problem(
            "end",
            f"the log cannot be read: {found.error}",
            "make it readable for this user, or see docs/DURABILITY.md",
            format_version=found.format_version,
        )
        return say.made
    _format(say, found, found.report)
    _end(say, found.report)
    return say.made


def _format(say: Findings, found: FoundLog, report: RecoveryReport) -> None:
    aligned = report.commit_alignment
    owner = f", made for the owner {report.owner!r}" if report.owner else ""
    version = "unknown" if found.format_version is None else found.format_version
    total = sum(segment.file_bytes for segment in found.segments)
    why = " (direct_io or strict_sectors)" if aligned == BLOCK_BYTES else ""
    count = "1 segment" if report.segments == 1 else f"{report.segments} segments"
    room = f" of {size(total)}{' together' if report.segments > 1 else ''}" if total else ""
    say.ok(
        "format",
        f"format {version}, commits aligned to {aligned} bytes{why}, {count}{room}{owner}",
        format_version=found.format_version,
        commit_alignment=aligned,
        owner=report.owner,
        log_uuid=report.log_uuid,
        segments=report.segments,
        segment_bytes=found.segment_bytes,
    )


def _end(say: Findings, report: RecoveryReport) -> None:
    facts: dict[str, Any] = {
        "verdict": report.verdict.value,
        "decision": report.decision,
        "first_lsn": report.first_lsn,
        "last_lsn": report.last_lsn,
        "dropped_records": report.dropped_records,
        "warnings": list(report.warnings),
    }
    span = f"LSNs {report.first_lsn:,} to {report.last_lsn:,}"
    if not report.records:
        span = "no records"
    if report.verdict is Verdict.CORRUPT:
        say.problem(
            "end",
            f"acknowledged data is damaged ({report.decision}) in {report.segment} at offset "
            f"{report.end_offset}",
            "walengine verify names every damaged place; restore a copy, or read with "
            "walengine replay --salvage (RecoveryMode.SALVAGE)",
            **facts,
        )
    elif report.verdict is Verdict.TORN:
        say.note(
            "end",
            f"the last writer was cut off in the middle of a write: {span} are whole, and the "
            f"next writer drops {report.dropped_records} records behind them that nobody was "
            "promised",
            **facts,
        )
    elif report.verdict is Verdict.UNSEALED:
        say.note("end", f"the log was not closed, or its writer is at work: {span}", **facts)
    else:
        say.ok("end", f"the log ends cleanly: {span}", **facts)


def _format_version(path: Path, segment: str | None) -> int | None:
    """Return the version in a segment's header, by default of the newest by name."""
    try:
        names = sorted(each.name for each in path.glob("wal-*.seg"))
        name = segment or (names[-1] if names else None)
        if name is None:
            return None
        with (path / name).open("rb") as file:
            magic, _, version = HEADER.unpack(file.read(HEADER.size))
    except (OSError, struct.error):
        return None
    return int(version) if magic == MAGIC else None
