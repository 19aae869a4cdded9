"""Measure the buffer's codecs: ``python bench/buffer_codecs.py [--json FILE] [--rounds N]``.

No disk and no store: bytes in memory to bytes in memory, on one thread. Beside every encode stands
a plain ``b"".join`` of the same entries, taken by turns with it: the one copy that no encoder can
do without. Half of each entry's bytes are random, half are zeros, so that zstd has something to do
and something to find. A batch of 17,500 entries of 1 KiB is what 100 ms bring at 175,000 entries/s,
the rate that the whole path has to reach; one of 65,536 is the 64 MiB at which a producer flushes,
and there the kernel's work of handing out fresh memory for the result is what takes the time.

What is printed is the median over the rounds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any, NamedTuple

from machine import _commit, _processor

from walengine.buffer.batch import decode_batch, encode_batch
from walengine.buffer.compression import CompressionType
from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.location import BatchNamer
from walengine.buffer.manifest import Manifest

ROUNDS = 9
BATCHES = (
    ("100 B", 100, 100, 175_000),
    ("1 KiB", 1024, 1024, 17_500),
    ("1 KiB, 64 MiB batch", 1024, 1024, 65_536),
    ("512 B to 1.5 KiB", 512, 1536, 17_500),
    ("64 KiB", 65_536, 65_536, 1000),
)
CALLS = 17_500
LISTED = 10_000


class Work(NamedTuple):
    """What is timed: count units of entry_bytes, or of none."""

    name: str
    run: Callable[[], object]
    count: int
    unit: str
    total_bytes: int = 0


def main() -> None:
    """Measure, print, and write the figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    options = parser.parse_args()
    facts = describe()
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    print(f"{'what':44} {'ns each':>9} {'smallest':>9} {'largest':>9} {'GB/s':>6}")
    figures = [figure for family in families() for figure in measure(family, options.rounds)]
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "figures": figures}, indent=1) + "\n")


def describe() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} processors, {platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "zstandard": version("zstandard"),
        "commit": _commit(),
        "command": shlex.join(["python", *sys.argv]),
        "load_before": os.getloadavg()[0],
    }


def measure(family: list[Work], rounds: int) -> Iterator[dict[str, Any]]:
    """Time the members of a family by turns; print and yield a figure for each."""
    times: dict[str, list[float]] = {work.name: [] for work in family}
    for _ in range(rounds + 1):
        for work in family:
            begin = perf_counter_ns()
            result = work.run()
            times[work.name].append((perf_counter_ns() - begin) / work.count)
            del result
    for work in family:
        taken = times[work.name][1:]  # the first round warms up
        middle = median(taken)
        gb_s = work.total_bytes / work.count / middle if work.total_bytes else None
        shown = f"{gb_s:6.2f}" if gb_s else "     -"
        name = f"{work.name}, per {work.unit}"
        print(f"{name:44} {middle:9.0f} {min(taken):9.0f} {max(taken):9.0f} {shown}")
        yield {"what": work.name, "unit": work.unit, "ns": middle, "gb_s": gb_s, "samples": taken}


def families() -> Iterator[list[Work]]:
    """Make the work, a family at a time: what is compared is measured by turns."""
    for title, smallest, largest, count in BATCHES:
        yield batch_work(title, smallest, largest, count)
    yield metadata_work()
    yield manifest_work()


def batch_work(title: str, smallest: int, largest: int, count: int) -> list[Work]:
    """Return encode, its reference, decode, for both compressions."""
    chance = random.Random(1)
    sizes = [chance.randint(smallest, largest) for _ in range(count)]
    entries = [chance.randbytes(size // 2) + bytes(size - size // 2) for size in sizes]
    plain = encode_batch(entries)
    packed = encode_batch(entries, CompressionType.ZSTD)
    runs: dict[str, Callable[[], object]] = {
        "join only": lambda: b"".join(entries),
        "encode": lambda: encode_batch(entries),
        "decode": lambda: decode_batch(plain, "batch"),
        "encode zstd": lambda: encode_batch(entries, CompressionType.ZSTD),
        "decode zstd": lambda: decode_batch(packed, "batch"),
    }
    return [Work(f"{title}: {name}", run, count, "entry", sum(sizes)) for name, run in runs.items()]


def metadata_work() -> list[Work]:
    """One entry in the manifest whose batch came from as many calls as it has entries."""
    location = BatchNamer("ingest").new().location
    listing = Listing(location, [Metadata(i, 1_750_000_000_000, b"m") for i in range(CALLS)])
    empty = Manifest.empty("ingest/manifest")
    listed = empty.append([listing])
    return [
        Work("metadata: encode", lambda: empty.append([listing]), CALLS, "produce call"),
        Work("metadata: decode", lambda: listed.entry(0), CALLS, "produce call"),
    ]


def manifest_work() -> list[Work]:
    """A manifest of 10,000 entries of one call each, as a consumer far behind leaves it."""
    namer = BatchNamer("ingest")
    listings = [
        Listing(namer.new().location, [Metadata(0, 1_750_000_000_000, b"metadata")])
        for _ in range(LISTED)
    ]
    full = Manifest.empty("ingest/manifest").append(listings)
    more, wanted = [listings[0]], {namer.new().identity}
    runs: dict[str, Callable[[], object]] = {
        "parse": lambda: Manifest.parse(full.data, "ingest/manifest"),
        "find": lambda: full.find(wanted),
        "append one": lambda: full.append(more),
        "dequeue 100": lambda: full.dequeue(99),
        "decode all": lambda: list(full.entries()),
    }
    return [Work(f"manifest: {name}", run, LISTED, "entry in it") for name, run in runs.items()]


if __name__ == "__main__":
    main()
