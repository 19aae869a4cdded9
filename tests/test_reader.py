"""Reading: replay, WalReader, recover and verify, on logs that are whole and on damaged ones."""

from __future__ import annotations

import itertools
import json

import pytest
from crc32c import crc32c
from support import five_records, flip, more, segment_name, texts

import walengine
from walengine import (
    LsnNotFoundError,
    PortableWalWriter,
    RecoveryMode,
    TrimmedError,
    Verdict,
    WalClosedError,
    WalConfig,
    WalCorruptionError,
    WalError,
    WalReader,
    _native,
    recover,
    replay,
    verify,
)

COUNT = 3000
SMALL = WalConfig(segment_bytes=32768)


def data(lsn):
    return b"%d" % lsn * (lsn % 40)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Some 3,000 records in several segments, in frames of many sizes; trimmed below 11."""
    path = tmp_path_factory.mktemp("reader") / "wal.log"
    with PortableWalWriter(path, SMALL) as wal:
        for lsn in range(1, COUNT + 1):
            append = wal.append_with_checksum_batched if lsn % 500 < 50 else wal.append_batched
            append(data(lsn))
            if lsn % 7 == 0 or lsn % 500 > 400:
                wal.append_with_checksum_batched(b"") if lsn < 0 else wal.sync()
        wal.truncate_before(11)
    return path


@pytest.fixture
def reader(log):
    with WalReader(log) as reader:
        yield reader


@pytest.fixture
def damaged(tmp_path):
    """Records 1 to 5 in two frames, all durable; a bit of the second frame's payload is wrong."""
    log, tail = five_records()
    more(tail).sync()
    path = log.write(tmp_path / "damaged")
    flip(path / segment_name(1), (path / segment_name(1)).read_bytes().index(b"record 4"))
    return path


def lsns(records):
    return [record.lsn for record in records]


# ---- whole logs ----------------------------------------------------------------------------------


def test_replay_yields_every_record_in_order(log):
    records = list(replay(log))
    assert lsns(records) == list(range(11, COUNT + 1))
    assert all(record.data == data(record.lsn) for record in records)


def test_checksums_come_with_the_records_that_carry_them(log):
    for record in replay(log):
        expected = crc32c(data(record.lsn)) if record.lsn % 500 < 50 else None
        assert record.crc32c == expected


def test_records_are_tuples(log):
    lsn, bytes_, crc = next(replay(log, 12))
    assert (lsn, bytes_, crc) == (12, data(12), crc32c(data(12)))


@pytest.mark.parametrize(
    ("first", "last"), [(11, 11), (11, 500), (499, 501), (777, 1234), (COUNT, COUNT), (2990, None)]
)
def test_a_range_begins_and_ends_where_it_says(reader, first, last):
    assert lsns(reader.records(first, last)) == list(range(first, (last or COUNT) + 1))


def test_a_range_that_is_empty_yields_nothing(reader):
    assert list(reader.records(20, 19)) == []


def test_a_range_may_end_beyond_the_log(reader):
    assert lsns(reader.records(COUNT - 1, COUNT + 100)) == [COUNT - 1, COUNT]


def test_a_range_that_begins_right_behind_the_log_is_empty(reader):
    assert list(reader.records(COUNT + 1)) == []


def test_the_reader_knows_its_range(reader, log):
    assert (reader.first_lsn, reader.last_lsn, reader.path) == (11, COUNT, log)


def test_iterating_a_reader_is_reading_everything(reader):
    assert lsns(reader) == list(range(11, COUNT + 1))


@pytest.mark.parametrize("lsn", [11, 12, 499, 500, 501, 1999, COUNT])
def test_read_returns_one_record(reader, lsn):
    record = reader.read(lsn)
    assert (record.lsn, record.data) == (lsn, data(lsn))


@pytest.mark.parametrize("call", ["read", "records"])
def test_below_the_trim_is_an_error_of_its_own(reader, call):
    with pytest.raises(TrimmedError, match=r"LSN 10 .*11"):
        getattr(reader, call)(10)


def test_beyond_the_end_is_a_lookup_error(reader):
    with pytest.raises(LsnNotFoundError, match=f"{COUNT + 1}.*{COUNT}") as caught:
        reader.read(COUNT + 1)
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, WalError)
    assert caught.value.lsn == COUNT + 1


