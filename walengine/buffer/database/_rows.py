"""What a batch becomes: the rows of its entries, each checked before a transaction begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from walengine.buffer.database._port import Batch, Row, ToRows
from walengine.buffer.entry import Metadata

__all__ = ["covered", "rows_of"]


def rows_of(batch: Batch, to_rows: ToRows, width: int) -> list[Row]:
    """Return the rows of all entries, in order.

    They are made before the transaction, so that code of the caller's never holds a lock there.

    Args:
        batch: Whose entries.
        to_rows: Is called with each entry and the metadata that covers it.
        width: How many values a row must have.

    Raises:
        TypeError: What to_rows returned is no rows.
        ValueError: A row has another number of values.
    """
    rows: list[Row] = []
    for index, (entry, metadata) in enumerate(covered(batch.entries, batch.metadata)):
        try:
            for row in to_rows(entry, metadata):
                _check(row, width)
                rows.append(row)
        except Exception as error:
            error.add_note(
                f"to_rows, of entry {index} of batch {batch.location} (sequence {batch.sequence})"
            )
            raise
    return rows


def covered(
    entries: Sequence[bytes], metadata: Sequence[Metadata]
) -> Iterator[tuple[bytes, Metadata | None]]:
    """Yield each entry with the last metadata item that begins at or before it."""
    at = 0
    current: Metadata | None = None
    for index, entry in enumerate(entries):
        while at < len(metadata) and metadata[at].start_index <= index:
            current = metadata[at]
            at += 1
        yield entry, current


def _check(row: Row, width: int) -> None:
    # A text is a sequence too, and of the right length by chance.
    if isinstance(row, (str, bytes, bytearray)) or not isinstance(row, Sequence):
        raise TypeError(f"to_rows must return rows: lists or tuples, not {type(row).__name__}")
    if len(row) != width:
        raise ValueError(f"a row of {len(row)} values for {width} columns")
