"""Many records at once: one buffer, and tables of where each begins and how long it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from itertools import chain, repeat
from struct import Struct
from typing import overload

from walengine._native_reader import Block
from walengine.types import Lsn, Record

__all__ = ["RecordBatch"]

_UNPACKED_AT_ONCE = 64


class RecordBatch(Sequence[Record]):
    """Some records in a row, as ``WalReader.batches`` yields them; a sequence of Record.

    No object is made of a record before it is asked for. The memory belongs to the batch and to
    every view of it: it stays valid when the next batch is read and when the reader is closed.

    Attributes:
        first_lsn: Of the first record. LSNs are dense: record i has ``first_lsn + i``.
        last_lsn: Of the last record.
        lsns: Those of all records, as a range.
        data: The records' bytes, back to back (memoryview, read-only).
        offsets: Where in data each record begins (memoryview of unsigned 64-bit numbers).
        lengths: Bytes of each record (memoryview of unsigned 32-bit numbers).
        crcs: CRC32C of each record (memoryview of unsigned 32-bit numbers), or None where the
            appender stored none.
        record_bytes: Bytes of every record, where all are of one size, else None.

    Example:
        >>> from walengine import PortableWalWriter, WalReader
        >>> with PortableWalWriter("wal.log") as wal:
        ...     lsns = wal.append_many([b"one", b"two", b"three"], durable=True)
        >>> (batch,) = WalReader("wal.log").batches()
        >>> len(batch), batch.first_lsn, bytes(batch.data)
        (3, 1, b'onetwothree')
        >>> list(batch.offsets), list(batch.lengths)
        ([0, 3, 6], [3, 3, 5])
        >>> batch[1]
        Record(lsn=2, data=b'two', crc32c=None)
        >>> bytes(batch.view(2))
        b'three'
    """

    __slots__ = ("_count", "_data_bytes", "_has_crcs", "_memory", "first_lsn", "record_bytes")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, block: Block) -> None:
        self.first_lsn: Lsn
        self.record_bytes: int | None
        (
            self.first_lsn,
            self._count,
            self._memory,
            self._data_bytes,
            self._has_crcs,
            self.record_bytes,
        ) = block

    @property
    def last_lsn(self) -> Lsn:
        """Of the last record."""
        return self.first_lsn + self._count - 1

    @property
    def lsns(self) -> range:
        """Of all records."""
        return range(self.first_lsn, self.first_lsn + self._count)

    @property
    def data(self) -> memoryview:
        """The records' bytes, back to back."""
        return self._memory[: self._data_bytes]

    @property
    def offsets(self) -> memoryview:
        """Where in data each record begins."""
        begin = self._tables()
        return self._memory[begin : begin + 8 * self._count].cast("Q")

    @property
    def lengths(self) -> memoryview:
        """Bytes of each record."""
        begin = self._tables() + 8 * self._count
        return self._memory[begin : begin + 4 * self._count].cast("I")

    @property
    def crcs(self) -> memoryview | None:
        """CRC32C of each record, or None where the appender stored none."""
        if not self._has_crcs:
            return None
        begin = self._tables() + 12 * self._count
        return self._memory[begin : begin + 4 * self._count].cast("I")

    def view(self, index: int) -> memoryview:
        """Return the bytes of a record where they are; nothing is copied.

        Raises:
            IndexError: The batch has no such record.
        """
        offset = self.offsets[index]
        return self._memory[offset : offset + self.lengths[index]]

    def views(self) -> Iterator[memoryview]:
        """Yield the bytes of each record where they are; nothing is copied."""
        ends = map(int.__add__, self.offsets, self.lengths)
        return map(self._memory.__getitem__, map(slice, self.offsets, ends))

    def payloads(self) -> Iterator[bytes]:
        """Yield the bytes of each record as bytes: the fastest way to objects.

        Records of one size are cut off by struct, some at a time, at 14 ns each; else BytesIO.read
        does it, at 35. A list of slices takes 75. (0011-what-bounds-a-replay.md)
        """
        size = self.record_bytes
        if self._count == 1:  # perhaps a large one: copied once
            return iter((bytes(self.data),))
        if not size:
            return map(BytesIO(self.data).read, self.lengths)
        some = _unpacker(size)
        whole = self._count // _UNPACKED_AT_ONCE * some.size
        first = some.iter_unpack(self._memory[:whole])
        rest = Struct(f"{size}s").iter_unpack(self._memory[whole : self._data_bytes])
        return chain.from_iterable(chain(first, rest))

    def __len__(self) -> int:
        """Return how many records there are."""
        return self._count

    def __iter__(self) -> Iterator[Record]:
        """Yield each record."""
        crcs = self.crcs
        return map(
            Record,
            zip(self.lsns, self.payloads(), repeat(None) if crcs is None else crcs, strict=False),
        )

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """Return one record, or a list of several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        crcs = self.crcs
        crc = None if crcs is None else crcs[index]
        return Record((self.lsns[index], bytes(self.view(index)), crc))

    def __repr__(self) -> str:
        """Show the range and the size."""
        return f"<RecordBatch LSNs {self.first_lsn} to {self.last_lsn}, {self._data_bytes} bytes>"

    def _tables(self) -> int:
        return (self._data_bytes + 7) // 8 * 8


@lru_cache(maxsize=16)
def _unpacker(record_bytes: int) -> Struct:
    """Return what makes some records of a size into bytes."""
    return Struct(f"{record_bytes}s" * _UNPACKED_AT_ONCE)


RecordBatch.__module__ = "walengine"
