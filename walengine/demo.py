"""The demo: a process that acknowledges records is killed again and again; none may be lost.

It is done once with each backend that works here, on a log of its own.

The writer process appends one record, syncs, and only then sends its LSN and the time it took down
a pipe. The parent kills it with SIGKILL in mid-stream, reads the pipe to its end, recovers the log
and compares what is in it with what had been acknowledged. A record's bytes follow from its LSN, so
the parent knows what each must be.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Timer
from time import monotonic, perf_counter_ns
from typing import Any

from walengine.backend import io_uring_status, ring_name
from walengine.config import WalConfig
from walengine.errors import WalError
from walengine.reader import recover, replay
from walengine.types import Lsn
from walengine.writer import PortableWalWriter

RECORD_BYTES = 256
ROUND_SECONDS = (0.5, 1.5)


@dataclass
class Outcome:
    """What the rounds with one backend came to.

    Attributes:
        backend: "io_uring" or "pwrite".
        ring: What drives the ring, in words; None on pwrite.
        kills: Times the writer process was killed.
        acknowledged: Records it had acknowledged.
        recovered: Records in the log at the end; some may never have been acknowledged.
        lost: Acknowledged records that are missing or differ.
        verdicts: How often recovery came to which verdict.
        latencies_us: What each durable append took, in microseconds.
        writing_seconds: Time between first and last acknowledgement, summed over the rounds.
    """

    backend: str
    ring: str | None = None
    kills: int = 0
    acknowledged: int = 0
    recovered: int = 0
    lost: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    latencies_us: list[float] = field(default_factory=list, repr=False)
    writing_seconds: float = 0.0

    def percentile_us(self, percent: float) -> float:
        """Return a percentile of the latencies, in microseconds; 0.0 where there is none."""
        ordered = sorted(self.latencies_us)
        return ordered[int(len(ordered) * percent / 100)] if ordered else 0.0

    def appends_per_second(self) -> float:
        """Return durable appends per second of one thread, one sync each."""
        return len(self.latencies_us) / self.writing_seconds if self.writing_seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures that are shown, as JSON knows them."""
        figures = asdict(self)
        del figures["latencies_us"], figures["writing_seconds"]
        return figures | {
            "durable_appends_per_second": round(self.appends_per_second()),
            "p50_us": self.percentile_us(50),
            "p99_us": self.percentile_us(99),
        }


def record(lsn: Lsn) -> bytes:
    """Return the record that the demo writes under an LSN."""
    text = b"record %d of the demo. " % lsn
    return (text * (RECORD_BYTES // len(text) + 1))[:RECORD_BYTES]


def run(
    directory: Path, seconds: float, on_round: Callable[[float], None]
) -> tuple[list[Outcome], dict[str, str]]:
    """Write, kill, recover, compare, with each backend, for about so many seconds in all.

    Args:
        directory: Where the logs go.
        seconds: How long; at least one round is done with each backend.
        on_round: Called after each round with the seconds it took.

    Returns:
        What each backend came to, and the reason of each that was skipped.

    Raises:
        WalError: A writer process failed by itself, or a log cannot be recovered.
    """
    status = io_uring_status()
    ring = ring_name(status.ring, status.ring_version)
    outcomes = [Outcome("io_uring", ring)] if status.available else []
    outcomes.append(Outcome("pwrite"))
    for outcome in outcomes:
        _run_one(directory / outcome.backend, seconds / len(outcomes), on_round, outcome)
    return outcomes, {} if status.available else {"io_uring": str(status)}


def _run_one(
    path: Path, seconds: float, on_round: Callable[[float], None], outcome: Outcome
) -> None:
    end = monotonic() + seconds
    begin = monotonic()
    while outcome.kills == 0 or monotonic() + ROUND_SECONDS[0] < end:
        delay = random.uniform(*ROUND_SECONDS)  # noqa: S311 (when to kill is no secret)
        _round(path, min(delay, max(end - monotonic(), ROUND_SECONDS[0])), outcome)
        now = monotonic()
        on_round(now - begin)
        begin = now


def _round(path: Path, delay: float, outcome: Outcome) -> None:
    """Let the writer work until it is killed; then count what is there."""
    acknowledged = _write_until_killed(path, delay, outcome)
    report = recover(path)
    verdict = str(report.verdict)
    outcome.kills += 1
    outcome.verdicts[verdict] = outcome.verdicts.get(verdict, 0) + 1
    outcome.acknowledged = max(outcome.acknowledged, acknowledged)
    right = sum(data == record(lsn) for lsn, data, _ in replay(path, to_lsn=acknowledged or None))
    outcome.lost += max(acknowledged - right, 0)
    outcome.recovered = report.last_lsn


def _write_until_killed(path: Path, delay: float, outcome: Outcome) -> Lsn:
    """Run the writer process; return the last LSN it acknowledged."""
    # -P: a directory walengine/ in the current one (a checkout's) is not the package to import.
    command = [sys.executable, "-P", "-m", "walengine.demo", os.fspath(path), outcome.backend]
    last = outcome.acknowledged
    first_ns = last_ns = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        killer = Timer(delay, process.kill)
        for line in process.stdout or ():
            if not line.endswith(b"\n"):
                break  # the kill cut the acknowledgement short: it was never given
            if not first_ns:
                killer.start()  # the round begins with the first one
                first_ns = perf_counter_ns()
            lsn, took_ns = line.split()
            last = int(lsn)
            last_ns = perf_counter_ns()
            outcome.latencies_us.append(int(took_ns) / 1000)
        killer.cancel()
        if first_ns:
            killer.join()
        trouble = process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
    if process.returncode != -signal.SIGKILL:
        reason = trouble.strip() or f"exit code {process.returncode}"
        text = f"the demo needs about 64 MiB in {path.parent}; its writer process failed: {reason}"
        raise WalError(text)
    outcome.writing_seconds += (last_ns - first_ns) / 1e9
    return last


def write_forever(path: str, backend: str) -> None:
    """Append and sync one record after the other, and say so on standard output."""
    with PortableWalWriter(path, WalConfig(backend=backend)) as wal:
        lsn = wal.last_lsn
        while True:
            begin = perf_counter_ns()
            wal.append_batched(record(lsn + 1))
            wal.sync()  # written and synced as one
            lsn = wal.last_lsn
            took = perf_counter_ns() - begin
            os.write(1, b"%d %d\n" % (lsn, took))


if __name__ == "__main__":
    try:
        write_forever(*sys.argv[1:])
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # the parent is gone, or going
    except (WalError, OSError) as error:
        sys.exit(str(error))
