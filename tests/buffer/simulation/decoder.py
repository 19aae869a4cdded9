"""Manifests and batches read from the format tables, without a line of walengine's."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Entry(NamedTuple):
    """An entry of a manifest, and its bytes as they stand."""

    sequence: int
    location: str
    payloads: tuple[bytes, ...]
    raw: bytes


class Version(NamedTuple):
    """A manifest's content."""

    entries: tuple[Entry, ...]
    next_sequence: int
    epoch: int


EMPTY = Version((), 0, 0)


def manifest(data):
    """Read a manifest; whatever is wrong with it is an AssertionError."""
    count, next_sequence, epoch, version = struct.unpack_from("<IQQH", data, len(data) - 22)
    assert version == 1
    entries = []
    at, end = 0, len(data) - 22
    while at < end:
        (rest,) = struct.unpack_from("<I", data, at)
        raw = data[at : at + 4 + rest]
        assert len(raw) == 4 + rest
        entries.append(_entry(raw))
        at += len(raw)
    assert at == end
    assert len(entries) == count
    sequences = [entry.sequence for entry in entries]
    assert sequences == list(range(next_sequence - count, next_sequence)), "a gap"
    return Version(tuple(entries), next_sequence, epoch)


def _entry(raw):
    sequence, length = struct.unpack_from("<QH", raw, 4)
    location = raw[14 : 14 + length].decode()
    at = 14 + length
    (count,) = struct.unpack_from("<I", raw, at)
    at += 4
    payloads = []
    for _ in range(count):
        _start, _time_ms, size = struct.unpack_from("<IqI", raw, at)
        at += 16
        payloads.append(raw[at : at + size])
        at += size
    assert at == len(raw), "an extension that nobody writes"
    return Entry(sequence, location, tuple(payloads), raw)


def batch(data):
    """Return the entries of a batch that is not compressed."""
    compression, count, version = struct.unpack_from("<BIH", data, len(data) - 7)
    assert (compression, version) == (0, 1)
    entries = []
    at, end = 0, len(data) - 7
    while at < end:
        (size,) = struct.unpack_from("<I", data, at)
        entries.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    assert (at, len(entries)) == (end, count)
    return entries


def identity(location):
    """The last 16 characters of a batch's name: what it keeps over all uploads."""
    assert location.endswith(".batch")
    return location[-22:-6]


def name_ms(location):
    """The time in a batch's name: 10 characters of Crockford's base 32."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    value = 0
    for character in location[-32:-22]:
        value = value * 32 + digits.index(character)
    return value
