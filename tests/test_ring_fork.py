"""fork and exec with a ring open: a child has none of it, and keeps none of it alive."""

from __future__ import annotations

import pytest
from needs import needs_ring
from processes import output_of, start
from rings import each_provider, environment

from walengine import PortableWalWriter, replay

# What a child can see of a ring and of a log's files; in_child() runs something there.
HELPERS = """
import subprocess
path = sys.argv[1]
def descriptors(text, pid="self"):
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    return [target for target in found if text in target]
def mappings(text):
    with open("/proc/self/maps") as file:
        return [line for line in file if text in line]
def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def nothing_of_the_parent():
    assert descriptors("io_uring") == [], descriptors("io_uring")
    assert mappings("io_uring") == [], mappings("io_uring")
    assert descriptors(path) == [], descriptors(path)
    assert _native._open_files() == 0
def opened(**fields):
    wal = PortableWalWriter(path, WalConfig(io=IoUringConfig(**fields), backend="io_uring"))
    wal.append_batched(b"before")
    wal.flush_batch()
    assert len(descriptors("io_uring")) == 1
    assert mappings("io_uring")
    return wal
STALL = 10_000  # milliseconds; a failure ends the wait too
def stall(op):
    lib = _native.lib
    lib.wal_fault_set(op, 1, 1, lib.WAL_FAULT_STALL, STALL)
def at_the_device():
    while _native._fault_hits() == 0:
        time.sleep(0.001)
"""

