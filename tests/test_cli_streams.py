"""The command line where its surroundings are odd: closed or full streams, sizes, directories."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from needs import needs_full_device
from processes import cli, ends
from support import five_records, flip, more, segment_name

from walengine import PortableWalWriter, WalConfig, WalReader, recover, replay

pytestmark = pytest.mark.not_quick

KIB = 1024


@pytest.fixture
def log(tmp_path):
    """Three records in segments of 64 KiB, closed."""
    path = tmp_path / "small.log"
    with PortableWalWriter(path, WalConfig(segment_bytes=64 * KIB)) as wal:
        for data in (b"one\n", b"two\n", b"three\n"):
            wal.append(data)
    return path


def shell(line: str, *arguments: object, user: int | None = None):
    """Run a line of sh in which $W is the command line and $1, $2 the arguments."""
    return subprocess.run(
        ["sh", "-c", f'W="{sys.executable} -m walengine"; {line}', "sh", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
        user=user,
    )


# ---- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["replay", "inspect", "verify", "recover", "verify --json"])
def test_a_closed_standard_output_is_one_line(log, command):
    result = shell(f'$W {command} "$1" >&-', log)
    assert ends(result, 1, "standard output is closed")
    assert len(result.stderr.splitlines()) == 1


def test_a_closed_standard_output_does_not_end_in_the_log(log):
    """Goal: what opens the log must not get descriptor 1."""
    assert ends(shell('printf four | $W append "$1" >&-', log), 0, "1 record")
    assert [record.data for record in replay(log)][-1] == b"four"
    assert ends(shell('printf five | $W append "$1" --json >&-', log), 1, "output is closed")
    assert recover(log).last_lsn == 4


def test_a_closed_standard_input_is_one_line(log):
    result = shell('$W append "$1" <&-', log)
    assert ends(result, 1, "standard input is closed")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["replay", "inspect", "verify", "recover --json"])
def test_a_full_standard_output_is_named(log, command):
    needs_full_device()
    result = shell(f'$W {command} "$1" > /dev/full', log)
    assert ends(result, 1, "standard output: No space left")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["replay", "inspect", "verify", "recover"])
def test_a_reader_that_has_gone_is_quiet(log, command):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "walengine", command, str(log)]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, b"")


# ---- sizes ---------------------------------------------------------------------------------------


def sizes(path):
    with WalReader(path) as reader:
        return [segment.file_bytes for segment in reader.segments]


def test_append_makes_segments_of_the_size_asked_for(tmp_path):
    path = tmp_path / "log"
    options = ["--segment-bytes", "128KiB", "--strict-sectors"]
    assert ends(cli("append", path, *options, data=b"x\n"), 0)
    assert sizes(path) == [128 * KIB]
    assert recover(path).commit_alignment == 4096
    assert ends(cli("append", path, data=b"x\n" * 10), 0)
    assert recover(path).commit_alignment == 4096


def test_append_and_trim_keep_to_the_segments_that_the_log_has(log):
    lines = (b"x" * 999 + b"\n") * 100
    assert ends(cli("append", log, "--durable-every", 10, data=lines), 0)
    assert set(sizes(log)) == {64 * KIB}
    assert ends(cli("trim", log, 50), 0)
    assert set(sizes(log)) == {64 * KIB}


def test_a_large_record_does_not_set_the_size(log):
    assert ends(cli("append", log, data=b"x" * 300_000 + b"\n"), 0)
    lines = (b"x" * 999 + b"\n") * 100
    assert ends(cli("append", log, "--durable-every", 10, data=lines), 0)
    assert sizes(log)[-1] == 64 * KIB


def test_append_has_limits(log):
    result = cli("append", log, "--max-record-bytes", "1k", data=b"ok\n" + b"x" * 2000)
    assert ends(result, 1, "longer than 1024 bytes")
    lines = (b"x" * 999 + b"\n") * 1000
    result = cli("append", log, "--max-log-bytes", "128 KiB", data=lines)
    assert ends(result, 1, "may have 131072", r"\d+ records appended, durable up to LSN \d+")
    count = recover(log).last_lsn
    assert f"durable up to LSN {count}\n" in result.stderr.decode()


@pytest.mark.parametrize("size", ["x", "-1", "0", "1TiB", "1", "4097KB", "33000"])
def test_a_wrong_size_is_wrong_usage(tmp_path, size):
    assert ends(cli("append", tmp_path / "log", "--segment-bytes", size), 2, "Error")
    assert list(tmp_path.iterdir()) == []


# ---- what is said of an early end, of damage, of directories -------------------------------------


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_append_says_how_far_it_came(tmp_path, end, code):
    command = [sys.executable, "-m", "walengine", "append", str(tmp_path / "log"), "--acks"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"durable 2\n"
        process.send_signal(end)
        assert process.wait() == code
        assert b"2 records appended, durable up to LSN 2" in process.stderr.read()
    assert recover(tmp_path / "log").verdict == "clean"


def test_acks_that_nobody_reads_are_no_clean_end(tmp_path):
    """Method: head takes one line; what was not appended must not look appended."""
    line = 'seq 100000 | ($W append "$1" --acks --durable-every 1; echo $? >&2) | head -1'
    result = shell(line, tmp_path / "log")
    assert result.stdout == b"durable 1\n"
    said = result.stderr.decode()
    assert "nobody reads the acknowledgements any more" in said
    assert said.splitlines()[-1] == "1"
    assert recover(tmp_path / "log").last_lsn < 100_000


@pytest.fixture
def chain(tmp_path):
    """A log of many segments."""
    path = tmp_path / "chain"
    with PortableWalWriter(path, WalConfig(segment_bytes=32 * KIB)) as wal:
        for _ in range(200):
            wal.append(bytes(1000))
    return path


@pytest.mark.parametrize("command", ["verify", "recover"])
def test_a_missing_segment_is_named(chain, command):
    (chain / segment_name(3)).unlink()
    said = cli("replay", chain).stderr.decode()
    assert "missing" in said
    result = cli(command, chain)
    assert ends(result, 4)
    assert result.stderr.decode() == said


def test_verify_says_where_the_damage_is(tmp_path):
    built, tail = five_records()
    more(tail).sync()
    path = built.write(tmp_path / "corrupt")
    flip(path / segment_name(1), (path / segment_name(1)).read_bytes().index(b"record 4"))
    said = cli("replay", path).stderr
    for command in ("verify", "recover"):
        result = cli(command, path)
        assert ends(result, 4, "offset")
        assert result.stderr == said


def test_reports_say_nothing_where_there_is_nothing_to_say(chain):
    facts = json.loads(cli("recover", chain, "--json").stdout)
    assert (facts["evidence_offset"], facts["evidence_lsn"], facts["lost"]) == (None, None, [])
    assert facts["next_step"] == "continue"
    (chain / segment_name(3)).unlink()
    facts = json.loads(cli("recover", chain, "--json").stdout)
    assert facts["next_step"] is None


def test_a_directory_that_may_not_be_read_is_an_operating_error(log):
    """Method: root may read everything, so a child of root becomes somebody else first."""
    program = (
        "import os, rich.console, rich.table, encodings.idna, walengine.cli.log\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "walengine.cli.main()"
    )
    log.chmod(0o100)
    try:
        result = subprocess.run(
            [sys.executable, "-c", program, "inspect", "."],
            cwd=log,
            capture_output=True,
            check=False,
        )
    finally:
        log.chmod(0o700)
    assert ends(result, 1, "ermission")


def test_a_missing_parent_has_its_hint(tmp_path):
    assert ends(cli("append", tmp_path / "no" / "log"), 1, "Create the parent directory first")


def test_a_locked_log_is_told_once(log):
    with PortableWalWriter(log):
        result = cli("append", log)
    assert ends(result, 5, "close it there first", "need no lock")
    assert b"offset 0" not in result.stderr


# ---- the source tree -----------------------------------------------------------------------------


def test_the_source_tree_without_its_core_says_so(tmp_path):
    """Method: a copy of the package without its compiled module, first on the path."""
    import shutil  # noqa: PLC0415 (used here only)
    from pathlib import Path  # noqa: PLC0415 (the same)

    import walengine  # noqa: PLC0415 (the same)

    tree = tmp_path / "walengine"
    skip = shutil.ignore_patterns("_core*", "__pycache__")
    shutil.copytree(Path(walengine.__file__).parent, tree, ignore=skip)
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import walengine"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "source tree" in last
    assert "outside the checkout" in last
