"""Measuring: rows one after the other, in a thread that a signal can end."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from walengine._native_bench import Measured, NativeBench
from walengine._native_ring import liburing_problem
from walengine.config import ring_override
from walengine.errors import WalOSError
from walengine.fsync_bench import place
from walengine.fsync_bench.results import PERCENTILES, SAMPLES_MIN, RowResult
from walengine.fsync_bench.rows import Row

QUICK_SECONDS = 1.1
FULL_SECONDS = 3.5
PREPARING_SHARE = 0.15  # of a row's time, on top of it: for the estimate of what is left
TICK_SECONDS = 0.1
LAST_WRITE_SECONDS = 2.0  # for the row under way to end; a disk that is stuck is left behind

Tick = Callable[[Row, float], None]


@dataclass
class Bench:
    """One run, under way or done.

    Attributes:
        directory: Where to measure.
        rows: What to measure, in this order.
        seconds_per_row: Time of a row.
        results: What was measured so far; the row that was ended early is the last.
    """

    directory: Path
    rows: Sequence[Row]
    seconds_per_row: float
    results: list[RowResult] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """What the whole will take, about."""
        return len(self.rows) * self.seconds_per_row * (1 + PREPARING_SHARE)

    def run(self, tick: Tick) -> None:
        """Measure all rows.

        Args:
            tick: Called ten times a second with the row and the share of the whole that is done.

        Raises:
            WalOSError: The directory cannot be used.
            KeyboardInterrupt: A signal ended it; ``results`` has what was measured.
        """
        limit = place.file_bytes_max(self.directory)
        provider = _provider()
        try:
            native = NativeBench(str(self.directory))
        except OSError as error:
            text = f"{self.directory}: {error.strerror}"
            raise WalOSError(text, path=str(self.directory), errno=error.errno) from None
        with native:
            for number, row in enumerate(self.rows):
                self._measure(native, row, limit, provider, self._ticker(number, tick))
        self._raise_if_nothing_worked()

    def _ticker(self, number: int, tick: Tick) -> Callable[[float], None]:
        return lambda share: tick(self.rows[number], (number + share) / len(self.rows))

    def _measure(
        self,
        native: NativeBench,
        row: Row,
        limit: int,
        provider: str,
        tick: Callable[[float], None],
    ) -> None:
        outcome: list[Measured] = []
        problem: list[BaseException] = []
        done = threading.Event()

        def work() -> None:
            try:
                outcome.append(
                    native.run(
                        row.method,
                        row.state,
                        write_bytes=row.write_bytes,
                        concurrency=row.concurrency,
                        group=row.group,
                        provider=provider,
                        seconds=self.seconds_per_row,
                        file_bytes_max=limit,
                    )
                )
            except BaseException as error:  # noqa: BLE001 (carried over to the waiting thread)
                problem.append(error)
            done.set()

        try:
            _begin(work)
            self._wait(done, tick)
        except KeyboardInterrupt:
            native.stop()
            done.wait(LAST_WRITE_SECONDS)
            if outcome and outcome[0].commits:
                self.results.append(result_of(row, outcome[0]))
            raise
        if problem:
            raise problem[0]
        self.results.append(result_of(row, outcome[0]))

    def _wait(self, done: threading.Event, tick: Callable[[float], None]) -> None:
        expected = self.seconds_per_row * (1 + PREPARING_SHARE)
        waited = 0.0
        tick(0.0)
        while not done.wait(TICK_SECONDS):
            waited += TICK_SECONDS
            tick(min(waited / expected, 1.0))

    def _raise_if_nothing_worked(self) -> None:
        """Every row failed: that is the directory's fault, and the first reason serves for all."""
        if any(result.commits for result in self.results):
            return
        problems = [result.problem for result in self.results if result.problem]
        if problems:
            text = f"{self.directory}: nothing could be measured: {problems[0]}."
            raise WalOSError(text, path=str(self.directory), errno=errno.EIO)


def _begin(work: Callable[[], None]) -> None:
    try:
        threading.Thread(target=work, name="walengine-bench", daemon=True).start()
    except RuntimeError:  # no thread is to be had (RLIMIT_NPROC): rather a wait that nothing ends
        work()


def result_of(row: Row, measured: Measured) -> RowResult:
    """Return the figures of a row; percentiles that too few samples carry are None."""
    percentiles = {
        name: getattr(measured.latency, name) if measured.commits >= SAMPLES_MIN[name] else None
        for name in PERCENTILES
    }
    return RowResult(
        row=row,
        commits=measured.commits,
        syncs=measured.syncs,
        warm_up_commits=measured.warm_up_commits,
        warm_up_syncs=measured.warm_up_syncs,
        preparation_syncs=measured.preparation_syncs,
        bytes=measured.bytes,
        elapsed_us=measured.elapsed_us,
        max_us=measured.latency.max_us if measured.commits else None,
        histogram=tuple(measured.histogram),
        ring=measured.ring,
        registered=measured.registered,
        stopped=measured.stopped,
        problem=_problem(measured),
        **percentiles,
    )


def _problem(measured: Measured) -> str | None:
    if measured.code >= 0:
        return None
    if measured.code == -errno.EOPNOTSUPP:
        return f"this filesystem cannot do it ({measured.problem})"
    if measured.code in {-errno.ENOSPC, -errno.EDQUOT}:
        return f"the disk is full ({measured.problem})"
    return measured.problem


def _provider() -> str:
    """Return the ring to ask for, liburing's functions loaded where they may serve."""
    asked = ring_override() or "auto"
    if asked != "builtin":
        liburing_problem()
    return asked
