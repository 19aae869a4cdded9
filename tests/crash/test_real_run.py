"""A real run: 200 MB of real text lines through the command line, and back.

Method: the output of `find / -xdev -ls`, repeated, goes into `walengine append` through a pipe, on
a real disk; what `walengine replay` writes is compared with it byte for byte. Then the same with a
SIGKILL half-way: what comes back must be a prefix that holds every record that was acknowledged.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from needs import needs_tool

import walengine

pytestmark = pytest.mark.not_quick

TEXT_BYTES = 200_000_000
BLOCK_BYTES_MAX = 20_000_000
CHUNK_BYTES = 1 << 20
DURABLE_EVERY = 2000
SCALE_MAX = 5  # a gigabyte will do

WALENGINE = [sys.executable, "-m", "walengine"]


class Text:
    """Lines, repeated to a size: position i holds block[i % len(block)]."""

    def __init__(self, block, size):
        self.block = block
        self.repeats = -(-size // len(block))
        self.size = self.repeats * len(block)
        self.lines = self.repeats * block.count(b"\n")

    def chunks(self):
        view = memoryview(self.block)
        for _ in range(self.repeats):
            for begin in range(0, len(view), CHUNK_BYTES):
                yield view[begin : begin + CHUNK_BYTES]

    def feed(self, pipe):
        """Write all of it; a reader that is gone is no error."""
        with contextlib.suppress(BrokenPipeError):
            for chunk in self.chunks():
                pipe.write(chunk)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()

    def prefix_in(self, stream):
        """Compare what a stream delivers; (bytes, lines) of it, which must be a prefix of this."""
        position = lines = 0
        view = memoryview(self.block)
        while True:
            begin = position % len(view)
            data = stream.read(min(CHUNK_BYTES, len(view) - begin))
            if not data:
                return position, lines
            assert data == view[begin : begin + len(data)], f"different behind byte {position}"
            position += len(data)
            lines += data.count(b"\n")


@pytest.fixture
def text(scale):
    """What find says of this machine's files."""
    find = needs_tool("find")
    with subprocess.Popen(
        [find, "/", "-xdev", "-ls"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        block = process.stdout.read(BLOCK_BYTES_MAX)
        process.kill()
    block = block[: block.rindex(b"\n") + 1]
    return Text(block, int(TEXT_BYTES * min(scale, SCALE_MAX)))


@pytest.fixture
def log(tmp_path):
    """On a real disk; pytest would keep it, and it is large."""
    yield tmp_path / "log"
    shutil.rmtree(tmp_path / "log")


def replayed(log, text):
    """Bytes and lines that `walengine replay` writes, which are a prefix of the text."""
    with subprocess.Popen(
        [*WALENGINE, "replay", "--format", "raw", log], stdout=subprocess.PIPE
    ) as process:
        found = text.prefix_in(process.stdout)
    assert process.returncode == 0
    return found


def append(log, text, *options):
    """Start `walengine append`, and a thread that feeds it."""
    process = subprocess.Popen(
        [*WALENGINE, "append", *options, log],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    feeder = threading.Thread(target=text.feed, args=(process.stdin,))
    feeder.start()
    return process, feeder


def test_real_text_goes_in_and_comes_back(log, text, count):
    """Goal: what comes back is what went in, byte for byte; a record is a line."""
    process, feeder = append(log, text)
    with process:
        feeder.join()
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert replayed(log, text) == (text.size, text.lines)
    report = walengine.verify(log)
    assert (report.verdict, report.records) == ("clean", text.lines)
    count("bytes of real text", text.size)
    count("lines of it", text.lines)


def test_a_kill_half_way_leaves_a_prefix_with_everything_acknowledged(log, text, count):
    """Method: SIGKILL once half of the lines are acknowledged, while the other half comes in."""
    process, feeder = append(log, text, "--acks", "--durable-every", str(DURABLE_EVERY))
    acknowledged = 0
    with process:
        for line in iter(process.stdout.readline, b""):
            acknowledged = int(line.removeprefix(b"durable "))
            if acknowledged >= text.lines // 2:
                process.kill()
                break
        rest = process.stdout.read().splitlines(keepends=True)
        feeder.join()
    assert process.returncode == -signal.SIGKILL
    acknowledged = max([acknowledged, *(int(line[8:]) for line in rest if line.endswith(b"\n"))])
    size, lines = replayed(log, text)
    assert acknowledged <= lines <= text.lines
    assert walengine.recover(log).last_lsn == lines
    count("lines acknowledged before the kill", acknowledged)
    count("lines found after it", lines)
    count("bytes found after it", size)
