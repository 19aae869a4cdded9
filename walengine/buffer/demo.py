"""The buffer's demo: lines of a file go through a queue into SQLite while its processes are killed.

A producer process puts the lines into a queue in a local directory, a consumer process takes them
off into a table. Each is killed with SIGKILL a few times in mid-stream and started anew. At the end
the table is compared with the file, line by line.

How each one goes on after its kill is how a program of yours would:

- the consumer asks its sink for the sequence of the last batch in the table, and opens there;
- the producer finds out how far the queue came. Each of its calls says in its metadata which lines
  it has, and the table has the numbers of lines. The manifest is looked at first and the table
  second: what is no longer in the one is in the other by then. (With a log in front of the producer
  that is not needed, and what it had read and not sent would be safe as well.)
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any

from walengine.buffer import (
    AsyncConsumer,
    AsyncProducer,
    ConsumerConfig,
    Metadata,
    ObjectStoreConfig,
    ProducerConfig,
    QueueError,
    SqliteSink,
)
from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue
from walengine.buffer.database import Row
from walengine.buffer.store.probe import make_store

LINES_A_CALL = 100
CALLS_UNDER_WAY = 4
FLUSH_INTERVAL_S = 0.01
KILL_DELAY_S = 0.05
SECONDS_MAX = 120


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        lines: Lines of the file.
        batches: Batches that the table's position has passed.
        producer_kills: How often the producer was killed.
        consumer_kills: How often the consumer was.
        in_table: Rows of the table at the end.
        lost: Lines that are missing there, or differ.
        doubled: Rows beyond one for each line.
        out_of_order: Rows whose predecessor in the table is not the line before.
        seconds: How long it took.
    """

    lines: int
    batches: int = 0
    producer_kills: int = 0
    consumer_kills: int = 0
    in_table: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether every line is in the table once, in order."""
        return self.lost == self.doubled == self.out_of_order == 0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, as JSON knows them."""
        return asdict(self) | {"seconds": round(self.seconds, 1)}


