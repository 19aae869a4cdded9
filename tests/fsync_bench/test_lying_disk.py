"""A disk whose syncs do nothing is called suspicious. Method: the fault injector skips every sync.

The page cache takes a write of 4 KiB in a few microseconds, so no clock is needed to tell. Linked
entries of a ring are not here: the kernel hands a buffered write to a thread, which may take longer
than an honest device, with a sync or without.
"""

import json

import pytest
from needs import needs_filesystem, needs_io_uring
from places import disk
from processes import output_of

from walengine.fsync_bench.results import TOO_FAST_US

pytestmark = pytest.mark.not_quick

PROGRAM = """
import json
from walengine.__main__ import main
method = sys.argv[2]
# On a ring a direct write is its own sync.
ring = "CQE_WRITE" if method == "io_uring direct" else "CQE_SYNC"
_native._fault_set(_native.lib.WAL_FAULT_SYNC | getattr(_native.lib, f"WAL_FAULT_{ring}"),
                   _native._FAULT_SKIP)
sys.argv[1:] = ["bench", "fsync", sys.argv[1], "--quick", "--json", "--seconds-per-row", "0.02",
                "--only", method]
main()
"""


def report_of(directory, method):
    return json.loads(output_of(PROGRAM, directory, method))


@pytest.fixture
def place(memory_path):
    """A filesystem that is on a device: in memory every sync does nothing."""
    needs_filesystem("ext4")
    with disk(memory_path, "ext4", 200) as made:
        yield made.path


@pytest.mark.parametrize("method", ["fdatasync", "O_DIRECT", "io_uring direct"])
def test_a_sync_that_does_nothing_is_suspicious(method, place):
    if "io_uring" in method:
        needs_io_uring()
    report = report_of(place, method)
    assert any(method in text for text in report["suspicions"])
    assert "evidence, not proof" in report["trust"][-1]
    # Not even the best of them is recommended as such.
    fast = {row["key"] for row in report["rows"] if row["p50_us"] < TOO_FAST_US}
    assert fast
    assert not fast & set(report["best"])


def test_what_is_asked_of_the_liar_is_still_counted(place):
    report = report_of(place, "zero-filled")
    for row in report["rows"]:
        if not row["group"] and row["method"] != "no sync" and row["problem"] is None:
            assert row["syncs"] == row["commits"]
