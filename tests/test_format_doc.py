"""The worked example of docs/FORMAT.md is a log: both readers find in it what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import decoder
import pytest
from support import append_after, read_all

import walengine

PAGE = (Path(__file__).parent.parent / "docs" / "FORMAT.md").read_text(encoding="utf-8")
WANTED = [(1, b"hello"), (2, b"world!")]


def example_files() -> dict[str, bytes]:
    """The files of the example: blocks fenced as `hexdump NAME SIZE`, rows of zeros left out."""
    files = {}
    for name, size, rows in re.findall(r"```hexdump (\S+) (\d+)\n(.*?)```", PAGE, re.DOTALL):
        data = bytearray(int(size))
        for row in rows.splitlines():
            at, digits = int(row[:8], 16), row[10:57]
            data[at : at + 16] = bytes.fromhex(digits)
        files[name] = bytes(data)
    return files


@pytest.fixture
def example(tmp_path):
    log = tmp_path / "log"
    log.mkdir(mode=0o700)
    for name, data in example_files().items():
        (log / name).write_bytes(data)
    (log / "LOCK").touch()
    return log


def test_the_text_column_says_what_the_bytes_say():
    """The right-hand column of the dump is derived, so it must agree."""
    for digits, shown in re.findall(
        r"^[0-9a-f]{8}  ([0-9a-f ]{47})  \|(.{16})\|$", PAGE, re.MULTILINE
    ):
        assert shown == "".join(chr(b) if 32 <= b < 127 else "." for b in bytes.fromhex(digits))


def test_second_decoder_reads_the_example(example):
    """The page's own rules, in Python, read the page's own bytes."""
    assert decoder.decode(example) == (WANTED, "clean")


def test_engine_reads_the_example(example):
    """recover, verify and replay agree with the page."""
    report = walengine.recover(example)
    assert (str(report.verdict), report.first_lsn, report.last_lsn) == ("clean", 1, 2)
    assert report.end_offset == 0x20C8
    assert walengine.verify(example).ok
    assert read_all(example) == (WANTED, None)


def test_engine_continues_the_example(example):
    """A writer takes the example for its own log and appends record 3."""
    assert append_after(example, b"third") == 3
    assert read_all(example) == ([*WANTED, (3, b"third")], None)


def test_the_page_names_every_case_of_the_decision_table():
    """The labels in the table are those of enum wal_case in csrc/walengine.h, all of them."""
    header = Path(__file__).parent.parent / "csrc" / "walengine.h"
    labels = re.findall(r"^\s+WAL_CASE_(\w+) =", header.read_text(encoding="utf-8"), re.MULTILINE)
    table = re.findall(r"^\| ([A-Z_]+) \|", PAGE, re.MULTILINE)
    assert sorted(table) == sorted(labels)


def test_the_page_gives_every_field_of_the_frame_header():
    """Offsets and sizes of the frame table add up to 64 bytes without a gap."""
    rows = re.findall(r"^\| (\d+) \| (\d) \|", PAGE, re.MULTILINE)
    end = 0
    for offset, size in rows:
        assert int(offset) == end
        end += int(size)
    assert end == 64
