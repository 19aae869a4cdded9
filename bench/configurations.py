"""Rows that compare configurations: commits of several threads at once, and bulk; and their table.

The rows of one family are measured by turns, so that one configuration can be compared with the
other. A polling kernel thread keeps a processor busy for a while behind its last entry; its rows
wait for that to end before the next one begins.
"""

from __future__ import annotations

import time
from statistics import median
from time import perf_counter_ns
from typing import Any

from commits import in_use, open_log, threads_timed
from loops import CannotRunError
from percentiles import percentile_us
from rows import RECORD, Row, Setting

from walengine import IoUringConfig

CONFIGURATIONS = {
    "default": IoUringConfig(),
    "high_throughput": IoUringConfig.high_throughput(),
    "low_latency": IoUringConfig.low_latency(),
    "minimal": IoUringConfig.minimal(),
}
BACKENDS = ("io_uring", "pwrite")
COUNTS = {1: 200, 4: 100, 16: 60}  # durable appends of each thread in a round, by depth
BULK_BYTES = 256 << 20
BULK_STEP_BYTES = 4 << 20
BULK_RECORDS = {"256 B": RECORD, "64 KiB": RECORD * 256}


class Configured(Row):
    """A log with one configuration on one backend."""

    more_is_better = True
    configuration: str
    column: str

    def __init__(self, setting: Setting, configuration: str, backend: str) -> None:
        super().__init__(setting)
        self.configuration = configuration
        self.backend = backend
        self.io = CONFIGURATIONS[configuration]

    def open(self) -> None:
        """Open the log."""
        self.wal = open_log(self.path, self.backend, self.io)
        self.is_polled = self.wal.stats().kernel_poll

    def rest(self) -> None:
        """Wait until the polling thread sleeps."""
        if self.is_polled:
            time.sleep(self.io.sq_poll_idle_ms / 1000 + 0.02)

    def clean(self) -> None:
        """Close and remove."""
        if hasattr(self, "wal"):
            self.notes.append(in_use(self.wal))
            self.wal.close()
        super().clean()

    def more(self) -> dict[str, Any]:
        """Return what the table is made of."""
        return {
            "configuration": self.configuration,
            "backend": self.backend,
            "column": self.column,
        }


# ---- commits -------------------------------------------------------------------------------------


class Commits(Configured):
    """Threads that each make one record of 256 bytes durable after the other."""

    unit = "/s"

    def __init__(self, setting: Setting, configuration: str, backend: str, depth: int) -> None:
        super().__init__(setting, configuration, backend)
        self.depth = depth
        self.column = f"depth {depth}"
        self.family = f"commits/s, depth {depth}"
        self.name = f"{self.family}, {configuration}, {backend}"
        self.samples = depth * COUNTS[depth]
        self.mine: list[int] = []
        self.loop = ("sync", 0)

    def choose_loop(self) -> None:
        """Take the C loop that is the limit of this configuration on this machine."""
        self.reference_name = "pwrite + fdatasync in C, one at a time"
        if not self.io.direct_io:
            return
        try:
            self.setting.loops.run("ring-direct", 1, self.depth)
        except CannotRunError:
            self.loop = ("direct", 0)
            self.reference_name = "O_DIRECT + RWF_DSYNC in C, one at a time"
        else:
            self.loop = ("ring-direct", self.depth)
            self.reference_name = (
                f"O_DIRECT + RWF_DSYNC by a bare ring in C, {self.depth} at a time"
            )

    def prepare(self) -> None:
        """Open a log, and warm up."""
        self.choose_loop()
        self.open()
        for _ in range(2):
            self.commits()
        self.rest()

    def commits(self) -> tuple[list[int], int]:
        """Do a round's commits: each one's duration, and the whole."""
        append, sync, record = self.wal.append, self.wal.sync, RECORD

        def append_and_sync() -> None:
            append(record)
            sync()

        # Past the page cache an append returns when its record is synced.
        work = (lambda: append(record)) if self.io.direct_io else append_and_sync
        return threads_timed(self.depth, COUNTS[self.depth], work)

    def engine(self) -> float:
        """Return commits a second."""
        took, wall_ns = self.commits()
        self.mine += took
        self.rest()
        return len(took) / wall_ns * 1e9

    def reference(self) -> float:
        """Return what C does in a second."""
        name, extra = self.loop
        count = self.samples if extra else COUNTS[self.depth]
        return self.setting.loops.run(name, count, extra).per_second

    def clean(self) -> None:
        """Say how long one took."""
        if len(self.mine) >= 100:
            p50, p90, p99 = (percentile_us(self.mine, percent) for percent in (50, 90, 99))
            self.notes.append(f"one took p50 {p50:.0f}, p90 {p90:.0f}, p99 {p99:.0f} us")
        super().clean()

    def more(self) -> dict[str, Any]:
        """Return its percentiles too."""
        shown = {f"p{percent}": percentile_us(self.mine, percent) for percent in (50, 90, 99)}
        return {**super().more(), "percentiles_us": shown}