SHAPES = ["{}", "{'direct_io': True}", "{'kernel_poll': True}"]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=["buffered", "direct", "polled"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


def told(code, path, provider):
    needs_ring(provider)
    with environment(WALENGINE_RING=provider, WALENGINE_BACKEND=None):
        return output_of(HELPERS + code, path)


def data_of(path):
    return [record.data for record in replay(path)]


@each_shape
@each_provider
def test_the_child_has_no_ring_and_the_parent_goes_on(path, provider, shape):
    told(
        f"""
wal = opened(**{shape})
def work():
    nothing_of_the_parent()
    for call in (lambda: wal.append(b"x"), wal.flush_batch, wal.sync, wal.stats, wal.reopen):
        try:
            call()
        except walengine.ForkedError:
            pass
        else:
            raise AssertionError("not refused")
    wal.close()
    nothing_of_the_parent()
for i in range(3):
    assert in_child(work) == 0
    wal.append_batched(b"%d" % i)
    wal.flush_batch()
wal.close()
assert descriptors("io_uring") == []
""",
        path,
        provider,
    )
    assert data_of(path) == [b"before", b"0", b"1", b"2"]


@each_provider
def test_the_child_has_a_ring_of_its_own(path, provider):
    told(
        """
wal = opened()
def work():
    nothing_of_the_parent()
    with PortableWalWriter(path + ".child", WalConfig(backend="io_uring")) as own:
        own.append_batched(b"mine")
        own.flush_batch()
        assert len(descriptors("io_uring")) == 1
        assert own.stats().ring_ops["fsync"] > 0
    assert descriptors("io_uring") == []
assert in_child(work) == 0
wal.append_batched(b"after")
wal.close()
""",
        path,
        provider,
    )
    assert data_of(path) == [b"before", b"after"]
    assert data_of(f"{path}.child") == [b"mine"]


@each_shape
@each_provider
def test_the_parent_is_killed_while_a_child_lives(path, provider, shape):
    """Goal: neither the lock nor the ring's files outlive the parent in its child."""
    needs_ring(provider)
    with environment(WALENGINE_RING=provider, WALENGINE_BACKEND=None):
        parent = start(
            HELPERS
            + f"""
wal = opened(**{shape})
if os.fork() == 0:
    os.close(1)
    os.close(2)
    input()
    os._exit(0)
wal.append_batched(b"acknowledged")
wal.flush_batch()
print("forked", flush=True)
signal.pause()
""",
            path,
        )
        assert parent.stdout.readline() == "forked\n"
        parent.kill()
        parent.wait()
        with PortableWalWriter(path) as wal:
            assert wal.last_lsn == 2
            wal.append(b"and on")
        parent.communicate("\n")
    assert data_of(path) == [b"before", b"acknowledged", b"and on"]


@each_shape
@each_provider
def test_the_parent_is_killed_with_writes_at_the_device_while_a_child_lives(path, provider, shape):
    """Goal: the next writer waits for what the kernel still has, and reads nothing half."""
    needs_ring(provider)
    with environment(WALENGINE_RING=provider, WALENGINE_BACKEND=None):
        parent = start(
            HELPERS
            + f"""
wal = opened(**{shape})
stall(_native.lib.WAL_FAULT_CQE_WRITE | _native.lib.WAL_FAULT_CQE_SYNC)
for i in range(4):
    threading.Thread(target=wal.append, args=(b"%d" % i * 100_000,), daemon=True).start()
def flush():
    wal.append_batched(b"never acknowledged")
    wal.flush_batch()
threading.Thread(target=flush, daemon=True).start()
at_the_device()
if os.fork() == 0:
    os.close(1)
    os.close(2)
    input()
    os._exit(0)
print("forked", flush=True)
signal.pause()
""",
            path,
        )
        assert parent.stdout.readline() == "forked\n"
        parent.kill()
        parent.wait()
        with PortableWalWriter(path) as wal:
            wal.append(b"and on")
        parent.communicate("\n")
    found = data_of(path)
    assert (found[0], found[-1]) == (b"before", b"and on")
    possible = {b"%d" % i * 100_000 for i in range(4)} | {b"never acknowledged"}
    assert set(found[1:-1]) <= possible
    assert len(set(found)) == len(found)


@each_provider
def test_other_programs_inherit_nothing(path, provider):
    """Goal: close-on-exec everywhere. Method: a program that lists its descriptors, started with
    close_fds=False."""
    told(
        """
wal = opened(direct_io=True)
listing = "import os; print([os.readlink(f'/proc/self/fd/{f}') for f in os.listdir('/proc/self/fd')"
listing += " if os.path.lexists(f'/proc/self/fd/{f}')])"
done = subprocess.run([sys.executable, "-c", listing], close_fds=False, capture_output=True,
                      text=True, check=True)
assert "io_uring" not in done.stdout and path not in done.stdout, done.stdout
os.set_inheritable(os.open("/dev/zero", os.O_RDONLY), True)
seen = subprocess.run([sys.executable, "-c", listing], close_fds=False, capture_output=True,
                      text=True, check=True)
assert "/dev/zero" in seen.stdout, "the listing sees what is inherited"
wal.append(b"after")
wal.close()
""",
        path,
        provider,
    )
    assert data_of(path) == [b"before", b"after"]


@each_shape
@each_provider
def test_multiprocessing_forks_with_requests_in_flight(path, provider, shape):
    """Goal: the child ends by itself, the requests by themselves, and every wait returns."""
    told(
        f"""
import multiprocessing
wal = opened(**{shape})
def flush(i):
    wal.append_batched(b"%d" % i)
    wal.flush_batch()
threads = [threading.Thread(target=flush, args=(i,)) for i in range(4)]
stall(_native.lib.WAL_FAULT_CQE_WRITE | _native.lib.WAL_FAULT_CQE_SYNC)
for thread in threads:
    thread.start()
at_the_device()
def work(answers):
    _native._fault_clear()
    nothing_of_the_parent()
    try:
        wal.append(b"from the child")
    except walengine.ForkedError:
        pass
    with PortableWalWriter(path + ".child", WalConfig(backend="io_uring")) as own:
        own.append_batched(b"mine")
    answers.put("done")
context = multiprocessing.get_context("fork")
answers = context.Queue()
children = [context.Process(target=work, args=(answers,)) for _ in range(2)]
for child in children:
    child.start()
    assert answers.get(timeout=60) == "done"
    child.join()
    assert child.exitcode == 0
_native._fault_clear()
for thread in threads:
    thread.join()
assert wal.durable_lsn == wal.last_lsn == 5
wal.close()
""",
        path,
        provider,
    )
    found = data_of(path)
    assert found[0] == b"before"
    assert sorted(found[1:]) == [b"0", b"1", b"2", b"3"]
    assert data_of(f"{path}.child") == [b"mine"] * 2
