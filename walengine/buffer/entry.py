"""One entry of a manifest: what it lists of a batch, as bytes and back.

    entry    = u32 length of the rest, u64 sequence, u16 location length, location,
               u32 metadata count, metadata*, extension slot
    metadata = u32 start index, i64 ingestion time ms, u32 payload length, payload

The writer is strict, the reader takes what can be given a meaning. Whatever it reads was walked
before: the entry lies whole within the manifest, its fixed fields within the entry, and the
manifest's footer behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

from walengine.buffer.errors import FormatError, InvalidInputError
from walengine.buffer.location import path_problem

__all__ = [
    "HEAD",
    "LENGTH_SIZE",
    "REST_MIN",
    "Listing",
    "ManifestEntry",
    "Metadata",
    "decode_entry",
    "encode_entry",
    "location_at",
]

HEAD = struct.Struct("<IQ")  # the length of the rest, the sequence
LOCATION_HEAD = struct.Struct("<I8xH")  # the length of the rest, the length of the location
LENGTH = struct.Struct("<I")
LENGTH_SIZE = LENGTH.size
LOCATION_LENGTH = struct.Struct("<H")
COUNT = struct.Struct("<I")
ITEM = struct.Struct("<IqI")  # start index, ingestion time, payload length

# What an entry's length counts at least: sequence, location length, metadata count.
REST_MIN = HEAD.size - LENGTH.size + LOCATION_LENGTH.size + COUNT.size


class Metadata(NamedTuple):
    """What one produce() call said of its entries.

    Attributes:
        start_index: Index in the batch of the first entry it covers; it ends where the next begins.
        ingestion_time_ms: When the call was made, in ms since 1970.
        payload: What the caller passed along.
    """

    start_index: int
    ingestion_time_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed of a batch before it has its sequence.

    Attributes:
        location: Whole path of the batch object.
        metadata: In the order of their start indexes, the first one 0.
        extension: Bytes for the extension slot; ignored by readers of version 1.
    """

    location: str
    metadata: Sequence[Metadata] = ()
    extension: bytes = b""


@dataclass(frozen=True, slots=True)
class ManifestEntry(Listing):
    """A batch in the queue.

    Attributes:
        sequence: Its place in the queue, from 0.
    """

    sequence: int = 0

    def check_records(self, record_count: int) -> None:
        """Check the metadata against the batch, once that was fetched.

        Raises:
            FormatError: A start index lies behind the batch's last entry.
        """
        for index, item in enumerate(self.metadata):
            if item.start_index >= record_count:
                raise FormatError(
                    f"batch {self.location}: it has {record_count} entries, and metadata {index} "
                    f"of its entry in the manifest begins at {item.start_index}",
                    object=self.location,
                    sequence=self.sequence,
                )


def encode_entry(sequence: int, listing: Listing) -> bytes:
    """Return the bytes of an entry.

    Raises:
        InvalidInputError: A part does not fit into its field, or the location or the order of the
            metadata is one that readers refuse.
    """
    if problem := path_problem(listing.location):
        raise InvalidInputError(f"location {listing.location[:200]!r}: {problem}")
    location = listing.location.encode("ascii")
    _check_order(listing.metadata)
    try:
        items = chain.from_iterable(
            (ITEM.pack(start, time_ms, len(payload)), payload)
            for start, time_ms, payload in listing.metadata
        )
        tail = b"".join((COUNT.pack(len(listing.metadata)), *items, listing.extension))
        rest = HEAD.size - LENGTH.size + LOCATION_LENGTH.size + len(location) + len(tail)
        head = HEAD.pack(rest, sequence) + LOCATION_LENGTH.pack(len(location))
    except struct.error as error:
        raise InvalidInputError(f"batch {listing.location}: metadata: {error}") from None
    return b"".join((head, location, tail))


def _check_order(metadata: Sequence[Metadata]) -> None:
    starts = [item.start_index for item in metadata]
    if starts and (starts[0] != 0 or any(b < a for a, b in pairwise(starts))):
        raise InvalidInputError("metadata: start indexes must ascend from 0")


def decode_entry(data: bytes, at: int, name: str) -> ManifestEntry:
    """Return the entry at this offset of a manifest whose framing is sound.

    Raises:
        FormatError: The entry is bad; ``offset`` is where, ``sequence`` which.
    """
    return _Decoder(data, at, name).entry()


def location_at(data: bytes, at: int) -> bytes:
    """Return the location of the entry at this offset as it stands, or nothing if it is cut."""
    rest, size = LOCATION_HEAD.unpack_from(data, at)
    begin = at + LOCATION_HEAD.size
    fits = begin + size + COUNT.size <= at + LENGTH.size + rest
    return data[begin : begin + size] if fits else b""


class _Decoder:
    """One entry's fields, taken from the left; each is checked against what is left."""

    __slots__ = ("_at", "_data", "_end", "_name", "_sequence")

    def __init__(self, data: bytes, at: int, name: str) -> None:
        rest, self._sequence = HEAD.unpack_from(data, at)
        self._data = data
        self._name = name
        self._at = at + HEAD.size
        self._end = at + LENGTH.size + rest

    def entry(self) -> ManifestEntry:
        location = self._location()
        metadata = self._metadata()
        return ManifestEntry(location, metadata, self._data[self._at : self._end], self._sequence)

    def _location(self) -> str:
        (size,) = LOCATION_LENGTH.unpack_from(self._data, self._at)
        begin = self._at + LOCATION_LENGTH.size
        if begin + size + COUNT.size > self._end:
            raise self._bad(f"its location has {size} bytes and does not fit")
        self._at = begin + size
        raw = self._data[begin : self._at]
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self._at = begin + error.start
            raise self._bad("its location is not UTF-8") from None

    def _metadata(self) -> tuple[Metadata, ...]:
        (count,) = COUNT.unpack_from(self._data, self._at)
        left = self._end - self._at - COUNT.size
        if count * ITEM.size > left:
            raise self._bad(f"{count} metadata items do not fit into {left} bytes")
        self._at += COUNT.size
        items: list[Metadata] = []
        append, make, item_at = items.append, Metadata._make, ITEM.unpack_from
        data, at, end, previous = self._data, self._at, self._end, 0
        for _ in range(count):
            # Up to end, an item can be read without a look: the footer behind is longer than one.
            start, time_ms, size = item_at(data, at)
            begin = at + ITEM.size
            if begin + size > end or start < previous or (start != 0 and not items):
                raise self._bad_item(len(items), at, start)
            at = begin + size
            previous = start
            append(make((start, time_ms, data[begin:at])))
        self._at = at
        return tuple(items)

    def _bad_item(self, index: int, at: int, start: int) -> FormatError:
        begin = at + ITEM.size
        if begin > self._end:
            return self._bad(f"metadata {index} is cut", at)
        (size,) = LENGTH.unpack_from(self._data, begin - LENGTH.size)
        if begin + size > self._end:
            return self._bad(f"the payload of metadata {index} has {size} bytes: cut", at)
        return self._bad(f"metadata {index} begins at {start}: they ascend from 0", at)

    def _bad(self, problem: str, offset: int | None = None) -> FormatError:
        offset = self._at if offset is None else offset
        return FormatError(
            f"manifest {self._name}: sequence {self._sequence}: {problem} (at offset {offset})",
            object=self._name, offset=offset, sequence=self._sequence,
        )  # fmt: skip


Metadata.__module__ = "walengine.buffer"
