"""Readers in one process beside a writer in another that rotates, trims and recycles all the time.

Goal: a log that is being written to is never called damaged. A reader that is overtaken by the trim
is told so (TrimmedError); nothing else may be raised, and every record that comes is the right one.
Method: the smallest segments and a short memory, so that files change under the reader's hands; a
record's bytes follow from its LSN.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live_writer import content

import walengine
from walengine import LsnNotFoundError, TrimmedError, Verdict, WalReader, recover, replay, verify

SECONDS = 2.5
SEGMENTS_MIN = 40  # that the writer begins meanwhile, on a slow machine too
LOOK_UPS = 50

PROGRAM = Path(__file__).with_name("live_writer.py")


class LiveLog:
    """A writer at work in a process of its own."""

    def __init__(self, path, kept, durable_every, strict_sectors=False):
        self.path = path
        arguments = map(str, (PROGRAM, path, kept, durable_every, strict_sectors))
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, kind, *_):
        out, errors = self.process.communicate(timeout=60)  # closes its input: that stops it
        if kind is not None:
            return
        assert (self.process.returncode, errors) == (0, "")
        _, self.recycled = map(int, out.split())


def newest_segment(path):
    return max(int(file.stem.removeprefix("wal-"), 16) for file in path.glob("wal-*.seg"))


def read_it_all(path, _rng):
    """Replay from the first record to the last; how many came."""
    lsns = []
    for record in replay(path):
        assert record.data == content(record.lsn)
        lsns.append(record.lsn)
    assert lsns == list(range(lsns[0], lsns[0] + len(lsns)))
    return len(lsns)


def read_single_records(path, rng):
    """Look up records by LSN in one reader, some of which go meanwhile."""
    with WalReader(path) as reader:
        for _ in range(LOOK_UPS):
            lsn = rng.randrange(reader.first_lsn, reader.last_lsn + 1)
            assert reader.read(lsn).data == content(lsn)
    return LOOK_UPS


def look_at_its_end(path, _rng):
    """What an open would find: a whole log whose end may move."""
    assert recover(path).verdict is not Verdict.CORRUPT
    return 1


def verify_it(path, _rng):
    """Check every frame."""
    report = verify(path)
    assert report.verdict is not Verdict.CORRUPT, report
    return report.records


READERS = [read_it_all, read_single_records, look_at_its_end, verify_it]

WRITERS = {
    "short-memory": {"kept": 60, "durable_every": 7},
    "long-memory": {"kept": 3000, "durable_every": 40},
    "strict-sectors": {"kept": 60, "durable_every": 1, "strict_sectors": True},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_live_log_is_never_called_damaged(memory_path, seed, scale, count, writer):
    rng = random.Random(seed)
    reads = records = overtaken = 0
    with LiveLog(memory_path / "log", **WRITERS[writer]) as log:
        end, last = time.monotonic() + SECONDS * scale, newest_segment(log.path) + SEGMENTS_MIN
        while time.monotonic() < end or newest_segment(log.path) < last:
            reader = rng.choice(READERS)
            try:
                records += reader(log.path, rng)
            except TrimmedError:
                overtaken += 1
            except LsnNotFoundError as error:
                raise AssertionError(f"{reader.__name__}: {error}") from error
            reads += 1
    assert log.recycled > 10
    assert records > 0
    count(f"reads of a live log, {writer}", reads)
    count(f"records read from it, {writer}", records)
    count(f"readers that the trim overtook, {writer}", overtaken)
    count(f"segments recycled meanwhile, {writer}", log.recycled)
    assert verify(log.path).verdict is walengine.Verdict.CLEAN
