"""A batch object: the entries of many produce() calls as one object's bytes, and back.

    batch  = block footer
    block  = (u32 length, bytes)*            the whole of it through zstd if the footer says so
    footer = u8 compression, u32 record count, u16 version

Little-endian, version 1; docs/BUFFER_FORMAT.md has the tables. There is no checksum: the store is
trusted to give back what was put. It is not trusted to hold what we put, so decoding takes nothing
from a length or a count before the bytes are there, and gives decompression a limit of its own:

- A zstd frame may state its size; it is compared when the frame has ended, and never believed
  before. Its window is what the decoder allocates at once, so that has a limit.
- The densest that a frame can be is 4 bytes (the 3 of a block's header and 1 to repeat) for the
  128 KiB that a block may yield. So k bytes of input yield at most k << 15 bytes, and feeding the
  decoder as many as the rest of the limit can take keeps every step within it.
- Frames may follow one another, as zstd has it everywhere, OpenData's reader included.

Whoever decodes needs memory for the block and for the entries cut from it: an entry costs up to
about 60 bytes besides its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from itertools import chain
from typing import Final

import zstandard

from walengine.buffer.compression import CompressionType
from walengine.buffer.errors import FormatError, InvalidInputError

__all__ = ["BATCH_BYTES_MAX", "decode_batch", "encode_batch", "object_bytes_max"]

BATCH_BYTES_MAX: Final = 1 << 30
"""Largest block, decompressed, that ``decode_batch`` accepts unless told otherwise."""


ZSTD_LEVEL = 3
WINDOW_BYTES_MAX = 1 << 27
WINDOW_BYTES_MIN = 1 << 23  # what every decoder should support, says RFC 8878

VERSION = 1
FOOTER = struct.Struct("<BIH")
LENGTH = struct.Struct("<I")
U32_MAX = (1 << 32) - 1

CODES = {CompressionType.NONE: 0, CompressionType.ZSTD: 1}
NONE, ZSTD = CODES.values()

EXPANSION_SHIFT = 15
FRAME_HEADER_MAX = 18
STEP_BYTES_MIN, STEP_BYTES_MAX = 512, 1 << 15

Entry = bytes | bytearray | memoryview


def encode_batch(
    entries: Sequence[Entry], compression: CompressionType = CompressionType.NONE
) -> bytes:
    """Return the bytes of a batch object.

    Args:
        entries: In order; ``bytes`` are the fastest.
        compression: Of all entries together.

    Raises:
        InvalidInputError: An entry has more than 2^32 - 1 bytes, or there are more of them.
        TypeError: An entry is not bytes, or a view whose items are larger than a byte.
    """
    if len(entries) > U32_MAX:
        raise InvalidInputError(f"{len(entries)} entries in a batch: at most {U32_MAX}")
    footer = FOOTER.pack(CODES[compression], len(entries), VERSION)
    lengths = list(map(len, entries))
    prefixes = map(_Prefixes().__getitem__, lengths)
    framed = chain.from_iterable(zip(prefixes, entries, strict=True))
    if compression is CompressionType.NONE:
        data = b"".join((*framed, footer))
        block_bytes = len(data) - FOOTER.size
    else:
        block = b"".join(framed)
        block_bytes = len(block)
        data = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(block) + footer
    if block_bytes != sum(lengths) + LENGTH.size * len(lengths):
        raise TypeError("entries must be bytes, or views of bytes: items of one byte each")
    return data


class _Prefixes(dict[int, bytes]):
    """Length -> its four bytes; most batches have few different ones."""

    def __missing__(self, length: int) -> bytes:
        if length > U32_MAX:
            raise InvalidInputError(f"an entry of {length} bytes: at most {U32_MAX}")
        self[length] = prefix = LENGTH.pack(length)
        return prefix


def decode_batch(data: bytes, name: str, *, max_batch_bytes: int = BATCH_BYTES_MAX) -> list[bytes]:
    """Return the entries of a batch object.

    Args:
        data: The object's bytes, from anywhere.
        name: The object's name, for messages.
        max_batch_bytes: Largest block, decompressed.

    Raises:
        FormatError: These are no batch, or a larger one; ``offset`` is where.
    """
    end = len(data) - FOOTER.size
    if end < 0:
        raise _broken(name, f"{len(data)} bytes are shorter than a footer of {FOOTER.size}", 0)
    code, count, version = FOOTER.unpack_from(data, end)
    if version != VERSION:
        raise _broken(name, f"version {version}, this program reads {VERSION}", end + 5)
    if code == NONE:
        if end > max_batch_bytes:
            raise _too_large(name, max_batch_bytes, max_batch_bytes)
        return _entries(data, end, count, name, "")
    if code != ZSTD:
        raise _broken(name, f"unknown compression {code}", end)
    block = _decompressed(memoryview(data)[:end], name, max_batch_bytes)
    return _entries(block, len(block), count, name, " of the decompressed block")


def object_bytes_max(max_batch_bytes: int) -> int:
    """Return how large an object can be whose block has max_batch_bytes: for a limit on reading.

    What zstd cannot make smaller it makes larger: by its ZSTD_compressBound, at most.
    """
    return max_batch_bytes + max_batch_bytes // 256 + 64 + FOOTER.size


def _entries(block: bytes, end: int, count: int, name: str, where: str) -> list[bytes]:
    """Cut the block, up to end, into entries.

    Bounds are checked once, behind the loop: positions only grow, so if the last one is right all
    were, and a slice takes no more than there is.
    """
    if count * LENGTH.size > end:
        raise _broken(name, f"{count} entries do not fit into {end} bytes{where}", end, where)
    entries: list[bytes] = []
    append = entries.append
    length_at = LENGTH.unpack_from
    at = 0
    try:
        while at < end:
            begin = at + 4
            at = begin + length_at(block, at)[0]
            append(block[begin:at])
    except struct.error:
        at = -1  # not even a length behind the last entry
    if at != end:
        raise _cut(block, end, name, where)
    if len(entries) != count:
        raise _broken(name, f"{len(entries)} entries, the footer says {count}", end, where)
    return entries


def _cut(block: bytes, end: int, name: str, where: str) -> FormatError:
    """Return the error for a block that ends within an entry: walk again, slowly, to say where."""
    at = index = 0
    while at + LENGTH.size <= end:
        (length,) = LENGTH.unpack_from(block, at)
        if length > end - at - LENGTH.size:
            problem = f"entry {index} has {length} bytes, {end - at - LENGTH.size} are there"
            return _broken(name, problem, at, where)
        at += LENGTH.size + length
        index += 1
    return _broken(name, f"entry {index} has no whole length", at, where)


def _decompressed(data: memoryview, name: str, limit_bytes: int) -> bytes:
    """Return what the zstd frames in data, one or more, hold: at most limit_bytes.

    Each step's bytes go into one growing block at once: kept in a list and joined at the end, they
    would need the memory twice.
    """
    window_bytes = max(WINDOW_BYTES_MIN, min(WINDOW_BYTES_MAX, limit_bytes))
    decompressor = zstandard.ZstdDecompressor(max_window_size=window_bytes)
    block = BytesIO()
    size = at = 0
    try:
        while at < len(data):
            begin, before = at, size
            frame = decompressor.decompressobj()
            while not frame.eof:
                if at == len(data):
                    raise _broken(name, "the zstd frame is cut", at)
                step = (limit_bytes - size) >> EXPANSION_SHIFT
                chunk = data[at : at + max(STEP_BYTES_MIN, min(STEP_BYTES_MAX, step))]
                size += block.write(frame.decompress(chunk))
                if size > limit_bytes:
                    raise _too_large(name, limit_bytes, at)
                at += len(chunk)
            at -= len(frame.unused_data)
            _check_stated_size(data[begin : begin + FRAME_HEADER_MAX], size - before)
    except zstandard.ZstdError as error:
        raise _broken(name, f"{error} in the zstd frame", at) from None
    return block.getvalue()


def _check_stated_size(header: memoryview, size: int) -> None:
    """Check what a frame says of its size, if it does: the library does so only sometimes."""
    stated = zstandard.frame_content_size(header)
    if stated not in {-1, size}:
        raise zstandard.ZstdError(f"{size} bytes, the frame's header says {stated}")


def _too_large(name: str, limit_bytes: int, offset: int) -> FormatError:
    problem = f"the entries take more than max_batch_bytes, {limit_bytes}: raise it or skip"
    return _broken(name, problem, offset)


def _broken(name: str, problem: str, offset: int, where: str = "") -> FormatError:
    message = f"batch {name}: {problem} (at offset {offset}{where})"
    return FormatError(message, object=name, offset=offset)
