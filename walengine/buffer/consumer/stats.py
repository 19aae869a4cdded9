"""What a consumer tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from walengine.buffer.metrics import MetricsSnapshot

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


ConsumerStats.__module__ = "walengine.buffer"
