"""The syncs that are reported are the syncs that were done: counted by strace, and by a FUSE file.

strace sees system calls and nothing of a ring; the filesystem below sees both. One thing it cannot
see: FUSE drops the RWF_DSYNC of direct writes that complete later, as a ring's do (Linux 6.18).
Those are counted as flushes of a device.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from made_figures import bench
from needs import needs_filesystem, needs_fuse, needs_io_uring
from places import counting_filesystem, disk
from traces import count, traced

from walengine._native_bench import NativeBench

pytestmark = pytest.mark.not_quick

SYNCING = "fdatasync,fsync,pwrite64,pwritev2,openat"

PROGRAM = """
from walengine.__main__ import main
sys.argv[1:] = ["bench", "fsync", sys.argv[1], "--json", "--seconds-per-row", "0.01",
                "--only", sys.argv[2]]
main()
"""


def reported(report):
    """Every sync of every row, those of the warm-up and of the preparation too."""
    names = ("syncs", "warm_up_syncs", "preparation_syncs")
    return sum(row[name] for row in report["rows"] for name in names)


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("fdatasync", ("fdatasync", "fsync")),
        ("fsync", ("fsync",)),
        ("RWF_DSYNC", ("fsync", "pwritev2")),
        ("fdatasync, group", ("fdatasync", "fsync")),
    ],
)
def test_strace_sees_the_syncs_that_are_reported(method, calls, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    seen, output = traced(PROGRAM, place, method, calls=SYNCING, directory=tmp_path)
    report = json.loads(output)
    assert {row["method"] for row in report["rows"]} == {method.partition(",")[0]}
    assert reported(report) == count(seen, *calls)
    assert reported(report) > 0


def test_strace_sees_the_writes_of_o_dsync(tmp_path):
    """Each write to a file opened with O_DSYNC is a sync, also those that prepare it."""
    place = tmp_path / "place"
    place.mkdir()
    seen, output = traced(PROGRAM, place, "O_DSYNC", calls=SYNCING, directory=tmp_path)
    report = json.loads(output)
    assert {row["method"] for row in report["rows"]} == {"O_DSYNC", "O_DIRECT+O_DSYNC"}
    opened = [call for call in seen if call.name == "openat" and str(place) in call.arguments
              and "O_DSYNC" in call.arguments]  # fmt: skip
    assert len(opened) == len(report["rows"])
    assert reported(report) == count(seen, "pwrite64", "fsync")


@pytest.fixture
def counting(tmp_path):
    needs_fuse()
    with counting_filesystem(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "method",
    ["fdatasync, group", "O_D", "RWF_DSYNC", "io_uring linked"],
)
def test_the_filesystem_sees_the_syncs_that_are_reported(method, counting):
    if "io_uring" in method:
        needs_io_uring()
    report = bench(counting.path, "--only", method)
    assert list(counting.below.iterdir()) == []
    fsyncs, created = counting.end()
    whole = [row for row in report["rows"] if row["problem"] is None]
    missing = Counter(row["state"] for row in report["rows"] if row["problem"])
    assert set(missing) <= {"fallocated"}  # this filesystem has no fallocate, and says so
    assert whole
    assert all(row["commits"] > 0 for row in whole)
    assert reported(report) == fsyncs
    assert created == len(report["rows"])


def flushes_of(device):
    """Flushes that the block device completed: field 16 of its line (Documentation/iostats)."""
    fields = (Path("/sys/class/block") / device / "stat").read_text(encoding="ascii").split()
    return int(fields[15])


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("method", ["io_uring direct", "io_uring linked", "O_DIRECT+O_DSYNC"])
def test_the_device_sees_a_flush_for_each_sync(method, filesystem, memory_path):
    """Not fewer; the filesystem's own come on top. One at a time: flushes in flight are merged."""
    if "io_uring" in method:
        needs_io_uring()
    needs_filesystem(filesystem)
    with disk(memory_path, filesystem, 100) as made, NativeBench(str(made.path)) as native:
        device = Path(made.device).name
        before = flushes_of(device)
        measured = native.run(
            method,
            "zero-filled",
            write_bytes=4096,
            concurrency=1,
            group=False,
            provider="auto",
            seconds=0.1,
            file_bytes_max=32 << 20,
        )
        assert measured.problem == ""
        assert measured.syncs == measured.commits > 0
        # A flush less than a sync would be one that was not done.
        assert flushes_of(device) - before >= measured.syncs + measured.warm_up_syncs
