"""Batches: the records of WalReader.records, many at once, in memory that the batch owns.

That hostile logs give the same records and the same error both ways is checked wherever a test
uses support.read_all or support.look. The C side has tests/c/test_reader.c.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import shutil
import signal
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from engines import config
from support import five_records, flip, more, segment_name, texts

import walengine
from walengine import (
    ForkedError,
    PortableWalWriter,
    Record,
    RecordBatch,
    RecoveryMode,
    TrimmedError,
    Verdict,
    WalClosedError,
    WalConfig,
    WalCorruptionError,
    WalReader,
    _native,
)
from walengine._core import lib

COUNT = 6000
SMALL = WalConfig(segment_bytes=256 * 1024)
LARGE = 2_500_000  # more than a window of the reader


def data(lsn):
    """Some 10 MB in all: many small records, one of 20,000 bytes in a hundred, two large ones."""
    if lsn in (1234, 4321):
        return b"%07d" % lsn * (LARGE // 7)
    size = 20_000 if lsn % 100 == 0 else lsn * 2654435761 % 300
    return (b"%d " % lsn * (size // 2 + 1))[:size]


def has_crc(lsn):
    return lsn % 1000 < 100


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """In frames of many sizes and several segments; trimmed below 11."""
    path = tmp_path_factory.mktemp("batches") / "log"
    with PortableWalWriter(path, SMALL) as wal:
        for lsn in range(1, COUNT + 1):
            append = wal.append_with_checksum_batched if has_crc(lsn) else wal.append_batched
            append(data(lsn))
            if lsn % 7 == 0:
                wal.sync()
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


def write(path, records):
    """A log of these records."""
    with PortableWalWriter(path) as wal:
        wal.append_many(records, durable=True)
    return path


def one_batch(path, records):
    """The records as the one batch that they make."""
    (batch,) = WalReader(write(path, records)).batches()
    return batch


def take(batches, count):
    """The next batches, for one who does much with each: then a thread reads ahead."""
    taken = []
    for _ in range(count):
        time.sleep(0.01)
        taken.append(next(batches))
    return taken


def pairs(batches):
    return [(record.lsn, record.data) for batch in batches for record in batch]


# ---- the same records ----------------------------------------------------------------------------


def test_batches_hold_every_record_once_and_in_order(reader):
    next_lsn = 11
    for batch in reader.batches():
        assert batch.first_lsn == next_lsn
        assert batch.lsns == range(batch.first_lsn, batch.last_lsn + 1)
        assert len(batch) == len(batch.lsns)
        next_lsn = batch.last_lsn + 1
    assert next_lsn == COUNT + 1


def test_there_are_far_fewer_batches_than_records(reader):
    assert sum(1 for _batch in reader.batches()) < COUNT / 20


def test_every_way_to_a_record_gives_what_was_appended(reader):
    """Method: tables and data, view, views, payloads, iteration and index, on every record."""
    for batch in reader.batches():
        whole = bytes(batch.data)
        assert len(batch.offsets) == len(batch.lengths) == len(batch)
        tables = zip(batch.offsets, batch.lengths, strict=True)
        ways = zip(tables, batch.views(), batch.payloads(), batch, strict=True)
        for i, ((offset, length), view, payload, record) in enumerate(ways):
            wanted = data(batch.first_lsn + i)
            crc = crc32c(wanted) if has_crc(batch.first_lsn + i) else None
            assert whole[offset : offset + length] == wanted
            assert bytes(view) == bytes(batch.view(i)) == payload == wanted
            assert record == batch[i] == (batch.first_lsn + i, wanted, crc)
            assert type(record) is type(batch[i]) is Record


@pytest.mark.parametrize(
    ("first", "last"), [(11, 11), (11, 500), (499, 501), (1234, 1234), (777, 4400), (5990, None)]
)
def test_a_range_begins_and_ends_where_it_says(reader, first, last):
    batches = list(reader.batches(first, last))
    assert (batches[0].first_lsn, batches[-1].last_lsn) == (first, last or COUNT)
    assert pairs(batches) == [(r.lsn, r.data) for r in reader.records(first, last)]


def test_ranges_that_hold_nothing(reader):
    assert list(reader.batches(20, 19)) == []
    assert list(reader.batches(COUNT + 1)) == []


def test_batches_and_records_refuse_alike(reader):
    with pytest.raises(TrimmedError, match=r"LSN 10 .*11"):
        reader.batches(10)
    for wrong in (0, -1, 2**64):
        with pytest.raises(ValueError, match="lsn must be from 1"):
            reader.batches(wrong)
    with pytest.raises(TypeError, match="from_lsn must be an int"):
        reader.batches("1")
    reader.close()
    with pytest.raises(WalClosedError):
        reader.batches()


def test_batches_of_an_empty_log(tmp_path):
    PortableWalWriter(tmp_path / "log").close()
    assert list(WalReader(tmp_path / "log").batches()) == []


def test_each_engine_writes_what_batches_read(engine, tmp_path):
    del engine
    records = [data(lsn) for lsn in range(1, 1100)]
    with PortableWalWriter(tmp_path / "log", config()) as wal:
        for record in records[:50]:
            wal.append(record)
        wal.append_many(records[50:], durable=True)
        with WalReader(tmp_path / "log") as reader:
            found = pairs(reader.batches())
    assert found == list(enumerate(records, 1))


# ---- what a batch is -----------------------------------------------------------------------------


def test_records_stand_back_to_back(tmp_path):
    batch = one_batch(tmp_path / "log", [b"one", b"", b"three"])
    assert bytes(batch.data) == b"onethree"
    assert list(batch.offsets) == [0, 3, 3]
    assert list(batch.lengths) == [3, 0, 5]
    assert batch.crcs is None
    assert repr(batch) == "<RecordBatch LSNs 1 to 3, 8 bytes>"


@pytest.mark.parametrize(
    "records",
    [
        [b""] * 100,
        [b"x"] * 63,
        [b"%08d" % i for i in range(64)],
        [b"%08d" % i for i in range(1000)],
        [b"same"] * 100 + [b"other"],
        [b"%d" % i for i in range(4095)],
        [b"1" * 600_000],
    ],
    ids=["empty", "63", "64", "1000", "one-differs", "mixed", "large"],
)
def test_payloads_of_any_sizes(tmp_path, records):
    """Records of one size and others are cut off by different means."""
    batches = list(WalReader(write(tmp_path / "log", records)).batches())
    assert [payload for batch in batches for payload in batch.payloads()] == records
    sizes = {len(record) for record in records}
    assert batches[0].record_bytes == (sizes.pop() if len(sizes) == 1 else None)


def test_a_batch_is_a_sequence(tmp_path):
    batch = one_batch(tmp_path / "log", [b"one", b"two", b"three"])
    records = [Record((1, b"one", None)), Record((2, b"two", None)), Record((3, b"three", None))]
    assert list(batch) == records
    assert batch[-1] == batch[2] == records[2]
    assert batch[1:] == records[1:]
    assert batch[::-1] == list(reversed(batch)) == records[::-1]
    assert records[1] in batch
    assert batch.index(records[1]) == 1
    for index in (3, -4):
        with pytest.raises(IndexError):
            batch[index]
        with pytest.raises(IndexError):
            batch.view(index)
    with pytest.raises(TypeError):
        batch["one"]


def test_two_iterators_of_a_batch_are_independent(tmp_path):
    batch = one_batch(tmp_path / "log", [b"%04d" % i for i in range(200)])
    one, two = iter(batch), iter(batch)
    assert (next(one).lsn, next(one).lsn, next(two).lsn) == (1, 2, 1)


def test_nothing_of_a_batch_can_be_written(tmp_path):
    batch = one_batch(tmp_path / "log", [b"one"])
    for view in (batch.data, batch.offsets, batch.lengths, batch.view(0), *batch.views()):
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 0


def test_tables_are_arrays_for_numpy(tmp_path):
    """Records of one size are an array of structs as they stand; so are the tables."""
    numbers = [struct.pack("<qd", i, i / 2) for i in range(1000)]
    with PortableWalWriter(tmp_path / "log") as wal:
        for number in numbers:
            wal.append_with_checksum_batched(number)
    (batch,) = WalReader(tmp_path / "log").batches()
    rows = np.frombuffer(batch.data, dtype=[("i", "<i8"), ("half", "<f8")])
    assert rows["i"].tolist() == list(range(1000))
    assert rows["half"].sum() == sum(range(1000)) / 2
    offsets, lengths = np.asarray(batch.offsets), np.asarray(batch.lengths)
    assert (offsets.dtype, lengths.dtype) == (np.uint64, np.uint32)
    assert (np.diff(offsets) == lengths[:-1]).all()
    assert np.asarray(batch.crcs).tolist() == [crc32c(number) for number in numbers]
    assert not rows.flags.writeable


# ---- whose memory it is --------------------------------------------------------------------------


def test_batches_outlive_everything(tmp_path, log):
    """Goal: no view of freed memory, whatever goes first: iterator, reader, files or batch."""
    shutil.copytree(log, tmp_path / "log")
    reader = WalReader(tmp_path / "log")
    batches = list(reader.batches())
    reader.close()
    shutil.rmtree(tmp_path / "log")
    views = [(batch.first_lsn + i, batch.view(i)) for batch in batches for i in range(len(batch))]
    del reader, batches
    gc.collect()
    assert len(views) == COUNT - 10
    assert all(bytes(view) == data(lsn) for lsn, view in views)


def test_an_earlier_batch_stays_as_it_is(reader):
    before, kept = None, None
    for batch in reader.batches():
        assert before is None or before == kept
        before, kept = list(batch), list(batch)
        held = batch.data
        assert bytes(held) == b"".join(data(lsn) for lsn in batch.lsns)


def test_memory_goes_round(tmp_path):
    """Goal: to read a log takes the same few buffers however long it is."""
    records = [b"%0256d" % i for i in range(40_000)]
    write(tmp_path / "log", records)
    with WalReader(tmp_path / "log") as reader:
        lib.wal_alloc_fail(0)
        batches = sum(1 for _batch in reader.batches())
        allocations = lib.wal_alloc_fail(0)
    assert batches > 30
    assert allocations < 30


# ---- damage, torn ends and modes -----------------------------------------------------------------


def test_what_stands_before_damage_comes_first(damaged):
    found = []
    with pytest.raises(WalCorruptionError) as caught:
        found.extend(pair for batch in WalReader(damaged).batches() for pair in pairs([batch]))
    assert found == texts(1, 2)
    assert caught.value.report.verdict is Verdict.CORRUPT
    assert caught.value.report.segment == segment_name(1)
    assert str(damaged) in str(caught.value)


def test_an_iterator_that_raised_has_ended(damaged):
    batches = WalReader(damaged).batches()
    next(batches)
    with pytest.raises(WalCorruptionError):
        next(batches)
    assert list(batches) == []


def test_salvage_skips_the_damage(damaged):
    batches = list(WalReader(damaged, RecoveryMode.SALVAGE).batches())
    assert [lsn for batch in batches for lsn in batch.lsns] == [1, 2, 6]
    assert pairs(batches) == [*texts(1, 2), *texts(6, 6)]


def test_damage_far_behind_comes_in_its_place(log, tmp_path):
    """The thread that reads ahead meets it long before the caller does."""
    shutil.copytree(log, tmp_path / "log")
    at = b"%d " % 5555 * 3
    (victim,) = (p for p in (tmp_path / "log").glob("*.seg") if at in p.read_bytes())
    flip(victim, victim.read_bytes().index(at))
    found = []
    with pytest.raises(WalCorruptionError) as caught:
        batches = WalReader(tmp_path / "log").batches()
        found.extend(lsn for batch in take(batches, 8) for lsn in batch.lsns)
        found.extend(lsn for batch in batches for lsn in batch.lsns)
    assert found == list(range(11, found[-1] + 1))
    assert 5500 < found[-1] < 5555
    assert caught.value.segment == victim.name


# ---- a log that lives ----------------------------------------------------------------------------


def test_a_live_log_shows_what_was_written_when_it_was_opened(tmp_path):
    with PortableWalWriter(tmp_path / "log") as wal:
        wal.append(b"one")
        reader = WalReader(tmp_path / "log")
        wal.append(b"two")
        assert pairs(reader.batches()) == [(1, b"one")]
        assert pairs(WalReader(tmp_path / "log").batches()) == [(1, b"one"), (2, b"two")]


def test_a_trim_does_not_reach_what_is_being_read(tmp_path):
    """A segment that an iterator holds is pinned: the same process trims around it."""
    records = [data(lsn % 1000) for lsn in range(1, 3000)]
    with PortableWalWriter(tmp_path / "log", SMALL) as wal:
        wal.append_many(records, durable=True)
        batches = WalReader(tmp_path / "log").batches()
        first = next(batches)
        wal.truncate_before(2000)
        found = pairs([first])
        with contextlib.suppress(TrimmedError):
            found += pairs(batches)
    assert found == list(enumerate(records, 1))[: len(found)]
    assert len(found) >= len(first)


# ---- threads, forks, iterators that are given up -------------------------------------------------


def threads_of_this_process():
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_thread_reads_ahead_and_goes_with_its_iterator(log):
    gc.collect()
    before = threads_of_this_process()
    batches = WalReader(log).batches()
    take(batches, 8)
    assert threads_of_this_process() == before + 1
    del batches
    gc.collect()
    assert threads_of_this_process() == before


def test_few_records_take_no_thread(log):
    before = threads_of_this_process()
    with WalReader(log) as reader:
        reader.read(2000)
        batches = reader.batches(11, 100)
        next(batches)
        assert threads_of_this_process() == before


@pytest.mark.parametrize("taken", [0, 1, 3, 5, 6, 9])
def test_abandoned_iterators_leave_nothing_open(log, taken):
    gc.collect()
    before = _native._open_files()
    for _ in range(5):
        batches = WalReader(log).batches()
        take(batches, taken)
    del batches
    gc.collect()
    assert _native._open_files() == before


def test_closing_the_reader_ends_its_batches(log):
    reader = WalReader(log)
    batches = reader.batches()
    take(batches, 6)
    reader.close()
    with pytest.raises(WalClosedError):
        next(batches)


def test_iterators_in_many_threads(log):
    """Each its own, over one reader."""
    found, errors = [], []

    def read(reader, begin):
        try:
            found.append((begin, [lsn for b in reader.batches(begin) for lsn in b.lsns]))
        except BaseException as error:  # noqa: BLE001 (told to the test)
            errors.append(error)

    with WalReader(log) as reader:
        threads = [threading.Thread(target=read, args=(reader, 11 + i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert sorted(begin for begin, _ in found) == list(range(11, 19))
    assert all(lsns == list(range(begin, COUNT + 1)) for begin, lsns in found)


def read_on_in_child(batches, log):
    """In the child: 0 if the iterator refuses, the parent's batches and new readers work."""
    signal.alarm(20)
    try:
        next(batches)
    except ForkedError as error:
        if "fork" not in str(error):
            return 2
    else:
        return 3
    del batches
    gc.collect()
    whole = [lsn for batch in WalReader(log).batches() for lsn in batch.lsns]
    return 0 if whole == list(range(11, COUNT + 1)) else 4


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_told_and_the_parent_goes_on(log):
    batches = WalReader(log).batches()
    first = take(batches, 8)
    child = os.fork()
    if child == 0:
        os._exit(read_on_in_child(batches, log))
    assert os.waitpid(child, 0)[1] == 0
    found = [lsn for batch in [*first, *batches] for lsn in batch.lsns]
    assert found == list(range(11, COUNT + 1))


def test_a_batch_stays_in_its_process(log):
    """What crosses process pools is a list of records."""
    batch = next(WalReader(log).batches())
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(batch)
    assert pickle.loads(pickle.dumps(list(batch))) == list(batch)


def test_record_batch_is_a_public_name():
    assert walengine.RecordBatch is RecordBatch
    assert RecordBatch.__module__ == "walengine"
