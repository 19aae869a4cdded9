"""What is accepted and undecided, wherever it is on its way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from walengine.buffer.producer._forming import Batch, Forming
from walengine.buffer.producer._input import Input, Limits
from walengine.buffer.producer._outcome import Outcome
from walengine.buffer.producer._verdict import Attempt

__all__ = ["Held"]


class Held:
    """The calls of a producer, from their acceptance to their decision.

    Args:
        limits: Of a batch.
        flush_size_bytes: At which a batch is full.

    Attributes:
        inbox: Calls that no batch has taken, in order.
        open_batch: The one that takes calls.
        line: Sealed batches that are not listed, in order.
        late: Batches that were listed under too old a name, and are looked after.
    """

    def __init__(self, limits: Limits, flush_size_bytes: int) -> None:
        self._limits = limits
        self._flush_size_bytes = flush_size_bytes
        self.inbox: deque[Input] = deque()
        self.line: deque[Batch] = deque()
        self.late: set[Batch] = set()
        self.open_batch = self.new_batch()

    def new_batch(self) -> Forming:
        """Open the next batch and return it."""
        self.open_batch = Forming(self._limits, self._flush_size_bytes)
        return self.open_batch

    def clear(self) -> None:
        """Forget everything that is not listed."""
        self.inbox.clear()
        self.line.clear()
        self.new_batch()

    def oldest_accepted_at(self) -> float | None:
        """Return when the oldest call that is not listed was accepted, by the loop's clock."""
        if self.line:
            return self.line[0].opened_at
        if self.open_batch:
            return self.open_batch.opened_at
        return self.inbox[0].accepted_at if self.inbox else None

    def last_outcomes(self) -> list[Outcome]:
        """Return outcomes that are decided when, and only when, those of all calls are."""
        groups = [each.outcomes for each in (*self.late, *self.line)]
        if self.open_batch:
            groups.append(self.open_batch.outcomes)
        return [outcomes[-1] for outcomes in groups] + [call.outcome for call in self.inbox]

    def count(self) -> tuple[int, int]:
        """Return how many calls there are, and how many entries in them; from any thread.

        What the loop changes is copied first, each in one step: a walk in Python would trip over
        it. Between two of the steps a call may move on, and count in both or in neither.
        """
        inbox, batches, opened = list(self.inbox), [*self.late, *self.line], self.open_batch
        calls = sum(len(each.outcomes) for each in batches) + len(opened.outcomes)
        entries = sum(each.entry_count for each in batches) + len(opened.entries)
        return calls + len(inbox), entries + sum(len(each.entries) for each in inbox)

    def split(self, attempts: Iterable[Attempt]) -> tuple[list[Outcome], list[Outcome]]:
        """Return the outcomes of what is certainly not listed, and of what may be.

        Args:
            attempts: Appends whose outcome is not known.
        """
        attempted = {location for attempt in attempts for location in attempt.locations}
        clear: list[Outcome] = []
        unclear: list[Outcome] = []
        for batch in self.line:
            is_unclear = batch.maybe_listed or not attempted.isdisjoint(batch.stamped_at)
            (unclear if is_unclear else clear).extend(batch.outcomes)
        clear += [*self.open_batch.outcomes, *(call.outcome for call in self.inbox)]
        return clear, unclear

    def newest_error(self) -> Exception | None:
        """Return the newest error of the oldest batch that has met one."""
        return next((batch.error for batch in self.line if batch.error is not None), None)
