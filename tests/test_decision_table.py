"""Where does the log end? One test for every row of the decision table, named after its case.

Each log is built byte by byte from the format table (golden/format1.py), so that what is found is
what was put there and nothing else; docs/FORMAT.md has the table.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from golden.format1 import CONT, FIRST, LAST, PADDED
from support import (
    FRAMES_OFFSET,
    SMALL,
    TYPE_DATA,
    Log,
    Predecessor,
    Segment,
    assert_goes_on,
    assert_refused,
    cut,
    data_payload,
    five_records,
    flip,
    look,
    more,
    read_all,
    segment_name,
    text,
    texts,
    zero,
)

import walengine


def test_every_case_of_the_enum_has_a_test():
    """The labels are read from the header, so a new case cannot come without its test."""
    header = Path(__file__).parent.parent / "csrc" / "walengine.h"
    labels = re.findall(r"^\s+WAL_CASE_(\w+) =", header.read_text(encoding="utf-8"), re.MULTILINE)
    tests = [name for name in globals() if name.startswith("test_")]
    missing = [x for x in labels if not any(t.startswith(f"test_{x.lower()}") for t in tests)]
    assert len(labels) == 12
    assert missing == []


# ---- nothing is wrong ----------------------------------------------------------------------------


def test_new(tmp_path):
    """A prepared segment without START is a log that was never appended to."""
    log = Log()
    log.segment(start=False)
    path = log.write(tmp_path / "log")
    assert look(path).is_(verdict="new", case="NEW", last=0)
    assert_goes_on(path, kept=0)


def test_sealed(tmp_path):
    """The end slot says sealed at p: the next append goes on in this segment."""
    log, tail = five_records()
    tail.seal()
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="clean", case="SEALED", last=5)
    assert found.records == texts(1, 5)
    assert found.report.next_step == "continue"
    assert found.report.end_offset == tail.at
    assert_goes_on(path, kept=5)
    assert walengine.recover(path).segments == 1


def test_sealed_and_cut_behind_the_seal(tmp_path):
    """Nothing was lost with what was cut off; the next append needs a segment with room."""
    log, tail = five_records()
    tail.seal().cut_file()
    path = log.write(tmp_path / "log")
    assert look(path).is_(verdict="clean", case="SEALED", last=5)
    assert_goes_on(path, kept=5)
    assert walengine.recover(path).segments == 2


def test_idle(tmp_path):
    """The idle watermark says p, so damage to the last group cannot hide."""
    log, tail = five_records()
    tail.watermark()
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="unsealed", case="IDLE", last=5)
    assert found.report.next_step == "new-segment"
    assert_goes_on(path, kept=5)


def test_open(tmp_path):
    """No slot, nothing at p, nothing behind."""
    log, _tail = five_records()
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="unsealed", case="OPEN", last=5)
    assert (found.report.dropped_frames, found.report.dropped_bytes) == (0, 0)
    assert_goes_on(path, kept=5)


def test_open_with_an_older_watermark(tmp_path):
    """The slot names an end before p: the log was idle once and went on."""
    log, tail = five_records()
    more(tail.watermark(), 2)
    assert look(log.write(tmp_path / "log")).is_(verdict="unsealed", case="OPEN", last=7)


def test_open_with_a_torn_slot(tmp_path):
    """A torn slot is no evidence of anything."""
    log, tail = five_records()
    tail.seal().raw[4096 + 20] ^= 4
    assert look(log.write(tmp_path / "log")).is_(verdict="unsealed", case="OPEN", last=5)


def test_open_with_a_slot_of_another_salt(tmp_path):
    """The slot that an earlier life of the file left behind names an end far past p."""
    log, tail = five_records()
    older = Segment(1, salt=1)
    older.seal(end=30000, last=900)
    tail.put(4096, bytes(older.raw[4096:4160]))
    assert look(log.write(tmp_path / "log")).is_(verdict="unsealed", case="OPEN", last=5)


def test_open_without_records_is_bypassed(tmp_path):
    """A tail with nothing but START: its successor copies its predecessor record."""
    log, first = five_records()
    first.seal()
    log.segment()
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="unsealed", case="OPEN", last=5)
    assert found.report.next_step == "bypass"
    assert_goes_on(path, kept=5)


def test_open_before_frames_of_an_older_salt(tmp_path):
    """A recycled file: whole frames behind p, but not of this life."""
    older = Segment(7, salt=3, base=50)
    while older.at < 20000:
        more(older.sync(), 3)
    log, _tail = five_records(under=bytes(older.raw))
    path = log.write(tmp_path / "log")
    assert look(path).is_(verdict="unsealed", case="OPEN", last=5)
    assert_goes_on(path, kept=5)


# ---- torn: what was never acknowledged is dropped ------------------------------------------------


def torn_log(tmp_path, damaged_at: int) -> tuple[Path, Segment]:
    """Five durable records, and a frame with two more that has one wrong bit."""
    log, tail = five_records()
    begin = tail.at
    more(tail, 2)
    tail.raw[begin + damaged_at] ^= 1
    return log.write(tmp_path / "log"), tail


def test_torn_frame_payload(tmp_path):
    """The header is right and the payload is not: its two records are counted as dropped."""
    path, tail = torn_log(tmp_path, 70)
    found = look(path)
    assert found.is_(verdict="torn", case="TORN_FRAME", last=5)
    assert found.records == texts(1, 5)
    assert found.error is None
    assert (found.report.dropped_frames, found.report.dropped_records) == (1, 2)
    assert found.report.dropped_bytes == tail.at - tail.offsets[-1]
    assert found.report.end_offset == tail.offsets[-1]
    assert found.report.next_step == "new-segment"
    assert_goes_on(path, kept=5)


def test_torn_frame_header(tmp_path):
    """The header claims to be ours and its CRC is wrong: nothing in it is believed."""
    path, _ = torn_log(tmp_path, 24)
    found = look(path)
    assert found.is_(verdict="torn", case="TORN_FRAME", last=5)
    assert (found.report.dropped_frames, found.report.dropped_records) == (1, 0)
    assert_goes_on(path, kept=5)


def test_torn_frame_is_an_error_in_strict_mode(tmp_path):
    """STRICT: anything but a clean end is refused, and nothing is changed."""
    path, _tail = torn_log(tmp_path, 70)
    strict = walengine.WalConfig(
        segment_bytes=SMALL.segment_bytes, recovery=walengine.RecoveryMode.STRICT
    )
    with pytest.raises(walengine.WalError) as caught:
        walengine.PortableWalWriter(path, strict)
    assert str(path) in str(caught.value)
    assert look(path).is_(verdict="torn", case="TORN_FRAME", last=5)


def test_torn_frame_after_an_open_atomic_group(tmp_path):
    """The tear takes the atomic group before it along: all of a group or nothing."""
    log, tail = five_records()
    more(more(tail, 1, flags=FIRST), 1, flags=CONT)
    begin = tail.at
    more(tail, 1, flags=LAST)
    tail.raw[begin + 70] ^= 1
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="torn", case="TORN_FRAME", last=5)
    assert found.report.dropped_records == 3
    assert_goes_on(path, kept=5)


def test_torn_behind(tmp_path):
    """A whole frame behind a hole that says only that LSN 5 had been durable."""
    log, tail = five_records()
    begin = tail.at
    more(more(tail, 2), 3)
    tail.put(begin, bytes(tail.offsets[-1] - begin))
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="torn", case="TORN_BEHIND", last=5)
    assert (found.report.dropped_frames, found.report.dropped_records) == (1, 3)
    assert found.report.dropped_bytes == tail.at - begin
    assert_goes_on(path, kept=5)


def test_torn_behind_a_torn_frame(tmp_path):
    """The frame at p is torn and whole ones stand behind it, not durable either."""
    log, tail = five_records()
    begin = tail.at
    more(more(tail, 2), 3)
    tail.raw[begin + 70] ^= 1
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="torn", case="TORN_BEHIND", last=5)
    assert (found.report.dropped_frames, found.report.dropped_records) == (2, 5)
    assert_goes_on(path, kept=5)


def test_torn_behind_in_a_padded_segment(tmp_path):
    """At commit alignment 4096 the frames behind stand at their own blocks."""
    log = Log()
    tail = log.segment(alignment=4096)
    more(tail, 5, flags=PADDED).sync()
    begin = tail.at
    more(more(tail, 1, flags=PADDED), 1, flags=PADDED)
    tail.put(begin, bytes(512))
    assert look(log.write(tmp_path / "log")).is_(verdict="torn", case="TORN_BEHIND", last=5)


def test_torn_behind_a_seal(tmp_path):
    """Frames of this salt behind a sealed end are no part of the log, and it is not clean."""
    log, tail = five_records()
    tail.seal().skip(64)
    more(tail)
    found = look(log.write(tmp_path / "log"))
    assert found.is_(verdict="torn", case="TORN_BEHIND", last=5)
    assert found.report.next_step == "new-segment"


def test_atomic_cut(tmp_path):
    """Two whole frames of a group of which LAST never came: both are dropped."""
    log, tail = five_records()
    begin = tail.at
    more(more(tail, 2, flags=FIRST), 1, flags=CONT)
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="torn", case="ATOMIC_CUT", last=5)
    assert (found.report.dropped_frames, found.report.dropped_records) == (2, 3)
    assert found.report.end_offset == begin
    assert_goes_on(path, kept=5)


def test_atomic_cut_keeps_whole_groups_before_it(tmp_path):
    """A group with its LAST stays; only the one without is dropped."""
    log, tail = five_records()
    more(more(tail, 1, flags=FIRST), 1, flags=LAST)
    more(tail, 1, flags=FIRST)
    path = log.write(tmp_path / "log")
    assert look(path).is_(verdict="torn", case="ATOMIC_CUT", last=7)
    assert_goes_on(path, kept=7)


# ---- corrupt: acknowledged bytes are damaged -----------------------------------------------------


@pytest.mark.parametrize("slot", ["seal", "watermark"])
def test_end_past(tmp_path, slot):
    """The end slot names an end past p, sealed or not: what lies between had been there."""
    log, tail = five_records()
    begin = tail.at
    more(tail, 2).sync()
    getattr(tail, slot)()
    tail.raw[begin + 80] ^= 1
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="corrupt", case="END_PAST", last=5)
    assert found.records == texts(1, 5)
    assert found.report.end_offset == begin
    assert found.report.evidence_lsn == 7
    assert_refused(path, "END_PAST", segment_name(1), str(begin))


def test_end_past_by_the_successor(tmp_path):
    """A closed segment is damaged before the end that its successor names: reading finds it."""
    log, first = five_records()
    more(log.segment(), 2).sync().seal()
    path = log.write(tmp_path / "log")
    flip(path / segment_name(1), first.offsets[2] + 70)
    records, error = read_all(path)
    assert records == texts(1, 2)
    assert isinstance(error, walengine.WalCorruptionError)
    for part in (str(path), segment_name(1), str(first.offsets[2])):
        assert part in str(error)
    report = walengine.verify(path)
    assert not report.ok
    assert [check.damaged_offset for check in report.damaged] == [first.offsets[2]]


def test_end_past_the_end_of_a_cut_file(tmp_path):
    """The segment was shortened below the end that its slot names."""
    log, tail = five_records()
    tail.watermark()
    path = log.write(tmp_path / "log")
    cut(path / segment_name(1), tail.offsets[-1])
    assert look(path).is_(verdict="corrupt", case="END_PAST", last=2)
    assert_refused(path, "END_PAST", segment_name(1))


@pytest.mark.parametrize("damaged_at", [0, 24, 40, 70])
def test_durable_behind(tmp_path, damaged_at):
    """A frame behind p says that p had been durable, whatever is wrong at p."""
    log, tail = five_records()
    begin = tail.at
    more(more(tail, 2).sync(), 1)
    tail.raw[begin + damaged_at] ^= 1
    path = log.write(tmp_path / "log")
    found = look(path)
    assert found.is_(verdict="corrupt", case="DURABLE_BEHIND", last=5)
    assert found.records == texts(1, 5)
    assert (found.report.evidence_offset, found.report.evidence_lsn) == (tail.offsets[-1], 7)
    assert_refused(path, "DURABLE_BEHIND", segment_name(1), str(begin), str(tail.offsets[-1]))


def test_durable_behind_says_exactly_the_lsn_at_p(tmp_path):
    """The boundary: durable LSN = the LSN expected at p is evidence, one less is not."""
    for durable, case in ((5, "TORN_BEHIND"), (6, "DURABLE_BEHIND")):
        log, tail = five_records()
        begin = tail.at
        more(tail, 2)
        tail.data(text(8), durable=durable)
        tail.put(begin, bytes(64))
        assert look(log.write(tmp_path / case)).case == case


def test_misplaced_lsn(tmp_path):
    """A whole frame at p whose LSN leaves a gap: no crash makes one."""
    for lsn in (4, 7, 0, 2**64 - 1):
        log, tail = five_records()
        tail.frame(TYPE_DATA, data_payload([text(6)]), count=1, lsn=lsn)
        path = log.write(tmp_path / str(lsn))
        assert look(path).is_(verdict="corrupt", case="MISPLACED", last=5)
        assert_refused(path, "MISPLACED", segment_name(1), str(tail.offsets[-1]))


def test_misplaced_link(tmp_path):
    """A whole frame at p that follows another frame than the one before it."""
    log, tail = five_records()
    tail.data(text(6), link=tail.link ^ 1)
    path = log.write(tmp_path / "log")
    assert look(path).is_(verdict="corrupt", case="MISPLACED", last=5)
    assert_refused(path, "MISPLACED", segment_name(1))


def test_misplaced_second_start(tmp_path):
    """START belongs at 8192 and nowhere else."""
    log, tail = five_records()
    start = bytes(tail.raw[FRAMES_OFFSET + 64 : FRAMES_OFFSET + 112])
    tail.frame(1, start)
    assert look(log.write(tmp_path / "log")).is_(verdict="corrupt", case="MISPLACED", last=5)


def three_segments() -> Log:
    log, first = five_records()
    first.seal()
    more(log.segment(), 2).sync().seal()
    more(log.segment(), 2).sync().seal()
    return log


def test_chain_broken_by_a_missing_segment(tmp_path):
    """The middle one of three is gone: what stands before the gap is still read."""
    path = three_segments().write(tmp_path / "log")
    (path / segment_name(2)).unlink()
    found = look(path)
    assert found.is_(verdict="corrupt", case="CHAIN_BROKEN", last=5)
    assert found.records == texts(1, 5)
    assert_refused(path, "CHAIN_BROKEN", segment_name(2))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_chain_broken_by_a_damaged_header(tmp_path, number):
    """An unreadable header under a wal- name is never a crash."""
    path = three_segments().write(tmp_path / "log")
    flip(path / segment_name(number), 50)
    found = look(path)
    assert (found.verdict, found.case) == ("corrupt", "CHAIN_BROKEN")
    assert found.records == texts(1, {1: 0, 2: 5, 3: 7}[number])
    assert_refused(path, "CHAIN_BROKEN", segment_name(number))


@pytest.mark.parametrize("number", [2, 3])
def test_chain_broken_by_a_damaged_start(tmp_path, number):
    """A segment without START is a spare, unless something in it had been durable."""
    path = three_segments().write(tmp_path / "log")
    flip(path / segment_name(number), FRAMES_OFFSET + 80)
    assert (look(path).verdict, look(path).case) == ("corrupt", "CHAIN_BROKEN")
    assert_refused(path, "CHAIN_BROKEN", segment_name(number))


def test_chain_broken_by_a_damaged_start_of_an_idle_tail(tmp_path):
    """One group, so no frame vouches for another: the idle watermark does."""
    log, first = five_records()
    first.seal()
    more(log.segment(), 2).sync().watermark()
    path = log.write(tmp_path / "log")
    flip(path / segment_name(2), FRAMES_OFFSET + 80)
    assert look(path).is_(verdict="corrupt", case="CHAIN_BROKEN", last=5)
    assert_refused(path, "CHAIN_BROKEN", segment_name(2))


def test_chain_broken_by_another_end(tmp_path):
    """The successor names a predecessor's end that the predecessor cannot have."""
    for before in (
        Predecessor(1, last_lsn=5, end_offset=40000),
        Predecessor(1, last_lsn=9, end_offset=FRAMES_OFFSET),
        Predecessor(1, last_lsn=5, end_offset=64),
        Predecessor(3, last_lsn=5, end_offset=FRAMES_OFFSET),
        Predecessor(2, last_lsn=5, end_offset=FRAMES_OFFSET),
    ):
        log, _ = five_records()
        more(log.segment(before=before, base=6), 1)
        path = log.write(tmp_path / f"{before.number}-{before.end_offset}-{before.last_lsn}")
        assert look(path).case == "CHAIN_BROKEN"
        assert_refused(path, "CHAIN_BROKEN")


