"""`walengine buffer demo`: lines through a queue into SQLite, and what it would notice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from processes import cli, ends

from walengine.buffer import demo

pytestmark = pytest.mark.not_quick


def test_the_demo_moves_every_line_once(tmp_path, scaled, count):
    path = tmp_path / "text"
    path.write_bytes(b"".join(b"line %d \xff \x00\r\n" % i for i in range(8000)) + b"no end")
    result = cli(
        "buffer", "demo", "--file", path, "--kills", 2, "--directory", tmp_path, "--json",
        seconds=120,
    )  # fmt: skip
    assert ends(result, 0)
    facts = json.loads(result.stdout)
    assert facts["lines"] == facts["in_table"] == 8001
    assert facts["lost"] == facts["doubled"] == facts["out_of_order"] == 0
    assert facts["producer_kills"] + facts["consumer_kills"] >= 2
    assert list(tmp_path.iterdir()) == [path]
    count("lines", facts["lines"])
    count("kills", facts["producer_kills"] + facts["consumer_kills"])


def test_the_demo_notices_what_is_wrong(tmp_path):
    """Negative control: a table with a line missing, one changed, one twice, two swapped."""
    path = tmp_path / "text"
    path.write_bytes(b"a\nb\nc\nd\ne\n")
    with closing(sqlite3.connect(tmp_path / "lines.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE lines (number INTEGER, line BLOB)")
        database.execute("CREATE TABLE walengine_state (sequence INTEGER)")
        rows = [(1, b"a"), (3, b"c"), (3, b"c"), (2, b"?"), (5, b"e")]
        database.executemany("INSERT INTO lines VALUES (?, ?)", rows)
    outcome = demo.Outcome(5)
    demo.compare(tmp_path / "lines.db", path, outcome)
    assert (outcome.lost, outcome.doubled, outcome.out_of_order) == (2, 1, 4)
    assert not outcome.is_good


def test_the_demo_says_where_it_cannot_work(tmp_path):
    assert ends(cli("buffer", "demo", "--directory", "/proc"), 1, "the demo needs some space in")
    assert ends(cli("buffer", "demo", "--file", tmp_path / "none"), 2, "does not exist")


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", [["buffer", "demo", "--kills", "0"], ["demo"]])
def test_a_demo_that_is_interrupted_leaves_nothing(tmp_path, command, end, code):
    """Method: the signal goes to the whole group, as a terminal's Ctrl-C does."""
    with subprocess.Popen(
        [sys.executable, "-m", "walengine", *command, "--directory", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        limit = time.monotonic() + 30
        while not any(tmp_path.glob("*/*/*")):  # its processes are not at work yet
            assert time.monotonic() < limit
            time.sleep(0.01)
        os.killpg(process.pid, end)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in error) == (code, False)
    assert list(tmp_path.iterdir()) == []
