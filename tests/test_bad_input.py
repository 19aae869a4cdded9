"""Bytes that no writer wrote: every field that can lie does, under CRCs that are right.

Goal: a clear error of the right class, or exactly the records that are sound; never a crash, a
hang, or an allocation by a length that stands in a file. Logs are forged with golden/format1.py.
Headers and META have test_bad_headers.py; what is no file (symlinks, devices) test_bad_files.py.
"""

from __future__ import annotations

import struct

import pytest
from golden.format1 import (
    FRAME_MAGIC,
    INDEX_ENTRY,
    PADDED,
    PAYLOAD_MAX,
    RECORD_CRC,
    START,
    TYPE_INDEX,
    TYPE_START,
)
from support import (
    FRAMES_OFFSET,
    SEGMENT_BYTES,
    TYPE_DATA,
    Log,
    Predecessor,
    Segment,
    assert_corrupt_behind,
    data_payload,
    five_records,
    look,
    look_capped,
    more,
    overwrite,
    read_all,
    segment_name,
    text,
    texts,
)

import walengine

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1


# ---- frames: lengths and tables that lie ---------------------------------------------------------


def forged(tmp_path, name="log", durable=5, **frame):
    """Five durable records and one forged DATA frame whose header CRC is right."""
    log, tail = five_records()
    payload = frame.pop("payload", data_payload([text(6)]))
    tail.frame(TYPE_DATA, payload, count=frame.pop("count", 1), durable=durable, **frame)
    return log.write(tmp_path / name)


@pytest.mark.parametrize(
    "length",
    [0, 1, 3, PAYLOAD_MAX, PAYLOAD_MAX + 1, 2**31 - 1, 2**31, U32_MAX - 63, U32_MAX],
)
def test_payload_length_that_lies(tmp_path, length):
    """A right header CRC over a length that cannot be: corruption, in 256 MiB of address space."""
    path = forged(tmp_path, payload_bytes=length)
    [seen] = look_capped([path])
    assert (seen["error"], seen["records"]) == ("WalCorruptionError", 5)


def test_record_count_that_lies(tmp_path):
    """Counts whose tables would not fit, or would overflow 32 bits."""
    counts = [0, 2, 3, 1000, 2**30, 2**30 + 1, 2**31, U32_MAX]
    for flags in (0, RECORD_CRC):
        paths = [forged(tmp_path, f"{n}-{flags}", count=n, flags=flags) for n in counts]
        for count, seen in zip(counts, look_capped(paths), strict=True):
            assert (seen["error"], seen["records"]) == ("WalCorruptionError", 5), count


@pytest.mark.parametrize(
    "ends",
    [(5, 3), (9, 9), (8, 7), (0, 0), (U32_MAX, 8), (8, U32_MAX), (0x80000000, 8), (4, 9)],
    ids=str,
)
def test_end_offsets_that_lie(tmp_path, ends):
    """Eight bytes of records, and ends that descend or reach past them, under right CRCs."""
    payload = b"record 6" + struct.pack("<2I", *ends)
    path = forged(tmp_path, payload=payload, count=2)
    [seen] = look_capped([path])
    assert (seen["error"], seen["records"]) == ("WalCorruptionError", 5)


def test_records_of_every_small_length(tmp_path):
    """0 and 1 byte are records like others."""
    log = Log()
    sizes = [0, 1, 0, 0, 2, 7, 8, 9, 0]
    log.segment().data(*(b"x" * size for size in sizes)).sync().seal()
    records, error = read_all(log.write(tmp_path / "log"))
    assert ([len(data) for _, data in records], error) == (sizes, None)


@pytest.mark.parametrize("extra", [-1, 0, 1, 100_000])
def test_payload_at_the_limit_of_a_frame(tmp_path, extra):
    """1 MiB of payload; more only for exactly one record, and only if the header allows it."""
    size = PAYLOAD_MAX + extra
    log = Log()
    tail = log.segment()
    tail.header(segment_bytes=4 * PAYLOAD_MAX, payload_max=2 * PAYLOAD_MAX)
    tail.put(4 * PAYLOAD_MAX - 8, bytes(8))
    tail.data(b"r" * (size - 4)).sync().seal()
    records, error = read_all(log.write(tmp_path / "log"))
    assert ([len(data) for _, data in records], error) == ([size - 4], None)


