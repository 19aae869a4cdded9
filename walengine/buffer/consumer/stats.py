"""What a consumer tells of itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from walengine.buffer.collector._background import Collector
from walengine.buffer.consumer._session import Session
from walengine.buffer.metrics import Metrics, MetricsSnapshot

__all__ = ["ConsumerStats"]


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A consumer as it was at one moment.

    Attributes:
        epoch: Its generation: it owns the manifest as long as the manifest has it.
        is_fenced: Whether a newer consumer is known to have taken over.
        next_sequence: The next sequence to be delivered.
        last_acked_sequence: The last one acked, None before the first.
        unacked: How many are delivered or skipped and not acked.
        queue_length: How many batches the newest manifest seen lists, acked ones that are not taken
            off yet included.
        collector_passes: How many passes of the collector have ended.
        warnings: Sentences about what is likely to be wrong around it.
        metrics: All counters, under OpenData's names.
    """

    epoch: int
    is_fenced: bool
    next_sequence: int
    last_acked_sequence: int | None
    unacked: int
    queue_length: int
    collector_passes: int
    warnings: tuple[str, ...]
    metrics: MetricsSnapshot

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return dataclasses.asdict(self)


def stats_of(
    session: Session, collector: Collector, warnings: list[str], metrics: Metrics
) -> ConsumerStats:
    """Put together what the parts of a consumer know."""
    problem = [f"collector: {collector.problem}"] if collector.problem else []
    progress = session.progress
    return ConsumerStats(
        epoch=session.epoch,
        is_fenced=session.is_fenced,
        next_sequence=progress.cursor,
        last_acked_sequence=None if progress.acked < 0 else progress.acked,
        unacked=progress.unacked,
        queue_length=session.queue_length,
        collector_passes=collector.passes,
        warnings=(*warnings, *problem),
        metrics=metrics.snapshot(),
    )


ConsumerStats.__module__ = "walengine.buffer"
