"""The system calls of a writer beside what it says of itself.

Method: a child under strace flushes between two marks. Outside them it opens, fills and seals.
"""

from __future__ import annotations

import json

import pytest
from needs import needs_ring
from rings import PROVIDERS, each_provider
from traces import between_marks, count, traced

pytestmark = pytest.mark.not_quick

FLUSHES = 20
CALLS = (
    "io_uring_setup,io_uring_enter,io_uring_register,"
    "fdatasync,fsync,sync_file_range,pwrite64,pwritev,pwritev2,write,writev"
)

# The output of the program is written before and after the marks: it is not among the calls.
PROGRAM = """
import json
from rings import maintain, no_threads, open_kind, deltas
path, kind, direct, poll, rest_ms = sys.argv[1:]
io = IoUringConfig(direct_io=direct == "1", kernel_poll=poll == "1", sq_poll_idle_ms=int(rest_ms))
with no_threads(), open_kind(path, kind, io) as wal:
    wal.append_batched(b"first")
    wal.flush_batch()
    maintain(wal)
    before = wal.stats()
    os.getppid()
    for i in range(FLUSHES):
        wal.append_batched(b"record %d" % i)
        wal.flush_batch()
    os.getppid()
    print(json.dumps(deltas(before, wal.stats())))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


def run(path, kind, *, direct=False, poll=False, rest_ms=10):
    program = PROGRAM.replace("FLUSHES", str(FLUSHES))
    arguments = (path, kind, int(direct), int(poll), rest_ms)
    calls, output = traced(program, *arguments, calls=CALLS, directory=path.parent)
    return calls, json.loads(output)


def syncs_of_files(calls, path):
    """Every sync but those of directories, the log's and the one it was made in: no ring does."""
    syncs = [call for call in calls if call.name in {"fdatasync", "fsync", "sync_file_range"}]
    return [call for call in syncs if call.path not in {str(path), str(path.parent)}]


def writes_to_segments(calls):
    names = {"pwrite64", "pwritev", "pwritev2", "write", "writev"}
    return [call for call in calls if call.name in names and ".seg" in call.arguments]


def submitted(calls):
    """Entries that the kernel took, all enters together, and how many of those calls there were."""
    enters = [call for call in calls if call.name == "io_uring_enter"]
    submitting = [call for call in enters if call.numbers[1] != "0"]
    return sum(call.result for call in submitting), len(submitting)


# ---- the ring ------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])
@each_provider
def test_flushes_are_entries_and_nothing_else(path, provider, direct):
    needs_ring(provider)
    calls, moved = run(path, provider, direct=direct)
    window = between_marks(calls)
    assert {call.name for call in window} == {"io_uring_enter"}
    assert moved["syncs"] == FLUSHES
    # One call submits a flush: the write, and what is linked to it.
    entries = FLUSHES * (1 if direct else 2)
    assert submitted(window) == (entries, FLUSHES)
    assert moved["ops_submitted"] == moved["ops_completed"] == entries
    waits = [call for call in window if call.numbers[1] == "0"]
    assert all("IORING_ENTER_GETEVENTS" in call.arguments for call in waits)


@each_provider
def test_no_sync_of_a_segment_goes_round_the_ring(path, provider):
    """Goal: from the first open to the seal, headers, META and filling included."""
    needs_ring(provider)
    calls, _ = run(path, provider)
    assert syncs_of_files(calls, path) == []
    assert count(calls, "fsync") > 0, "the directory was synced, and so the trace sees syncs"


@each_provider
def test_the_ring_is_set_up_once_and_proven(path, provider):
    needs_ring(provider)
    calls, _ = run(path, provider)
    (setup,) = [call for call in calls if call.name == "io_uring_setup"]
    assert setup.result >= 0
    kinds = [call.numbers[1] for call in calls if call.name == "io_uring_register"]
    assert kinds.count("IORING_REGISTER_BUFFERS") == 1
    assert kinds.count("IORING_REGISTER_FILES") == 1


@each_provider
def test_a_polled_ring_is_woken_and_never_submitted_to(path, provider):
    """Goal: with a kernel thread that does not fall asleep, no call submits anything."""
    needs_ring(provider)
    calls, moved = run(path, provider, poll=True, rest_ms=600_000)
    window = between_marks(calls)
    assert {call.name for call in window} <= {"io_uring_enter"}
    assert [call for call in window if "IORING_ENTER_SQ_WAKEUP" in call.arguments] == []
    assert submitted(window) == (0, 0)
    assert (moved["syncs"], moved["ops_submitted"]) == (FLUSHES, 2 * FLUSHES)


# ---- pwrite --------------------------------------------------------------------------------------


def test_pwrite_makes_the_system_calls_that_it_counts(path):
    calls, moved = run(path, "pwrite")
    window = between_marks(calls)
    assert count(window, "fdatasync") == moved["syncs"] == FLUSHES
    assert len(writes_to_segments(window)) == FLUSHES
    assert moved["ops_submitted"] == moved["ops_completed"] == 2 * FLUSHES
    assert count(calls, "io_uring_setup", "io_uring_enter", "io_uring_register") == 0


def test_direct_pwrite_syncs_with_each_write(path):
    calls, moved = run(path, "pwrite", direct=True)
    window = between_marks(calls)
    synced = [call for call in window if call.name == "pwritev2" and "RWF_DSYNC" in call.arguments]
    assert len(synced) == moved["syncs"] == FLUSHES
    assert {call.name for call in window} == {"pwritev2"}


def test_the_trace_sees_what_it_is_asked_for(path):
    """Goal: that nothing was found above means that there was nothing."""
    calls, _ = run(path, "pwrite")
    assert len(syncs_of_files(calls, path)) > FLUSHES
    assert len(PROVIDERS) == 2
