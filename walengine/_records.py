"""What a caller may give as a record, and the copy of it that is safe from later changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from crc32c import crc32c

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Check = Callable[[int], None]
"""Raises if a record of so many bytes is not taken."""


def with_checksum(record: bytes) -> tuple[bytes, int]:
    """Return the record with its CRC32C, computed in the caller's thread."""
    return record, crc32c(record)


def copied(data: ReadableBuffer, check: Check) -> bytes:
    """Return the bytes of any contiguous object, as they are now."""
    if isinstance(data, str):
        raise TypeError("a record is bytes, not str: encode the text first")
    view = memoryview(data)
    if not view.c_contiguous:
        raise TypeError("a record must be contiguous in memory: pass bytes(...) of it")
    check(view.nbytes)
    return view.tobytes()


def listed(records: Iterable[ReadableBuffer]) -> list[ReadableBuffer]:
    """Return the records, which may come from an iterator, as a list."""
    if isinstance(records, (str, bytes, bytearray, memoryview)):
        raise TypeError("append_many takes an iterable of records; use append for a single one")
    return records if type(records) is list else list(records)


def copied_all(records: Iterable[ReadableBuffer], check: Check) -> list[bytes]:
    """Return the bytes of each, as they are now; refuse all if one is too large."""
    copies = [data if type(data) is bytes else copied(data, check) for data in listed(records)]
    if copies:
        check(max(map(len, copies)))
    return copies
