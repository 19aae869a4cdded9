"""What a consumer hands out: where a batch is, and the batch."""

from __future__ import annotations

from dataclasses import dataclass

from walengine.buffer.entry import Metadata
from walengine.buffer.location import identity_of

__all__ = ["BatchDescriptor", "ConsumedBatch"]


@dataclass(frozen=True, slots=True)
class BatchDescriptor:
    """Where a batch is: all that fetching it needs.

    Attributes:
        sequence: Its place in the queue, from 0.
        location: Whole name of its object.
        metadata: What the producer's calls said, each with the index of its first entry.
    """

    sequence: int
    location: str
    metadata: tuple[Metadata, ...]

    @property
    def identity(self) -> str:
        """What tells the batch from every other; the same when it is listed a second time."""
        return identity_of(self.location)


@dataclass(frozen=True, slots=True)
class ConsumedBatch:
    """A batch, fetched and decoded.

    Attributes:
        entries: In the order in which they were produced.
        sequence: Its place in the queue, from 0.
        location: Whole name of its object.
        metadata: What the producer's calls said, each with the index of its first entry.
    """

    entries: list[bytes]
    sequence: int
    location: str
    metadata: tuple[Metadata, ...]

    @property
    def identity(self) -> str:
        """What tells the batch from every other; the same when it is listed a second time."""
        return identity_of(self.location)

    def __repr__(self) -> str:
        """Leave entries and payloads out."""
        return f"<ConsumedBatch {self.sequence} {self.location}: {len(self.entries)} entries>"


for _kind in (BatchDescriptor, ConsumedBatch):
    _kind.__module__ = "walengine.buffer"
