"""Headers and META that no writer wrote: every field that can lie does, under CRCs that are right.

Goal: a clear error of the right class that names path and file, or exactly the records that are
sound. The frames are the business of test_bad_input.py.
"""

from __future__ import annotations

import struct

import pytest
from golden.format1 import crc32c, meta_slot
from support import (
    BLOCK,
    SEGMENT_BYTES,
    Log,
    assert_both_refuse,
    assert_refused,
    cut,
    five_records,
    look,
    more,
    read_all,
    segment_name,
    texts,
)

import walengine

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1


def one_bad_segment(tmp_path, contents):
    """A log whose only segment file holds these bytes."""
    log, _ = five_records()
    path = log.write(tmp_path / "log")
    (path / segment_name(1)).write_bytes(contents)
    return path


# ---- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7, 64, 127, 128, 4095, 4096, 8191])
def test_segment_shorter_than_its_header(tmp_path, size):
    _, tail = five_records()
    path = one_bad_segment(tmp_path, bytes(tail.raw[:size]))
    assert_both_refuse(path, walengine.WalCorruptionError, segment_name(1), "verify")


def test_segment_of_zeros(tmp_path):
    path = one_bad_segment(tmp_path, bytes(SEGMENT_BYTES))
    assert_both_refuse(path, walengine.WalCorruptionError, segment_name(1), "magic")


def test_segment_with_another_magic(tmp_path):
    _, tail = five_records()
    tail.header(magic=b"WALENG9\0")
    path = one_bad_segment(tmp_path, bytes(tail.raw))
    assert_both_refuse(path, walengine.WalCorruptionError, segment_name(1), "magic")


@pytest.mark.parametrize(
    "field",
    [
        {"version": 2},
        {"version": 0},
        {"version": 0x01000000},
        {"required": 1},
        {"required": 1 << 31},
    ],
    ids=str,
)
def test_segment_of_another_format(tmp_path, field):
    """A later version, a wrong byte order, a feature that we do not know: refuse, do not guess."""
    log, tail = five_records()
    tail.header(**field)
    path = log.write(tmp_path / "log")
    assert_both_refuse(path, walengine.UnsupportedFormatError, segment_name(1), "newer")


def test_optional_features_are_ignored(tmp_path):
    log, tail = five_records()
    tail.header(optional=0xFFFF)
    assert read_all(log.write(tmp_path / "log")) == (texts(1, 5), None)


@pytest.mark.parametrize(
    "field",
    [
        {"alignment": 0},
        {"alignment": 7},
        {"alignment": 1 << 31},
        {"segment_bytes": 0},
        {"segment_bytes": 8191},
        {"segment_bytes": SEGMENT_BYTES - 4096},
        {"payload_max": 0},
        {"payload_max": 47},
        {"number": 2},
        {"number": 0},
    ],
    ids=str,
)
def test_segment_header_that_contradicts_itself(tmp_path, field):
    log, tail = five_records()
    tail.header(**field)
    path = log.write(tmp_path / "log")
    assert_both_refuse(path, walengine.WalCorruptionError, segment_name(1))


def test_segment_whose_frames_exceed_its_own_limit(tmp_path):
    """DATA larger than the header's largest payload: no writer of this segment wrote it."""
    log, tail = five_records()
    tail.data(b"x" * 100).header(payload_max=48)
    seen = look(log.write(tmp_path / "log"))
    assert seen.is_(verdict="corrupt", case="MISPLACED", last=5)


def test_segment_of_another_log(tmp_path):
    log, _ = five_records()
    more(log.segment(uuid=bytes(16)), 1)
    path = log.write(tmp_path / "log")
    records, error = read_all(path)
    assert records == texts(1, len(records))
    assert isinstance(error, walengine.WalCorruptionError)
    assert "another log" in str(error)


def test_segment_under_a_second_name(tmp_path):
    """A copy of segment 1 under the name of segment 2: names are not believed."""
    log, tail = five_records()
    path = log.write(tmp_path / "log")
    (path / segment_name(2)).write_bytes(bytes(tail.raw))
    records, error = read_all(path)
    assert records == texts(1, len(records))
    assert isinstance(error, walengine.WalCorruptionError)
    assert segment_name(2) in str(error)


# ---- META ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("contents", [b"", b"W", bytes(8192), b"\xff" * 8192, b"WALMETA1" * 1024])
def test_meta_that_is_none(tmp_path, contents):
    log, _ = five_records()
    path = log.write(tmp_path / "log")
    (path / "META").write_bytes(contents)
    _, error = read_all(path)
    assert isinstance(error, walengine.WalCorruptionError)
    assert "META" in str(error)


def test_meta_lost_its_segments(tmp_path):
    """META and no segment: never a fresh log either."""
    log, _ = five_records()
    path = log.write(tmp_path / "log")
    (path / segment_name(1)).unlink()
    assert look(path).case == "META_LOST"
    assert_refused(path, "META_LOST", "META")


def test_meta_lost_trimmed_records(tmp_path):
    """META says that records were trimmed, and no segment ever held one."""
    log = Log()
    log.segment(start=False)
    path = log.meta(trim=4).write(tmp_path / "log")
    assert look(path).case == "META_LOST"
    assert_refused(path, "META_LOST", "META")


def test_meta_of_another_format(tmp_path):
    log, _ = five_records()
    log.slots = [meta_slot(version=2)] * 2
    path = log.write(tmp_path / "log")
    assert_both_refuse(path, walengine.UnsupportedFormatError, "META")


def test_meta_cut_to_one_slot(tmp_path):
    """One whole slot serves; the half that is gone is a warning."""
    log, _ = five_records()
    path = log.write(tmp_path / "log")
    cut(path / "META", BLOCK)
    seen = look(path)
    assert seen.is_(verdict="unsealed", case="OPEN", last=5)
    assert seen.report.warnings


@pytest.mark.parametrize("field", [{"trim": 0}, {"generation": 0}, {"owner": b"o" * 1024}], ids=str)
def test_meta_with_odd_fields(tmp_path, field):
    """A trim LSN or a generation of 0 is no valid slot; an owner of 1 KiB is."""
    log, _ = five_records()
    log.slots = [meta_slot(**field)] * 2
    seen = look(log.write(tmp_path / "log"))
    if "owner" in field:
        assert seen.report.owner == "o" * 1024
    else:
        assert seen.case == "META_LOST"


def test_meta_whose_owner_is_longer_than_its_room(tmp_path):
    log, _ = five_records()
    slot = bytearray(meta_slot())
    struct.pack_into("<I", slot, 56, U32_MAX)
    log.slots = [refresh_meta(slot)] * 2
    assert look(log.write(tmp_path / "log")).case == "META_LOST"


def refresh_meta(slot):
    struct.pack_into("<I", slot, 8, crc32c(bytes(slot[12:1152])))
    return bytes(slot)


@pytest.mark.parametrize("trim", [6, 7, 1000, U64_MAX])
def test_meta_that_trims_past_the_end(tmp_path, trim):
    """No writer trims past its end: nothing may be invented, and nothing crashes."""
    log, tail = five_records()
    tail.seal()
    path = log.meta(trim=trim).write(tmp_path / "log")
    records, _ = read_all(path)
    assert records == []
