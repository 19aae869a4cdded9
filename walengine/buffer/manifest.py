"""The manifest: the one object that says which batches are in the queue, and in which order.

    manifest = entry* footer
    footer   = u32 entry count, u64 next sequence, u64 epoch, u16 version
    entry    = u32 length of the rest, u64 sequence, and what entry.py knows

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
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from walengine.buffer.entry import (
    HEAD,
    LENGTH_SIZE,
    REST_MIN,
    Listing,
    ManifestEntry,
    decode_entry,
    encode_entry,
    location_at,
)
from walengine.buffer.errors import FormatError, InvalidInputError
from walengine.buffer.location import location_problem, parse_batch_name

__all__ = ["EPOCH_MAX", "Manifest"]

VERSION: Final = 1

EPOCH_MAX: Final = (1 << 64) - 2
"""Highest epoch that can be had: OpenData's consumers take 2^64 - 1 for "none yet"."""

U64_MAX = (1 << 64) - 1
U32_MAX = (1 << 32) - 1

FOOTER = struct.Struct("<IQQH")
EPOCH_OFFSET = 12

IDENTITY = slice(-len("IIIIIIIIIIIIIIII.batch"), -len(".batch"))
"""Where a location has a batch's identity, if it is a batch's name."""


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
        entry = decode_entry(self.data, self._offsets[index], self.name)
        if prefixes is not None and (problem := location_problem(entry.location, prefixes)):
            raise FormatError(
                f"manifest {self.name}: sequence {sequence}: location {entry.location[:200]!r}: "
                f"{problem} (at offset {self._offsets[index]})",
                object=self.name, offset=self._offsets[index], sequence=sequence,
            )  # fmt: skip
        return entry

    def location(self, sequence: int) -> str:
        """Return the location listed at one of ``sequences`` as it stands, and nothing of the rest.

        Of a bad entry it is "", or what no location of ours can be.
        """
        at = self._offsets[self.sequences.index(sequence)]
        return location_at(self.data, at).decode("ascii", "replace")

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
        for sequence, at in zip(self.sequences, self._offsets, strict=True):
            location = location_at(self.data, at)
            if location[IDENTITY] in wanted:
                name = parse_batch_name(location.decode("ascii", "replace"))
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
        at += LENGTH_SIZE + rest
        expected += 1
    if at == end:
        return offsets
    if at > end:
        at = offsets[-1]
        raise _broken(name, f"entry {len(offsets) - 1} runs into the footer", at)
    if rest < REST_MIN or at + LENGTH_SIZE + rest > end:
        raise _broken(name, f"entry {len(offsets)} cannot have a length of {rest}", at)
    problem = f"entry {len(offsets)} has sequence {sequence}, not {expected}"
    raise _broken(name, problem, at + LENGTH_SIZE)


def _broken(name: str, problem: str, offset: int) -> FormatError:
    message = f"manifest {name}: {problem} (at offset {offset})"
    return FormatError(message, object=name, offset=offset)
