"""The directory as a store: crashes, order on the disk, failures, stopped processes."""

import asyncio
import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from local_stores import PREAMBLE, files_below, get, program, put
from needs import needs_mount, needs_root
from places import small_tmpfs

from walengine.buffer import StorageError
from walengine.buffer.store.local import LocalStore

# ---- crashes -------------------------------------------------------------------------------------

COUNTER = """
async def main():
    store = LocalStore(path)
    while True:
        found = await store.get("queue/counter")
        value = int(found.data) + 1
        if await store.replace("queue/counter", b"%d" % value, found.etag):
            print(value, flush=True)
asyncio.run(main())
"""


def test_a_counter_survives_kills(root, check, scaled, count, seed):
    """Method: four processes count by compare-and-set and print what they reached; each is killed
    at a random moment and replaced. A value printed twice was doubled; one below the last that
    nobody printed is a kill between the swap and the print, at most one for each kill.
    """
    put(check, "queue/counter", b"0")
    chance, kills, running, printed = random.Random(seed), scaled(24), [], []

    def start():
        running.append(program(COUNTER, root, stdout=subprocess.PIPE))

    def kill(worker):
        worker.kill()
        printed.extend(int(line) for line in worker.communicate()[0].splitlines())

    for _ in range(4):
        start()
    for _ in range(kills):
        time.sleep(chance.uniform(0.05, 0.25))
        kill(running.pop(chance.randrange(len(running))))
        start()
    for worker in running:
        kill(worker)
    reached = int(get(check, "queue/counter"))
    assert len(printed) == len(set(printed))
    assert max(printed, default=0) <= reached
    assert reached - len(printed) <= kills + 4
    assert files_below(root) == [".walengine/lock", "queue/counter"]
    count("kills of a counting process", kills + 4)
    count("swaps between the kills", reached)


@pytest.mark.not_quick
def test_processes_race_and_one_wins(root, check, count):
    code = """
    async def main():
        store = LocalStore(path)
        print(*[i for i in range(20) if await store.create(f"key/{i}", b"x")])
        counted = 0
        while counted < 20:
            found = await store.get("counter")
            counted += bool(await store.replace("counter", b"%d" % (int(found.data) + 1),
                                                found.etag))
        await store.aclose()
    asyncio.run(main())
    """
    put(check, "counter", b"0")
    workers = [program(code, root, stdout=subprocess.PIPE) for _ in range(8)]
    won = [int(word) for worker in workers for word in worker.communicate(timeout=60)[0].split()]
    assert [worker.returncode for worker in workers] == [0] * 8
    assert sorted(won) == list(range(20))
    assert get(check, "counter") == b"160"
    count("increments by eight processes", 160)


def test_a_directory_left_unsynced_is_synced_by_the_next(root, check, monkeypatch):
    """Goal: what a reader sees is durable, though its writer died between rename and fsync."""
    put(check, "p/a", b"1")
    directory = (root / "p").stat().st_ino
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    assert get(check, "p/a") == b"1"
    assert directory not in synced
    (root / ".walengine" / "lock").write_bytes(b"p")
    assert get(check, "p/a") == b"1"
    assert directory in synced
    assert (root / ".walengine" / "lock").read_bytes() == b""


@pytest.mark.parametrize("note", [b"gone", b"../..", b"\xff", b"/", b"a\x00b", b"p/a"])
def test_an_odd_note_is_dropped(root, check, note):
    put(check, "p/a", b"1")
    (root / ".walengine" / "lock").write_bytes(note)
    assert get(check, "p/a") == b"1"
    assert (root / ".walengine" / "lock").read_bytes() == b""


def test_a_writer_killed_before_the_sync_leaves_a_note(root, check):
    code = """
    real = os.fsync
    def fsync(fd):
        real(fd)
        if os.path.exists(path + "/p/a"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.fsync = fsync
    asyncio.run(LocalStore(path).put("p/a", b"1"))
    """
    put(check, "p/first")
    assert program(code, root).wait() == -signal.SIGKILL
    assert (root / ".walengine" / "lock").read_bytes() == b"p"
    assert get(check, "p/a") == b"1"


