"""walengine doctor by its real entry point: places, logs, signals, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from random import Random

import pytest
from examined import doctor, listing, look
from needs import needs_root
from processes import cli, ends, start
from support import five_records, flip, more, segment_name

import walengine
from walengine import IoUringConfig, PortableWalWriter, WalConfig
from walengine.doctor import Level, Report, State, examine
from walengine.doctor.trial import attempt

pytestmark = pytest.mark.not_quick

SMALL = 1 << 20


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "wal.log"
    with PortableWalWriter(path, WalConfig(segment_bytes=SMALL, owner="billing")) as wal:
        wal.append(b"one")
        wal.append(b"two")
    return path


# ---- places --------------------------------------------------------------------------------------


def test_a_directory(tmp_path):
    found = doctor(tmp_path)
    assert found.code == 0
    assert found.at("problem") == set()
    assert found.facts["version"] == walengine.__version__
    assert (found.facts["path"], found.facts["is_log"]) == (str(tmp_path), False)
    assert found.level("access", "writable") == found.level("filesystem", "sync") == "ok"
    topics = [each["topic"] for each in found.facts["findings"]]
    assert list(dict.fromkeys(topics)) == [
        "target", "access", "writer", "kernel", "io_uring", "filesystem", "device", "space",
        "limits", "clock",
    ]  # fmt: skip


def test_the_current_directory_is_the_default(tmp_path):
    result = cli("doctor", "--json", cwd=tmp_path)
    facts = json.loads(result.stdout)
    assert (facts["path"], facts["directory"]) == (".", str(tmp_path))
    assert listing(tmp_path) == []


def test_what_people_read(tmp_path):
    result = cli("doctor", tmp_path)
    assert ends(result, 0)
    text = result.stdout.decode()
    assert f"walengine doctor {tmp_path}" in text
    for word in ("filesystem", "io_uring", "registers 64 buffers", "verdict: ready"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 200


def test_the_function_says_what_the_command_says(tmp_path):
    report = examine(tmp_path)
    assert isinstance(report, Report)
    assert (report.usable, report.verdict is State.UNUSABLE) == (True, False)
    facts = doctor(tmp_path).facts
    facts.pop("version")
    named = [(each["topic"], each["name"], each["level"]) for each in facts["findings"]]
    assert named == [(each.topic, each.name, each.level) for each in report.findings]
    assert report.at(Level.PROBLEM) == ()
    json.dumps(report.as_dict())
    with pytest.raises(ValueError, match="empty"):
        examine("")


def test_a_name_that_is_free(tmp_path):
    found = doctor(tmp_path / "wal.log", inside=tmp_path)
    assert found.level("target", "path") == "ok"
    assert found.facts["directory"] == str(tmp_path)


def test_a_name_in_a_directory_that_is_missing(tmp_path):
    found = doctor(tmp_path / "a b" / "c" / "wal.log", inside=tmp_path)
    assert found.level("target", "path") == "warning"
    assert found.findings["target", "path"]["remedy"] == f"mkdir -p '{tmp_path}/a b/c'"
    assert found.facts["directory"] == str(tmp_path)
    assert (found.verdict, found.code) == ("ready with warnings", 0)


def test_what_is_no_directory(tmp_path):
    (tmp_path / "file").write_bytes(b"kept")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (
        ("file", "is a file, and a log is a directory"),
        ("file/below", "not a directory"),
        ("fifo", "is a FIFO"),
        ("dangling", "leads nowhere"),
        ("loop", "symbolic links"),
        ("x" * 300, "name too long"),
    ):
        report = examine(tmp_path / name)
        found = report.find("target", "path")
        assert (report.verdict, found.level) == ("not usable", "problem")
        assert words in found.text
    assert "is a device" in examine("/dev/null").find("target", "path").text
    found = doctor(tmp_path / "file", inside=tmp_path)
    assert (found.verdict, found.code) == ("not usable", 1)


def test_an_empty_path_is_wrong_usage(tmp_path):
    assert ends(cli("doctor", ""), 2, "the path is empty")


def test_the_current_directory_was_removed(tmp_path):
    program = "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, sys.argv[1:])"
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-c", program, sys.executable, "-P", "-m", "walengine", "doctor"]
    result = subprocess.run(command, cwd=gone, capture_output=True, check=False)
    assert ends(result, 1)
    assert b"the current directory was removed" in result.stdout


def test_a_variable_that_means_nothing(tmp_path):
    assert ends(cli("doctor", tmp_path, WALENGINE_BACKEND="aio"), 1, "WALENGINE_BACKEND")
    assert doctor(tmp_path, WALENGINE_BACKEND="pwrite").fact("writer", "backend", "backend") == (
        "pwrite"
    )


def test_whoever_reads_stops_reading(tmp_path):
    command = [sys.executable, "-m", "walengine", "doctor", str(tmp_path)]
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("call", "field"),
    [("pwrite", "write_error"), ("fdatasync", "sync_error"), ("fsync", "name_sync_error")],
)
def test_what_the_disk_refuses_is_kept(tmp_path, monkeypatch, call, field):
    def refuse(*_arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, refuse)
    trial = attempt(tmp_path, 0)
    steps = ("write_error", "sync_error", "name_sync_error")
    assert [name for name in steps if getattr(trial, name)] == [field]
    assert getattr(trial, field).errno == errno.EIO
    assert listing(tmp_path) == []


# ---- logs ----------------------------------------------------------------------------------------


def test_a_log(log):
    found = doctor(log)
    assert (found.facts["is_log"], found.code) == (True, 0)
    text = found.text("log", "format")
    assert text.startswith("format 1, commits aligned to 8 bytes, ")
    assert "made for the owner 'billing'" in text
    assert found.fact("log", "format", "segment_bytes") == SMALL
    assert found.fact("space", "free", "segment_bytes") == SMALL
    assert found.fact("log", "end", "verdict") == "clean"
    assert "LSNs 1 to 2" in found.text("log", "end")
    assert found.fact("access", "lock", "locked") is False


def test_a_log_of_direct_writes(tmp_path):
    path = tmp_path / "wal.log"
    with PortableWalWriter(path, IoUringConfig(direct_io=True)) as wal:
        wal.append(b"one")
    assert look(path).fact("log", "format", "commit_alignment") == 4096


def test_a_writer_is_at_work(log):
    with PortableWalWriter(log) as wal:
        wal.append(b"three")
        wal.sync()
        result = json.loads(cli("doctor", log, "--json").stdout)
        wal.append(b"four")
        wal.sync()
    found = {(each["topic"], each["name"]): each for each in result["findings"]}
    lock = found["access", "lock"]
    assert (lock["level"], lock["facts"]["locked"]) == ("note", True)
    assert f"process {os.getpid()}" in lock["text"]
    assert found["log", "end"]["facts"]["verdict"] == "unsealed"
    assert result["verdict"] != "not usable"


def test_a_torn_log(tmp_path):
    built, tail = five_records()
    more(tail)
    path = built.write(tmp_path / "torn")
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record 6"))
    path.chmod(0o700)
    found = look(path)
    assert (found.level("log", "end"), found.code) == ("note", 0)
    assert found.fact("log", "end", "verdict") == "torn"


def test_a_damaged_log(tmp_path):
    built, tail = five_records()
    more(tail).sync()
    path = built.write(tmp_path / "corrupt")
    segment = path / segment_name(1)
    flip(segment, segment.read_bytes().index(b"record 4"))
    found = doctor(path)
    assert (found.level("log", "end"), found.code) == ("problem", 1)
    assert "walengine verify" in found.findings["log", "end"]["remedy"]


def test_what_looks_like_a_log_and_is_none(tmp_path):
    (tmp_path / "META").write_bytes(b"something else")
    (tmp_path / segment_name(1)).write_bytes(b"short")
    found = look(tmp_path)
    assert (found.facts["is_log"], found.level("log", "end"), found.code) == (True, "problem", 1)


@pytest.mark.parametrize(("mode", "level"), [(0o700, "ok"), (0o750, "ok"), (0o770, "problem")])
def test_a_log_that_others_may_write_to(log, mode, level):
    log.chmod(mode)
    found = look(log)
    assert found.level("access", "owner") == level
    if level == "problem":
        with pytest.raises(walengine.WalError, match="writable for group or others"):
            PortableWalWriter(log)


@pytest.mark.parametrize(("mode", "words"), [(0o777, "rename or remove"), (0o1777, "below it")])
def test_a_directory_that_others_may_write_to(tmp_path, mode, words):
    tmp_path.chmod(mode)
    found = look(tmp_path)
    assert (found.level("access", "owner"), found.code) == ("note", 0)
    assert words in found.text("access", "owner")


def test_a_log_of_another_user(log):
    """Goal: root may do everything, and a writer refuses all the same."""
    needs_root()
    os.chown(log, 65534, 65534)
    found = look(log)
    assert (found.level("access", "owner"), found.code) == ("problem", 1)
    with pytest.raises(walengine.WalError, match="belongs to user 65534"):
        PortableWalWriter(log)


# ---- nothing is left -----------------------------------------------------------------------------


@pytest.mark.not_quick
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_at_any_moment_leaves_nothing(tmp_path, number, seed, scaled, count):
    """Method: ended at random moments of a run's length; one that was too late just succeeds."""
    random = Random(seed)
    command = [sys.executable, "-m", "walengine", "doctor", str(tmp_path)]
    begin = time.monotonic()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    length = time.monotonic() - begin
    kept = listing(tmp_path)
    codes = []
    for _ in range(scaled(6)):
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=pipe) as process:
            # Not before the interpreter is up: there Ctrl-C shows Python's own traceback.
            time.sleep(length * random.uniform(0.6, 1.0))
            process.send_signal(number)
            error = process.stderr.read()
        codes.append(process.returncode)
        assert listing(tmp_path) == kept
        if process.returncode == 130:
            assert error.strip() == b"walengine: interrupted"
    assert set(codes) <= {0, 130, -number, 1}
    count(f"runs ended by {number.name}", len(codes))