@pytest.mark.parametrize("lsn", [0, -1, 2**64])
def test_what_is_no_lsn_is_a_wrong_argument(reader, lsn):
    for call in (reader.read, reader.records, lambda lsn: reader.records(None, lsn)):
        with pytest.raises(ValueError, match="lsn must be from 1"):
            call(lsn)


def test_segments_stand_in_a_chain(reader):
    segments = reader.segments
    assert len(segments) > 1
    assert all(segment.sealed for segment in segments)
    assert segments[0].base_lsn <= 11
    assert segments[-1].last_lsn == COUNT
    for older, newer in itertools.pairwise(segments):
        assert newer.base_lsn == older.last_lsn + 1


def test_iterators_of_one_reader_are_independent(reader):
    one, two = reader.records(), reader.records(100)
    assert (next(one).lsn, next(two).lsn, next(one).lsn) == (11, 100, 12)


def test_a_closed_reader_refuses(log):
    reader = WalReader(log)
    reader.close()
    reader.close()
    for call in (lambda: reader.read(11), reader.records, lambda: reader.segments):
        with pytest.raises(WalClosedError, match="closed"):
            call()


def test_closing_the_reader_ends_its_iterators(tmp_path):
    """Goal: no use of freed memory; what is read ahead may still come."""
    with PortableWalWriter(tmp_path / "log") as wal:
        for _ in range(40):
            wal.append(bytes(200_000))
    reader = WalReader(tmp_path / "log")
    records = reader.records()
    next(records)
    reader.close()
    with pytest.raises(WalClosedError):
        list(records)


def test_an_abandoned_iterator_leaves_nothing_open(log):
    before = _native._open_files()
    next(replay(log))
    assert _native._open_files() == before


def test_reading_needs_no_lock(tmp_path):
    with PortableWalWriter(tmp_path / "log") as wal:
        wal.append(b"one")
        assert lsns(replay(tmp_path / "log")) == [1]
        assert recover(tmp_path / "log").verdict is Verdict.UNSEALED


def test_an_empty_log_has_no_records(tmp_path):
    PortableWalWriter(tmp_path / "log").close()
    assert list(replay(tmp_path / "log")) == []
    with WalReader(tmp_path / "log") as reader:
        assert (reader.first_lsn, reader.last_lsn) == (1, 0)
        with pytest.raises(LsnNotFoundError):
            reader.read(1)


def test_a_log_trimmed_to_nothing_goes_on_counting(tmp_path):
    with PortableWalWriter(tmp_path / "log") as wal:
        for _ in range(5):
            wal.append(b"x")
        wal.truncate_before(6)
    with WalReader(tmp_path / "log") as reader:
        assert (reader.first_lsn, reader.last_lsn) == (6, 5)
        assert list(reader) == []


@pytest.mark.parametrize("function", [replay, recover, verify, WalReader])
def test_a_missing_log_is_named(tmp_path, function):
    with pytest.raises(WalError, match="nowhere"):
        function(tmp_path / "nowhere")


@pytest.mark.parametrize("function", [replay, recover, verify, WalReader])
def test_a_directory_that_is_no_log_is_an_error(tmp_path, function):
    with pytest.raises(WalError, match=str(tmp_path)):
        function(tmp_path)


def test_the_mode_is_a_recovery_mode(log):
    with pytest.raises(TypeError, match="RecoveryMode"):
        WalReader(log, "salvage")


# ---- damage --------------------------------------------------------------------------------------


def test_every_record_before_damage_comes_first(damaged):
    records = []
    with pytest.raises(WalCorruptionError) as caught:
        records.extend((record.lsn, record.data) for record in replay(damaged))
    assert records == texts(1, 2)
    report = caught.value.report
    assert (report.verdict, report.last_lsn) == (Verdict.CORRUPT, 2)
    assert report.segment == segment_name(1)
    assert str(damaged) in str(caught.value)


def test_damage_behind_the_range_does_not_matter(damaged):
    assert lsns(replay(damaged, 1, 2)) == [1, 2]


def test_reading_behind_damage_is_corruption_and_not_the_end(damaged):
    with WalReader(damaged) as reader, pytest.raises(WalCorruptionError):
        reader.read(5)