def test_two_records_in_more_than_a_frame_may_hold(tmp_path):
    log = Log()
    tail = log.segment()
    tail.header(segment_bytes=4 * PAYLOAD_MAX, payload_max=2 * PAYLOAD_MAX)
    tail.data(b"r" * PAYLOAD_MAX, b"s").sync().seal()
    _, error = read_all(log.write(tmp_path / "log"))
    assert isinstance(error, walengine.WalCorruptionError)


def test_large_record_with_a_table_that_lies(tmp_path):
    """A record larger than any buffer is checked when it is loaded, its end offset too."""
    log = Log()
    tail = log.segment()
    tail.header(segment_bytes=4 * PAYLOAD_MAX, payload_max=2 * PAYLOAD_MAX)
    payload = b"r" * PAYLOAD_MAX + struct.pack("<I", PAYLOAD_MAX - 1)
    tail.frame(TYPE_DATA, payload, count=1).sync().seal()
    records, error = read_all(log.write(tmp_path / "log"))
    assert records == []
    assert isinstance(error, walengine.WalCorruptionError)


@pytest.mark.parametrize("flags", [0x20, 0x8000, 0xFFFF])
def test_unknown_flags_refuse(tmp_path, flags):
    path = forged(tmp_path, flags=flags)
    _, error = read_all(path)
    assert type(error) is walengine.UnsupportedFormatError
    assert segment_name(1) in str(error)


@pytest.mark.parametrize("kind", [0, 3, 4, 0x7FFF])
def test_unknown_types_refuse(tmp_path, kind):
    log, tail = five_records()
    tail.frame(kind, b"future")
    _, error = read_all(log.write(tmp_path / "log"))
    assert type(error) is walengine.UnsupportedFormatError


@pytest.mark.parametrize("kind", [0x8000, 0x8004, 0xFFFF])
def test_unknown_skippable_types_are_skipped(tmp_path, kind):
    log, tail = five_records()
    tail.frame(kind, b"future")
    more(tail, 1).sync().seal()
    assert read_all(log.write(tmp_path / "log")) == (texts(1, 6), None)


def test_nonzero_last_field(tmp_path):
    path = forged(tmp_path, zero=1)
    assert_corrupt_behind(path)


def test_frame_that_reaches_past_the_segment(tmp_path):
    """The last frame's padding would end behind the segment's size."""
    log = Log()
    tail = log.segment(alignment=4096)
    more(tail, 5, flags=PADDED).sync()
    tail.header(alignment=4096, segment_bytes=tail.at + 512)
    more(tail, 1, flags=PADDED)
    tail.cut_file(FRAMES_OFFSET + 4096 + 512)
    assert_corrupt_behind(log.write(tmp_path / "log"))


# ---- frames at the wrong place -------------------------------------------------------------------


def test_misdirected_frame_is_nothing(tmp_path):
    """A whole frame of this segment, written at another offset than its own."""
    log, tail = five_records()
    more(tail, 1)
    moved = bytes(tail.raw[tail.offsets[-1] : tail.at])
    tail.put(tail.offsets[-1], bytes(len(moved))).put(20000, moved)
    seen = look(log.write(tmp_path / "log"))
    assert seen.is_(verdict="unsealed", case="OPEN", last=5)
    assert seen.records == texts(1, 5)


def test_misdirected_frame_over_durable_ones(tmp_path):
    """A frame written over another one: later frames say what had been durable."""
    log, tail = five_records()
    begin = tail.at
    more(more(more(tail, 1).sync(), 1).sync(), 1)
    tail.put(begin, bytes(tail.raw[tail.offsets[-1] : tail.at]))
    path = log.write(tmp_path / "log")
    assert look(path).case == "DURABLE_BEHIND"
    assert_corrupt_behind(path)


def test_frame_of_another_segment_is_nothing(tmp_path):
    """Right LSN, right link, right offset, another salt."""
    log, tail = five_records()
    other = Segment(1, salt=tail.salt ^ 1 << 40)  # the same low half: the CRC must tell
    other.at, other.lsn, other.link = tail.at, tail.lsn, tail.link
    more(other, 2)
    tail.put(tail.at, bytes(other.raw[tail.at : other.at]))
    seen = look(log.write(tmp_path / "log"))
    assert seen.last == 5
    assert seen.verdict in {"unsealed", "torn"}
    assert seen.records == texts(1, 5)


@pytest.mark.parametrize("lsn", [3, 5, 8])
def test_lsn_gap_repeat_and_backwards_in_a_closed_segment(tmp_path, lsn):
    """The same lies where only reading can find them."""
    log = Log()
    first = log.segment()
    more(more(first, 2), 3)
    first.frame(TYPE_DATA, data_payload([text(6)]), count=1, lsn=lsn).sync()
    more(log.segment(), 1).sync().seal()
    path = log.write(tmp_path / "log")
    records, error = read_all(path)
    assert records == texts(1, 5)
    assert isinstance(error, walengine.WalCorruptionError)
    assert not walengine.verify(path).ok