MID_TRIAL = """
import signal
from walengine.doctor import trial
def stop(file):
    print("now", flush=True)
    time.sleep(60)
trial.direct_alignment = stop
if sys.argv[2] == "named":
    os.O_TMPFILE = None
from walengine.__main__ import main
sys.argv = ["walengine", "doctor", sys.argv[1]]
main()
"""


@pytest.mark.not_quick
@pytest.mark.parametrize("name", ["nameless", "named"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_signal_in_the_middle_of_the_trial_leaves_nothing(tmp_path, name, number, code):
    """Goal: its file is open and has bytes in it, also where there is no O_TMPFILE."""
    process = start(MID_TRIAL, tmp_path, name)
    assert process.stdout.readline() == "now\n"
    assert listing(tmp_path) == []
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in error
    assert listing(tmp_path) == []


@pytest.fixture
def when_made(monkeypatch):
    """Have something done when a file with a name was made, where there is no O_TMPFILE."""
    monkeypatch.delattr(os, "O_TMPFILE")
    make = os.open

    def install(action):
        def making(path, flags, *rest, **more):
            made = make(path, flags, *rest, **more)
            if flags & os.O_CREAT:
                action(made)
            return made

        monkeypatch.setattr(os, "open", making)

    return install


def test_a_file_loses_its_name_before_a_signal_comes_through(tmp_path, when_made):
    seen = []

    def signalled(_file):
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        seen.append(("made", listing(tmp_path) != []))

    when_made(signalled)
    before = signal.signal(
        signal.SIGUSR1, lambda *_: seen.append(("signal", listing(tmp_path) != []))
    )
    try:
        trial = attempt(tmp_path, 0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [("made", True), ("signal", False)]
    assert (trial.create_error, trial.write_error, trial.sync_error) == (None, None, None)
    assert listing(tmp_path) == []


def test_ctrl_c_that_another_thread_took_leaves_nothing(tmp_path, when_made):
    """Goal: Python then raises in the main thread, whatever that one blocks."""

    def interrupted(file):
        os.close(file)
        raise KeyboardInterrupt

    when_made(interrupted)
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path, 0)
    assert listing(tmp_path) == []