def test_recover_reports_damage_and_does_not_raise(damaged):
    report = recover(damaged)
    assert (report.verdict, report.decision) == (Verdict.CORRUPT, "durable_behind")
    assert report.evidence_lsn >= 3


def test_a_writer_refuses_the_log_with_the_report(damaged):
    with pytest.raises(WalCorruptionError) as caught:
        PortableWalWriter(damaged)
    assert caught.value.report.verdict is Verdict.CORRUPT


def test_salvage_skips_the_damage(damaged):
    assert lsns(replay(damaged, mode=RecoveryMode.SALVAGE)) == [1, 2, 6]


def test_damage_in_an_old_segment_is_met_by_the_iterator(tmp_path):
    with PortableWalWriter(tmp_path / "log", SMALL) as wal:
        for lsn in range(1, 200):
            wal.append(b"record %03d" % lsn * 50)
    victim = tmp_path / "log" / segment_name(1)
    flip(victim, victim.read_bytes().index(b"record 010"))
    records = []
    with pytest.raises(WalCorruptionError) as caught:
        records.extend(replay(tmp_path / "log"))
    assert lsns(records) == list(range(1, 10))
    assert caught.value.report.verdict is Verdict.CORRUPT
    assert caught.value.report.segment == victim.name


def test_a_torn_end_just_ends(tmp_path):
    log, tail = five_records()
    more(tail)
    path = log.write(tmp_path / "torn")
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record 6"))
    with WalReader(path) as reader:
        assert lsns(reader) == [1, 2, 3, 4, 5]
        assert reader.report.verdict is Verdict.TORN
        assert reader.report.lost == range(6, 6 + reader.report.dropped_records)


def test_strict_takes_no_torn_end(tmp_path):
    log, tail = five_records()
    more(tail)
    path = log.write(tmp_path / "torn")
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record 6"))
    with pytest.raises(WalCorruptionError):
        list(replay(path, mode=RecoveryMode.STRICT))
    with pytest.raises(WalCorruptionError, match="torn"):
        PortableWalWriter(path, WalConfig(recovery=RecoveryMode.STRICT))


# ---- verify --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [None, 1, 4])
def test_verify_counts_a_whole_log(log, threads):
    report = verify(log, threads)
    assert report.ok
    assert report.verdict is Verdict.CLEAN
    assert report.damaged == ()
    assert report.records >= COUNT - 10
    assert report.record_crcs > 0
    assert len(report.segments) == report.recovery.segments


def test_verify_finds_damage_in_an_old_segment(tmp_path):
    with PortableWalWriter(tmp_path / "log", SMALL) as wal:
        for lsn in range(1, 200):
            wal.append(b"record %03d" % lsn * 50)
    victim = tmp_path / "log" / segment_name(1)
    flip(victim, victim.read_bytes().index(b"record 010"))
    report = verify(tmp_path / "log")
    assert not report.ok
    assert report.verdict is Verdict.CORRUPT
    assert [check.segment for check in report.damaged] == [victim.name]
    assert report.damaged[0].damaged_lsn == 10
    assert report.damaged[0].damaged_offset > 8192


def test_verify_finds_damage_in_the_newest_segment(damaged):
    report = verify(damaged)
    assert report.verdict is Verdict.CORRUPT


@pytest.mark.parametrize("threads", [0, -1])
def test_verify_needs_a_thread(log, threads):
    with pytest.raises(ValueError, match="threads"):
        verify(log, threads)


def test_reports_are_json(log):
    facts = json.loads(json.dumps(verify(log).as_dict()))
    assert facts["verdict"] == "clean"
    assert facts["recovery"]["last_lsn"] == COUNT
    assert facts["recovery"]["lost"] == []


def test_reading_changes_no_byte(log):
    before = {path.name: path.read_bytes() for path in log.iterdir()}
    list(replay(log))
    recover(log)
    verify(log)
    assert {path.name: path.read_bytes() for path in log.iterdir()} == before


def test_verify_is_the_public_name():
    assert walengine.verify is verify


@pytest.mark.parametrize("threads", ["x", 1.5, True])
def test_threads_of_another_type_are_a_mistake(tmp_path, threads):
    with pytest.raises(TypeError, match="threads must be an int or None"):
        walengine.verify(tmp_path, threads=threads)
