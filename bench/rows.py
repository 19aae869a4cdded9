"""The rows of the table: what is timed, and the loop without an engine beside it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import Any

from walengine import IoUringConfig, PortableWalWriter, replay

RECORD = bytes(range(256))
FRAME_BYTES = 328  # header of 64, the record, 4 for its end; rounded up to 8
SEGMENT_BYTES = 64 << 20
# A batch larger than all that a round stages: the flushing call is not to be timed.
STAGE_ALL = IoUringConfig(registered_buffers=1024, buffer_size=1 << 18)

# Writes a log of about so many bytes; its last segment is nearly full of the smallest frames there
# are, one record each, which is the most work for whoever opens it.
FILL_AND_WAIT = """
import sys, time
from walengine import PortableWalWriter
wal = PortableWalWriter(sys.argv[1])
record, total, tail = bytes(range(256)), int(sys.argv[2]), int(sys.argv[3])
while wal.size() < total - tail:
    for _ in range(10_000):
        wal.append_batched(record)
wal.flush_batch()
segments = wal.stats().segments
while wal.stats().segments == segments:
    for _ in range(100):
        wal.append(record)
begin = wal.size()
while wal.size() < begin + tail:
    for _ in range(100):
        wal.append(record)
wal.sync()
print("ready", flush=True)
while True:
    wal.append(record)
    wal.sync()
"""


class Calibration:
    """A method that takes a lock, appends to a list and adds to a count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[bytes] = []
        self._bytes = 0

    def add(self, item: bytes) -> int:
        """Do it."""
        with self._lock:
            self._items.append(item)
            self._bytes += len(item)
        return self._bytes

    def ns(self, count: int = 20_000) -> float:
        """Return what one call costs now, in nanoseconds."""
        took = ns_per_call(self.add, count)
        self._items.clear()
        return took


def ns_per_call(function: Callable[[bytes], object], count: int) -> float:
    """Return the mean cost of function(RECORD), the loop's own included."""
    record = RECORD
    begin = perf_counter_ns()
    for _ in range(count):
        function(record)
    return (perf_counter_ns() - begin) / count


@contextmanager
def busy_thread() -> Iterator[None]:
    """Let a Python thread count as fast as it can."""
    stop = False

    def work() -> None:
        number = 0
        while not stop:
            number += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()


