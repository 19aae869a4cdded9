"""Say where the time of a durable put from a task goes: ``python bench/task_parts.py``.

Tasks in a closed loop make at most so many puts a second as there are tasks for each time a group
takes: the device's and the loop's. Printed for each loop and count of tasks:

    futures    a future for each call, settled in the loop's next tick: what asyncio itself costs
    no sync    the writer, with every sync left out by the fault injector: Python, C and the write
    default    the writer as AsyncWalWriter(path) opens it
    direct_io  past the page cache

in microseconds a put; behind the last two the median time of a sync, and so the most puts a second
that this count of tasks could make if Python cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import uvloop

from walengine import AsyncWalWriter, IoUringConfig, WalConfig, _native

RECORD = b"x" * 256
TASKS = (10, 100, 1000)
SECONDS = 0.4
ROUNDS = 5

Put = Callable[[bytes], Awaitable[object]]


class Futures:
    """A future for each call; a tick settles all of them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[int]] = []

    async def put(self, _record: bytes) -> int:
        """Wait for the next tick."""
        waiter = self._loop.create_future()
        if not self._waiters:
            self._loop.call_soon(self._settle)
        self._waiters.append(waiter)
        return await waiter

    def _settle(self) -> None:
        waiters, self._waiters = self._waiters, []
        for number, waiter in enumerate(waiters):
            waiter.set_result(number)


async def us_per_put(put: Put, tasks: int) -> float:
    """Let the tasks put for a while; return the time by the puts."""
    done = 0

    async def one(end: float) -> None:
        nonlocal done
        while perf_counter() < end:
            await put(RECORD)
            done += 1

    for seconds in (SECONDS / 4, SECONDS):  # the first warms up
        done = 0
        begin = perf_counter()
        await asyncio.gather(*(one(begin + seconds) for _ in range(tasks)))
    return (perf_counter() - begin) / done * 1e6


async def of_futures(tasks: int) -> tuple[float, float]:
    """Measure the loop by itself."""
    return await us_per_put(Futures().put, tasks), 0.0


@contextlib.contextmanager
def syncs_skipped() -> Iterator[None]:
    """Have the fault injector answer every sync with success, and do none."""
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_SKIP, sticky=True)  # noqa: SLF001
    try:
        yield
    finally:
        _native._fault_clear()  # noqa: SLF001


async def of_writer(tasks: int, *, direct_io: bool, syncs: bool) -> tuple[float, float]:
    """Measure a fresh log; return the time of a put, and the median of its syncs."""
    directory = Path(tempfile.mkdtemp(prefix="walengine-tasks-", dir="."))
    config = WalConfig(io=IoUringConfig(direct_io=direct_io))
    try:
        async with AsyncWalWriter(directory / "log", config) as wal:
            with contextlib.nullcontext() if syncs else syncs_skipped():
                took = await us_per_put(wal.append_durable, tasks)
            return took, wal.stats().sync_latency.p50_us
    finally:
        shutil.rmtree(directory)


CASES: dict[str, Callable[[int], Awaitable[tuple[float, float]]]] = {
    "futures": of_futures,
    "no sync": lambda tasks: of_writer(tasks, direct_io=False, syncs=False),
    "default": lambda tasks: of_writer(tasks, direct_io=False, syncs=True),
    "direct_io": lambda tasks: of_writer(tasks, direct_io=True, syncs=True),
}


def main() -> None:
    """Print a line for each loop, count of tasks, and case."""
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    for loop, factory in factories.items():
        for tasks in TASKS:
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
            for _ in range(ROUNDS):
                for name, case in CASES.items():
                    with asyncio.Runner(loop_factory=factory) as runner:
                        taken[name].append(runner.run(case(tasks)))  # type: ignore[arg-type]
            for name, results in taken.items():
                put_us = median(result[0] for result in results)
                sync_us = median(result[1] for result in results)
                line = f"{loop:8} {tasks:5,} tasks  {name:10} {put_us:8.2f} us"
                if name in ("default", "direct_io"):
                    most = tasks / sync_us * 1e6
                    line += f"  {1e6 / put_us:9,.0f}/s; a sync {sync_us:5.0f} us: {most:9,.0f}/s"
                print(line, flush=True)


if __name__ == "__main__":
    main()
