"""Directories and files that are not what a log is made of, and files that change under a reader.

Goal: each gets the error that its user needs (class, path, file, next step), in bounded time and
memory, and nothing outside of the log's directory is ever touched.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from golden.format1 import frame_bytes
from needs import needs_device_file, needs_root
from support import (
    BLOCK,
    SEGMENT_BYTES,
    SMALL,
    TYPE_DATA,
    Log,
    append_after,
    cut,
    data_payload,
    five_records,
    look,
    look_capped,
    more,
    overwrite,
    read_all,
    read_batches,
    read_records,
    segment_name,
    text,
    texts,
)

import walengine
from walengine._core import lib

TIB = 1 << 40


@pytest.fixture
def log(tmp_path):
    """A log with five records, killed in mid-work."""
    story, _ = five_records()
    return story.write(tmp_path / "log")


@pytest.fixture
def victim(tmp_path):
    """A file outside of the log that must stay as it is."""
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"


def refusal(path, *parts, config=SMALL):
    """The writer's refusal, with these parts in its text."""
    with pytest.raises(walengine.WalError) as caught:
        walengine.PortableWalWriter(path, config)
    for part in (str(path), *parts):
        assert part in str(caught.value)
    return caught.value


# ---- the path ------------------------------------------------------------------------------------


def test_path_that_is_a_file(tmp_path):
    """A file is no directory: an error of its own, for all who open."""
    path = tmp_path / "file"
    path.write_bytes(b"a file")
    for call in (walengine.recover, walengine.verify, lambda p: list(walengine.replay(p))):
        with pytest.raises(walengine.WalError, match="directory"):
            call(path)
    refusal(path, "directory")
    assert path.read_bytes() == b"a file"


@pytest.mark.parametrize("path", ["/dev/full", "/dev/null", "/proc/version"])
def test_path_that_is_a_device(path):
    refusal(path, "directory")


def test_path_that_does_not_exist(tmp_path):
    """Readers make nothing, and neither does a writer that may not create."""
    path = tmp_path / "missing"
    for call in (walengine.recover, walengine.verify, lambda p: list(walengine.replay(p))):
        with pytest.raises(walengine.WalError, match="no log"):
            call(path)
    refusal(path, "no log", config=walengine.WalConfig(create=False))
    assert not path.exists()


def test_path_whose_parent_does_not_exist(tmp_path):
    refusal(tmp_path / "no" / "such" / "log", os.strerror(errno.ENOENT))


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_path_that_cannot_be(path):
    with pytest.raises(ValueError, match="path"):
        walengine.recover(path)


def test_path_that_is_too_long(tmp_path):
    refusal(tmp_path / ("x" * 300), os.strerror(errno.ENAMETOOLONG))


def test_path_through_a_symlink(log, tmp_path):
    """Where a log lies is the operator's choice: only names inside of it must be real."""
    link = tmp_path / "link"
    link.symlink_to(log)
    assert read_all(link) == (texts(1, 5), None)
    assert append_after(link, text(6)) == 6
    assert read_all(log) == (texts(1, 6), None)


def test_empty_directory(tmp_path):
    """To a reader no log, to a writer the place for one."""
    path = tmp_path / "empty"
    path.mkdir(mode=0o700)
    with pytest.raises(walengine.WalError, match=str(path)):
        list(walengine.replay(path))
    assert append_after(path, text(1)) == 1


def test_foreign_names_are_left_alone(log):
    """Unicode, newlines, near misses of our own names, and what a crash left of META.new."""
    names = [
        "naïve 日本語.seg", "two\nlines", "wal-.seg", "wal-1.seg", "wal-00000000000000AB.seg",
        "wal-0000000000000001.seg.bak", "wal-0000000000000001.seg~", "x" * 200, "META.old",
        "wal-00000000000000001.seg",
    ]  # fmt: skip
    for name in names:
        (log / name).write_bytes(b"not ours")
    (log / "META.new").write_bytes(b"left by a crash")
    assert read_all(log) == (texts(1, 5), None)
    assert append_after(log, text(6)) == 6
    assert read_all(log) == (texts(1, 6), None)
    assert all((log / name).read_bytes() == b"not ours" for name in names)


# ---- names of ours that are no regular files -----------------------------------------------------


def make_directory(path, victim):
    path.mkdir()


def make_symlink(path, victim):
    path.symlink_to(victim)


def make_dangling(path, victim):
    path.symlink_to("nowhere")


def make_fifo(path, victim):
    os.mkfifo(path)


def make_socket(path, victim):
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is at most 107 bytes long
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def make_device(path, victim):
    needs_device_file(path)


SPECIAL = [make_directory, make_symlink, make_dangling, make_fifo, make_socket, make_device]
special = pytest.mark.parametrize("make", SPECIAL, ids=lambda f: f.__name__[5:])


