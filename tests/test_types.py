"""Records, reports and snapshots: what they are made of and that they stay as they are."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import pickle
from pathlib import Path

import pytest

import walengine
from walengine import (
    GroupSize,
    IoUringStatsSnapshot,
    LatencySummary,
    PortableWalWriter,
    Record,
    Verdict,
    recover,
    verify,
)
from walengine.types import checked_lsn


def test_a_record_is_a_tuple_with_names():
    record = Record((7, b"data", None))
    assert (record.lsn, record.data, record.crc32c) == (7, b"data", None)
    assert record == (7, b"data", None)
    lsn, data, crc = record
    assert (lsn, data, crc) == (7, b"data", None)


def test_a_record_shows_its_fields():
    assert repr(Record((7, b"data", 5))) == "Record(lsn=7, data=b'data', crc32c=5)"


def test_a_record_cannot_be_changed():
    record = Record((7, b"data", None))
    with pytest.raises(AttributeError):
        record.lsn = 8
    with pytest.raises(AttributeError):
        record.other = 8


def test_a_record_matches_a_pattern():
    match Record((7, b"data", None)):
        case Record(lsn, data):
            assert (lsn, data) == (7, b"data")
        case _:
            pytest.fail("no match")


def test_a_record_crosses_process_pools():
    record = pickle.loads(pickle.dumps(Record((7, b"data", None))))
    assert type(record) is Record
    assert record.data == b"data"


@pytest.fixture
def log(tmp_path):
    with PortableWalWriter(tmp_path / "log") as wal:
        wal.append_with_checksum(b"x")
    return tmp_path / "log"


@pytest.mark.parametrize("report", [recover, verify])
def test_reports_are_frozen_and_cross_process_pools(log, report):
    made = report(log)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.verdict = Verdict.TORN
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_verdict_is_its_word():
    assert Verdict.TORN == "torn"
    assert f"{Verdict.TORN}" == "torn"


def test_as_dict_has_every_field(log):
    with PortableWalWriter(log) as wal:
        stats = wal.stats()
    assert list(stats.as_dict()) == [field.name for field in dataclasses.fields(stats)]
    assert stats.as_dict()["sync_latency"]["count"] == stats.sync_latency.count


def snapshot(submitted, completed):
    numbers = {field.name: 0 for field in dataclasses.fields(IoUringStatsSnapshot)}
    return IoUringStatsSnapshot(
        **numbers
        | {
            "ops_submitted": submitted,
            "ops_completed": completed,
            "sync_latency": LatencySummary(0, 0.0, 0.0, 0.0, 0.0, 0.0),
            "group_size": GroupSize(0.0, 0),
            "ring_ops": {},
            "backend": "pwrite",
            "ring": None,
            "ring_version": None,
            "fallbacks": (),
        }
    )


@pytest.mark.parametrize(
    ("submitted", "completed", "in_flight", "rate"),
    [(0, 0, 0, 1.0), (4, 4, 0, 1.0), (4, 3, 1, 0.75), (4, 0, 4, 0.0)],
)
def test_the_completion_rate(submitted, completed, in_flight, rate):
    stats = snapshot(submitted, completed)
    assert (stats.in_flight(), stats.completion_rate()) == (in_flight, rate)


# ---- the package as a whole ----------------------------------------------------------------------


def test_every_public_name_exists_and_says_where_it_is_from():
    for name in walengine.__all__:
        public = getattr(walengine, name)
        if inspect.isclass(public) or inspect.isfunction(public):
            assert public.__module__ == "walengine", name
            assert public.__doc__, name


def test_the_package_is_typed():
    assert (Path(walengine.__file__).parent / "py.typed").exists()


EXAMPLES = [
    name
    for name in walengine.__all__
    if ">>>" in (getattr(walengine, name).__doc__ or "") and name != "__version__"
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {public: getattr(walengine, public) for public in walengine.__all__}
    example = doctest.DocTestFinder(recurse=False).find(names[name], name, globs=names)[0]
    assert doctest.DocTestRunner().run(example).failed == 0


def test_every_class_that_users_make_or_get_has_an_example():
    plain = {
        "LatencySummary",
        "GroupSize",
        "SegmentInfo",
        "SegmentCheck",
        "RecoveryMode",
        "Verdict",
    }
    classes = {name for name in walengine.__all__ if inspect.isclass(getattr(walengine, name))}
    errors = {name for name in classes if issubclass(getattr(walengine, name), Exception)}
    assert classes - errors - plain - set(EXAMPLES) == set()


@pytest.mark.parametrize("lsn", [True, False, "1", 1.0, None])
def test_an_lsn_is_an_int(lsn):
    with pytest.raises(TypeError, match="lsn must be an int"):
        checked_lsn("lsn", lsn)
