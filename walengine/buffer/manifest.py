"""The manifest: the one object that says which batches are in the queue, and in which order.

    manifest = entry* footer
    footer   = u32 entry count, u64 next sequence, u64 epoch, u16 version
    entry    = u32 length of the rest, u64 sequence, u16 location length, location,
               u32 metadata count, metadata*, extension slot
    metadata = u32 start index, i64 ingestion time ms, u32 payload length, payload

Little-endian, version 1; docs/BUFFER_FORMAT.md has the tables. Who changes the queue swaps the
whole object by compare-and-set. So a ``Manifest`` here is bytes that never change, and every change
returns a new one:

- Parsing walks the entries' lengths and sequences to the footer and decodes nothing. That is the
  *framing*; if it is broken the manifest cannot be used and parsing fails.
- Appending and dequeuing copy the bytes of the other entries as they stand, with what a later
  version may have put into them.
- An entry is decoded when it is asked for. A bad location or bad metadata is that entry's error,
  raised then: the queue before it can be consumed, the queue behind it after a skip, and producers
  never notice.

Sequences are contiguous, and the last one is the next one less one: so the position of an entry is
known from its sequence, and a gap is broken framing.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final, NamedTuple

from walengine.buffer.errors import FormatError, InvalidInputError
from walengine.buffer.location import location_problem, parse_batch_name, path_problem

__all__ = ["EPOCH_MAX", "Listing", "Manifest", "ManifestEntry", "Metadata"]

VERSION: Final = 1

EPOCH_MAX: Final = (1 << 64) - 2
"""Highest epoch that can be had: OpenData's consumers take 2^64 - 1 for "none yet"."""

U64_MAX = (1 << 64) - 1
U32_MAX = (1 << 32) - 1

FOOTER = struct.Struct("<IQQH")
EPOCH_OFFSET = 12
HEAD = struct.Struct("<IQ")  # of an entry: the length of the rest, the sequence
LENGTH = struct.Struct("<I")
LOCATION_HEAD = struct.Struct("<I8xH")  # the length of the rest, the length of the location
LOCATION_LENGTH = struct.Struct("<H")
COUNT = struct.Struct("<I")
ITEM = struct.Struct("<IqI")  # start index, ingestion time, payload length

# Where a location that is a batch's name has its identity.
IDENTITY_FROM_END, IDENTITY_TO_END = len("IIIIIIIIIIIIIIII.batch"), len(".batch")

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