@special
def test_segment_that_is_no_file(log, victim, make):
    """Refused by name; a FIFO does not hang, a symlink is not followed."""
    path = log / segment_name(2)
    make(path, victim)
    _, error = read_all(log)
    assert isinstance(error, walengine.WalError)
    assert segment_name(2) in str(error)
    refusal(log, segment_name(2))


@special
def test_meta_that_is_no_file(log, victim, make):
    (log / "META").unlink()
    make(log / "META", victim)
    _, error = read_all(log)
    assert isinstance(error, walengine.WalError)
    assert "META" in str(error)
    refusal(log, "META")


@special
def test_lock_that_is_no_file(log, victim, make):
    """The writer takes no lock through a symlink and creates nothing where it points."""
    (log / "LOCK").unlink()
    make(log / "LOCK", victim)
    refusal(log, "LOCK")
    assert not (log / "nowhere").exists()
    assert read_all(log) == (texts(1, 5), None)


@special
def test_spare_that_is_no_file(log, victim, make):
    """A spare is only space: one that is no file is not used, and not followed."""
    make(log / "free-0000000000000001.seg", victim)
    assert read_all(log) == (texts(1, 5), None)
    try:
        append_after(log, text(6))
    except walengine.WalError as error:
        assert "free-" in str(error)  # noqa: PT017 (refusing is as good as not using it)
    else:
        assert read_all(log) == (texts(1, 6), None)


@pytest.mark.parametrize("name", [segment_name(1), "LOCK", "META"])
def test_writer_refuses_hard_links(log, tmp_path, name):
    """A file with a second name may be written by somebody else; reading it is harmless."""
    os.link(log / name, tmp_path / "second name")
    assert read_all(log) == (texts(1, 5), None)
    refusal(log, name)


@pytest.mark.parametrize("name", [segment_name(1), "META"])
def test_writer_refuses_files_of_another_user(log, name):
    needs_root()
    os.chown(log / name, 65534, 65534)
    assert read_all(log) == (texts(1, 5), None)
    refusal(log, name)


def test_writer_refuses_a_directory_of_another_user(log):
    needs_root()
    os.chown(log, 65534, 65534)
    assert read_all(log) == (texts(1, 5), None)
    refusal(log, "owner")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_writer_refuses_a_shared_directory(log, mode):
    """Who may rename files in it may replace the log: only on request."""
    log.chmod(mode)
    refusal(log, "allow_shared_dir", "chmod")
    assert read_all(log) == (texts(1, 5), None)
    shared = walengine.WalConfig(segment_bytes=SEGMENT_BYTES, allow_shared_dir=True)
    with walengine.PortableWalWriter(log, shared) as wal:
        assert wal.append(text(6)) == 6


AS_NOBODY = """
import os, sys, walengine
from support import read_all, SMALL
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for call in (lambda p: list(walengine.replay(p)), lambda p: walengine.PortableWalWriter(p, SMALL)):
    try:
        call(sys.argv[1])
    except walengine.WalError as error:
        print(type(error).__name__, error.errno, error)
"""


@pytest.mark.parametrize("name", [segment_name(1), "META", "."])
def test_what_may_not_be_read(log, name):
    """EACCES is an error with its hint, never the end of the log; root is put aside for it."""
    (log / name).chmod(0)
    for path in [log, *log.parents]:
        if path.stat().st_uid == os.geteuid() and path != log / name:
            path.chmod(path.stat().st_mode | 0o055)
    result = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, log],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"WalOSError {errno.EACCES}")
    assert "permissions" in lines[0]
    assert all(str(log) in line for line in lines)


# ---- size ----------------------------------------------------------------------------------------


def test_sparse_giant_under_a_small_header(log):
    """1 TiB of hole behind a segment of 32 KiB: refused by its size, not read."""
    cut(log / segment_name(1), TIB)
    begin = time.monotonic()
    [seen] = look_capped([log])
    assert seen["error"] == "WalCorruptionError"
    assert segment_name(1) in seen["message"]
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("evidence", [False, True])
def test_sparse_giant_that_its_header_allows(tmp_path, evidence):
    """A segment of 1 TiB: holes are skipped, and a frame at the far end of them is still found."""
    story, tail = five_records()
    tail.header(segment_bytes=TIB)
    path = story.write(tmp_path / "log")
    cut(path / segment_name(1), TIB)
    at = TIB - BLOCK
    if evidence:
        far = frame_bytes(
            salt=tail.salt, at=at, lsn=9, kind=TYPE_DATA, count=1, durable=8,
            payload=data_payload([b"far"]),
        )  # fmt: skip
        overwrite(path / segment_name(1), at, far)
    begin = time.monotonic()
    seen = look(path)
    assert time.monotonic() - begin < 10
    assert seen.case == ("DURABLE_BEHIND" if evidence else "OPEN")
    assert seen.records == texts(1, 5)