def test_temporaries_go_when_their_writer_is_gone(root, check):
    put(check)
    own = root / ".walengine"
    (own / "tmp-dead").write_bytes(b"half")
    (own / "foreign").write_bytes(b"stays")
    with (own / "tmp-alive").open("wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert get(check) == b"1"
        assert sorted(path.name for path in own.iterdir()) == ["foreign", "lock", "tmp-alive"]
    assert get(check) == b"1"
    assert sorted(path.name for path in own.iterdir()) == ["foreign", "lock"]


# ---- order on the disk ---------------------------------------------------------------------------


def test_each_write_syncs_file_then_directory_and_each_new_directory(root, check, monkeypatch):
    """Method: the calls that matter, in their order."""
    trace = []

    def spy(name, describe):
        real = getattr(os, name)

        def call(*arguments, **options):
            trace.append((name, describe(*arguments)))
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    def path_of(descriptor):
        return os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), root)

    put(check, "first")
    spy("fsync", lambda fd: "temporary" if "tmp-" in path_of(fd) else path_of(fd))
    spy("rename", lambda _old, new: new)
    spy("mkdir", lambda name, _mode: name)
    put(check, "p/q/a")
    own = [("mkdir", ".walengine"), ("fsync", ".")]
    assert trace == [
        *own,
        ("mkdir", "p"), ("fsync", "."), ("mkdir", "q"), ("fsync", "p"),
        ("fsync", "temporary"), ("rename", "a"), ("fsync", "p/q"),
    ]  # fmt: skip


# ---- failures ------------------------------------------------------------------------------------


def test_errors_name_object_and_next_step_and_are_clear(root, check):
    """As a user without rights, since root may do everything."""
    needs_root()
    put(check)
    code = """
    async def main():
        store = LocalStore(path)
        for call in (store.get("a"), store.put("a", b"2")):
            try:
                await call
            except StorageError as error:
                print(error.errno, error.unclear, "give this user the right" in str(error))
    asyncio.run(main())
    """
    root.parent.chmod(0o755)
    root.chmod(0o755)
    source = PREAMBLE + textwrap.dedent(code)
    # The interpreter's own directories are root's: modules are imported before the user changes.
    source = source.replace("path = ", "os.setgroups([]); os.setgid(65534); "
                            "os.setuid(65534)\npath = ")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", source, root], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.stdout == f"{errno.EACCES} False True\n" * 2, done.stderr
    assert get(check) == b"1"


def test_a_full_disk_takes_nothing_and_recovers(tmp_path, run):
    needs_mount()

    async def body(mount):
        store = LocalStore(mount / "store")
        etag = await store.create("a", b"old")
        for call in (store.put("b", bytes(2 << 20)), store.replace("a", bytes(2 << 20), etag)):
            with pytest.raises(StorageError, match="free some space") as caught:
                await call
            assert (caught.value.errno, caught.value.unclear) == (errno.ENOSPC, False)
        assert (await store.get("a")).data == b"old"
        assert await store.get("b") is None
        assert await store.replace("a", bytes(500_000), etag)
        assert files_below(mount / "store") == [".walengine/lock", "a"]
        await store.aclose()

    with small_tmpfs(tmp_path, 1) as mount:
        run(body(mount))


CALLS = ("write", "fsync", "rename", "unlink", "pwrite", "ftruncate", "fchmod", "mkdir")


