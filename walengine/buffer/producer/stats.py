"""What a producer tells about itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from walengine.buffer.metrics import MetricsSnapshot

if TYPE_CHECKING:
    from walengine.buffer.producer._pipeline import Pipeline

__all__ = ["ProducerStats", "stats_of"]


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """A producer at one moment; counters count since it was opened.

    Attributes:
        calls_accepted: produce() calls that returned a handle.
        calls_failed: Of those, the ones that failed later.
        calls_undecided: Of those, the ones that are neither durable nor failed.
        entries_undecided: Entries in them.
        buffered_bytes: Entries and metadata in them; ``max_buffered_bytes`` bounds it.
        buffered_inputs: Of them, the calls that no batch has taken; ``max_buffered_inputs`` bounds
            it.
        calls_waiting: Calls that wait for room.
        inflight_batches: Sealed batches that are not listed; ``max_inflight_batches`` bounds it.
        manifest_is_full: The next batch has no room in the manifest: the consumer is behind.
        manifest_bytes: Size of the manifest as it was last seen.
        queue_length: Batches in it.
        swaps: Attempts to append to the manifest.
        conflicts: Of those, the ones that somebody else won.
        conflict_rate: The share of those, in percent.
        append_errors: Reads and swaps of the manifest that failed and were tried again.
        unclear_appends: Swaps that may have happened.
        found_listed: Batches that turned out to be listed by one of those.
        maybe_doubled: Times that a batch was appended again though it may have been listed, and
            dequeued, before; sinks that keep identities drop the second.
        upload_errors: Uploads that failed and were tried again.
        names_renewed: Uploads of a batch whose name had become too old.
        listed_late: Batches listed under a name that was too old by then, and looked after.
        restored: Of those, the ones whose object was put again.
        warnings: Sentences about what should be looked at.
        metrics: What is exported, under OpenData's names.
    """

    calls_accepted: int
    calls_failed: int
    calls_undecided: int
    entries_undecided: int
    buffered_bytes: int
    buffered_inputs: int
    calls_waiting: int
    inflight_batches: int
    manifest_is_full: bool
    manifest_bytes: int
    queue_length: int
    swaps: int
    conflicts: int
    conflict_rate: float
    append_errors: int
    unclear_appends: int
    found_listed: int
    maybe_doubled: int
    upload_errors: int
    names_renewed: int
    listed_late: int
    restored: int
    warnings: tuple[str, ...]
    metrics: MetricsSnapshot

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return dataclasses.asdict(self)


def stats_of(pipeline: Pipeline, warnings: tuple[str, ...]) -> ProducerStats:
    """Return what an open, or closed, producer holds and has counted.

    Args:
        pipeline: Its.
        warnings: About its opening.
    """
    calls, entries = pipeline.held.count()
    latest = pipeline.queue.latest
    return ProducerStats(
        **dataclasses.asdict(pipeline.counters),
        conflict_rate=pipeline.counters.conflict_rate(),
        calls_undecided=calls,
        entries_undecided=entries,
        buffered_bytes=pipeline.room.bytes,
        buffered_inputs=pipeline.room.inputs,
        calls_waiting=pipeline.calls_waiting,
        inflight_batches=len(pipeline.held.line),
        manifest_is_full=pipeline.room.manifest_is_full,
        manifest_bytes=len(latest.manifest.data) if latest is not None else 0,
        queue_length=len(latest.manifest) if latest is not None else 0,
        warnings=warnings,
        metrics=pipeline.metrics.snapshot(),
    )


ProducerStats.__module__ = "walengine.buffer"
