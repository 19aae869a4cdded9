"""How a batch of staged records becomes native calls.

A call into C costs the global lock twice, so records cross in batches: joined into one buffer, with
one array of lengths. Two limits, both measured: a joined buffer of more than 128 KiB costs a fresh
mapping each time (8 times the price per record), and a record of more than 64 KiB is cheaper handed
over where it lies than copied into a buffer first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import TypeAlias

# A staged record: its bytes, or its bytes and its own CRC32C.
Staged: TypeAlias = "bytes | tuple[bytes, int]"

# Records that go down in one native call: alone, by pointer, or joined. With CRCs, or without any.
Piece: TypeAlias = "tuple[Sequence[bytes], Sequence[int] | None]"

JOINED_BYTES_MAX = 128 * 1024
JOINED_RECORD_BYTES_MAX = 64 * 1024


def record_bytes(item: Staged) -> int:
    """Return the length of a staged record's data."""
    return len(item[0]) if type(item) is tuple else len(item)


def pieces(batch: Sequence[Staged]) -> Sequence[Piece]:
    """Split a batch into native calls, in order.

    Records of one call are of one kind (with CRC or without), together at most 128 KiB unless it is
    a single one, and a record of more than 64 KiB stands alone.
    """
    if len(batch) == 1:  # the usual append
        item = batch[0]
        return [((item[0],), (item[1],)) if isinstance(item, tuple) else ((item,), None)]
    return list(_split(batch))


def _split(batch: Sequence[Staged]) -> Iterator[Piece]:
    for kind, run in groupby(batch, type):
        if kind is tuple:
            records, crcs = zip(*run, strict=True)
            for start, stop in _cuts(records):
                yield records[start:stop], crcs[start:stop]
        else:
            plain = list(run)
            for start, stop in _cuts(plain):  # type: ignore[arg-type]
                yield plain[start:stop], None  # type: ignore[misc]


def _cuts(records: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where to cut a run of records of one kind."""
    lengths = list(map(len, records))
    ends = list(accumulate(lengths))
    start = 0
    for alone in [i for i, n in enumerate(lengths) if n > JOINED_RECORD_BYTES_MAX] + [len(records)]:
        while start < alone:
            begin = ends[start] - lengths[start]
            stop = bisect_right(ends, begin + JOINED_BYTES_MAX, start, alone)
            yield start, stop
            start = stop
        if alone < len(records):
            yield alone, alone + 1
            start = alone + 1
