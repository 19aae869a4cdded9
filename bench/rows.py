"""The rows of the table: what is timed, and the loop without an engine beside it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from calibration import RECORD, Calibration, busy_thread, ns_per_call
from loops import Loops

from walengine import IoUringConfig, PortableWalWriter, replay

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


class Setting:
    """Where the rows write, and the C loops."""

    def __init__(self, directory: Path, limit: Path) -> None:
        self.directory = directory
        self.loops = Loops(limit, directory, FRAME_BYTES)
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
    """One line of the table; prepare and clean are not timed.

    prepare raises CannotRunError where the machine has not what the row measures.
    """

    name: str
    unit: str
    samples: int
    target = ""
    bound: float | None = None  # None: it is shown, and not judged
    target_is_ratio = False
    more_is_better = False
    reference_name: str
    family = ""  # the rows of one family are measured by turns; "": by itself

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.path = setting.path()
        self.notes: list[str] = []

    def rounds(self, rounds: int) -> int:
        """Return how many rounds this row takes where so many are asked for."""
        return rounds

    def prepare(self) -> None:  # noqa: B027 (a row may need nothing)
        """Make what is measured."""

    @abstractmethod
    def engine(self) -> float:
        """Return one round's figure of the engine."""

    @abstractmethod
    def reference(self) -> float:
        """Return one round's figure of the loop without it."""

    def beside(self) -> None:  # noqa: B027 (most have one reference only)
        """Run what else is shown beside it in this round."""

    def more(self) -> dict[str, Any]:
        """Return what else is to stand in the JSON file, once the row is clean."""
        return {}

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


def single_rows(setting: Setting) -> list[Row]:
    """Return the rows that stand for themselves, in the order of the table."""
    return [kind(setting) for kind in (Staging, StagingBesideBusy, Replay, OpenKilled, OpenNew)]
