"""What a producer counts besides the metrics that have names elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Numbers that only grow.

    Attributes:
        calls_accepted: produce() calls.
        calls_failed: Of those, the ones that failed after they were accepted.
        swaps: Attempts to append that reached the store, or may have.
        conflicts: Of those, the ones that somebody else won.
        append_errors: Of those, the ones that failed, and reads of the manifest that did.
        unclear_appends: Of the failed ones, those that may have happened.
        found_listed: Batches that turned out to be listed by an append of unclear outcome.
        maybe_doubled: Times that a batch was appended again though it may have been dequeued.
        upload_errors: Uploads that failed and were tried again.
        names_renewed: Uploads of a batch whose name had become too old.
        listed_late: Batches that were listed under a name that was too old by then.
        restored: Of those, the ones whose object was missing and was put again.
    """

    calls_accepted: int = 0
    calls_failed: int = 0
    swaps: int = 0
    conflicts: int = 0
    append_errors: int = 0
    unclear_appends: int = 0
    found_listed: int = 0
    maybe_doubled: int = 0
    upload_errors: int = 0
    names_renewed: int = 0
    listed_late: int = 0
    restored: int = 0

    def conflict_rate(self) -> float:
        """Return the share of swaps that somebody else won, in percent; 0.0 before the first."""
        return 100.0 * self.conflicts / self.swaps if self.swaps else 0.0
