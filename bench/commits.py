"""Rows of one record made durable at a time: each backend, each kind of thread, each way to ask."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

from loops import CannotRunError
from percentiles import percentile_us
from rows import RECORD, Row, Setting

from walengine import IoUringConfig, PortableWalWriter, WalConfig, WalError, io_uring_status

LOOP_NAMES = {
    "sync": "pwrite + fdatasync in C",
    "direct": "O_DIRECT + RWF_DSYNC of 4 KiB in C",
    "ring": "linked write and fdatasync by a bare ring in C",
    "ring-direct": "O_DIRECT + RWF_DSYNC of 4 KiB by a bare ring in C",
}


@dataclass(frozen=True, slots=True)
class Way:
    """How a log writes; ring None: whichever a writer takes by itself."""

    label: str
    backend: str
    direct: bool = False
    ring: str | None = None


WAYS = (
    Way("io_uring", "io_uring"),
    Way("io_uring builtin", "io_uring", ring="builtin"),
    Way("pwrite", "pwrite"),
    Way("io_uring direct_io", "io_uring", direct=True),
    Way("pwrite direct_io", "pwrite", direct=True),
)


@contextmanager
def environment(ring: str | None) -> Iterator[None]:
    """Let the rows choose backends, and this one the ring."""
    before = dict(os.environ)
    os.environ.pop("WALENGINE_BACKEND", None)
    if ring is not None:
        os.environ["WALENGINE_RING"] = ring
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def open_log(
    path: Path, backend: str, io: IoUringConfig, ring: str | None = None
) -> PortableWalWriter:
    """Open a log that writes in just this way.

    Raises:
        CannotRunError: This machine has not what it takes.
    """
    with environment(ring):
        if ring is not None and io_uring_status().ring != ring:
            raise CannotRunError(f"there is no {ring} ring")
        try:
            wal = PortableWalWriter(path, WalConfig(io=io, backend=backend))
        except WalError as error:
            raise CannotRunError(str(error)) from None
    if io.direct_io and not wal.stats().direct_io:
        wal.close()
        raise CannotRunError("the filesystem has no O_DIRECT")
    return wal


def in_use(wal: PortableWalWriter) -> str:
    """Return what a log came to write with, in a few words."""
    stats = wal.stats()
    words = [stats.backend]
    if stats.ring:
        words.append(f"{stats.ring} {stats.ring_version or ''}".rstrip())
        ops = ", ".join(f"{name} {count:,}" for name, count in stats.ring_ops.items() if count)
        words.append(f"entries: {ops or 'none'}")
    if stats.fallbacks:
        words.append(f"not in use: {', '.join(stats.fallbacks)}")
    return ", ".join(words)


class Durable(Row):
    """One record of 256 bytes, durable when the call, or the second of two, returns."""

    unit = "us"
    samples = 200
    target = "ratio <= 1.10"
    bound = 1.10
    target_is_ratio = True
    reference_name = f"p50 of {LOOP_NAMES['sync']}, of the same frame on a zero-filled file"

    def __init__(self, setting: Setting, way: Way, *, by_main: bool, is_flush: bool) -> None:
        super().__init__(setting)
        shape = "append_batched + flush_batch" if is_flush else "append + sync"
        self.family = f"{shape} 256 B, {'main' if by_main else 'other'} thread"
        self.name = f"{self.family}, {way.label}"
        self.way = way
        self.is_flush = is_flush
        self.pool = None if by_main else ThreadPoolExecutor(1)  # one thread for all: see prepare
        self.mine: list[int] = []
        self.loops: dict[str, list[int]] = defaultdict(list)
        self.figures: list[float] = []
        self.loop_figures: dict[str, list[float]] = defaultdict(list)

    def rounds(self, rounds: int) -> int:
        """Small batches and many of them: the machine drifts."""
        return rounds * 4

    def prepare(self) -> None:
        """Open a log, and warm up until it is zero-filled some way ahead.

        The thread that is measured is the only one that ever hands a record over: a writer that
        knows two of them makes two native calls of a flush.
        """
        if self.way.ring == "builtin" and io_uring_status().ring == "builtin":
            raise CannotRunError("the built-in ring is the one in use anyway")
        io = IoUringConfig(direct_io=self.way.direct)
        self.wal = open_log(self.path, self.way.backend, io, self.way.ring)
        self.durations(500)

    def durations(self, count: int) -> list[int]:
        """Return what each of count durable appends took, in nanoseconds."""
        run = self.flushes if self.is_flush else self.syncs
        return run(count) if self.pool is None else self.pool.submit(run, count).result()

    def flushes(self, count: int) -> list[int]:
        """Stage and flush: one native call."""
        return timed(count, self.wal.append_batched, self.wal.flush_batch)

    def syncs(self, count: int) -> list[int]:
        """Append and sync: two; with direct_io the first one waits, and the second finds it so."""
        return timed(count, self.wal.append, self.wal.sync)

    def engine(self) -> float:
        """Return the batch's p50."""
        took = self.durations(self.samples)
        self.mine += took
        self.figures.append(median(took) / 1000)
        return self.figures[-1]

    def reference(self) -> float:
        """Return the C loop's p50."""
        return self.loop("sync")

    def loop(self, name: str) -> float:
        """Run a C loop; return its p50."""
        ran = self.setting.loops.run(name, self.samples, 1 if name == "ring-direct" else 0)
        self.loops[name] += ran.durations_ns
        self.loop_figures[name].append(ran.p50_us)
        return ran.p50_us

    def beside(self) -> None:
        """Run the C loops that do the very same calls."""
        if self.way.direct:
            self.loop("direct")
        if self.way.backend == "io_uring":
            self.loop("ring-direct" if self.way.direct else "ring")

    def clean(self) -> None:
        """Say what else was seen; close and remove."""
        if self.figures:
            self.notes = [
                f"p{percent} {percentile_us(self.mine, percent):.0f} beside "
                f"{percentile_us(self.loops['sync'], percent):.0f} us"
                for percent in (90, 99)
            ]
            for name, figures in self.loop_figures.items():
                if name == "sync":
                    continue
                ratios = [mine / its for mine, its in zip(self.figures, figures, strict=False)]
                self.notes.append(
                    f"{median(ratios):.2f} x {LOOP_NAMES[name]} ({median(figures):.0f} us)"
                )
            self.notes.append(in_use(self.wal))
        if self.pool is not None:
            self.pool.shutdown()
        if hasattr(self, "wal"):
            self.wal.close()
        super().clean()

    def more(self) -> dict[str, Any]:
        """Return percentiles, of the engine and of every loop, for the JSON file."""
        runs = {"engine": self.mine, **self.loops}
        return {
            "percentiles_us": {
                name: {f"p{percent}": percentile_us(took, percent) for percent in (50, 90, 99)}
                for name, took in runs.items()
                if len(took) >= 100
            }
        }


