"""Ctrl-C and other signals: every wait ends, nothing is lost, nothing locks itself out."""

from __future__ import annotations

import signal

import engines
import pytest
from processes import output_of, run

from walengine import Verdict, recover, replay

pytestmark = pytest.mark.usefixtures("engine")

# What never comes to an end: a request on its way to the kernel, or its completion on the way back.
SYNCS = "_native._FAULT_SYNC"
COMPLETIONS = "_native.lib.WAL_FAULT_CQE_WRITE | _native.lib.WAL_FAULT_CQE_SYNC"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


def data_of(path):
    return [record.data for record in replay(path)]


# A stall of ten minutes: that the program goes on at all shows that it did not wait for it.
STALLED = """
def stall(operation):
    _native._fault_set(operation, _native._FAULT_STALL, 600_000)

def interrupt_soon():
    def work():
        while _native._fault_hits() == 0:
            time.sleep(0.001)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=work, daemon=True).start()

def interrupted(call):
    interrupt_soon()
    try:
        call()
    except KeyboardInterrupt:
        return True
    return False
"""


SYNC = """
wal = PortableWalWriter(sys.argv[1], config())
put(wal, b"one")
stall(STUCK)
assert interrupted(wal.sync)
assert wal.durable_lsn == 0
put(wal, b"two")
_native._fault_clear()
wal.sync()
assert wal.durable_lsn == 2
wal.close()
"""


def test_ctrl_c_ends_a_stalled_sync(path):
    output_of(STALLED + SYNC.replace("STUCK", SYNCS), path)
    assert data_of(path) == [b"one", b"two"]


FLUSH = """
wal = PortableWalWriter(sys.argv[1], config())
wal.append_batched(b"one")
stall(STUCK)
assert interrupted(wal.flush_batch)
assert interrupted(wal.sync)
assert wal.durable_lsn == 0
wal.append_batched(b"two")
_native._fault_clear()
wal.flush_batch()
assert wal.durable_lsn == 2
wal.close()
"""


@pytest.mark.parametrize("program", [SYNC, FLUSH], ids=["sync", "flush"])
def test_ctrl_c_ends_the_wait_for_a_completion(path, program):
    """Goal: the same where the ring has everything and answers nothing; pwrite has no ring."""
    stuck = COMPLETIONS if engines.current().ring else SYNCS
    output_of(STALLED + program.replace("STUCK", stuck), path)
    assert data_of(path) == [b"one", b"two"]


def test_ctrl_c_ends_it_while_followers_wait(path):
    """Goal: the main thread leaves; the threads that wait for the same disk are all served."""
    output_of(
        STALLED
        + """
wal = PortableWalWriter(sys.argv[1], config())
def follow(number):
    wal.append(b"follower %d" % number)
    wal.sync()
wal.append_batched(b"staged")
stall(_native._FAULT_SYNC)
threads = [threading.Thread(target=follow, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
assert interrupted(wal.sync)
assert interrupted(wal.sync)
_native._fault_clear()
for thread in threads:
    thread.join()
wal.sync()
assert wal.durable_lsn == wal.last_lsn == 5
wal.close()
""",
        path,
    )
    followers = [b"follower %d" % number for number in range(4)]
    assert sorted(data_of(path)) == sorted([b"staged", *followers])


def test_ctrl_c_ends_it_within_200_ms(path):
    """The promise is in milliseconds: this one looks at the clock, and takes the best of five."""
    out = output_of(
        STALLED
        + """
times = []
wal = PortableWalWriter(sys.argv[1], config())
for _ in range(5):
    put(wal, b"x")
    stall(_native._FAULT_SYNC)
    sent = []
    def work():
        while _native._fault_hits() == 0:
            time.sleep(0.001)
        time.sleep(0.06)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=work, daemon=True).start()
    try:
        wal.sync()
    except KeyboardInterrupt:
        times.append(time.monotonic() - sent[0])
    _native._fault_clear()
    wal.sync()
wal.close()
print(min(times))
""",
        path,
    )
    assert float(out) < 0.2


