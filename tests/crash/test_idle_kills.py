"""A writer that is killed a thousand times without having appended costs no space.

A supervisor that restarts a program in a loop must not fill the disk with one segment a restart.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import output_of, run

import walengine

pytestmark = pytest.mark.not_quick

PROGRAM = Path(__file__).with_name("idle_kills.py")

APPEND_AND = """
import logging
logging.disable()
with PortableWalWriter(sys.argv[1], config(segment_bytes=1 << 20)) as wal:
    wal.append(b"a record")
    wal.sync()
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def never_appended(log):
    return []


def appended_and_closed(log):
    output_of(APPEND_AND, log, "close")
    return [b"a record"]


def appended_and_killed(log):
    assert run(APPEND_AND, log, "die").returncode == -signal.SIGKILL
    return [b"a record"]


BEFORE = {never_appended: 40, appended_and_closed: 40, appended_and_killed: 20}  # on each engine


@pytest.mark.parametrize("before", BEFORE, ids=lambda before: before.__name__)
def test_killing_an_idle_writer_costs_no_space(memory_path, engine, scaled, count, before):
    """Method: du and the number of files, after each kill, are the same to the last."""
    log = memory_path / "log"
    records = before(log)
    kills = max(12, scaled(BEFORE[before]))  # the first of them may still move something
    result = subprocess.run(
        [sys.executable, str(PROGRAM), str(log), str(kills)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    seen = json.loads(result.stdout)
    assert len(seen) == 1, f"what the log occupied: {seen}"
    assert [record.data for record in walengine.replay(log)] == records
    count(f"idle kills, {before.__name__.replace('_', ' ')}, {engine}", kills)


def test_a_writer_that_appends_once_a_life_does_not_eat_a_segment_each(memory_path, scaled):
    """Method: 100 short lives, each closed; the log is as large as one that lived on."""
    log = memory_path / "log"
    config = walengine.WalConfig(segment_bytes=1 << 20)
    for number in range(scaled(100)):
        with walengine.PortableWalWriter(log, config) as wal:
            wal.append(b"life %d" % number)
    assert len(walengine.verify(log).segments) == 1
    assert len(os.listdir(log)) <= 4  # noqa: PTH208 (LOCK, META, the tail, one ahead)
