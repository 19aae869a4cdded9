"""A second reader of format 1, written from docs/FORMAT.md and sharing nothing with the engine.

decode(directory) gives the records that the log holds and the verdict on its end. It is as small
as the format allows and as slow as it likes; what it says must be what the engine says.
"""

from __future__ import annotations

import itertools
import struct
from functools import reduce
from pathlib import Path
from typing import NamedTuple

TABLE = [reduce(lambda c, _: c >> 1 ^ 0x82F63B78 * (c & 1), range(8), n) for n in range(256)]
FRAME_FIELDS = "magic crc size body lsn count kind flags at durable salt link ms zero"
Frame = NamedTuple("Frame", [(name, int) for name in FRAME_FIELDS.split()])
START_FIELDS = "base trim before last end crc zero"
Segment = NamedTuple(
    "Segment",
    [("raw", bytes), ("salt", bytes), ("alignment", int)]
    + [(name, int) for name in START_FIELDS.split()],
)


class DamageError(Exception):
    """Acknowledged bytes are damaged or missing."""


def need(fact: object, what: str) -> None:
    if not fact:
        raise DamageError(what)


def crc32c(data: bytes) -> int:
    return ~reduce(lambda c, byte: c >> 8 ^ TABLE[(c ^ byte) & 255], data, 0xFFFFFFFF) & 0xFFFFFFFF


def number(raw: bytes, at: int, size: int = 4) -> int:
    return int.from_bytes(raw[at : at + size], "little")


def frame_at(raw: bytes, at: int, salt: bytes) -> Frame | None:
    """The frame whose header at this offset is right; its payload may still be damaged."""
    if raw[at : at + 4] != b"WFRM" or len(raw) < at + 64:
        return None
    frame = Frame._make(struct.unpack_from("<IIIIQIHHQQIIII", raw, at))
    right = frame.crc == crc32c(salt + raw[at + 8 : at + 64]) and frame.at == at
    return frame if right and not frame.zero else None


def payload(raw: bytes, frame: Frame) -> bytes | None:
    data = raw[frame.at + 64 : frame.at + 64 + frame.size]
    return data if len(data) == frame.size and crc32c(data) == frame.body else None


def load(path: Path) -> tuple[int, Segment | None]:
    """The id and the segment in a file; no segment where a good header is without a START."""
    raw = path.read_bytes()
    need(raw[:8] == b"WALENG1\0" and crc32c(raw[12:128]) == number(raw, 8), f"{path}: header")
    need(number(raw, 12) == 1 and number(raw, 16) == 0, f"{path}: a format of its own")
    need(path.name == f"wal-{number(raw, 40, 8):016x}.seg", f"{path}: another segment's bytes")
    start = frame_at(raw, 8192, raw[48:56])
    body = payload(raw, start) if start and start.kind == 1 else None
    fields = (raw, raw[48:56], number(raw, 72), *struct.unpack("<QQQQQII", body)) if body else None
    return number(raw, 40, 8), Segment._make(fields) if fields else None


def walk(one: Segment, end: int) -> tuple[list[Frame], int, int]:
    """All frames from START to end or the first bad one; where that is; the LSN expected there."""
    frames, at, lsn, link = [], 8192, one.base, 0
    while at < end and (frame := frame_at(one.raw, at, one.salt)):
        if payload(one.raw, frame) is None:
            break
        need((frame.lsn, frame.link) == (lsn, link), f"misplaced frame at {at}")
        frames.append(frame)
        step = one.alignment if frame.flags & 16 else 8
        at = -(-(at + 64 + frame.size) // step) * step
        lsn, link = lsn + frame.count, frame.crc
    return frames, at, lsn


def records_of(one: Segment, frame: Frame) -> list[tuple[int, bytes]]:
    data, width = one.raw[frame.at + 64 : frame.at + 64 + frame.size], 4 * frame.count
    table = frame.size - width * (2 if frame.flags & 8 else 1)
    ends = struct.unpack_from(f"<{frame.count}I", data, table) if frame.kind == 2 else ()
    records = [data[a:b] for a, b in zip((0, *ends), ends, strict=False)]
    crcs = struct.unpack_from(f"<{frame.count}I", data, table + width) if frame.flags & 8 else ()
    need(not crcs or crcs == tuple(map(crc32c, records)), f"a record's CRC at {frame.at}")
    return list(enumerate(records, frame.lsn))


def tail(one: Segment) -> tuple[list[Frame], str]:
    """The newest segment's frames and how they end: the decision table in ten lines."""
    frames, p, lsn = walk(one, len(one.raw))
    slot = one.raw[4096:4160]
    valid = slot[:4] == b"WEND" and crc32c(one.salt + slot[8:]) == number(slot, 4)
    later = [f for at in range(p, len(one.raw), 8) if (f := frame_at(one.raw, at, one.salt))]
    need(not valid or number(slot, 24, 8) <= p, f"damage at {p}: the end slot's end is past it")
    need(all(f.durable < lsn for f in later), f"damage at {p}: LSN {lsn} had been durable")
    sealed = valid and number(slot, 8) == 1 and number(slot, 24, 8) == p
    need(sealed or len(one.raw) >= number(one.raw, 64, 8), f"damage at {p}: the file was cut")
    ours = (one.raw[p : p + 4], one.raw[p + 48 : p + 52], number(one.raw, p + 32, 8))
    for i in reversed(range(len(frames))):  # an atomic group without its LAST is dropped whole
        if not frames[i].flags & 7 or frames[i].flags & 4:
            break
        if frames[i].flags & 1:
            return frames[:i], "torn"
    torn = later or ours == (b"WFRM", one.salt[:4], p)
    return frames, "torn" if torn else "clean" if sealed else "unsealed"


def decode(directory: Path) -> tuple[list[tuple[int, bytes]], str]:
    """All records as (lsn, data), and the verdict; DamageError where durable bytes are lost."""
    raw = (directory / "META").read_bytes() if (directory / "META").exists() else b""
    slots = [s for s in (raw[:1152], raw[4096:5248]) if s[:8] == b"WALMETA1"]
    slots = [s for s in slots if crc32c(s[12:]) == number(s, 8)]
    need(slots, "META is lost")
    trim = max((number(slot, 16, 8), number(slot, 48, 8)) for slot in slots)[1]
    segments = dict(load(path) for path in sorted(directory.glob("wal-*.seg")))
    started = [one for _, one in sorted(segments.items()) if one]
    if not started:
        return [], "new"
    chain = started[-1:]
    while chain[0].base > trim and chain[0].before:
        need(segments.get(chain[0].before), f"segment {chain[0].before} is missing")
        chain.insert(0, segments[chain[0].before])
    records = []
    for one, successor in itertools.pairwise(chain):
        frames, p, _ = walk(one, successor.end)
        need(p == successor.end, f"damage at {p}: the successor says {successor.end}")
        need(not frames or frames[-1].crc == successor.crc, "the successor's link")
        cut = [pair for frame in frames for pair in records_of(one, frame)]
        records += [pair for pair in cut if pair[0] <= successor.last]
    frames, verdict = tail(chain[-1])
    records += [pair for frame in frames for pair in records_of(chain[-1], frame)]
    return [pair for pair in records if pair[0] >= trim], verdict