def test_ctrl_c_ends_a_stalled_close_and_a_second_close_finishes(path):
    output_of(
        STALLED
        + """
wal = PortableWalWriter(sys.argv[1], config())
wal.append_batched(b"staged")
stall(_native._FAULT_SYNC)
assert interrupted(wal.close)
try:
    wal.append_batched(b"late")
except walengine.WalClosedError:
    pass
_native._fault_clear()
wal.close()
""",
        path,
    )
    assert data_of(path) == [b"staged"]
    assert recover(path).verdict is Verdict.CLEAN


def test_ctrl_c_twice_leaves_the_program_on_a_stuck_disk(path):
    result = run(
        STALLED
        + """
with PortableWalWriter(sys.argv[1], config()) as wal:
    put(wal, b"x")
    stall(_native._FAULT_SYNC)
    interrupt_soon()
    try:
        wal.sync()
    except KeyboardInterrupt:
        interrupt_soon()
        raise
""",
        path,
    )
    assert result.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in result.stderr
    # What was only staged may not have come to the kernel: nothing promised it.
    assert data_of(path) in ([b"x"], [] if engines.current().direct else [b"x"])


def test_ctrl_c_ends_the_wait_for_another_threads_append(path):
    output_of(
        STALLED
        + """
wal = PortableWalWriter(sys.argv[1], config())
wal.append(b"one")
stall(_native._FAULT_WRITE)
thread = threading.Thread(target=wal.append, args=(b"two",))
thread.start()
assert interrupted(lambda: wal.append(b"never"))
_native._fault_clear()
thread.join()
wal.append(b"three")
wal.close()
""",
        path,
    )
    found = data_of(path)
    if engines.current().direct:  # there it may be in flight when the signal comes
        found = [data for data in found if data != b"never"]
    assert found == [b"one", b"two", b"three"]


def test_ctrl_c_ends_a_stalled_opening(path):
    output_of(
        STALLED
        + """
stall(_native._FAULT_ALL)
assert interrupted(lambda: PortableWalWriter(sys.argv[1], config()))
_native._fault_clear()
for _ in range(1000):
    try:
        PortableWalWriter(sys.argv[1], config()).close()
        break
    except walengine.LockedError:
        time.sleep(0.01)  # the abandoned opening has it, and lets go of it
else:
    raise AssertionError("the lock was kept")
""",
        path,
    )


def test_a_signal_handler_that_returns_does_not_end_the_wait(path):
    output_of(
        STALLED
        + """
handled = []
def handler(number, frame):
    handled.append(number)
    _native._fault_clear()
signal.signal(signal.SIGINT, handler)
wal = PortableWalWriter(sys.argv[1], config())
put(wal, b"x")
stall(_native._FAULT_SYNC)
interrupt_soon()
wal.sync()
assert handled and wal.durable_lsn == 1
wal.close()
""",
        path,
    )


def test_a_handler_may_stage_a_record_at_any_time(path):
    """Goal: no deadlock and no loss when signals rain on a thread that stages."""
    out = output_of(
        """
        wal = PortableWalWriter(sys.argv[1], config())
        count = 0
        def handler(number, frame):
            global count
            count += 1
            wal.append_batched(b"handler")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for _ in range(100_000):
            wal.append_batched(b"main")
        signal.setitimer(signal.ITIMER_REAL, 0, 0)
        bytes_, ops = wal.pending_batch_bytes(), wal.pending_batch_ops()
        assert bytes_ == 4 * 100_000 + 7 * count, (bytes_, count)
        assert ops == 100_000 + count
        wal.close()
        print(count)
        """,
        path,
    )
    names = data_of(path)
    assert names.count(b"main") == 100_000
    assert names.count(b"handler") == int(out) > 10