class Setting:
    """Where the rows write, and the C loops."""

    def __init__(self, directory: Path, limit: Path) -> None:
        self.directory = directory
        self._limit = limit
        self._names = 0

    def path(self) -> Path:
        """Return a path that was not there before."""
        self._names += 1
        return self.directory / f"log-{self._names}"

    def limit(self, *arguments: object) -> dict[str, Any]:
        """Run one of the C loops; return what it printed."""
        command = [str(self._limit), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


class Row(ABC):
    """One line of the table; prepare and clean are not timed."""

    name: str
    unit: str
    samples: int
    target: str
    bound: float
    target_is_ratio = False
    more_is_better = False
    reference_name: str

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.path = setting.path()
        self.notes: list[str] = []

    def prepare(self) -> None:  # noqa: B027 (a row may need nothing)
        """Make what is measured."""

    @abstractmethod
    def engine(self) -> float:
        """Return one round's figure of the engine."""

    @abstractmethod
    def reference(self) -> float:
        """Return one round's figure of the loop without it."""

    def clean(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)


# ---- staging -------------------------------------------------------------------------------------


class Staging(Row):
    """append_batched, the flushing call left out."""

    name = "append_batched 256 B"
    unit = "ns"
    samples = 100_000
    target = "ratio <= 3"
    bound = 3.0
    target_is_ratio = True
    reference_name = "a method with a lock, list.append and a count"

    def prepare(self) -> None:
        """Open a log, and warm up."""
        self.wal = PortableWalWriter(self.path, STAGE_ALL)
        self.calibration = Calibration()
        ns_per_call(self.wal.append_batched, 10_000)

    def engine(self) -> float:
        """Stage; flush outside of the timing."""
        took = ns_per_call(self.wal.append_batched, self.samples)
        self.wal.flush_batch()
        self.wal.truncate_before(self.wal.last_lsn)
        return took

    def reference(self) -> float:
        """Do the same with the plain method."""
        return self.calibration.ns(self.samples)

    def clean(self) -> None:
        """Close and remove."""
        self.wal.close()
        super().clean()


class StagingBesideBusy(Staging):
    """The same while another Python thread never lets go of the global lock by itself."""

    name = "the same beside a busy thread"
    target = "<= 1,000 ns"
    bound = 1000.0
    target_is_ratio = False
    reference_name = "the same method beside the same thread"

    def engine(self) -> float:
        """Stage beside it."""
        with busy_thread():
            took = ns_per_call(self.wal.append_batched, self.samples)
        self.wal.flush_batch()
        self.wal.truncate_before(self.wal.last_lsn)
        return took

    def reference(self) -> float:
        """Do the same with the plain method."""
        with busy_thread():
            return super().reference()


# ---- one record made durable ---------------------------------------------------------------------


class Durable(Row):
    """Append and sync, one record at a time, by the main thread."""

    name = "append + sync 256 B, main thread"
    unit = "us"
    samples = 1000
    target = "ratio <= 1.25"
    bound = 1.25
    target_is_ratio = True
    reference_name = "p50 of pwrite + fdatasync of the same frame in C, on a zero-filled file"

    def prepare(self) -> None:
        """Open a log, and warm up until it is zero-filled some way ahead."""
        self.wal = PortableWalWriter(self.path)
        self.c_p90: list[float] = []
        self.c_p99: list[float] = []
        self.p90: list[float] = []
        self.p99: list[float] = []
        self.durations(500)

    def durations(self, count: int) -> list[int]:
        """Return what each of count durable appends took, in nanoseconds."""
        append, sync, record = self.wal.append, self.wal.sync, RECORD
        took = []
        for _ in range(count):
            begin = perf_counter_ns()
            append(record)
            sync()
            took.append(perf_counter_ns() - begin)
        return took

    def engine(self) -> float:
        """Return the round's p50."""
        took = sorted(self.durations(self.samples))
        self.p90.append(took[len(took) * 90 // 100] / 1000)
        self.p99.append(took[len(took) * 99 // 100] / 1000)
        return took[len(took) // 2] / 1000

    def reference(self) -> float:
        """Return the C loop's p50."""
        answer = self.setting.limit("sync", self.setting.directory, self.samples, FRAME_BYTES)
        self.c_p90.append(answer["p90_us"])
        self.c_p99.append(answer["p99_us"])
        return float(answer["p50_us"])

    def clean(self) -> None:
        """Close and remove."""
        self.notes = [
            f"p90 {median(self.p90):.0f} beside {median(self.c_p90):.0f} us",
            f"p99 {median(self.p99):.0f} beside {median(self.c_p99):.0f} us",
        ]
        self.wal.close()
        super().clean()


class DurableFromThread(Durable):
    """The same by another thread, which needs no hand-off to stay interruptible."""

    name = "append + sync 256 B, other thread"

    def durations(self, count: int) -> list[int]:
        """Run them in a thread."""
        took: list[int] = []
        run = super().durations
        thread = threading.Thread(target=lambda: took.extend(run(count)))
        thread.start()
        thread.join()
        return took


# ---- replay --------------------------------------------------------------------------------------


class Replay(Row):
    """A log in the page cache, read into a Python loop."""

    name = "replay of 256 B records"
    unit = "M/s"
    samples = 1_000_000
    target = ">= 4 M/s"
    bound = 4.0
    more_is_better = True
    reference_name = "the same loop over slices of one buffer, made into tuples"

    def prepare(self) -> None:
        """Write the log."""
        with PortableWalWriter(self.path) as wal:
            for _ in range(self.samples):
                wal.append_batched(RECORD)
        self.buffer = RECORD * 4096

    def engine(self) -> float:
        """Read it."""
        record = None
        begin = perf_counter()
        for record in replay(self.path):  # noqa: B007 (the last one is looked at)
            pass
        took = perf_counter() - begin
        if record is None or record.lsn != self.samples:
            raise AssertionError("the log does not hold what was written")
        return self.samples / took / 1e6

    def reference(self) -> float:
        """Slice and make tuples."""
        buffer, size = self.buffer, len(RECORD)
        begin = perf_counter()
        for lsn in range(self.samples):
            at = lsn % 4096 * size
            _record = (lsn, buffer[at : at + size], None)
        return self.samples / (perf_counter() - begin) / 1e6


# ---- opening -------------------------------------------------------------------------------------


class OpenKilled(Row):
    """Opening a log of 1 GB whose writer was killed; opening alone changes nothing in it."""

    name = "open 1 GB after SIGKILL"
    unit = "ms"
    samples = 1
    target = "< 100 ms"
    bound = 100.0
    reference_name = "reading the newest segment past the page cache in C"

    def prepare(self) -> None:
        """Write it, and kill the writer."""
        tail_bytes = SEGMENT_BYTES - (3 << 20)
        command = [sys.executable, "-P", "-c", FILL_AND_WAIT, self.path, 10**9, tail_bytes]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as writer:
            ready = writer.stdout.readline() if writer.stdout else b""
            writer.kill()
        if ready != b"ready\n" or writer.returncode != -signal.SIGKILL:
            raise RuntimeError("the writer process ended by itself")
        self.scanned = 0

    def engine(self) -> float:
        """Open; close outside of the timing."""
        begin = perf_counter()
        wal = PortableWalWriter(self.path)
        took = perf_counter() - begin
        report = wal.recovery_report
        wal.close()
        self.newest = report.segment
        self.notes = [
            f"{report.records:,} records in {report.segments} segments",
            f"{report.verdict} ({report.decision}), {report.bytes_scanned:,} bytes scanned",
        ]
        return took * 1000

    def reference(self) -> float:
        """Read that one segment."""
        return float(self.setting.limit("read", self.path / self.newest)["ms"])


class OpenNew(Row):
    """Opening a log that is not there yet."""

    name = "open a new log"
    unit = "ms"
    samples = 5
    target = "< 20 ms"
    bound = 20.0
    reference_name = "p50 of one pwrite + fdatasync in C"

    def engine(self) -> float:
        """Return the median of a few."""
        took: deque[float] = deque()
        for _ in range(self.samples):
            path = self.setting.path()
            begin = perf_counter()
            wal = PortableWalWriter(path)
            took.append((perf_counter() - begin) * 1000)
            wal.close()
            shutil.rmtree(path)
        return median(took)

    def reference(self) -> float:
        """Return what one sync costs."""
        answer = self.setting.limit("sync", self.setting.directory, 200, FRAME_BYTES)
        return float(answer["p50_us"]) / 1000


def all_rows(setting: Setting) -> list[Row]:
    """Return every row, in the order of the table."""
    kinds = (
        Staging,
        StagingBesideBusy,
        Durable,
        DurableFromThread,
        Replay,
        OpenKilled,
        OpenNew,
    )
    return [kind(setting) for kind in kinds]
