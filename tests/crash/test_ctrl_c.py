"""Ctrl-C on a stuck disk, and what is there once the disk comes back.

Method: every sync stalls for ten minutes; the program sends itself SIGINT while a call waits for
one. That KeyboardInterrupt arrives while the stall is still on is all that is asserted: how soon is
for tests/test_processes.py, on a clock. Then the stall ends and the log must hold every record that
a call had taken, in order, each once.
"""

from textwrap import dedent

import pytest
from engines import current
from processes import output_of

import walengine

pytestmark = pytest.mark.usefixtures("engine")

PROGRAM = """
import logging
logging.disable()
SEGMENT_BYTES = 65536
config = engines.config(
    IoUringConfig(registered_buffers=1, buffer_size=4096), segment_bytes=SEGMENT_BYTES
)

def stall():
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 600_000)

def interrupt_soon():
    time.sleep(0.05)
    while _native._fault_hits() == 0:
        time.sleep(0.001)
    time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)

def interrupted(call):
    threading.Thread(target=interrupt_soon, daemon=True).start()
    try:
        call()
    except KeyboardInterrupt:
        assert _native._fault_hits() > 0
        return True
    return False

def fill_to_rotation():
    while wal.last_lsn < 60:
        wal.append(b"%d" % (wal.last_lsn + 1) * 500)

wal = PortableWalWriter(sys.argv[1], config)
"""


AFTERWARDS = """
_native._fault_clear()
before = wal.last_lsn
assert wal.append(b"after") == before + 1
wal.sync()
assert wal.durable_lsn == before + 1
wal.close()
"""

FILLED = [b"%d" % lsn * 500 for lsn in range(1, 61)]

# What waits, and what the log holds in front of b"after" when all is well again.
WAITS = {
    "sync": (
        """
        put(wal, b"1")
        stall()
        assert interrupted(wal.sync)
        """,
        [b"1"],
    ),
    "sync, and again": (
        """
        put(wal, b"1")
        stall()
        assert interrupted(wal.sync)
        assert interrupted(wal.sync)
        assert interrupted(wal.sync)
        """,
        [b"1"],
    ),
    "flush_batch": (
        """
        wal.append_batched(b"1")
        stall()
        assert interrupted(wal.flush_batch)
        """,
        [b"1"],
    ),
    "append_batched that fills the batch": (
        """
        wal.append_batched(b"1" * 4000)
        stall()
        assert interrupted(lambda: wal.append_batched(b"2" * 4000))
        """,
        [b"1" * 4000, b"2" * 4000],
    ),
    "append that must rotate": (
        """
        fill_to_rotation()
        stall()
        assert interrupted(lambda: wal.append(b"not taken" * 6000))
        """,
        FILLED,
    ),
    "flush_batch that must rotate": (
        """
        fill_to_rotation()
        stall()
        wal.append_batched(b"staged" * 600)
        wal.append_batched(b"x")
        assert interrupted(wal.flush_batch)
        """,
        [*FILLED, b"staged" * 600, b"x"],
    ),
    "truncate_before": (
        """
        wal.append(b"1")
        wal.append(b"2")
        stall()
        assert interrupted(lambda: wal.truncate_before(2))
        """,
        [b"2"],
    ),
    "reopen": (
        """
        wal.append(b"1")
        stall()
        assert interrupted(wal.reopen)
        """,
        [b"1"],
    ),
}


@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c_arrives_while_the_disk_is_stuck(memory_path, what):
    """Goal: the call ends by KeyboardInterrupt, and afterwards nothing is lost or there twice."""
    waiting, expected = WAITS[what]
    log = memory_path / "log"
    output_of(PROGRAM + dedent(waiting) + AFTERWARDS, log)
    found = [record.data for record in walengine.replay(log)]
    if current().direct and what == "append_batched that fills the batch":
        expected = expected[: len(found) - 1]  # one may stay out
        assert expected
    assert found == [*expected, b"after"]


def test_ctrl_c_leaves_a_stuck_close_which_can_be_finished(memory_path):
    log = memory_path / "log"
    closing = """
    put(wal, b"1")
    wal.append_batched(b"2")
    stall()
    assert interrupted(wal.close)
    assert interrupted(wal.close)
    _native._fault_clear()
    wal.close()
    """
    output_of(PROGRAM + dedent(closing), log)
    assert [record.data for record in walengine.replay(log)] == [b"1", b"2"]
    assert walengine.recover(log).verdict == "clean"


def test_ctrl_c_takes_no_wake_up_from_other_threads(memory_path):
    """Goal: the main thread leaves; the 16 others, which wait for the same disk, all wake."""
    log = memory_path / "log"
    crowd = """
    done = []
    def work(number):
        for turn in range(3):
            lsn = wal.append(b"%d.%d" % (number, turn))
            wal.sync()
            done.append(lsn)

    wal.append(b"first")
    stall()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    while wal.last_lsn == 1:
        time.sleep(0.001)
    for _ in range(3):
        assert interrupted(wal.sync)
    _native._fault_clear()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(2, 50))
    """
    output_of(PROGRAM + dedent(crowd) + AFTERWARDS, log)
    found = [record.data for record in walengine.replay(log)]
    assert sorted(found[1:-1]) == sorted(b"%d.%d" % (n, t) for n in range(16) for t in range(3))
    assert (found[0], found[-1]) == (b"first", b"after")
