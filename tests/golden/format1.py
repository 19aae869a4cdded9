"""Build logs of format 1 byte by byte, from the format table alone.

Nothing of walengine is imported and nothing is shared with it: not the CRC, not a constant, not a
struct. What this module writes is what docs/FORMAT.md says, so a reader that agrees with it agrees
with the document. It is the pen of make_golden.py and of the tests that forge damaged logs.

A log is told as a story, and every step returns the segment, so that steps chain:

    log = Log()
    tail = log.segment().data(b"one", b"two").sync().data(b"three")
    tail.watermark()
    log.write(directory)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# ---- the format table, second copy ---------------------------------------------------------------

FRAME = struct.Struct("<IIIIQIHHQQIIII")
SEGMENT = struct.Struct("<8sIIII16sQQQQII48x")
END = struct.Struct("<IIIIQQQQ16x")
START = struct.Struct("<QQQQQII")
META = struct.Struct("<8sIIQ16sQQII64x1024s")
INDEX_ENTRY = struct.Struct("<QQ")

BLOCK = 4096
FRAMES_OFFSET = 8192
FRAME_MAGIC = int.from_bytes(b"WFRM", "little")
END_MAGIC = int.from_bytes(b"WEND", "little")
SEGMENT_MAGIC = b"WALENG1\0"
META_MAGIC = b"WALMETA1"

TYPE_START, TYPE_DATA, TYPE_INDEX = 0x0001, 0x0002, 0x8003
FIRST, CONT, LAST, RECORD_CRC, PADDED = 1, 2, 4, 8, 16

UUID = bytes(range(0x10, 0x20))
CREATED_US = 1_750_000_000_000_000
SEGMENT_BYTES = 32768
PAYLOAD_MAX = 1 << 20


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC32C (Castagnoli), one byte at a time: slow, short and independent."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def up(offset: int, alignment: int) -> int:
    """The first multiple of alignment that is not below offset."""
    return -(-offset // alignment) * alignment


def segment_name(number: int) -> str:
    return f"wal-{number:016x}.seg"


# ---- the parts -----------------------------------------------------------------------------------


def frame_bytes(
    *,
    salt: int,
    at: int,
    lsn: int,
    kind: int,
    payload: bytes,
    count: int = 0,
    flags: int = 0,
    durable: int = 0,
    link: int = 0,
    milliseconds: int = 0,
    payload_bytes: int | None = None,
    zero: int = 0,
) -> bytes:
    """One frame, its CRCs right whatever the fields say; payload_bytes may lie."""
    length = len(payload) if payload_bytes is None else payload_bytes
    body = FRAME.pack(
        0, 0, length, crc32c(payload), lsn, count, kind, flags, at, durable,
        salt & 0xFFFFFFFF, link, milliseconds, zero,
    )[8:]  # fmt: skip
    crc = crc32c(struct.pack("<Q", salt) + body)
    return struct.pack("<II", FRAME_MAGIC, crc) + body + payload


def frame_crc(frame: bytes) -> int:
    """A frame's header CRC: what the next frame's link must be."""
    return int(struct.unpack_from("<I", frame, 4)[0])


def data_payload(records: Sequence[bytes], with_crcs: bool = False) -> bytes:
    ends, end = [], 0
    for record in records:
        end += len(record)
        ends.append(end)
    tables = struct.pack(f"<{len(ends)}I", *ends)
    if with_crcs:
        tables += struct.pack(f"<{len(ends)}I", *map(crc32c, records))
    return b"".join(records) + tables


def end_slot(
    *, salt: int, number: int, last: int, end: int, sealed: int = 0, index: int = 0
) -> bytes:
    body = END.pack(0, 0, sealed, 0, last, end, index, number)[8:]
    return struct.pack("<II", END_MAGIC, crc32c(struct.pack("<Q", salt) + body)) + body


def meta_slot(
    *,
    generation: int = 1,
    trim: int = 1,
    uuid: bytes = UUID,
    owner: bytes = b"",
    version: int = 1,
) -> bytes:
    """One slot of META: 4 KiB."""
    body = META.pack(
        META_MAGIC, 0, version, generation, uuid, CREATED_US, trim, len(owner), 0, owner
    )[12:]
    return (META_MAGIC + struct.pack("<I", crc32c(body)) + body).ljust(BLOCK, b"\0")


@dataclass(frozen=True)
class Predecessor:
    """What a START says of the segment before it; a log's first segment has none."""

    number: int = 0
    last_lsn: int = 0
    end_offset: int = 0
    crc: int = 0


# ---- one segment ---------------------------------------------------------------------------------