# ---- bulk ----------------------------------------------------------------------------------------


class Bulk(Configured):
    """Records staged one after the other until so many bytes are there; durable at the end.

    The log is trimmed between rounds, so that the rounds use segments again, which are written
    already; the first pass, which makes them, is not timed.
    """

    unit = "MB/s"

    def __init__(self, setting: Setting, configuration: str, backend: str, size: str) -> None:
        super().__init__(setting, configuration, backend)
        self.column = f"bulk {size}"
        self.family = self.column
        self.name = f"{self.family}, {configuration}, {backend}"
        self.record = BULK_RECORDS[size]
        self.samples = BULK_BYTES // len(self.record)
        how = "RWF_DSYNC to an O_DIRECT file" if self.io.direct_io else "pwrite + fdatasync"
        self.reference_name = f"the same bytes in C, {BULK_STEP_BYTES >> 20} MiB a time, {how}"

    def rounds(self, rounds: int) -> int:
        """A round is long."""
        return (rounds + 2) // 3

    def prepare(self) -> None:
        """Open a log, and go through it once."""
        self.open()
        self.engine()

    def engine(self) -> float:
        """Return millions of record bytes a second."""
        append_batched, record = self.wal.append_batched, self.record
        begin = perf_counter_ns()
        for _ in range(self.samples):
            append_batched(record)
        self.wal.flush_batch()
        took = perf_counter_ns() - begin
        self.wal.truncate_before(self.wal.last_lsn)
        time.sleep(0.1)  # for the background thread, which recycles segments
        self.rest()
        return self.samples * len(record) / took * 1000

    def reference(self) -> float:
        """Return the same of the C loop."""
        name = "bulk-direct" if self.io.direct_io else "bulk"
        ran = self.setting.loops.run(name, BULK_BYTES // BULK_STEP_BYTES, BULK_STEP_BYTES)
        return BULK_BYTES / ran.wall_ns * 1000


def configuration_rows(setting: Setting) -> list[Row]:
    """Return the rows that compare configurations, those of one family together."""
    pairs = [(name, backend) for name in CONFIGURATIONS for backend in BACKENDS]
    commits = [Commits(setting, *pair, depth) for depth in COUNTS for pair in pairs]
    bulk = [Bulk(setting, *pair, size) for size in BULK_RECORDS for pair in pairs]
    return [*commits, *bulk]


# ---- the table -----------------------------------------------------------------------------------

TABLE_NOTE = (
    "/s with p50/p99 us of one, or MB/s; x: beside the default on the same backend, round by round"
)


def table(results: list[dict[str, Any]]) -> list[list[str]]:
    """Return one line a configuration; none where no such row was measured."""
    cells = {(r["configuration"], r["backend"], r["column"]): r for r in results if "column" in r}
    columns = [f"depth {depth}" for depth in COUNTS] + [f"bulk {size}" for size in BULK_RECORDS]
    columns = [column for column in columns if any(key[2] == column for key in cells)]
    lines = [
        [f"{name}, {backend}", *(_cell(cells, name, backend, column) for column in columns)]
        for name in CONFIGURATIONS
        for backend in BACKENDS
        if any(key[:2] == (name, backend) for key in cells)
    ]
    return [["configuration", *columns], *lines] if lines else []


def _cell(
    cells: dict[tuple[str, str, str], dict[str, Any]], name: str, backend: str, column: str
) -> str:
    result = cells.get((name, backend, column))
    if result is None:
        return "-"
    text = f"{result['figure']['median']:,.0f}"
    if "percentiles_us" in result:
        took = result["percentiles_us"]
        text += f" {took['p50']:.0f}/{took['p99']:.0f}"
    default = cells.get(("default", backend, column))
    if default is None or default is result:
        return text
    pairs = zip(result["values"], default["values"], strict=True)
    return f"{text} {median(mine / its for mine, its in pairs):.2f}x"
