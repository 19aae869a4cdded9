"""The command line as users run it: output, exit codes, and what it says to mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys

import pytest
from needs import needs_full_device, needs_installed_command
from processes import cli, ends
from support import five_records, flip, more, segment_name

from walengine import (
    PortableWalWriter,
    Verdict,
    __version__,
    is_io_uring_available,
    recover,
    replay,
)

LINES = [b"one\n", b"two\n", b"\n", b"four \r with\x0bcontrols\x00\n", b"last without"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


@pytest.fixture
def log(path):
    """Three records, closed."""
    with PortableWalWriter(path) as wal:
        wal.append(b"one\n")
        wal.append_with_checksum("zwei ä\n".encode())
        wal.append(b"\xff\x00three")
    return path


@pytest.fixture
def torn(tmp_path):
    built, tail = five_records()
    more(tail)
    path = built.write(tmp_path / "torn")
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record 6"))
    return path


@pytest.fixture
def corrupt(tmp_path):
    built, tail = five_records()
    more(tail).sync()
    path = built.write(tmp_path / "corrupt")
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record 4"))
    return path


def data_of(path):
    return [record.data for record in replay(path)]


# ---- append --------------------------------------------------------------------------------------


def test_append_takes_lines_with_their_newlines(path):
    assert ends(cli("append", path, data=b"".join(LINES)), 0, "5 records appended")
    assert data_of(path) == LINES


def test_append_goes_on_in_a_log(log):
    assert ends(cli("append", log, data=b"four\n"), 0)
    assert data_of(log)[-1] == b"four\n"
    assert recover(log).last_lsn == 4


@pytest.mark.not_quick
@pytest.mark.parametrize("backend", ["auto", "io_uring", "pwrite"])
def test_append_and_trim_take_a_backend(path, backend):
    append = cli("append", path, "--backend", backend, data=b"one\ntwo\n")
    if backend == "io_uring" and not is_io_uring_available():
        assert ends(append, 1, "io_uring")
        return
    assert ends(append, 0, "2 records appended")
    assert ends(cli("trim", path, 2, "--backend", backend), 0)
    assert data_of(path) == [b"two\n"]


@pytest.mark.not_quick
def test_the_backend_is_the_one_that_was_asked_for(log, tmp_path):
    """Method: liburing is demanded, and a package without a library hides it: no ring at all."""
    decoy = tmp_path / "decoy" / "liburing"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").touch()
    hidden = {"WALENGINE_RING": "liburing", "PYTHONPATH": str(decoy.parent)}
    for command in (["append", log], ["trim", log, 1]):
        assert ends(cli(*command, **hidden), 1, "pip install 'walengine.liburing")
        assert ends(cli(*command, "--backend", "io_uring", **hidden), 1)
        assert ends(cli(*command, "--backend", "pwrite", **hidden), 0)


def test_append_of_nothing_makes_an_empty_log(path):
    assert ends(cli("append", path), 0, "0 records")
    assert data_of(path) == []


def test_append_takes_lines_longer_than_a_read(path):
    data = b"x" * 3_000_000 + b"\n" + b"y" * 10
    assert ends(cli("append", path, data=data), 0)
    assert [len(record) for record in data_of(path)] == [3_000_001, 10]


def test_append_takes_length_prefixed_records(path):
    records = [b"", b"with\nnewline", bytes(range(256)) * 10_000]
    data = b"".join(struct.pack("<I", len(record)) + record for record in records)
    assert ends(cli("append", path, "--length-prefixed", data=data), 0)
    assert data_of(path) == records


@pytest.mark.parametrize("data", [b"\x05", b"\x05\0\0\0abc"])
def test_append_refuses_a_cut_record_and_keeps_the_whole_ones(path, data):
    result = cli("append", path, "--length-prefixed", data=b"\x03\0\0\0abc" + data)
    assert ends(result, 1, "ends in the middle")
    assert data_of(path) == [b"abc"]


def test_append_refuses_a_length_that_is_none(path):
    result = cli("append", path, "--length-prefixed", data=b"plain text")
    assert ends(result, 1, "length-prefixed form")


def test_append_refuses_an_endless_line(path):
    result = cli("append", path, data=b"x" * (65 << 20))
    assert ends(result, 1, "longer than 67108864 bytes")


@pytest.mark.parametrize(("every", "acks"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_append_acknowledges_every_so_many(path, every, acks):
    data = b"".join(LINES)
    result = cli("append", path, "--durable-every", every, "--acks", data=data)
    assert ends(result, 0)
    assert result.stdout.decode().splitlines() == [f"durable {lsn}" for lsn in acks]


def test_append_acknowledges_when_the_input_pauses(path):
    """Goal: what was sent is durable although the sender neither closes nor fills a batch."""
    command = [sys.executable, "-m", "walengine", "append", str(path), "--acks"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"durable 2\n"
        process.stdin.write(b"three\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"durable 3\n"
        process.stdin.close()
        assert process.wait() == 0


def test_what_append_acknowledged_survives_a_kill(path):
    command = [sys.executable, "-m", "walengine", "append", str(path), "--durable-every", "10"]
    with subprocess.Popen(
        [*command, "--acks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        lines = b"".join(b"line %d\n" % i for i in range(1, 100_001))
        process.stdin.write(lines[:400_000])
        process.stdin.flush()
        acknowledged = int(process.stdout.readline().split()[1])
        process.kill()
        rest = process.stdout.read().decode().splitlines()
        acknowledged = int(rest[-1].split()[1]) if rest else acknowledged
    records = data_of(path)
    assert len(records) >= acknowledged >= 10
    assert b"".join(records) == lines[: sum(map(len, records))]


def test_append_reports_as_json(path):
    result = cli("append", path, "--json", data=b"one\ntwo\n")
    assert ends(result, 0)
    facts = json.loads(result.stdout)
    assert facts == {"records": 2, "bytes": 8, "first_lsn": 1, "last_lsn": 2, "durable_lsn": 2}


def test_append_cannot_print_both(path):
    assert ends(cli("append", path, "--json", "--acks"), 2, "cannot both")


def test_append_of_a_directory_is_an_operating_error(path, tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    command = [sys.executable, "-m", "walengine", "append", str(path)]
    result = subprocess.run(command, stdin=directory, capture_output=True, check=False)
    os.close(directory)
    assert ends(result, 1, "directory")


def test_append_to_a_locked_log_is_code_5(log):
    with PortableWalWriter(log):
        assert ends(cli("append", log, data=b"x"), 5, r"process \d+", "replay")


def test_append_that_is_interrupted_is_code_130_and_keeps_what_it_took(path):
    command = [sys.executable, "-m", "walengine", "append", str(path), "--acks"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"durable 1\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert b"Traceback" not in process.stderr.read()
    assert data_of(path) == [b"one\n"]
    assert recover(path).verdict is Verdict.CLEAN


# ---- replay --------------------------------------------------------------------------------------


def test_replay_into_a_pipe_is_raw(log):
    result = cli("replay", log)
    assert ends(result, 0)
    assert result.stdout == "one\nzwei ä\n".encode() + b"\xff\x00three"


def test_what_was_appended_is_replayed_byte_for_byte(path):
    data = os.urandom(2_000_000)
    assert ends(cli("append", path, data=data), 0)
    assert cli("replay", path).stdout == data


def test_replay_length_prefixed_is_what_append_takes(log, path):
    stream = cli("replay", log, "--format", "length-prefixed").stdout
    copy = path.with_name("copy")
    assert ends(cli("append", copy, "--length-prefixed", data=stream), 0)
    assert data_of(copy) == data_of(log)


def test_replay_jsonl(log):
    lines = cli("replay", log, "--format", "jsonl").stdout.decode().splitlines()
    first, second, third = map(json.loads, lines)
    assert first == {"lsn": 1, "data": "one\n"}
    assert (second["data"], type(second["crc32c"])) == ("zwei ä\n", int)
    assert third == {"lsn": 3, "data_base64": "/wB0aHJlZQ=="}


def test_replay_for_people_sends_no_control_characters(log):
    with PortableWalWriter(log) as wal:
        wal.append(b"\x1b[31mred\x07\n" + b"x" * 500)
    out = cli("replay", log, "--format", "human").stdout.decode()
    assert len(out.splitlines()) == 4
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "zwei ä" in out
    assert "..." in out


def test_replay_of_a_range(log):
    assert cli("replay", log, "--from", 2, "--to", 2).stdout.decode() == "zwei ä\n"
    assert ends(cli("replay", log, "--from", 4), 0)


def test_replay_below_the_trim_is_an_operating_error(log):
    with PortableWalWriter(log) as wal:
        wal.truncate_before(3)
    assert ends(cli("replay", log, "--from", 1), 1, "trimmed", "Begin at first_lsn")


def test_replay_of_a_corrupt_log_writes_what_comes_before(corrupt):
    result = cli("replay", corrupt)
    assert ends(result, 4, "walengine verify")
    assert result.stdout == b"record 1record 2"


def test_replay_of_a_torn_log_just_ends(torn):
    result = cli("replay", torn)
    assert ends(result, 0)
    assert result.stdout == b"".join(b"record %d" % i for i in range(1, 6))


def test_a_broken_pipe_is_quiet(path):
    with PortableWalWriter(path) as wal:
        for i in range(200_000):
            wal.append_batched(b"line %d\n" % i)
    with subprocess.Popen(
        [sys.executable, "-m", "walengine", "replay", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_full_disk_behind_standard_output_is_an_operating_error(log):
    with needs_full_device().open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "walengine", "replay", str(log)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert ends(result, 1, "No space left")


# ---- inspect, verify, recover --------------------------------------------------------------------


def test_inspect_shows_the_segments(log):
    out = cli("inspect", log).stdout.decode()
    assert segment_name(1) in out
    assert "clean" in out


def test_inspect_as_json(log):
    facts = json.loads(cli("inspect", log, "--json").stdout)
    assert facts["report"]["last_lsn"] == 3
    assert [segment["segment"] for segment in facts["segments"]] == [segment_name(1)]


def test_verify_shows_the_counts(log):
    result = cli("verify", log)
    assert ends(result, 0)
    assert "clean" in result.stdout.decode()


def test_verify_as_json(log):
    facts = json.loads(cli("verify", log, "--json", "--threads", 2).stdout)
    assert (facts["verdict"], facts["records"], facts["record_crcs"]) == ("clean", 3, 1)


def test_recover_tells_and_changes_nothing(torn):
    before = (torn / segment_name(1)).read_bytes()
    facts = json.loads(cli("recover", torn, "--json").stdout)
    assert (facts["verdict"], facts["last_lsn"]) == ("torn", 5)
    assert (torn / segment_name(1)).read_bytes() == before


@pytest.mark.not_quick
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
@pytest.mark.parametrize(
    ("command", "which", "code"),
    [
        ("verify", "log", 0),
        ("verify", "torn", 3),
        ("verify", "corrupt", 4),
        ("recover", "log", 0),
        ("recover", "torn", 3),
        ("recover", "corrupt", 4),
        ("inspect", "log", 0),
        ("inspect", "torn", 0),
        ("inspect", "corrupt", 4),
    ],
)
def test_verdicts_are_exit_codes(request, command, which, code, json_flag):
    result = cli(command, request.getfixturevalue(which), *json_flag)
    assert ends(result, code)
    if json_flag:
        json.loads(result.stdout)


def test_tables_in_a_pipe_are_plain_text(log):
    assert b"\x1b" not in cli("inspect", log).stdout


# ---- trim ----------------------------------------------------------------------------------------


def test_trim_drops_records(log):
    assert ends(cli("trim", log, 3), 0)
    assert [record.lsn for record in replay(log)] == [3]


def test_trim_as_json(log):
    facts = json.loads(cli("trim", log, 2, "--json").stdout)
    assert (facts["first_lsn"], facts["last_lsn"]) == (2, 3)


def test_trim_makes_no_log(path):
    assert ends(cli("trim", path, 1), 1)
    assert not path.exists()


def test_trim_of_a_locked_log_is_code_5(log):
    with PortableWalWriter(log):
        assert ends(cli("trim", log, 2), 5)


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.not_quick
@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["append"],
        ["append", "log", "more"],
        ["append", "log", "--no-such-option"],
        ["append", "log", "--durable-every", "0"],
        ["append", "log", "--durable-every", "x"],
        ["append", ""],
        ["append", "log", "--backend", "libaio"],
        ["replay", "log", "--format", "xml"],
        ["replay", "log", "--from", "0"],
        ["replay", "log", "--to", "-1"],
        ["replay", "log", "--from", "18446744073709551616"],
        ["verify", "log", "--threads", "0"],
        ["trim", "log"],
        ["trim", "log", "0"],
        ["trim", "log", "x"],
        ["trim", "log", "1", "--backend", ""],
        ["trim", "log", "99999999999999999999999"],
        ["demo", "--seconds", "0"],
        ["demo", "--directory", "no/such/place"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_code_2(tmp_path, arguments):
    assert ends(cli(*arguments, cwd=tmp_path), 2, "Usage|Error")
    assert list(tmp_path.iterdir()) == []


COMMANDS = [["replay"], ["inspect"], ["verify"], ["recover"], ["trim", "1"]]


@pytest.mark.not_quick
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_missing_log_is_an_operating_error(tmp_path, command):
    name, *rest = command
    assert ends(cli(name, tmp_path / "nowhere", *rest), 1, "nowhere")


@pytest.mark.not_quick
@pytest.mark.parametrize("command", [["append"], *COMMANDS], ids=lambda command: command[0])
def test_a_path_that_is_a_file_is_an_operating_error(tmp_path, command):
    name, *rest = command
    (tmp_path / "file").write_bytes(b"x")
    assert ends(cli(name, tmp_path / "file", *rest), 1, "file")


@pytest.mark.not_quick
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_directory_that_is_no_log_is_an_operating_error(tmp_path, command):
    name, *rest = command
    assert ends(cli(name, tmp_path, *rest), 1, re.escape(str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir() if path.name != "LOCK"] == []


def test_append_to_a_corrupt_log_is_code_4(corrupt):
    assert ends(cli("append", corrupt, data=b"x"), 4, "walengine verify")


def test_an_unknown_override_is_an_operating_error(path):
    assert ends(cli("append", path, WALENGINE_BACKEND="bogus"), 1, "WALENGINE_BACKEND")


def test_a_newline_in_a_path_is_fine(tmp_path):
    assert ends(cli("append", tmp_path / "new\nline ä", data=b"x"), 0)
    assert cli("replay", tmp_path / "new\nline ä").stdout == b"x"


# ---- the rest ------------------------------------------------------------------------------------


def test_version():
    assert cli("--version").stdout.decode() == f"walengine {__version__}\n"


def test_help_lists_the_commands_and_the_exit_codes():
    out = cli("--help").stdout.decode()
    for word in ("append", "replay", "inspect", "verify", "recover", "trim", "demo", "130"):
        assert word in out


def test_the_installed_command_is_the_same():
    command = needs_installed_command()
    out = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert out == f"walengine {__version__}\n"


def test_a_warning_of_the_log_goes_to_standard_error(torn):
    result = cli("append", torn, "--json", data=b"x")
    assert ends(result, 0, "walengine: .*opened, torn")
    assert json.loads(result.stdout)["last_lsn"] == 6


def test_progress_needs_a_terminal(path):
    result = cli("append", path, data=b"x\n")
    assert result.stderr == b"1 record appended, durable up to LSN 1\n"
