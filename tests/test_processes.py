"""What needs a process of its own: forks, races, kills and exits."""

from __future__ import annotations

import pytest
from processes import output_of, run, start

from walengine import LockedError, PortableWalWriter, Verdict, recover, replay


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


def data_of(path):
    return [record.data for record in replay(path)]


# ---- one writer per directory --------------------------------------------------------------------


def test_two_processes_race_for_one_directory(path):
    """Goal: however often they try at once, one writes and the other is told who does."""
    racer = """
    path, name = sys.argv[1:]
    won = 0
    for _ in range(200):
        try:
            with PortableWalWriter(path) as wal:
                wal.append(name.encode())
                won += 1
        except walengine.LockedError as error:
            assert "process" in str(error) or "another writer" in str(error), error
    print(won)
    """
    racers = [start(racer, path, name) for name in "ab"]
    won = [int(racer.communicate()[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    names = data_of(path)
    assert [names.count(b"a"), names.count(b"b")] == won
    assert sum(won) >= 200


def test_the_refusal_names_the_holder(path):
    holder = start("wal = PortableWalWriter(sys.argv[1]); print('open', flush=True); input()", path)
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(LockedError, match=str(holder.pid)):
        PortableWalWriter(path)
    holder.communicate("\n")
    PortableWalWriter(path).close()


def test_a_killed_writer_frees_the_lock(path):
    writer = start(
        """
        wal = PortableWalWriter(sys.argv[1])
        wal.append(b"appended")
        wal.append_batched(b"staged")
        print("ready", flush=True)
        input()
        """,
        path,
    )
    assert writer.stdout.readline() == "ready\n"
    writer.kill()
    writer.communicate()
    with PortableWalWriter(path) as wal:
        assert wal.recovery_report.verdict in (Verdict.UNSEALED, Verdict.TORN)
        assert wal.last_lsn == 1
    assert data_of(path) == [b"appended"]


# ---- fork ----------------------------------------------------------------------------------------

FORK = """
def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def test_the_child_of_a_fork_is_refused_everything(path):
    output_of(
        FORK
        + """
wal = PortableWalWriter(sys.argv[1])
wal.append_batched(b"staged in the parent")
calls = [
    lambda: wal.append(b"x"), lambda: wal.append_batched(b"x"), lambda: wal.append_batched(b""),
    lambda: wal.append_with_checksum(b"x"), lambda: wal.sync(), lambda: wal.flush_batch(),
    lambda: wal.truncate_before(1), lambda: wal.reopen(), lambda: wal.stats(), lambda: wal.size(),
    lambda: wal.last_lsn, lambda: wal.durable_lsn, lambda: wal.pending_batch_ops(),
]
def work():
    for call in calls:
        try:
            call()
        except walengine.ForkedError as error:
            assert "parent" in str(error)
        else:
            raise AssertionError("not refused")
    wal.close()
    assert "forked" in repr(wal)
assert in_child(work) == 0
wal.append(b"appended by the parent")
wal.close()
""",
        path,
    )
    assert data_of(path) == [b"staged in the parent", b"appended by the parent"]


def test_the_childs_exit_says_and_does_nothing(path):
    output_of(
        """
        wal = PortableWalWriter(sys.argv[1])
        wal.append_batched(b"staged")
        child = os.fork()
        if child == 0:
            sys.exit(0)  # runs the exit handlers and collects the writer
        assert os.waitpid(child, 0)[1] == 0
        wal.close()
        """,
        path,
    )
    assert data_of(path) == [b"staged"]


def test_the_child_does_not_hold_the_lock(path):
    """Goal: the parent dies, its child lives on; the log can be opened."""
    parent = start(
        """
        wal = PortableWalWriter(sys.argv[1])
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
    PortableWalWriter(path).close()
    parent.communicate("\n")


def test_a_fork_while_another_thread_is_inside(path):
    """Goal: the locks that were held at the fork do not hang the child, nor its exit."""
    output_of(
        FORK
        + """
wal = PortableWalWriter(sys.argv[1])
wal.append(b"one")
_native._fault_set(_native._FAULT_WRITE, _native._FAULT_STALL, 60_000)
thread = threading.Thread(target=wal.append, args=(b"two",))
thread.start()
while _native._fault_hits() == 0:
    time.sleep(0.001)
def work():
    try:
        wal.append(b"x")
    except walengine.ForkedError:
        pass
    wal.close()
    with PortableWalWriter(sys.argv[1] + ".child") as own:
        own.append_batched(b"mine")
_native_clear = _native._fault_clear
def work_without_fault():
    _native_clear()
    work()
assert in_child(work_without_fault) == 0
_native._fault_clear()
thread.join()
wal.close()
""",
        path,
    )
    assert data_of(path) == [b"one", b"two"]
    assert data_of(f"{path}.child") == [b"mine"]


MUTEXES = {
    "the fault's rule": ("_native._fault_set(1, 4)", "_native._fault_hits()"),
    "loading liburing": ("0", "_native.lib.wal_ring_load(b'/no/liburing.so', _native.ffi.NULL)"),
}


@pytest.mark.parametrize(("arm", "take"), MUTEXES.values(), ids=MUTEXES)
def test_a_child_finds_no_mutex_of_the_whole_process_taken(arm, take):
    """Method: threads that hold it most of the time, and forks between them."""
    output_of(
        FORK
        + f"""
import warnings
warnings.simplefilter("ignore")  # Python's own, about forks beside threads
stop = False
def hold():
    while not stop:
        {take}
{arm}
threads = [threading.Thread(target=hold, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
def work():
    signal.alarm(10)
    {take}
for _ in range(100):
    assert in_child(work) == 0
stop = True
"""
    )


def test_the_child_opens_the_log_anew_once_the_parent_has_closed_it(path):
    output_of(
        FORK
        + """
wal = PortableWalWriter(sys.argv[1])
wal.append(b"parent")
def work():
    try:
        PortableWalWriter(sys.argv[1])
    except walengine.LockedError:
        pass
assert in_child(work) == 0
wal.close()
def work():
    with PortableWalWriter(sys.argv[1]) as wal:
        wal.append(b"child")
assert in_child(work) == 0
""",
        path,
    )
    assert data_of(path) == [b"parent", b"child"]


def test_a_reader_works_on_both_sides_of_a_fork_or_says_why(path):
    with PortableWalWriter(path) as wal:
        wal.append(b"x")
    output_of(
        FORK
        + """
reader = walengine.WalReader(sys.argv[1])
def work():
    try:
        assert reader.read(1).data == b"x"
    except walengine.ForkedError:
        pass
assert in_child(work) == 0
assert reader.read(1).data == b"x"
""",
        path,
    )


# ---- exit ----------------------------------------------------------------------------------------


def test_exit_flushes_staged_records_and_warns_once(path):
    result = run(
        """
        wal = PortableWalWriter(sys.argv[1])
        other = PortableWalWriter(sys.argv[1] + ".other")
        for _ in range(3):
            wal.append_batched(b"staged")
        other.append_batched(b"staged")
        """,
        path,
    )
    assert result.returncode == 0
    assert result.stderr.count("4 staged records were flushed at interpreter exit") == 1
    assert data_of(path) == [b"staged"] * 3
    assert recover(path).verdict is Verdict.CLEAN
    assert len(data_of(f"{path}.other")) == 1


def test_exit_with_nothing_staged_seals_and_says_nothing(path):
    output_of("wal = PortableWalWriter(sys.argv[1]); wal.append(b'x')", path)
    assert recover(path).verdict is Verdict.CLEAN


def test_exit_by_an_exception_flushes_too(path):
    result = run(
        """
        wal = PortableWalWriter(sys.argv[1])
        wal.append_batched(b"staged")
        raise RuntimeError("the program's own")
        """,
        path,
    )
    assert result.returncode == 1
    assert "the program's own" in result.stderr
    assert data_of(path) == [b"staged"]


def test_a_forgotten_writer_is_a_resource_warning(path):
    result = run(
        """
        import warnings
        warnings.simplefilter("always", ResourceWarning)
        wal = PortableWalWriter(sys.argv[1])
        wal.append_batched(b"staged")
        del wal
        PortableWalWriter(sys.argv[1]).close()  # it has let go of the log
        print("released")
        """,
        path,
    )
    assert result.stdout == "released\n"
    assert "ResourceWarning: unclosed log" in result.stderr
    assert "1 staged records" in result.stderr
    assert data_of(path) == [b"staged"]


def test_a_writer_in_a_cycle_is_released_by_the_collector(path):
    result = run(
        """
        import gc, warnings
        warnings.simplefilter("always", ResourceWarning)
        class Holder: pass
        holder = Holder()
        holder.self, holder.wal = holder, PortableWalWriter(sys.argv[1])
        del holder
        gc.collect()
        PortableWalWriter(sys.argv[1]).close()
        """,
        path,
    )
    assert result.returncode == 0
    assert result.stderr.count("ResourceWarning: unclosed log") == 1


def test_no_collector_frees_the_core_under_a_writer(path):
    """Goal: the C handle outlives the writer that closes it, in garbage cycles too.

    Method: the collector runs after every few objects, so that a cycle's finalisers come in any
    order.
    """
    output_of(
        """
        import gc, logging, warnings
        logging.disable()
        warnings.simplefilter("ignore")
        class Holder: pass
        for often in range(1, 25):
            gc.set_threshold(often)
            holder = Holder()
            holder.self, holder.wal = holder, PortableWalWriter(sys.argv[1])
            del holder
            gc.collect()
        PortableWalWriter(sys.argv[1]).close()
        """,
        path,
    )


def test_daemon_threads_do_not_hinder_the_exit(path):
    result = run(
        """
        wal = PortableWalWriter(sys.argv[1])
        def work():
            while True:
                wal.append_batched(b"x")
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.1)
        """,
        path,
    )
    assert result.returncode == 0
    assert recover(path).verdict is Verdict.CLEAN


def test_importing_starts_no_thread():
    assert output_of("print(threading.active_count())") == "1\n"
