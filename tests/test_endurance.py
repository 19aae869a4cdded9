"""Hours in small: writers, trims, readers and reopenings at once, and nothing grows.

Threads with a PortableWalWriter and tasks with an AsyncWalWriter append as fast as they can, each
log is trimmed behind them, readers come and go. From the first third on, memory, descriptors and
threads stay what they are, and at the end every record that was kept is read back.
"""

import asyncio
import gc
import itertools
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from engines import config
from places import memory_path  # noqa: F401 (a fixture)

from walengine import AsyncWalWriter, PortableWalWriter, TrimmedError, WalReader

THREADS = 4
TASKS = 100
KEPT_RECORDS = 2000
SEGMENT_BYTES = 1 << 20
SECONDS = 2.0  # at scale 1
SOAK_SECONDS_A_SCALE = 6  # from LONG_SCALE on
LONG_SCALE = 3
GROWTH_BYTES_MAX = 16 << 20

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.not_quick]


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def content(number: int) -> bytes:
    return b"%d " % number + b"e" * (number * 37 % 700)


class Load:
    """What runs until the time is over; records say which thread or task and which of its own."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.end = time.monotonic() + seconds
        self.appended = 0
        self.read = 0
        self.errors: list[BaseException] = []

    @property
    def is_over(self) -> bool:
        return bool(self.errors) or time.monotonic() > self.end

    def guarded(self, call):
        def run():
            try:
                call()
            except BaseException as error:  # noqa: BLE001 (raised by the test)
                self.errors.append(error)

        return run

    def threads(self) -> list[threading.Thread]:
        wal = PortableWalWriter(self.path / "threads", config(segment_bytes=SEGMENT_BYTES))
        self.wal = wal
        calls = [self.append] * THREADS + [self.trim_and_reopen, self.look]
        return [threading.Thread(target=self.guarded(call)) for call in [*calls, self.loop]]

    def append(self) -> None:
        for number in itertools.count():
            if self.is_over:
                return
            if number % 5:
                self.wal.append_batched(content(number))
            else:
                self.wal.append_durable(content(number))
            self.appended += 1

    def trim_and_reopen(self) -> None:
        for number in itertools.count():
            if self.is_over:
                return
            self.wal.truncate_before(max(1, self.wal.durable_lsn - KEPT_RECORDS))
            if number % 50 == 49:
                self.wal.reopen()
            time.sleep(0.01)

    def look(self) -> None:
        while not self.is_over:
            with suppress(TrimmedError), WalReader(self.path / "threads") as reader:
                start = max(reader.first_lsn, reader.last_lsn - KEPT_RECORDS // 2)
                if start <= reader.last_lsn:
                    for lsn, record in enumerate(reader.records(from_lsn=start), start):
                        assert record.lsn == lsn
                        self.read += 1
            time.sleep(0.02)

    def loop(self) -> None:
        asyncio.run(self.tasks())

    async def tasks(self) -> None:
        settings = config(segment_bytes=SEGMENT_BYTES)
        async with AsyncWalWriter(self.path / "tasks", settings) as wal:

            async def append():
                for number in itertools.count():
                    if self.is_over:
                        return
                    await wal.append_durable(content(number))
                    self.appended += 1

            async def trim():
                while not self.is_over:
                    await wal.truncate_before(max(1, wal.durable_lsn - KEPT_RECORDS))
                    await asyncio.sleep(0.02)

            async with asyncio.TaskGroup() as group:
                for _ in range(TASKS):
                    group.create_task(append())
                group.create_task(trim())


def test_nothing_grows(memory_path, scale, count):  # noqa: F811 (the fixture)
    seconds = SECONDS * scale if scale < LONG_SCALE else SOAK_SECONDS_A_SCALE * scale
    load = Load(memory_path, max(1.0, seconds))
    threads = load.threads()
    for thread in threads:
        thread.start()
    samples = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(max(0.05, seconds / 40))
        samples.append((resident_bytes(), descriptors(), threading.active_count()))
    for thread in threads:
        thread.join()
    load.wal.close()
    if load.errors:
        raise load.errors[0]
    gc.collect()
    settled = samples[len(samples) // 3 :]
    first, last = min(settled[: len(settled) // 3 or 1]), settled[-1]
    assert last[0] - first[0] < GROWTH_BYTES_MAX, samples
    assert max(sample[1] for sample in settled) < 100, samples  # readers come and go
    for name in ("threads", "tasks"):
        with WalReader(memory_path / name) as reader:
            lsns = [record.lsn for record in reader.records()]
        assert lsns == list(range(lsns[0], lsns[-1] + 1))
        assert len(lsns) >= KEPT_RECORDS or lsns[0] == 1
    count("seconds of each engine", round(seconds))
    count("records appended", load.appended)
    count("records read meanwhile", load.read)