class NthCallFails:
    """After arm(n, code) the nth of CALLS fails, once; fired tells whether it came to that."""

    def __init__(self, monkeypatch):
        self.left = self.code = None
        for name in CALLS:
            monkeypatch.setattr(os, name, self._around(getattr(os, name)))

    def _around(self, real):
        def call(*arguments, **options):
            if self.left == 0:
                self.left = None
                raise OSError(self.code, os.strerror(self.code))
            self.left = self.left and self.left - 1
            return real(*arguments, **options)

        return call

    def arm(self, n, code):
        self.left, self.code = n, code

    def disarm(self):
        fired, self.left = self.left is None, None
        return fired


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("verb", ["put", "create", "replace", "delete"])
def test_every_failing_call_of_a_write(root, check, monkeypatch, verb, code, count):
    """Method: the nth system call of the write fails, for every n until it goes through. What
    says that nothing happened is held to it; the store goes on either way.
    """
    faults = NthCallFails(monkeypatch)

    async def attempt(store, n):
        name = f"new/{n}" if verb == "create" else "there"
        await store.put("there", b"old")
        etag = (await store.get("there")).etag
        before = await store.get(name)
        call = {"put": lambda: store.put(name, b"new"),
                "create": lambda: store.create(name, b"new"),
                "replace": lambda: store.replace(name, b"new", etag),
                "delete": lambda: store.delete(name)}[verb]()  # fmt: skip
        faults.arm(n, code)
        (error,) = await asyncio.gather(call, return_exceptions=True)
        fired = faults.disarm()
        after = await store.get(name)
        check_outcome(error, before and before.data, after and after.data)
        return fired

    def check_outcome(error, before, after):
        wanted = None if verb == "delete" else b"new"
        if not isinstance(error, Exception):
            assert after == wanted
            return
        assert isinstance(error, StorageError)
        assert error.errno == code
        assert after in ({before, wanted} if error.unclear else {before})

    async def body(store):
        n = 0
        while await attempt(store, n):
            n += 1
        return n

    tried = check(body)
    assert tried >= (4 if verb == "delete" else 6)
    count("failing system calls", tried)
    get(check)  # what could not be removed goes at the next opening
    assert not [name for name in files_below(root) if "tmp-" in name]


def test_a_stopped_holder_of_the_lock_is_an_error_with_a_limit(root, check):
    code = """
    import fcntl
    lock = open(path + "/.walengine/lock")
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    """
    put(check)
    holder = program(code, root, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == "held\n"

    async def body(store):
        for call in (store.get("a"), store.put("a", b"2")):
            with pytest.raises(StorageError, match="is it stopped") as caught:
                await call
            assert not caught.value.unclear

    try:
        check(body, lock_timeout_s=0.2)
    finally:
        holder.kill()
        holder.communicate()
    assert get(check) == b"1"


def test_a_child_of_fork_holds_no_lock_and_is_refused(root):
    code = """
    import fcntl
    from walengine.buffer.store import _gate
    store = LocalStore(path)
    asyncio.run(store.put("a", b"1"))
    ready, tell = os.pipe()
    with store._opened.gate.exclusive():
        child = os.fork()
        if child == 0:
            os.write(tell, b"1")
            time.sleep(30)
            os._exit(0)
        os.read(ready, 1)
        os.close(next(iter(_gate._locked)))  # as if this process had died inside
        _gate._locked.clear()
        try:
            with open(path + "/.walengine/lock") as again:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print("free")
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(store.get("a"))
            except StorageError as error:
                print(str(error).partition(": ")[2], flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        os._exit(0)
    """
    worker = program(code.replace('print("free")', 'print("free", flush=True)'), root,
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    output, errors = worker.communicate(timeout=60)
    assert output == "free\nopened in the parent process; open it in this one\n", errors


def test_a_cancelled_write_leaves_the_store_usable(root, check):
    async def body(store):
        for i in range(20):
            task = asyncio.ensure_future(store.put("a", b"%d" % i * 1000))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await store.put("b", b"1")
        return (await store.get("b")).data

    assert check(body) == b"1"
    assert not [name for name in files_below(root) if "tmp-" in name]
