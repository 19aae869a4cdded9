"""Runs with made figures, for what only reads figures; and how the command is run."""

from __future__ import annotations

import json
from dataclasses import replace

from processes import cli

from walengine.fsync_bench.results import RowResult, Run
from walengine.fsync_bench.rows import ROWS

PLACE = {
    "directory": "/data",
    "filesystem": "ext4",
    "in_memory": False,
    "source": "/dev/sda1",
    "mount_point": "/data",
    "options": ["rw", "relatime"],
    "barriers_off": None,
    "devices": [],
    "io_uring": "io_uring works",
    "has_io_uring": True,
    "kernel": "Linux 6.1",
    "processor": "a processor",
    "processors": 4,
    "load_before": 0.1,
    "python": "CPython 3.11",
    "walengine": "0.1.0",
    "time": "2026-01-01T00:00:00+00:00",
}
BY_KEY = {row.key: row for row in ROWS}

# p50 in microseconds and commits/s of an honest flash disk.
FLASH = {
    "no sync/zero-filled/4096/1": (1.5, 500_000),
    "fdatasync/growing/4096/1": (200, 4_800),
    "fdatasync/zero-filled/4096/1": (100, 9_500),
    "io_uring linked/zero-filled/4096/1": (105, 9_200),
    "io_uring direct/zero-filled/4096/1": (98, 9_800),
    "O_DIRECT+O_DSYNC/zero-filled/4096/1": (99, 9_700),
    "fdatasync/fallocated/2300/1": (130, 7_500),
    "fdatasync/recycled/8192/1": (110, 9_000),
    "fdatasync/zero-filled/4096/16-group": (300, 45_000),
    "io_uring direct/zero-filled/4096/16": (280, 46_000),
    "fdatasync/recycled/8192/16-group": (320, 40_000),
    "fdatasync/growing/1048576/1": (2500, 400),
    "fdatasync/zero-filled/1048576/1": (400, 2_400),
    "io_uring direct/zero-filled/1048576/4": (1200, 3_000),
}


def figures(key, p50_us, per_second, *, commits=5_000, p99_us=None):
    row = BY_KEY[key]
    return RowResult(
        row=row,
        commits=commits,
        syncs=commits,
        bytes=commits * row.write_bytes,
        elapsed_us=commits / per_second * 1e6,
        p50_us=float(p50_us),
        p90_us=p50_us * 1.5,
        p99_us=p99_us if p99_us is not None else p50_us * 3.0,
        p999_us=p50_us * 5.0,
        max_us=p50_us * 8.0,
        histogram=((float(p50_us), commits // 2), (p50_us * 8.0, commits - commits // 2)),
    )


def made_run(changes=None, place=None, results=None):
    """The flash disk's run, with some rows changed; None takes a row out."""
    made = FLASH | (changes or {})
    rows = [figures(key, *values) for key, values in made.items() if values is not None]
    return Run(PLACE | (place or {}), 3.5, False, True, tuple(results or rows))


def without(run, field, **values):
    """The run with one field of every row changed."""
    rows = tuple(replace(result, **{field: values["to"]}) for result in run.results)
    return replace(run, results=rows)


def bench(directory, *arguments, seconds="0.01", code=0, **env):
    """Run the command with --json; its object."""
    done = cli(
        "bench", "fsync", directory, "--seconds-per-row", seconds, "--json", *arguments, **env
    )
    assert done.returncode == code, done.stderr.decode()
    return json.loads(done.stdout)
