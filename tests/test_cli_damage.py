"""What the command line says of damage, and what it still gets out of a damaged log."""

from __future__ import annotations

import pytest
from processes import cli, ends
from support import flip, segment_name

from walengine import PortableWalWriter, WalConfig

KIB = 1024


@pytest.fixture
def damaged(tmp_path):
    """Ten records of 4 KiB in segments of 32 KiB; the second one is damaged."""
    path = tmp_path / "damaged"
    with PortableWalWriter(path, WalConfig(segment_bytes=32 * KIB)) as wal:
        for number in range(1, 11):
            wal.append(b"record %d;" % number + bytes(4 * KIB) + b"\n")
            wal.sync()
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record 2;"))
    return path


def numbers(output: bytes) -> list[int]:
    return [int(line.split(b";")[0].split()[-1]) for line in output.splitlines()]


def test_salvage_writes_what_is_whole_and_names_what_is_not(damaged):
    result = cli("replay", damaged, "--salvage", "--format", "raw")
    assert ends(result, 4, "LSN 2 is missing")
    assert numbers(result.stdout) == [1, *range(3, 11)]
    assert ends(cli("replay", damaged), 4, "walengine replay --salvage")


def test_salvage_of_a_part_speaks_of_that_part(damaged):
    result = cli("replay", damaged, "--salvage", "--from", 3, "--to", 4)
    assert numbers(result.stdout) == [3, 4]
    assert b"missing" not in result.stderr


def test_salvage_of_a_log_that_is_whole(tmp_path):
    assert ends(cli("append", tmp_path / "log", data=b"one\ntwo\n"), 0)
    result = cli("replay", tmp_path / "log", "--salvage")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"one\ntwo\n", b"")


@pytest.mark.parametrize("command", ["inspect", "verify", "recover", "replay", "append", "trim"])
def test_every_command_says_what_to_do_about_lost_meta(tmp_path, command):
    path = tmp_path / "log"
    assert ends(cli("append", path, data=b"one\n"), 0)
    (path / "META").write_bytes(b"x" * 8192)
    arguments = [1] if command == "trim" else []
    assert ends(cli(command, path, *arguments), 4, "META", "Keep a copy", "--salvage")


def test_lost_records_are_shown_as_a_range(tmp_path):
    path = tmp_path / "log"
    with PortableWalWriter(path) as wal:
        for _ in range(2000):
            wal.append(b"record")
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record"))
    for command in ("inspect", "recover"):
        assert " 1 to 2,000 " in cli(command, path).stdout.decode()


def test_trim_says_how_much_went(tmp_path):
    assert ends(cli("append", tmp_path / "log", data=b"one\ntwo\nthree\n"), 0)
    assert b'"dropped_records": 2' in cli("trim", tmp_path / "log", 3, "--json").stdout


def test_a_long_path_is_not_broken(tmp_path):
    path = tmp_path / ("a" * 200)
    assert ends(cli("append", path, data=b"one\n"), 0)
    assert f"{path}\n" in cli("inspect", path).stdout.decode()


def test_a_table_for_a_terminal_that_has_ascii_only(tmp_path):
    assert ends(cli("append", tmp_path / "log", data=b"one\n"), 0)
    out = cli("inspect", tmp_path / "log", PYTHONIOENCODING="ascii").stdout
    assert b"\\u" not in out
    assert b"| verdict          | clean" in out