def timed(count: int, first: Callable[[bytes], object], second: Callable[[], object]) -> list[int]:
    """Return what each of count pairs of calls took, in nanoseconds."""
    record = RECORD
    took = []
    for _ in range(count):
        begin = perf_counter_ns()
        first(record)
        second()
        took.append(perf_counter_ns() - begin)
    return took


def threads_timed(depth: int, count: int, work: Callable[[], object]) -> tuple[list[int], int]:
    """Let depth threads do work count times each; return each one's duration and the whole."""
    start = threading.Barrier(depth + 1)
    took: list[list[int]] = [[] for _ in range(depth)]

    def run(mine: list[int]) -> None:
        start.wait()
        for _ in range(count):
            begin = perf_counter_ns()
            work()
            mine.append(perf_counter_ns() - begin)

    threads = [threading.Thread(target=run, args=(mine,), daemon=True) for mine in took]
    for thread in threads:
        thread.start()
    start.wait()
    begin = perf_counter_ns()
    for thread in threads:
        thread.join()
    wall_ns = perf_counter_ns() - begin
    if any(len(mine) != count for mine in took):
        raise RuntimeError("a thread ended before its work was done; see above")
    return [duration for mine in took for duration in mine], wall_ns


def commit_rows(setting: Setting) -> list[Row]:
    """Return the rows of durable appends, those of one family together."""
    return [
        Durable(setting, way, by_main=by_main, is_flush=is_flush)
        for is_flush in (True, False)
        for by_main in (True, False)
        for way in WAYS
    ]