def test_sparse_giant_as_meta(log):
    cut(log / "META", TIB)
    begin = time.monotonic()
    assert read_all(log) == (texts(1, 5), None)
    assert time.monotonic() - begin < 5


@pytest.fixture(scope="module")
def many_segments(tmp_path_factory):
    """A chain of 10,000 segments with one record each."""
    path = tmp_path_factory.mktemp("many") / "log"
    story = Log()
    story.write(path)
    for number in range(1, 10_001):
        tail = more(story.segment(number), 1).sync().seal().cut_file()
        (path / segment_name(number)).write_bytes(tail.raw)
        story.segments = [tail]
        tail.raw = bytearray()
    return path


@pytest.mark.not_quick
def test_ten_thousand_segments(many_segments):
    """Recovered, replayed and verified in bounded time and 256 MiB of address space."""
    begin = time.monotonic()
    [seen] = look_capped([many_segments])
    assert (seen["records"], seen["error"]) == (10_000, None)
    assert time.monotonic() - begin < 20


def test_ten_thousand_segments_and_a_hole(many_segments):
    """The missing one is named."""
    hole = many_segments / segment_name(5000)
    contents = hole.read_bytes()
    hole.unlink()
    [seen] = look_capped([many_segments])
    hole.write_bytes(contents)
    assert seen["error"] == "WalCorruptionError"
    assert segment_name(5000) in seen["message"]


# ---- segments cut short --------------------------------------------------------------------------


@pytest.mark.parametrize("slot", ["seal", "watermark", None])
def test_newest_segment_cut_below_what_was_synced(tmp_path, slot):
    """A segment is as long as its header says: a shorter one has lost something."""
    story, tail = five_records()
    if slot:
        getattr(tail, slot)()
    path = story.write(tmp_path / "log")
    cut(path / segment_name(1), tail.offsets[-1])
    records, error = read_all(path)
    assert records == texts(1, 2)
    assert isinstance(error, walengine.WalCorruptionError)
    refusal(path, segment_name(1))


def test_closed_segment_cut_below_its_end(tmp_path):
    story, first = five_records()
    more(story.segment(), 1).sync().seal()
    path = story.write(tmp_path / "log")
    cut(path / segment_name(1), first.offsets[-1])
    _, error = read_all(path)
    assert isinstance(error, walengine.WalCorruptionError)
    assert segment_name(1) in str(error)


def test_last_segment_of_no_length(tmp_path):
    """Segments get their name when their header is on the disk: an empty one is damage."""
    story, tail = five_records()
    tail.seal()
    path = story.write(tmp_path / "log")
    (path / segment_name(2)).touch()
    _, error = read_all(path)
    assert isinstance(error, walengine.WalCorruptionError)
    assert segment_name(2) in str(error)


# ---- files that change while they are read -------------------------------------------------------


@pytest.fixture
def large_log(tmp_path):
    """About 16 MiB in one segment, more than any reader's window."""
    path = tmp_path / "log"
    with walengine.PortableWalWriter(path) as wal:
        for i in range(2400):
            wal.append_batched(b"%07d" % i * 1000)
    return path


def test_file_cut_while_it_is_read(large_log):
    """Whole records, then an error: never a crash, a short record or a silent end."""
    records = []

    def read_and_cut():
        for record in walengine.replay(large_log):
            records.append(record.data)
            if len(records) == 10:
                cut(large_log / segment_name(1), 12 << 20)

    with pytest.raises(walengine.WalError) as caught:
        read_and_cut()
    assert records == [b"%07d" % i * 1000 for i in range(len(records))]
    assert 10 <= len(records) < 2400
    assert str(large_log) in str(caught.value)


def test_file_that_grows_while_it_is_read(large_log):
    """Appending to what is being read: the reader sees what was there when it opened."""
    seen = 0
    with walengine.PortableWalWriter(large_log) as wal:
        for record in walengine.replay(large_log):
            assert record.lsn == seen + 1
            seen += 1
            if seen % 400 == 0:
                wal.append(b"more")
    assert 2400 <= seen <= 2410


@pytest.mark.parametrize("read", [read_records, read_batches])
@pytest.mark.parametrize("sticky", [0, 1])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 6, 7, 8])
def test_read_error_is_never_the_end(log, nth, sticky, read):
    """EIO at the nth read: an error with its errno, or all records (where a second try helped)."""
    lib.wal_fault_set(lib.WAL_FAULT_READ, nth, sticky, lib.WAL_FAULT_FAIL, errno.EIO)
    try:
        records, error = read(log)
        hits = lib.wal_fault_hits()
    finally:
        lib.wal_fault_clear()
    if error is not None or (hits and sticky):
        assert error.errno == errno.EIO
        assert records == texts(1, len(records))
    else:
        assert (records, error) == (texts(1, 5), None)
