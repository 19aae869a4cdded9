"""What one produce() call brings: checked once, made safe from later changes, measured.

A call may carry many entries, so nothing here loops over them in Python unless one of them is no
``bytes``: the checks and sums are made of C's own loops.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from walengine.buffer.errors import InvalidInputError
from walengine.buffer.producer._outcome import Outcome

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["METADATA_ITEM_BYTES", "Input", "Limits"]

ENTRY_PREFIX_BYTES: Final = 4
"""What a batch object adds to each entry."""

METADATA_ITEM_BYTES: Final = 16
"""What the manifest adds to the metadata of each call."""

U32_MAX = (1 << 32) - 1
NOT_SEVERAL = (str, bytes, bytearray, memoryview)


class Limits:
    """What one call, and so one batch, may bring at most.

    Args:
        max_batch_bytes: Of the entries, encoded.
        max_buffered_bytes: Of entries and metadata.
        max_listing_bytes: Of the metadata, as the manifest holds it.
    """

    __slots__ = ("max_batch_bytes", "max_buffered_bytes", "max_listing_bytes")

    def __init__(
        self, max_batch_bytes: int, max_buffered_bytes: int, max_listing_bytes: int
    ) -> None:
        self.max_batch_bytes = max_batch_bytes
        self.max_buffered_bytes = max_buffered_bytes
        self.max_listing_bytes = max_listing_bytes


class Input:
    """The entries and metadata of one call.

    Args:
        entries: Bytes-like objects; those that could change are copied.
        metadata: What the caller passes along.
        limits: Of a call.

    Attributes:
        entries: As ``bytes``.
        metadata: As ``bytes``.
        size_bytes: Of entries and metadata.
        block_bytes: Of the entries in a batch object.
        listing_bytes: Of the metadata in the manifest.
        accepted_at: When it was accepted, by the loop's clock.
        accepted_ms: The same by the store's.
        number: Its place among all that were accepted.
        outcome: What became of it.

    Raises:
        InvalidInputError: There are no entries, or too many bytes.
        TypeError: Something is not bytes-like, or a single object stands where a list should.
    """

    __slots__ = (
        "accepted_at",
        "accepted_ms",
        "block_bytes",
        "entries",
        "listing_bytes",
        "metadata",
        "number",
        "outcome",
        "size_bytes",
    )

    def __init__(
        self, entries: Iterable[ReadableBuffer], metadata: ReadableBuffer, limits: Limits
    ) -> None:
        self.entries = _checked(entries)
        self.metadata = metadata if type(metadata) is bytes else _as_bytes(metadata, "metadata")
        payload_bytes = sum(map(len, self.entries))
        self.size_bytes = payload_bytes + len(self.metadata)
        self.block_bytes = payload_bytes + ENTRY_PREFIX_BYTES * len(self.entries)
        self.listing_bytes = METADATA_ITEM_BYTES + len(self.metadata)
        self.accepted_at = 0.0
        self.accepted_ms = 0
        self.number = 0
        self.outcome = Outcome()
        self._check(limits)

    def _check(self, limits: Limits) -> None:
        if self.block_bytes > limits.max_batch_bytes:
            raise InvalidInputError(
                f"{len(self.entries)} entries take {self.block_bytes} bytes in a batch, more than "
                f"max_batch_bytes={limits.max_batch_bytes}: produce them in several calls"
            )
        if self.size_bytes > limits.max_buffered_bytes:
            raise InvalidInputError(
                f"entries and metadata have {self.size_bytes} bytes, more than "
                f"max_buffered_bytes={limits.max_buffered_bytes}: produce them in several calls"
            )
        if self.listing_bytes > limits.max_listing_bytes:
            raise InvalidInputError(
                f"metadata of {len(self.metadata)} bytes: every change of the queue writes it "
                f"again, so a batch may take {limits.max_listing_bytes} bytes of the manifest, a "
                "quarter of max_manifest_bytes; put it among the entries"
            )
        if self.block_bytes > U32_MAX and max(map(len, self.entries)) > U32_MAX:
            raise InvalidInputError(f"an entry has more than {U32_MAX} bytes: split it")


def _checked(entries: Iterable[ReadableBuffer]) -> list[bytes]:
    if isinstance(entries, NOT_SEVERAL):
        raise TypeError(
            f"entries must be a list of bytes-like objects, not one {type(entries).__name__}: "
            "put it in brackets"
        )
    found = list(entries)
    if not found:
        raise InvalidInputError("a call must bring at least one entry")
    if len(found) > U32_MAX:
        raise InvalidInputError(f"{len(found)} entries in a call: at most {U32_MAX}")
    if set(map(type, found)) == {bytes}:
        return found  # type: ignore[return-value]
    return [
        item if type(item) is bytes else _as_bytes(item, f"entry {index}")
        for index, item in enumerate(found)
    ]


def _as_bytes(item: ReadableBuffer, what: str) -> bytes:
    """Return a copy of the bytes, which the caller may change from then on."""
    try:
        return memoryview(item).tobytes()
    except TypeError:
        raise TypeError(f"{what} must be bytes-like, not {type(item).__name__}") from None
