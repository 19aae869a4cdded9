"""Producers to PostgreSQL, with kills: every row is there once, each producer's in its order."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from postgres_server import fresh_database

pytestmark = pytest.mark.not_quick

CHILD = Path(__file__).parent / "end_to_end_child.py"
FENCED = 7

PRODUCERS = 3
NUMBERS = 1500
PRODUCER_KILLS = 2
CONSUMER_KILLS = 3
ZOMBIES = 2

SECONDS_MAX = 100
DELAY_SECONDS_MAX = 0.05


@pytest.fixture
def database(postgres_server):
    name = fresh_database(postgres_server)
    statement = "CREATE TABLE numbers (at bigserial, who text, number bigint)"
    postgres_server.execute(statement, database=name)
    yield name
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


running: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    yield
    for process in running:
        process.kill()
    running.clear()


class Child:
    """A process whose lines are counted while it runs."""

    def __init__(self, *arguments: object) -> None:
        self.lines = 0
        self.process = subprocess.Popen(
            [sys.executable, CHILD, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        running.append(self.process)

    def _read(self) -> None:
        for _ in self.process.stdout:
            self.lines += 1

    def wait_for(self, lines: int) -> bool:
        """Wait until it has printed so many lines; False if it ended before."""
        limit = time.monotonic() + SECONDS_MAX
        while self.lines < lines:
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < limit
            time.sleep(0.005)
        return True

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; its exit code. A failure of its own shows its traceback."""
        code = self.process.wait(SECONDS_MAX)
        self._reader.join()
        error = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        assert code in (0, FENCED, -signal.SIGKILL), error
        return code


def produce_with_kills(generator, trouble, *arguments):
    """Start a producer as often as it takes; it is killed the first few times."""
    try:
        for _ in range(PRODUCER_KILLS):
            child = Child("produce", *arguments)
            if child.wait_for(generator.randrange(3, 15)):
                time.sleep(generator.uniform(0, DELAY_SECONDS_MAX))
                child.signal(signal.SIGKILL)
            child.end()
        assert Child("produce", *arguments).end() == 0
    except BaseException as error:  # noqa: BLE001 (shown by the test)
        trouble.append(error)


def test_every_row_is_there_once_whoever_is_killed(
    tmp_path, postgres_server, database, seed, count
):
    """Method: 3 producers killed twice each; a consumer killed three times, then frozen twice.

    A frozen one is replaced, and woken when its successor has written: it must find itself fenced,
    and what it was about to write must not be there twice.
    """
    generator = random.Random(seed)
    store, conninfo = tmp_path / "store", postgres_server.conninfo(database)
    trouble: list[BaseException] = []
    feeders = [
        threading.Thread(
            target=produce_with_kills,
            args=(random.Random(f"{seed} {i}"), trouble, store, conninfo, f"p{i}", NUMBERS),
        )
        for i in range(PRODUCERS)
    ]
    for feeder in feeders:
        feeder.start()
    consume = ("consume", store, conninfo, PRODUCERS * NUMBERS)
    kills = fenced = 0
    for _ in range(CONSUMER_KILLS):
        consumer = Child(*consume)
        if consumer.wait_for(generator.randrange(1, 8)):
            time.sleep(generator.uniform(0, DELAY_SECONDS_MAX))
            consumer.signal(signal.SIGKILL)
        kills += consumer.end() == -signal.SIGKILL
    consumer = Child(*consume)
    for _ in range(ZOMBIES):
        if not consumer.wait_for(generator.randrange(1, 8)):
            break
        consumer.signal(signal.SIGSTOP)
        successor = Child(*consume)
        successor.wait_for(1)
        consumer.signal(signal.SIGCONT)
        fenced += consumer.end() == FENCED
        consumer = successor
    for feeder in feeders:
        feeder.join()
    assert trouble == []
    assert consumer.end() == 0
    rows = postgres_server.execute("SELECT who, number FROM numbers ORDER BY at", database=database)
    assert len(rows) == PRODUCERS * NUMBERS
    for i in range(PRODUCERS):
        assert [number for who, number in rows if who == f"p{i}"] == list(range(1, NUMBERS + 1))
    count("rows exact", len(rows))
    count("producers killed", PRODUCERS * PRODUCER_KILLS)
    count("consumers killed", kills)
    count("consumers fenced", fenced)
