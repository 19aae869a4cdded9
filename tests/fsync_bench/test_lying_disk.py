"""A disk whose syncs do nothing is called suspicious. Method: the fault injector skips every sync.

The page cache takes a write of 4 KiB in a few microseconds, so no clock is needed to tell. Linked
entries of a ring are not here: the kernel hands a buffered write to a thread, which may take longer
than an honest device, with a sync or without.
"""

import json

import pytest
from processes import output_of

from walengine import is_io_uring_available

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


@pytest.mark.parametrize("method", ["fdatasync", "O_DIRECT", "io_uring direct"])
def test_a_sync_that_does_nothing_is_suspicious(method, tmp_path):
    if "io_uring" in method and not is_io_uring_available():
        pytest.skip("needs io_uring")
    report = report_of(tmp_path, method)
    if report["place"]["in_memory"]:
        pytest.skip("needs temporary files on a disk")
    assert any(method.partition(" ")[0] in text for text in report["suspicions"])
    assert "evidence, not proof" in report["trust"][-1]
    # Not even the best of them is recommended as such.
    fast = {row["key"] for row in report["rows"] if row["p50_us"] < 20}
    assert fast
    assert not fast & set(report["best"])


def test_what_is_asked_of_the_liar_is_still_counted(tmp_path):
    report = report_of(tmp_path, "zero-filled")
    for row in report["rows"]:
        if not row["group"] and row["method"] != "no sync" and row["problem"] is None:
            assert row["syncs"] == row["commits"]
