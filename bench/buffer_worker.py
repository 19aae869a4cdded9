"""One producer or consumer in a process of its own: ``buffer_worker.py ROLE`` with JSON on stdin.

It says ``ready`` when it is open, begins on a line from stdin, and prints one line of JSON when it
is done. Times are of the monotonic clock, which all processes of a machine share. Each call's
metadata is the time at which it was made; the last call's is all ones, and ends the consumer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import struct
import sys
import time
from pathlib import Path
from typing import Any

from walengine.buffer import (
    AsyncConsumer,
    AsyncProducer,
    ConsumerConfig,
    ProducerConfig,
)

END = (1 << 63) - 1
STAMP = struct.Struct("<q")

Settings = dict[str, Any]

used_before: list[resource.struct_rusage] = []


def now_ns() -> int:
    """Return the time that all processes share."""
    return time.monotonic_ns()


def make_entries(count: int, size: int) -> list[bytes]:
    """Return entries of random bytes, each an object of its own."""
    chance = random.Random(1)
    return [chance.randbytes(size) for _ in range(count)]


async def started() -> None:
    """Say that everything is open, and wait for the word; processor time counts from there."""
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    used_before.append(resource.getrusage(resource.RUSAGE_SELF))


async def produce_fast(settings: Settings) -> dict[str, Any]:
    """Produce as fast as the producer takes it, for some seconds."""
    entries = make_entries(settings["entries"], settings["entry_bytes"])
    config = ProducerConfig.from_dict(settings["config"])
    calls = 0
    async with AsyncProducer(config) as producer:
        await started()
        begin = now_ns()
        until = begin + int(settings["seconds"] * 1e9)
        while (at := now_ns()) < until:
            await producer.produce(entries, STAMP.pack(at))
            calls += 1
        await producer.produce(entries, STAMP.pack(END))
        await producer.flush()
        end = now_ns()
        stats = producer.stats().as_dict()
    return {"begin_ns": begin, "end_ns": end, "entries": (calls + 1) * len(entries), "stats": stats}


async def produce_paced(settings: Settings) -> dict[str, Any]:
    """Make calls at fixed intervals; tell how long each took until it was durable."""
    entries = make_entries(settings["entries"], settings["entry_bytes"])
    config = ProducerConfig.from_dict(settings["config"])
    took_ns: list[int] = []
    loop = asyncio.get_running_loop()

    async def call(stamp: int, producer: AsyncProducer) -> None:
        handle = await producer.produce(entries, STAMP.pack(stamp))
        await handle.watcher.await_durable()
        took_ns.append(now_ns() - stamp)

    async with AsyncProducer(config) as producer:
        await started()
        first = loop.time()
        tasks = []
        for number in range(settings["calls"]):
            await asyncio.sleep(first + number * settings["interval_s"] - loop.time())
            tasks.append(asyncio.create_task(call(now_ns(), producer)))
        await asyncio.gather(*tasks)
        await producer.produce(entries, STAMP.pack(END))
    return {"took_ns": took_ns}


async def consume(settings: Settings) -> dict[str, Any]:
    """Consume until the end; tell how long each call's entries took to arrive."""
    config = ConsumerConfig.from_dict(settings["config"])
    took_ns: list[int] = []
    entries = entry_bytes = batches = 0
    is_over = False
    async with AsyncConsumer(config) as consumer:
        await started()
        source = consumer.batches(
            prefetch=settings["prefetch"], poll_interval=settings["poll_interval_s"]
        )
        async for batch in source:
            at = now_ns()
            entries += len(batch.entries)
            entry_bytes += sum(map(len, batch.entries))
            batches += 1
            stamps = [STAMP.unpack(item.payload)[0] for item in batch.metadata]
            took_ns += [at - stamp for stamp in stamps if stamp != END]
            is_over = END in stamps
            await consumer.ack(batch.sequence)
            if is_over:
                break
        end = now_ns()
        await source.aclose()
    return {
        "end_ns": end, "entries": entries, "bytes": entry_bytes, "batches": batches,
        "took_ns": took_ns,
    }  # fmt: skip


async def swap(settings: Settings) -> dict[str, Any]:
    """Append batches of one entry as fast as the manifest takes them, for some seconds."""
    entry = make_entries(1, settings["entry_bytes"])
    config = ProducerConfig.from_dict(settings["config"])
    async with AsyncProducer(config) as producer:
        await started()
        begin = now_ns()
        until = begin + int(settings["seconds"] * 1e9)
        while now_ns() < until:
            await producer.produce(entry)
        stats = producer.stats()
        took_ns = now_ns() - begin
    return {
        "took_ns": took_ns, "swaps": stats.swaps, "conflicts": stats.conflicts,
        "batches": stats.metrics["buffer.batches_flushed"],
    }  # fmt: skip


async def write_files(settings: Settings) -> dict[str, Any]:
    """Write files of a batch's size and sync each, with no queue: what the disk allows."""
    await started()
    return await asyncio.to_thread(_write_files, settings)


def _write_files(settings: Settings) -> dict[str, Any]:
    data = b"".join(make_entries(settings["batch_bytes"] // 1024, 1024))
    directory = Path(settings["directory"])
    begin, count = now_ns(), 0
    while now_ns() - begin < settings["seconds"] * 1e9:
        with (directory / f"{count}").open("wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            os.fsync(file.fileno())
        count += 1
    return {"took_ns": now_ns() - begin, "bytes": count * len(data)}


ROLES = {
    "produce_fast": produce_fast,
    "produce_paced": produce_paced,
    "consume": consume,
    "swap": swap,
    "write_files": write_files,
}


def main() -> None:
    """Do what the role is, with the settings from stdin."""
    settings = json.loads(sys.stdin.readline())
    result = asyncio.run(ROLES[sys.argv[1]](settings))
    used = resource.getrusage(resource.RUSAGE_SELF)
    before = used_before[0]
    result["user_s"] = used.ru_utime - before.ru_utime
    result["system_s"] = used.ru_stime - before.ru_stime
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