class Manifest:
    """The queue as one object's bytes; a change returns a new one.

    Attributes:
        data: The object's bytes.
        name: The object's name, for messages.
        epoch: Generation of the consumer that may write it; 0 before the first.
        next_sequence: What the next appended batch gets.

    Example:
        >>> queue = Manifest.empty("ingest/manifest").append([Listing("ingest/a.batch")])
        >>> queue.sequences, queue.entry(0).location
        (range(0, 1), 'ingest/a.batch')
        >>> len(queue.dequeue(0)), queue.dequeue(0).next_sequence
        (0, 1)
    """

    __slots__ = ("_offsets", "data", "epoch", "name", "next_sequence")

    data: bytes
    name: str
    epoch: int
    next_sequence: int
    _offsets: list[int]

    def __init__(
        self, parts: Iterable[bytes], offsets: list[int], next_sequence: int, epoch: int, name: str
    ) -> None:
        footer = FOOTER.pack(len(offsets), next_sequence, epoch, VERSION)
        self.data = b"".join((*parts, footer))
        self._offsets = offsets
        self.next_sequence = next_sequence
        self.epoch = epoch
        self.name = name

    @classmethod
    def empty(cls, name: str) -> Manifest:
        """Return what a missing manifest reads as: no entries, sequence 0, epoch 0."""
        return cls((), [], 0, 0, name)

    @classmethod
    def parse(cls, data: bytes, name: str) -> Manifest:
        """Return the manifest that an object's bytes are.

        Args:
            data: From anywhere.
            name: The object's name, for messages.

        Raises:
            FormatError: The framing is broken; ``offset`` is where.
        """
        end = len(data) - FOOTER.size
        if end < 0:
            raise _broken(name, f"{len(data)} bytes are shorter than a footer of {FOOTER.size}", 0)
        count, next_sequence, epoch, version = FOOTER.unpack_from(data, end)
        if version != VERSION:
            problem = f"version {version}, this program reads {VERSION}"
            raise _broken(name, problem, len(data) - 2)
        if count > next_sequence:
            raise _broken(name, f"{count} entries before sequence {next_sequence}", end)
        self = cls.__new__(cls)
        self.data = data
        self._offsets = _walk(data, end, next_sequence - count, name)
        self.next_sequence = next_sequence
        self.epoch = epoch
        self.name = name
        if len(self._offsets) != count:
            raise _broken(name, f"{len(self)} entries, the footer says {count}", end)
        return self

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def sequences(self) -> range:
        """The sequences of the batches in the queue."""
        return range(self.next_sequence - len(self._offsets), self.next_sequence)

    def entry(self, sequence: int, prefixes: Collection[str] | None = None) -> ManifestEntry:
        """Decode one entry.

        Args:
            sequence: One of ``sequences``.
            prefixes: Below which its location may be; None: wherever.

        Raises:
            FormatError: This entry is bad; others may be good.
            IndexError: No batch has this sequence.
        """
        try:
            index = self.sequences.index(sequence)
        except ValueError:
            raise IndexError(f"manifest {self.name}: no sequence {sequence}") from None
        entry = _Decoder(self, index).entry()
        if prefixes is not None and (problem := location_problem(entry.location, prefixes)):
            raise FormatError(
                f"manifest {self.name}: sequence {sequence}: location {entry.location[:200]!r}: "
                f"{problem} (at offset {self._offsets[index]})",
                object=self.name, offset=self._offsets[index], sequence=sequence,
            )  # fmt: skip
        return entry

    def entries(self) -> Iterator[ManifestEntry]:
        """Decode one entry after the other, until a bad one raises ``FormatError``."""
        return map(self.entry, self.sequences)

    def find(self, identities: Collection[str]) -> dict[str, tuple[int, str]]:
        """Return sequence and location of the batches listed with one of these identities.

        Of two with one identity it is the first. Entries that are not named like batches are passed
        over, and so are bad ones.
        """
        wanted = {identity.encode() for identity in identities}
        found: dict[str, tuple[int, str]] = {}
        data = self.data
        for sequence, at in zip(self.sequences, self._offsets, strict=True):
            rest, size = LOCATION_HEAD.unpack_from(data, at)
            end = at + LOCATION_HEAD.size + size
            if data[end - IDENTITY_FROM_END : end - IDENTITY_TO_END] not in wanted:
                continue
            if end + COUNT.size > at + LENGTH.size + rest:
                continue
            name = parse_batch_name(data[at + LOCATION_HEAD.size : end].decode("ascii", "replace"))
            if name is not None:
                found.setdefault(name.identity, (sequence, name.location))
        return found

    def append(self, listings: Iterable[Listing]) -> Manifest:
        """Return the manifest with these batches behind the others, in order.

        Raises:
            InvalidInputError: One cannot be encoded, or the sequences are used up.
        """
        begin = len(self.data) - FOOTER.size
        parts = [self.data[:begin]]
        offsets = self._offsets.copy()
        sequence = self.next_sequence
        for listing in listings:
            offsets.append(begin)
            parts.append(encode_entry(sequence, listing))
            begin += len(parts[-1])
            sequence += 1
        if sequence > U64_MAX or len(offsets) > U32_MAX:
            raise InvalidInputError(f"manifest {self.name}: no sequence is left for another batch")
        return Manifest(parts, offsets, sequence, self.epoch, self.name)

    def dequeue(self, through_sequence: int) -> Manifest:
        """Return the manifest without the batches up to this sequence; the others' bytes stay.

        A sequence below the first one takes nothing, one above the last one all there are.
        """
        gone = max(0, through_sequence + 1 - self.sequences.start)
        left = self._offsets[gone:]
        end = len(self.data) - FOOTER.size
        begin = left[0] if left else end
        offsets = [offset - begin for offset in left]
        return Manifest((self.data[begin:end],), offsets, self.next_sequence, self.epoch, self.name)

    def raise_epoch(self) -> Manifest:
        """Return the manifest with the next epoch: it fences the consumer of this one.

        Raises:
            FormatError: The epoch is the last one already; no queue gets there by counting.
        """
        end = len(self.data) - FOOTER.size
        if self.epoch >= EPOCH_MAX:
            raise _broken(self.name, f"epoch {self.epoch} cannot be raised", end + EPOCH_OFFSET)
        body = self.data[:end]
        return Manifest((body,), self._offsets, self.next_sequence, self.epoch + 1, self.name)

    def __repr__(self) -> str:
        """Leave locations and payloads out."""
        return (
            f"<Manifest {self.name}: {len(self)} batches before sequence {self.next_sequence}, "
            f"epoch {self.epoch}>"
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


# ---- decoding ------------------------------------------------------------------------------------


def _walk(data: bytes, end: int, first_sequence: int, name: str) -> list[int]:
    """Return where the entries begin, having followed their lengths to exactly the footer.

    The footer behind is longer than a head, so reading one at any position before end is safe.
    """
    offsets: list[int] = []
    append = offsets.append
    head_at = HEAD.unpack_from
    expected = first_sequence
    at = 0
    while at < end:
        rest, sequence = head_at(data, at)
        if sequence != expected or rest < REST_MIN:
            break
        append(at)
        at += 4 + rest
        expected += 1
    if at == end:
        return offsets
    if at > end:
        at = offsets[-1]
        raise _broken(name, f"entry {len(offsets) - 1} runs into the footer", at)
    if rest < REST_MIN or at + LENGTH.size + rest > end:
        raise _broken(name, f"entry {len(offsets)} cannot have a length of {rest}", at)
    problem = f"entry {len(offsets)} has sequence {sequence}, not {expected}"
    raise _broken(name, problem, at + LENGTH.size)


class _Decoder:
    """One entry's fields, taken from the left; each is checked against what is left."""

    __slots__ = ("_at", "_data", "_end", "_name", "_sequence")

    def __init__(self, manifest: Manifest, index: int) -> None:
        self._data = manifest.data
        self._name = manifest.name
        self._at = manifest._offsets[index]  # noqa: SLF001 (the other half of one idea)
        rest, self._sequence = HEAD.unpack_from(self._data, self._at)
        self._end = self._at + LENGTH.size + rest
        self._at += HEAD.size

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


def _broken(name: str, problem: str, offset: int) -> FormatError:
    message = f"manifest {name}: {problem} (at offset {offset})"
    return FormatError(message, object=name, offset=offset)
