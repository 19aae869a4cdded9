"""Many records in one durable call: joined as they come, and staged again where that goes wrong."""

from __future__ import annotations

import array
import random

import pytest

from walengine import (
    PortableWalWriter,
    RecordTooLargeError,
    WalClosedError,
    WalConfig,
    WalFullError,
    WalPoisonedError,
    _native,
    replay,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


@pytest.fixture
def wal(path):
    with PortableWalWriter(path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_faults():
    yield
    _native._fault_clear()


def data_of(path):
    return [record.data for record in replay(path)]


def test_any_mix_of_lengths_comes_back(path, wal, seed, count):
    chance = random.Random(seed)
    expected = []
    for _ in range(40):
        size_max = chance.choice([0, 3, 300, 5000, 70_000, 140_000])
        records = [
            chance.randbytes(chance.randint(0, size_max)) for _ in range(chance.randint(1, 60))
        ]
        if chance.random() < 0.3:
            expected.append(b"staged")
            wal.append_batched(b"staged")
        if chance.random() < 0.3:
            expected.append(b"alone")
            wal.append_durable(b"alone")
        first = len(expected) + 1
        assert wal.append_many(records, durable=True) == range(first, first + len(records))
        expected += records
        assert wal.durable_lsn == wal.last_lsn == len(expected)
    assert data_of(path) == expected
    count("records", len(expected))


def test_every_kind_of_buffer_is_taken_as_its_bytes(path, wal):
    numbers = array.array("I", [1, 2, 3])
    records = [b"bytes", bytearray(b"array"), memoryview(b"view"), numbers, memoryview(numbers)]
    assert wal.append_many(iter(records), durable=True) == range(1, 6)
    assert data_of(path) == [b"bytes", b"array", b"view", numbers.tobytes(), numbers.tobytes()]


@pytest.mark.parametrize("odd", ["text", 7, None, (b"pair", 1), memoryview(b"abcdef")[::2]])
def test_one_that_is_no_record_refuses_all(wal, odd):
    with pytest.raises(TypeError):
        wal.append_many([b"fine"] * 100 + [odd], durable=True)
    assert wal.last_lsn == 0


def test_one_too_large_refuses_all(path):
    with PortableWalWriter(path, WalConfig(max_record_bytes=100)) as wal:
        with pytest.raises(RecordTooLargeError, match="101"):
            wal.append_many([bytes(101), *[b"x"] * 100], durable=True)
        assert wal.last_lsn == 0


def test_a_closed_writer_refuses(wal):
    wal.close()
    with pytest.raises(WalClosedError):
        wal.append_many([b"x"] * 10, durable=True)


def test_what_finds_no_room_stays_staged(path):
    records = [b"%05d" % i + bytes(995) for i in range(600)]
    config = WalConfig(segment_bytes=65536, max_log_bytes=4 * 65536)
    with PortableWalWriter(path, config) as wal:
        wal.append_batched(b"before")
        with pytest.raises(WalFullError):
            wal.append_many(records, durable=True)
        taken = wal.durable_lsn
        assert 1 < taken < 601
        assert wal.pending_batch_ops() == 601 - taken
        assert wal.pending_batch_bytes() == 1000 * (601 - taken)
        assert wal.last_lsn == 601
        found = data_of(path)
        while wal.pending_batch_ops():
            begin = wal.durable_lsn + 1
            wal.truncate_before(begin)
            try:
                wal.flush_batch()
            except WalFullError:
                assert wal.durable_lsn >= begin
            found += [record.data for record in replay(path, from_lsn=begin)]
    assert found == [b"before", *records]


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_what_an_interrupt_kept_from_c_is_staged(path, wal, monkeypatch, calls):
    records = [b"%06d" % i * 100 for i in range(600)]
    wal.append_batched(b"before")
    with monkeypatch.context() as patch:
        interrupt_behind(wal, patch, calls)
        with pytest.raises(KeyboardInterrupt):
            wal.append_many(records, durable=True)
    taken = len(data_of(path))
    assert (taken > 0) == (calls > 0)
    assert wal.pending_batch_ops() == 601 - taken
    assert wal.last_lsn == 601
    wal.append_batched(b"after")
    wal.flush_batch()
    assert data_of(path) == [b"before", *records, b"after"]


def interrupt_behind(wal, patch, calls):
    """Let the native side do so many calls, then be interrupted."""
    real = wal._native.append_joined, wal._native.append
    done = 0

    def interrupted(call):
        def made(*arguments, **options):
            nonlocal done
            if done == calls:
                raise KeyboardInterrupt
            done += 1
            return call(*arguments, **options)

        return made

    patch.setattr(wal._native, "append_joined", interrupted(real[0]))
    patch.setattr(wal._native, "append", interrupted(real[1]))


def test_a_failed_sync_names_all_of_them_as_lost(path):
    with pytest.raises(WalPoisonedError), PortableWalWriter(path) as wal:
        wal.append_durable(b"kept")
        _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, 5)
        with pytest.raises(WalPoisonedError) as caught:
            wal.append_many([b"x"] * 1000, durable=True)
        assert caught.value.lost == range(2, 1002)
        assert wal.pending_batch_ops() == 0
        wal.append_durable(b"refused")
    assert data_of(path)[0] == b"kept"
