"""Write the golden logs of format 1: `python make_golden.py [directory]`.

Every log is a story told to format1.py, which knows the format table and nothing of walengine. The
files are checked in, and a test asserts that this script still writes the same bytes: neither the
format nor its description can drift. expected.json beside each log says what a reader must find:

    verdict, case   of recover(); names as in enum wal_verdict and enum wal_case
    first, last     the LSNs kept
    records         LSN -> text of everything that replay yields
    replay          "ends" or "raises": whether replay meets damage behind those records

To add a case, write a function below; its docstring becomes the "why" of expected.json.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from format1 import (
    CONT,
    FIRST,
    LAST,
    PADDED,
    RECORD_CRC,
    TYPE_DATA,
    Log,
    Predecessor,
    Segment,
    data_payload,
    meta_slot,
)


def text(lsn: int) -> bytes:
    """The record with this LSN: its length differs from its neighbours', some are empty."""
    return b"" if lsn % 7 == 0 else b"record %d" % lsn + b"." * (lsn * 13 % 97)


def append(segment: Segment, count: int, flags: int = 0) -> Segment:
    """One DATA frame with the next count records."""
    return segment.data(*(text(segment.lsn + i) for i in range(count)), flags=flags)


@dataclass
class Golden:
    """A log and what a reader must find in it."""

    log: Log
    verdict: str
    case: str
    last: int
    first: int = 1
    readable: int | None = None  # the last LSN that replay yields before it meets damage
    records: dict[int, bytes] = field(default_factory=dict)  # where they are not text(lsn)

    def expected(self, why: str) -> dict[str, object]:
        last = self.last if self.readable is None else self.readable
        kept = {lsn: self.records.get(lsn, text(lsn)) for lsn in range(self.first, last + 1)}
        return {
            "why": why,
            "verdict": self.verdict,
            "case": self.case,
            "first_lsn": self.first,
            "last_lsn": self.last,
            "replay": "ends" if self.readable is None else "raises",
            "records": {str(lsn): data.decode() for lsn, data in kept.items()},
        }


CASES: dict[str, Callable[[], Golden]] = {}


def golden(make: Callable[[], Golden]) -> Callable[[], Golden]:
    CASES[make.__name__.replace("_", "-")] = make
    return make


def started(**options: object) -> tuple[Log, Segment]:
    """A log whose first segment holds five durable records in two frames."""
    log = Log()
    first = log.segment(**options)
    append(append(first, 2), 3).sync()
    return log, first


def earlier_life() -> bytes:
    """What a recycled file is full of: whole frames of an older salt, at 8-byte offsets."""
    old = Segment(9, salt=0x01D5_A170_01D5_A17F, base=100)
    while old.at < 24000:
        append(old.sync(), 4)
    return bytes(old.seal().raw)


# ---- whole logs ----------------------------------------------------------------------------------


@golden
def clean() -> Golden:
    """A closed writer leaves a sealed tail."""
    log, tail = started()
    append(tail, 2).sync().seal()
    return Golden(log, "clean", "SEALED", last=7)


@golden
def sealed() -> Golden:
    """The seal comes behind an INDEX frame, which the end slot names."""
    log, tail = started()
    append(append(tail, 4), 1).sync().index_frame().seal()
    log.slots = [meta_slot(owner=b"golden")] * 2
    return Golden(log, "clean", "SEALED", last=10)


@golden
def new() -> Golden:
    """A log that was created and never appended to: a prepared segment without START."""
    log = Log()
    log.segment(start=False)
    return Golden(log, "new", "NEW", last=0)


@golden
def two_segments() -> Golden:
    """The second segment's START names the end of the first."""
    log, first = started()
    first.index_frame().seal()
    append(append(log.segment(), 6).sync(), 2).sync().seal()
    return Golden(log, "clean", "SEALED", last=13)


@golden
def recycled() -> Golden:
    """The second segment lives in a file that is full of frames of an older salt."""
    log, first = started()
    first.seal()
    append(log.segment(under=earlier_life()), 4).sync().seal()
    return Golden(log, "clean", "SEALED", last=9)


