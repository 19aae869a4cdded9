"""Opening a writer's C side, what writers say in the log, and their counters as a snapshot."""

from __future__ import annotations

import dataclasses
import logging
from types import MappingProxyType
from typing import Any

from walengine._native import DIRECT_WRITE_WARNING
from walengine._native_ring import BackendInfo, ring_ops
from walengine._native_writer import NativeWriter, latency_summary, open_writer
from walengine.backend import chosen_ring, in_use
from walengine.config import WalConfig
from walengine.types import GroupSize, IoUringStatsSnapshot, Lsn, RecoveryReport, Verdict

log = logging.getLogger("walengine")

SLOW_SYNC_SECONDS = 1.0

_warned: set[tuple[str, str]] = set()


def open_native(path: str, config: WalConfig) -> tuple[NativeWriter, BackendInfo, RecoveryReport]:
    """Open the log at path as config says; recover it."""
    native, report = open_writer(path, config, chosen_ring(path, config.backend))
    return native, in_use(native.backend()), report


def log_recovery(path: str, report: RecoveryReport) -> None:
    """Say what recovery found; each warning about the place once a process."""
    for text in report.warnings:
        # That one is a fallback of the backend, which names it among its own.
        if text != DIRECT_WRITE_WARNING and (path, text) not in _warned:
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


def note_sync(path: str, seconds: float) -> None:
    """Say that a sync was slow."""
    if seconds > SLOW_SYNC_SECONDS:
        log.warning("%s: a sync took %.1f s", path, seconds)


def with_cost(report: RecoveryReport, expected: Lsn) -> RecoveryReport:
    """Return the report of a reopening with what it cost; expected is the last LSN given."""
    lost = range(report.last_lsn + 1, max(expected, report.last_lsn) + 1)
    return dataclasses.replace(report, lost=lost)


def snapshot(
    counters: Any,
    info: BackendInfo,
    *,
    pending_bytes: int,
    pending_ops: int,
    durable_lsn: Lsn,
    last_lsn: Lsn,
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
        sync_latency=latency_summary(counters.sync_latency),
        group_size=GroupSize(mean, counters.group_records_max),
        ring_ops=MappingProxyType(ring_ops(counters)),
        padding_bytes=counters.padding_bytes,
        pending_bytes=pending_bytes,
        pending_ops=pending_ops,
        durable_lsn=durable_lsn,
        last_lsn=last_lsn,
        segments=counters.segments,
        segments_recycled=counters.segments_recycled,
        preparation_failures=counters.preparation_failures,
        backend=info.backend,
        ring=info.ring,
        ring_version=info.ring_version,
        sq_entries=info.sq_entries,
        kernel_poll=info.kernel_poll,
        max_inflight=info.max_inflight,
        direct_io=info.direct_io,
        registered_buffers=info.registered_buffers,
        registered_files=info.registered_files,
        fallbacks=info.fallbacks,
    )