class Segment:
    """The bytes of one segment file, and the position of the next frame in it."""

    def __init__(
        self,
        number: int = 1,
        *,
        base: int = 1,
        trim: int = 1,
        before: Predecessor | None = None,
        alignment: int = 8,
        salt: int | None = None,
        uuid: bytes = UUID,
        under: bytes = b"",
        start: bool = True,
    ) -> None:
        self.number = number
        self.base = base
        self.alignment = alignment
        self.salt = salt if salt is not None else 0x5A17_0000_0000_0000 + 0x1111_1111 * number
        self.raw = bytearray(under.ljust(SEGMENT_BYTES, b"\0"))
        self.at = FRAMES_OFFSET  # of the next frame
        self.lsn = base  # of the next record
        self.link = 0  # the last frame's header CRC
        self.durable = base - 1
        self.index = 0
        self.offsets: list[int] = []  # of every frame
        self.lsns: list[int] = []  # and its first LSN
        self.header(uuid=uuid)
        if start:
            before = before or Predecessor()
            self.frame(
                TYPE_START,
                START.pack(
                    base, trim, before.number, before.last_lsn, before.end_offset, before.crc, 0
                ),
            )

    def header(
        self,
        *,
        uuid: bytes = UUID,
        version: int = 1,
        required: int = 0,
        optional: int = 0,
        number: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        alignment: int | None = None,
        payload_max: int = PAYLOAD_MAX,
        magic: bytes = SEGMENT_MAGIC,
    ) -> Segment:
        """Write block 0; the CRC is right whatever the fields say."""
        body = SEGMENT.pack(
            magic, 0, version, required, optional, uuid,
            self.number if number is None else number,
            self.salt, CREATED_US, segment_bytes,
            self.alignment if alignment is None else alignment, payload_max,
        )[12:]  # fmt: skip
        block = (magic + struct.pack("<I", crc32c(body)) + body).ljust(BLOCK, b"\0")
        return self.put(0, block)

    # -- frames

    def frame(
        self,
        kind: int,
        payload: bytes,
        *,
        count: int = 0,
        flags: int = 0,
        durable: int | None = None,
        lsn: int | None = None,
        link: int | None = None,
        **lies: int,
    ) -> Segment:
        """Write one frame at the end and step behind it. Named fields may lie."""
        made = frame_bytes(
            salt=lies.pop("salt", self.salt),
            at=lies.pop("own_offset", self.at),
            lsn=self.lsn if lsn is None else lsn,
            kind=kind,
            payload=payload,
            count=count,
            flags=flags,
            durable=self.durable if durable is None else durable,
            link=self.link if link is None else link,
            milliseconds=10 * len(self.offsets),
            **lies,
        )
        self.offsets.append(self.at)
        self.lsns.append(self.lsn)
        self.put(self.at, made)
        self.link = frame_crc(made)
        self.lsn += count
        self.at = up(self.at + len(made), self.alignment if flags & PADDED else 8)
        return self

    def data(
        self,
        *records: bytes,
        flags: int = 0,
        durable: int | None = None,
        lsn: int | None = None,
        link: int | None = None,
    ) -> Segment:
        """Write a DATA frame; with RECORD_CRC in flags also the records' own CRCs."""
        payload = data_payload(records, bool(flags & RECORD_CRC))
        return self.frame(
            TYPE_DATA, payload, count=len(records), flags=flags, durable=durable, lsn=lsn, link=link
        )

    def index_frame(self) -> Segment:
        """Write an INDEX of the DATA frames so far."""
        entries = [
            INDEX_ENTRY.pack(lsn, at)
            for lsn, at in zip(self.lsns[1:], self.offsets[1:], strict=True)
            if struct.unpack_from("<H", self.raw, at + 28)[0] == TYPE_DATA
        ]
        self.index = self.at
        return self.frame(TYPE_INDEX, struct.pack("<II", len(entries), 0) + b"".join(entries))

    def skip(self, count: int = 8) -> Segment:
        """Leave a hole of count bytes: the next frame stands behind it."""
        self.at += count
        return self

    # -- what happened

    def sync(self) -> Segment:
        """From here on frames say that everything before them had been durable."""
        self.durable = self.lsn - 1
        return self

    def seal(self, **slot: int) -> Segment:
        return self._slot(1, **slot)

    def watermark(self, **slot: int) -> Segment:
        return self._slot(0, **slot)

    def _slot(self, sealed: int, last: int | None = None, end: int | None = None) -> Segment:
        self.put(
            BLOCK,
            end_slot(
                salt=self.salt,
                number=self.number,
                sealed=sealed,
                last=self.lsn - 1 if last is None else last,
                end=self.at if end is None else end,
                index=self.index,
            ),
        )
        return self

    def put(self, at: int, data: bytes) -> Segment:
        """Put bytes anywhere; the file grows where it must."""
        if at + len(data) > len(self.raw):
            self.raw.extend(bytes(at + len(data) - len(self.raw)))
        self.raw[at : at + len(data)] = data
        return self

    def cut_file(self, size: int | None = None) -> Segment:
        """Cut the file, as a successor does: to this end, rounded up to a block."""
        del self.raw[up(self.at, BLOCK) if size is None else size :]
        return self

    def here(self) -> Predecessor:
        """This segment's end as a successor's START names it."""
        return Predecessor(self.number, self.lsn - 1, self.at, self.link)


# ---- one log -------------------------------------------------------------------------------------


class Log:
    """A log directory: segments, META, and files that do not belong."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.slots = [meta_slot(), meta_slot()]
        self.files: dict[str, bytes] = {}

    def segment(self, number: int | None = None, **options: object) -> Segment:
        """Begin a segment behind the newest one, naming it as predecessor unless told otherwise."""
        newest = self.segments[-1] if self.segments else None
        if newest is not None:
            before = options.setdefault("before", newest.here())
            options.setdefault("base", before.last_lsn + 1)  # type: ignore[attr-defined]
        number = number or (newest.number + 1 if newest else 1)
        made = Segment(number, **options)  # type: ignore[arg-type]
        self.segments.append(made)
        return made

    def meta(self, **fields: object) -> Log:
        """Write META anew: generation 2 in slot 1, the older slot stays."""
        self.slots[1] = meta_slot(generation=2, **fields)  # type: ignore[arg-type]
        return self

    def write(self, directory: Path) -> Path:
        """Write the directory as a closed writer would leave it, LOCK included."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        contents = {segment_name(one.number): bytes(one.raw) for one in self.segments}
        if self.slots:
            contents["META"] = b"".join(self.slots)
        contents["LOCK"] = b""
        contents.update(self.files)
        for name, data in contents.items():
            path = directory / name
            path.write_bytes(data)
            path.chmod(0o600)
        return directory