@golden
def zero_tail() -> Golden:
    """A killed writer: zeros behind the last whole frame."""
    log, tail = started()
    append(tail, 2)
    return Golden(log, "unsealed", "OPEN", last=7)


@golden
def garbage_tail() -> Golden:
    """Bytes without meaning behind the last frame, magics among them."""
    log, tail = started()
    noise = bytearray(random.Random(1).randbytes(8192))
    for at in range(256, 8192, 1024):
        noise[at : at + 4] = b"WFRM"
    tail.put(tail.at, bytes(noise))
    return Golden(log, "unsealed", "OPEN", last=5)


@golden
def stale_tail() -> Golden:
    """A whole frame of an older salt stands exactly where the next frame would."""
    log, tail = started(under=earlier_life())
    frame = Segment(1, salt=77, base=6)
    frame.at, frame.link = tail.at, tail.link
    append(frame, 2)
    tail.put(tail.at, bytes(frame.raw[tail.at : frame.at]))
    return Golden(log, "unsealed", "OPEN", last=5)


@golden
def idle() -> Golden:
    """An idle writer was killed: its watermark vouches for the last group."""
    log, tail = started()
    tail.watermark()
    return Golden(log, "unsealed", "IDLE", last=5)


@golden
def prepared() -> Golden:
    """The next segment stands ready, with a header and no START: it is a spare."""
    log, tail = started()
    append(tail, 1).sync().seal()
    log.segment(start=False)
    return Golden(log, "clean", "SEALED", last=6)


# ---- one of each frame ---------------------------------------------------------------------------


@golden
def frame_types() -> Golden:
    """START, DATA with and without RECORD_CRC, an atomic group, INDEX, a type of the future."""
    log, tail = started()
    append(tail, 3, flags=RECORD_CRC)
    append(append(append(tail, 1, flags=FIRST), 2, flags=CONT), 1, flags=LAST).sync()
    tail.frame(0x8777, b"a frame that a reader of 1.0 skips")
    append(tail, 2).sync().index_frame().seal()
    return Golden(log, "clean", "SEALED", last=14)


@golden
def padded() -> Golden:
    """Commit alignment 4096: the frame behind a PADDED one begins at the next block."""
    log = Log()
    tail = log.segment(alignment=4096)
    append(append(tail, 2), 3, flags=PADDED).sync()
    append(tail, 1, flags=PADDED | RECORD_CRC).sync()
    append(tail, 1, flags=PADDED).sync().seal()
    return Golden(log, "clean", "SEALED", last=7)


# ---- torn ends -----------------------------------------------------------------------------------


@golden
def torn() -> Golden:
    """The last frame is cut: its header is whole, half of its payload never arrived."""
    log, tail = started()
    begin = tail.at
    append(tail, 4)
    tail.put(begin + 100, bytes(tail.at - begin - 100))
    return Golden(log, "torn", "TORN_FRAME", last=5)


@golden
def torn_behind() -> Golden:
    """A whole frame behind a hole; it says that nothing beyond LSN 5 had been durable."""
    log, tail = started()
    begin = tail.at
    append(append(tail, 2), 2)
    tail.put(begin, bytes(tail.offsets[-1] - begin))
    return Golden(log, "torn", "TORN_BEHIND", last=5)


@golden
def atomic_cut() -> Golden:
    """The log ends in an atomic group without its LAST: all of the group is dropped."""
    log, tail = started()
    append(append(tail, 2, flags=FIRST), 1, flags=CONT)
    return Golden(log, "torn", "ATOMIC_CUT", last=5)


# ---- the chain -----------------------------------------------------------------------------------


@golden
def bypassed() -> Golden:
    """Segment 2 never got a record: segment 3 copies its predecessor record, 2 is an orphan."""
    log, first = started()
    log.segment(2)
    append(log.segment(3, before=first.here(), base=6), 2).sync().seal()
    return Golden(log, "clean", "SEALED", last=7)


