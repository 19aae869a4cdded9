"""Opening a writer's C side, what it says in the log, and its counters as a snapshot."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import Any

from walengine import _native
from walengine.config import WalConfig
from walengine.types import GroupSize, IoUringStatsSnapshot, Lsn, RecoveryReport, Verdict

log = logging.getLogger("walengine")

_warned: set[tuple[str, str]] = set()


def open_native(path: str, config: WalConfig) -> tuple[_native.NativeWriter, RecoveryReport]:
    """Open the log at path as config says; recover it."""
    flags = _native.CREATE if config.create else 0
    if config.allow_shared_dir:
        flags |= _native.SHARED_DIR
    return _native.open_writer(
        path,
        segment_bytes=config.segment_bytes,
        record_bytes_max=config.max_record_bytes,
        log_bytes_max=config.max_log_bytes or 0,
        unsynced_bytes_max=config.unsynced_bytes_max,
        recovery_mode=config.recovery,
        commit_alignment=config.commit_alignment,
        flags=flags,
        owner=config.owner,
    )


def log_recovery(path: str, report: RecoveryReport) -> None:
    """Say what recovery found; each warning about the place once a process."""
    for text in report.warnings:
        if (path, text) not in _warned:
            _warned.add((path, text))
            log.warning("%s: %s", path, text)
    level = logging.WARNING if report.verdict is Verdict.TORN or report.lost else logging.INFO
    log.log(
        level,
        "%s: opened, %s (%s): LSNs %d to %d; dropped %d frames with %d records, %d bytes",
        path,
        report.verdict,
        report.decision,
        report.first_lsn,
        report.last_lsn,
        report.dropped_frames,
        report.dropped_records,
        report.dropped_bytes,
    )


def snapshot(
    counters: Any,
    *,
    pending_bytes: int,
    pending_ops: int,
    durable_lsn: Lsn,
    last_lsn: Lsn,
    backend: str,
) -> IoUringStatsSnapshot:
    """Return the C counters and the staging area's as one snapshot."""
    mean = counters.group_records / counters.syncs if counters.syncs else 0.0
    return IoUringStatsSnapshot(
        ops_submitted=counters.ops_submitted,
        ops_completed=counters.ops_completed,
        bytes_written=counters.bytes_written,
        bytes_read=counters.bytes_read,
        cqe_overflows=counters.cqe_overflows,
        sq_dropped=counters.sq_dropped,
        records_appended=counters.records_appended,
        records_durable=counters.records_durable,
        commits=counters.commits,
        syncs=counters.syncs,
        sync_latency=_native.latency_summary(counters.sync_latency),
        group_size=GroupSize(mean, counters.group_records_max),
        ring_ops=MappingProxyType({}),
        padding_bytes=counters.padding_bytes,
        pending_bytes=pending_bytes,
        pending_ops=pending_ops,
        durable_lsn=durable_lsn,
        last_lsn=last_lsn,
        segments=counters.segments,
        segments_recycled=counters.segments_recycled,
        preparation_failures=counters.preparation_failures,
        backend=backend,
        ring=None,
    )
