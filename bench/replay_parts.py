"""Say where the time of a replay goes: ``python bench/replay_parts.py``.

Each line reads the same log of 1,000,000 records of 256 bytes a step further than the one before,
so the difference between two lines is what the step costs. Best of five passes, warm cache.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from walengine import PortableWalWriter, WalReader

RECORDS = 1_000_000


def best_ns(work: Callable[[], object]) -> float:
    """Return the nanoseconds a record of the fastest of five passes."""
    fastest = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest / RECORDS * 1e9


def main() -> None:
    """Write the log, print a line a step, and clean up."""
    directory = Path(tempfile.mkdtemp(prefix="walengine-replay-", dir="."))
    try:
        with PortableWalWriter(directory / "log") as wal:
            for _ in range(RECORDS):
                wal.append_batched(b"x" * 256)
        with WalReader(directory / "log") as log:
            print_parts(log)
    finally:
        shutil.rmtree(directory)


def print_parts(log: WalReader) -> None:
    """Print nanoseconds a record, each line a step further."""

    def batches() -> None:
        for _batch in log.batches():
            pass

    def cut() -> None:
        for batch in log.batches():
            deque(batch.payloads(), 0)

    def paired() -> None:
        for batch in log.batches():
            deque(zip(batch.lsns, batch.payloads(), strict=True), 0)

    def made() -> None:
        deque(log.records(), 0)

    def loop() -> None:
        for _record in log.records():
            pass

    print(f"read, checked, crossed into Python   {best_ns(batches):6.0f} ns")
    print(f"... and cut into bytes               {best_ns(cut):6.0f} ns")
    print(f"... and paired with their LSNs       {best_ns(paired):6.0f} ns")
    print(f"... and made into Record instead     {best_ns(made):6.0f} ns")
    print(f"... and looped over                  {best_ns(loop):6.0f} ns")


if __name__ == "__main__":
    main()
