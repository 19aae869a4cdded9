"""Build batches and manifests of version 1 byte by byte, from the format tables alone.

Nothing of walengine is imported, and no zstd library: frames are built from the tables of RFC 8878.
What this module writes is what docs/BUFFER_FORMAT.md says, so a codec that agrees with it agrees
with the document. It is the pen of make_buffer_golden.py and of the tests with hostile bytes, so
every length and count can be made to lie.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

NONE, ZSTD = 0, 1
RAW_BLOCK, RLE_BLOCK = 0, 1
ZSTD_BLOCK_MAX = 128 << 10


# ---- batches -------------------------------------------------------------------------------------


def records(*entries: bytes) -> bytes:
    """The record block: u32 length and bytes, for each entry."""
    return b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)


def batch_footer(compression: int, count: int, version: int = 1) -> bytes:
    return struct.pack("<BIH", compression, count, version)


def batch(*entries: bytes) -> bytes:
    return records(*entries) + batch_footer(NONE, len(entries))


def zstd_batch(block: bytes, count: int) -> bytes:
    """A batch around what are, or should be, zstd frames."""
    return block + batch_footer(ZSTD, count)


def zstd_block(kind: int, data: bytes, size: int, *, last: bool = False) -> bytes:
    """3 bytes: last-block flag, 2 bits of type, 21 bits of size; then the block's content."""
    return (last | kind << 1 | size << 3).to_bytes(3, "little") + data


def zstd_frame(
    content: bytes,
    *,
    window_log: int = 10,
    stated_size: int | None = None,
    dictionary: int | None = None,
    repeat: int = 1,
) -> bytes:
    """A frame of blocks that need no decoder to be written: raw bytes, or one byte repeated.

    Args:
        content: What it holds; with repeat, a single byte.
        window_log: 10 to 41; the decoder must keep 2^window_log bytes.
        stated_size: Frame_Content_Size; None: the frame does not state one.
        dictionary: Dictionary_ID, up to 255.
        repeat: How often a single byte occurs, as RLE blocks.
    """
    descriptor = (0 if stated_size is None else 3 << 6) | (0 if dictionary is None else 1)
    head = struct.pack("<IBB", 0xFD2FB528, descriptor, window_log - 10 << 3)
    if dictionary is not None:
        head += struct.pack("<B", dictionary)
    if stated_size is not None:
        head += struct.pack("<Q", stated_size)
    block_max = min(1 << window_log, ZSTD_BLOCK_MAX)
    blocks = []
    if repeat > 1:
        sizes = [block_max] * (repeat // block_max) + [repeat % block_max]
        blocks = [zstd_block(RLE_BLOCK, content, size) for size in sizes if size]
    else:
        parts = [content[at : at + block_max] for at in range(0, len(content), block_max)]
        blocks = [zstd_block(RAW_BLOCK, part, len(part)) for part in parts]
    return head + b"".join(blocks) + zstd_block(RAW_BLOCK, b"", 0, last=True)


def skippable_frame(content: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(content)) + content


# ---- manifests -----------------------------------------------------------------------------------


def metadata(start: int, time_ms: int, payload: bytes, length: int | None = None) -> bytes:
    """One metadata item; length is what it says of its payload."""
    size = len(payload) if length is None else length
    return struct.pack("<IqI", start, time_ms, size) + payload


@dataclass
class Entry:
    """An entry of a manifest; what is not None is a lie."""

    sequence: int
    location: bytes
    items: Sequence[bytes] = ()
    extension: bytes = b""
    rest: int | None = None
    location_length: int | None = None
    metadata_count: int | None = None

    def encode(self) -> bytes:
        location_length = (
            len(self.location) if self.location_length is None else (self.location_length)
        )
        count = len(self.items) if self.metadata_count is None else self.metadata_count
        body = (
            struct.pack("<QH", self.sequence, location_length)
            + self.location
            + struct.pack("<I", count)
            + b"".join(self.items)
            + self.extension
        )
        return struct.pack("<I", len(body) if self.rest is None else self.rest) + body


@dataclass
class Manifest:
    """A manifest; what is not None is a lie."""

    entries: Sequence[Entry] = ()
    next_sequence: int = 0
    epoch: int = 0
    count: int | None = None
    version: int = 1
    junk: bytes = field(default=b"")  # between the last entry and the footer

    def encode(self) -> bytes:
        count = len(self.entries) if self.count is None else self.count
        footer = struct.pack("<IQQH", count, self.next_sequence, self.epoch, self.version)
        return b"".join(entry.encode() for entry in self.entries) + self.junk + footer