# ---- START, INDEX and end slot that lie ----------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        Predecessor(1, 5, FRAMES_OFFSET, 0),
        Predecessor(2, 5, FRAMES_OFFSET, 0),
        Predecessor(U64_MAX, 5, U64_MAX, 0),
        Predecessor(1, 5, U64_MAX, 0),
        Predecessor(1, U64_MAX, 9000, 0),
    ],
    ids=str,
)
def test_start_that_lies_about_its_predecessor(tmp_path, before):
    """Itself, the future, or an end past everything: reading ends with an error, never a loop."""
    log, _ = five_records()
    more(log.segment(base=6, before=before), 1).sync().seal()
    path = log.write(tmp_path / "log")
    _, error = read_all(path)
    assert isinstance(error, walengine.WalCorruptionError)
    assert not walengine.verify(path).ok


@pytest.mark.parametrize("base", [0, 2, U64_MAX, U64_MAX - 1])
def test_start_with_an_impossible_base(tmp_path, base):
    """LSNs begin at 1 and never wrap."""
    log = Log()
    tail = log.segment(start=False)
    tail.frame(TYPE_START, START.pack(base, 1, 0, 0, 0, 0, 0), lsn=base)
    tail.lsn = base
    for _ in range(4):
        tail.frame(TYPE_DATA, data_payload([b"x"]), count=1, lsn=tail.lsn % 2**64, durable=0)
    records, _ = read_all(log.write(tmp_path / "log"))
    assert records == []


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack("<II", U32_MAX, 0),
        struct.pack("<II", 1, 0) + INDEX_ENTRY.pack(1, U64_MAX),
        struct.pack("<II", 1, 0) + INDEX_ENTRY.pack(1, 8),
        struct.pack("<II", 2, 0) + INDEX_ENTRY.pack(4, 8304) + INDEX_ENTRY.pack(1, 8304),
        struct.pack("<II", 1, 0) + INDEX_ENTRY.pack(3, 8304),
        b"",
        b"\xff" * 7,
    ],
    ids=["count", "past", "header", "descending", "wrong-lsn", "empty", "short"],
)
def test_index_that_lies(tmp_path, payload):
    """An index is a hint: a wrong one costs time or an error, never a wrong record."""
    log, tail = five_records()
    tail.index = tail.at
    tail.frame(TYPE_INDEX, payload).seal()
    path = log.write(tmp_path / "log")
    assert read_all(path) == (texts(1, 5), None)
    with walengine.WalReader(path) as reader:
        for lsn, data in texts(1, 5):
            try:
                assert reader.read(lsn).data == data
            except walengine.WalCorruptionError as error:
                assert str(path) in str(error)  # noqa: PT017 (either answer is right)


@pytest.mark.parametrize(
    "slot",
    [{"end": 0}, {"end": 4096}, {"end": U64_MAX}, {"last": U64_MAX}, {"last": 0}, {"index": 1}],
    ids=str,
)
def test_end_slot_that_lies(tmp_path, slot):
    """A slot under a right CRC with impossible fields: an error or no evidence."""
    log, tail = five_records()
    tail.index = slot.pop("index", 0)
    tail.seal(**slot)
    path = log.write(tmp_path / "log")
    records, error = read_all(path)
    assert records == texts(1, 5)
    assert error is None or isinstance(error, walengine.WalCorruptionError)


def test_magics_everywhere(tmp_path):
    """Every 8 bytes a magic: the look behind p stays quick and finds nothing."""
    log, tail = five_records()
    room = (SEGMENT_BYTES - tail.at) // 8
    tail.put(tail.at, struct.pack("<II", FRAME_MAGIC, 0) * room)
    assert look(log.write(tmp_path / "log")).is_(verdict="unsealed", case="OPEN", last=5)


def test_error_text_never_shows_records(tmp_path):
    """A secret in a damaged record stays out of the message."""
    secret = b"correct horse battery staple"
    log, tail = five_records()
    begin = tail.at
    more(tail.data(secret).sync(), 1)
    path = log.write(tmp_path / "log")
    overwrite(path / segment_name(1), begin + 64, b"X")
    _, error = read_all(path)
    assert error is not None
    assert "horse" not in str(error) + repr(error)