def test_chain_broken_by_a_wrong_link(tmp_path):
    """The successor's record of the predecessor's last frame must be that frame's."""
    log, first = five_records()
    before = first.here()
    wrong = Predecessor(before.number, before.last_lsn, before.end_offset, before.crc ^ 1)
    more(log.segment(before=wrong), 1).sync().seal()
    path = log.write(tmp_path / "log")
    _, error = read_all(path)
    assert isinstance(error, walengine.WalCorruptionError)
    assert not walengine.verify(path).ok


def test_meta_lost(tmp_path):
    """Frames and no META are never taken for a fresh log."""
    log, tail = five_records()
    tail.seal()
    path = log.write(tmp_path / "log")
    (path / "META").unlink()
    found = look(path)
    assert (found.verdict, found.case) == ("corrupt", "META_LOST")
    assert_refused(path, "META_LOST", "META")


def test_meta_lost_when_both_slots_are_damaged(tmp_path):
    """One damaged slot is a warning, two are the end."""
    log, _tail = five_records()
    path = log.write(tmp_path / "log")
    flip(path / "META", 20)
    found = look(path)
    assert found.is_(verdict="unsealed", case="OPEN", last=5)
    assert any("META" in warning or "meta" in warning for warning in found.report.warnings)
    flip(path / "META", 4096 + 20)
    found = look(path)
    assert (found.verdict, found.case) == ("corrupt", "META_LOST")
    assert_refused(path, "META_LOST", "META")


def test_a_prepared_segment_is_no_evidence(tmp_path):
    """A torn START in the next segment: the first group never was acknowledged."""
    log, first = five_records()
    first.seal()
    more(log.segment(), 2)
    path = log.write(tmp_path / "log")
    zero(path / segment_name(2), FRAMES_OFFSET, 64)
    assert look(path).is_(verdict="clean", case="SEALED", last=5)
    assert_goes_on(path, kept=5)
