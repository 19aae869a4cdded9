"""The open batch, and what it is once it is sealed.

The open batch takes whole calls; one call is never split over two batches, since it is one item of
metadata. It is sealed when it exceeds the flush size, when the next call would not fit, or when it
is old enough; the last is the pipeline's business, which has the clock.
"""

from __future__ import annotations

from typing import Final

from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.location import BatchName
from walengine.buffer.producer._input import Input, Limits
from walengine.buffer.producer._outcome import Outcome

__all__ = ["LISTING_HEAD_BYTES", "Batch", "Forming"]

LISTING_HEAD_BYTES: Final = 4 + 8 + 2 + 4
"""Of an entry in the manifest, besides its location and metadata."""

ENTRIES_MAX = (1 << 32) - 1


class Batch:
    """A sealed batch, until it is durable or has failed.

    Attributes:
        identity: What tells it from every other, over all of its uploads.
        entries: What is in it; empty once it is encoded.
        data: The object's bytes, once it is encoded.
        metadata: One item for each call.
        outcomes: One for each call.
        entry_count: How many entries it has.
        size_bytes: Of entries and metadata.
        listing_bytes: Of the metadata in the manifest.
        opened_at: When its oldest call was accepted, by the loop's clock.
        sealed_at: When it was sealed.
        name: Under which it is stored and may be listed; None while it is not.
        stamped_at: When each of its names was stamped, by the loop's clock: locations and times.
        maybe_listed: An append may have happened of which no trace is left.
        error: The newest failure, for messages.
    """

    __slots__ = (
        "data",
        "entries",
        "entry_count",
        "error",
        "identity",
        "listing_bytes",
        "maybe_listed",
        "metadata",
        "name",
        "opened_at",
        "outcomes",
        "sealed_at",
        "size_bytes",
        "stamped_at",
    )

    def __init__(self, forming: Forming, identity: str, sealed_at: float) -> None:
        self.identity = identity
        self.entries = forming.entries
        self.data: bytes | None = None
        self.metadata = forming.metadata
        self.outcomes = forming.outcomes
        self.entry_count = len(forming.entries)
        self.size_bytes = forming.size_bytes
        self.listing_bytes = forming.listing_bytes
        self.opened_at = forming.opened_at
        self.sealed_at = sealed_at
        self.name: BatchName | None = None
        self.stamped_at: dict[str, float] = {}
        self.maybe_listed = False
        self.error: Exception | None = None

    @property
    def is_stored(self) -> bool:
        """Whether its object is in the store, under a name that may be listed."""
        return self.name is not None

    def listing(self) -> Listing:
        """Return what the manifest is to say of it; it must be stored."""
        assert self.name is not None  # noqa: S101 (asked of stored batches only)
        return Listing(self.name.location, self.metadata)

    def manifest_bytes(self) -> int:
        """Return how many bytes its entry takes in the manifest; it must be stored."""
        assert self.name is not None  # noqa: S101
        return LISTING_HEAD_BYTES + len(self.name.location) + self.listing_bytes


class Forming:
    """The batch that takes calls.

    Args:
        limits: Of a batch.
        flush_size_bytes: It is full when entries and metadata have more.

    Attributes:
        entries, metadata, outcomes: Of the calls taken, in order.
        size_bytes: Of entries and metadata.
        opened_at: When its first call was accepted.
        first_number: Of that call.
    """

    __slots__ = (
        "_block_bytes",
        "_flush_size_bytes",
        "_limits",
        "entries",
        "first_number",
        "listing_bytes",
        "metadata",
        "opened_at",
        "outcomes",
        "size_bytes",
    )

    def __init__(self, limits: Limits, flush_size_bytes: int) -> None:
        self._limits = limits
        self._flush_size_bytes = flush_size_bytes
        self._block_bytes = 0
        self.entries: list[bytes] = []
        self.metadata: list[Metadata] = []
        self.outcomes: list[Outcome] = []
        self.size_bytes = 0
        self.listing_bytes = 0
        self.opened_at = 0.0
        self.first_number = 0

    def __bool__(self) -> bool:
        """Whether it has anything."""
        return bool(self.entries)

    @property
    def is_full(self) -> bool:
        """Whether it exceeds the flush size."""
        return self.size_bytes > self._flush_size_bytes

    def takes(self, call: Input) -> bool:
        """Tell whether the call has a place in this batch; in an empty one every call has."""
        if not self.entries:
            return True
        limits = self._limits
        return (
            self.size_bytes <= self._flush_size_bytes
            and self._block_bytes + call.block_bytes <= limits.max_batch_bytes
            and self.listing_bytes + call.listing_bytes <= limits.max_listing_bytes
            and len(self.entries) + len(call.entries) <= ENTRIES_MAX
        )

    def add(self, call: Input) -> None:
        """Take the call; the batch must have a place for it."""
        if not self.entries:
            self.opened_at = call.accepted_at
            self.first_number = call.number
        self.metadata.append(Metadata(len(self.entries), call.accepted_ms, call.metadata))
        self.entries.extend(call.entries)
        self.outcomes.append(call.outcome)
        self.size_bytes += call.size_bytes
        self._block_bytes += call.block_bytes
        self.listing_bytes += call.listing_bytes