def run(directory: Path, file: Path, kills: int, on_progress: Callable[[float], None]) -> Outcome:
    """Move the file's lines, killing each process so many times; compare at the end.

    Args:
        directory: Where the store and the database are made; empty.
        file: Whose lines.
        kills: Of each process.
        on_progress: Called with the lines that have reached the table since the last call.

    Raises:
        QueueError: A process failed by itself, or it took too long.
    """
    began = monotonic()
    outcome = Outcome(sum(1 for _ in numbered(file)))
    with closing(sqlite3.connect(directory / "lines.db")) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE lines (number INTEGER, line BLOB)")
    thresholds = [outcome.lines * (i + 1) // (kills + 1) for i in range(kills)]
    producer = _Supervisor("produce", directory, file, thresholds, lambda _: None)
    consumer = _Supervisor("consume", directory, file, thresholds, on_progress)
    for each in (producer, consumer):
        each.start()
    for each in (producer, consumer):
        each.join()
    for each in (producer, consumer):
        if each.problem is not None:
            raise QueueError(f"the demo's {each.role} failed: {each.problem}")
    outcome.producer_kills, outcome.consumer_kills = producer.kills, consumer.kills
    compare(directory / "lines.db", file, outcome)
    outcome.seconds = monotonic() - began
    return outcome


def compare(path: Path, file: Path, outcome: Outcome) -> None:
    """Compare the table with the file."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT number, line FROM lines ORDER BY rowid").fetchall()
        position = database.execute("SELECT sequence FROM walengine_state").fetchone()
    wanted = dict(numbered(file))
    found = {number: line for number, line in rows if wanted.get(number) == line}
    outcome.batches = position[0] + 1 if position else 0
    outcome.in_table = len(rows)
    outcome.lost = len(wanted) - len(found)
    outcome.doubled = len(rows) - len({number for number, _ in rows})
    numbers = [0, *(number for number, _ in rows)]
    outcome.out_of_order = sum(b != a + 1 for a, b in pairwise(numbers))


def numbered(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines without their ends, with their numbers, from 1."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield number, line.rstrip(b"\r\n")


class _Supervisor(threading.Thread):
    """Runs one of the two processes, kills it at each threshold, and runs it to its end.

    Args:
        role: "produce" or "consume".
        directory: Where everything is.
        file: Whose lines.
        thresholds: Numbers of lines behind which it is killed, ascending.
        on_progress: Called with each number of further lines.
    """

    def __init__(
        self,
        role: str,
        directory: Path,
        file: Path,
        thresholds: list[int],
        on_progress: Callable[[float], None],
    ) -> None:
        super().__init__(name=f"walengine-demo-{role}", daemon=True)
        self.role = role
        self.kills = 0
        self.problem: str | None = None
        # -P: a directory walengine/ in the current one (a checkout's) is not the package to import.
        self._command = [
            sys.executable, "-P", "-m", "walengine.buffer.demo",
            role, os.fspath(directory), os.fspath(file),
        ]  # fmt: skip
        self._thresholds = thresholds
        self._on_progress = on_progress
        self._reached = 0

    def run(self) -> None:
        """Run the process as often as it takes."""
        limit = monotonic() + SECONDS_MAX
        while True:
            code, trouble = self._run_once()
            if code == 0:
                return
            if code != -signal.SIGKILL or monotonic() > limit:
                self.problem = trouble.strip() or f"exit code {code}"
                return
            self.kills += 1

    def _run_once(self) -> tuple[int, str]:
        due = self._thresholds[self.kills] if self.kills < len(self._thresholds) else None
        killer: Timer | None = None
        with subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout or ():
                if not line.endswith("\n"):
                    break  # the kill cut it short
                reached = int(line)
                self._on_progress(max(reached - self._reached, 0))
                self._reached = max(reached, self._reached)
                if due is not None and reached >= due and killer is None:
                    # Not always at the same step of its work.
                    delay_s = random.uniform(0, KILL_DELAY_S)  # noqa: S311 (no secret)
                    killer = Timer(delay_s, process.kill)
                    killer.start()
            trouble = process.stderr.read() if process.stderr else ""
            if killer is not None:
                killer.join()
        return process.returncode, trouble


# ---- the producer process ------------------------------------------------------------------------


async def produce(directory: Path, file: Path) -> None:
    """Put the lines into the queue that are not in it, and say how far it came."""
    begin = await _lines_in_queue(directory)
    lines = islice(numbered(file), begin, None)
    config = ProducerConfig(object_store=_store(directory), flush_interval=FLUSH_INTERVAL_S)
    async with AsyncProducer(config) as producer:
        under_way: deque[tuple[Any, int]] = deque()
        while chunk := list(islice(lines, LINES_A_CALL)):
            entries = [b"%d %s" % numbered_line for numbered_line in chunk]
            last = chunk[-1][0]
            handle = await producer.produce(entries, b"%d" % last)
            under_way.append((handle.watcher, last))
            if len(under_way) == CALLS_UNDER_WAY:
                await _report(under_way)
        while under_way:
            await _report(under_way)


async def _report(under_way: deque[tuple[Any, int]]) -> None:
    watcher, last = under_way.popleft()
    await watcher.await_durable()
    os.write(1, b"%d\n" % last)


async def _lines_in_queue(directory: Path) -> int:
    """Return the number of the last line that is in the queue, or was: manifest first."""
    environment = Environment(store=make_store(_store(directory)), owns_store=True)
    queue = Queue(environment, ConsumerConfig(object_store=_store(directory)))
    try:
        manifest = (await queue.read_manifest()).manifest
    finally:
        await queue.aclose()
    listed = 0
    if len(manifest):
        listed = int(manifest.entry(manifest.sequences[-1]).metadata[-1].payload)
    with closing(sqlite3.connect(directory / "lines.db")) as database:
        stored = database.execute("SELECT max(number) FROM lines").fetchone()[0] or 0
    return max(listed, stored)


# ---- the consumer process ------------------------------------------------------------------------


async def consume(directory: Path, file: Path) -> None:
    """Take batches into the table until all lines are there, and say how far it came."""
    total = sum(1 for _ in numbered(file))
    config = ConsumerConfig(object_store=_store(directory))
    with SqliteSink(directory / "lines.db", "lines", ("number", "line"), _rows) as sink:
        last = _last_line(directory)
        async with (
            AsyncConsumer(config, sink.start_sequence()) as consumer,
            aclosing(consumer.batches(poll_interval=0.01)) as batches,
        ):
            while last < total:
                batch = await anext(batches)
                sink.write(batch)
                await consumer.ack(batch.sequence)
                last = max(last, int(batch.metadata[-1].payload))
                os.write(1, b"%d\n" % last)


def _last_line(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "lines.db")) as database:
        return int(database.execute("SELECT max(number) FROM lines").fetchone()[0] or 0)


def _rows(entry: bytes, _: Metadata | None) -> Iterator[Row]:
    number, line = entry.split(b" ", 1)
    yield int(number), line


def _store(directory: Path) -> ObjectStoreConfig:
    return ObjectStoreConfig.Local(os.fspath(directory / "store"))


def main(role: str, directory: str, file: str) -> None:
    """Be one of the two processes."""
    work = {"produce": produce, "consume": consume}[role]
    try:
        asyncio.run(work(Path(directory), Path(file)))
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # the parent is gone, or going
    except (QueueError, OSError, sqlite3.Error) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