@golden
def rewound() -> Golden:
    """Segment 2 cuts segment 1 at LSN 4, in the middle of a frame; newer frames there are dead."""
    log, first = started()
    cut = Predecessor(1, last_lsn=4, end_offset=first.at, crc=first.link)
    first.data(b"rewound 6", b"rewound 7").sync().watermark().cut_file()
    tail = log.segment(before=cut, base=5)
    append(tail.data(b"another 5", b"another 6"), 1).sync().seal()
    return Golden(log, "clean", "SEALED", last=7, records={5: b"another 5", 6: b"another 6"})


@golden
def trimmed() -> Golden:
    """META trims in mid-segment; the head's predecessor is gone and nobody misses it."""
    log, first = started()
    append(log.segment(trim=4), 5).sync().seal()
    append(log.segment(trim=8), 1).sync().seal()
    log.segments.remove(first)
    log.meta(trim=8)
    return Golden(log, "clean", "SEALED", first=8, last=11)


@golden
def meta_slot_damaged() -> Golden:
    """One slot of META is damaged: the other serves, with a warning."""
    log, tail = started()
    tail.seal()
    damaged = bytearray(meta_slot(generation=2))
    damaged[40] ^= 1
    log.slots[1] = bytes(damaged)
    return Golden(log, "clean", "SEALED", last=5)


# ---- corruption ----------------------------------------------------------------------------------


@golden
def end_past() -> Golden:
    """The sealed end lies behind a damaged frame."""
    log, tail = started()
    begin = tail.at
    append(tail, 2).sync().seal()
    tail.raw[begin + 70] ^= 0x10
    return Golden(log, "corrupt", "END_PAST", last=5, readable=5)


@golden
def durable_behind() -> Golden:
    """A frame is damaged that a later one says had been durable."""
    log, tail = started()
    begin = tail.at
    append(append(tail, 2).sync(), 1)
    tail.raw[begin + 20] ^= 0x10
    return Golden(log, "corrupt", "DURABLE_BEHIND", last=5, readable=5)


@golden
def misplaced() -> Golden:
    """A frame that is right in itself follows with an LSN that leaves a gap."""
    log, tail = started()
    tail.frame(TYPE_DATA, data_payload([text(8)]), count=1, lsn=8)
    return Golden(log, "corrupt", "MISPLACED", last=5, readable=5)


@golden
def chain_broken() -> Golden:
    """The middle one of three segments is missing."""
    log, first = started()
    first.seal()
    middle = append(log.segment(), 2).sync().seal()
    append(log.segment(), 2).sync().seal()
    log.segments.remove(middle)
    return Golden(log, "corrupt", "CHAIN_BROKEN", last=5, readable=5)


@golden
def header_damaged() -> Golden:
    """The newest segment's header fails its CRC: never a crash, always corruption."""
    log, first = started()
    first.seal()
    tail = append(log.segment(), 2).sync().seal()
    tail.raw[44] ^= 1
    return Golden(log, "corrupt", "CHAIN_BROKEN", last=5, readable=5)


@golden
def meta_lost() -> Golden:
    """Frames and no META: never taken for a fresh log."""
    log, tail = started()
    tail.seal()
    log.slots = []
    return Golden(log, "corrupt", "META_LOST", last=5, readable=5)


@golden
def record_crc_wrong() -> Golden:
    """A record disagrees with its own CRC under a frame that is right: its writer's memory lied."""
    log, tail = started()
    payload = bytearray(data_payload([text(6), text(8)], with_crcs=True))
    payload[-2] ^= 1
    tail.frame(TYPE_DATA, bytes(payload), count=2, flags=RECORD_CRC)
    return Golden(log, "corrupt", "MISPLACED", last=5, readable=5)


@golden
def middle_damaged() -> Golden:
    """A frame of a closed segment is damaged: an open does not see it, reading does."""
    log, first = started()
    first.raw[first.offsets[2] + 66] ^= 1
    first.seal()
    append(log.segment(), 2).sync().seal()
    return Golden(log, "clean", "SEALED", last=7, readable=2)


def main(target: Path) -> None:
    for name, make in CASES.items():
        made = make()
        made.log.write(target / name)
        expected = made.expected((make.__doc__ or "").strip())
        (target / name / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "v1")
