"""A machine that refuses io_uring, or a part of it: "io_uring" says why, "auto" goes on.

Method: each case is a process of its own that takes something away from itself, then tells, as
JSON, what the status, an explicit "io_uring", and an "auto" that writes and is killed came to. The
log is judged here.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from needs import needs_linux, needs_ring, needs_root
from processes import command
from rings import each_provider

from walengine import replay, verify

TESTS = Path(__file__).resolve().parent
RECORDS = 30

# CASE takes something away; IO is the configuration that is asked for.
PROGRAM = """
import errno, json, logging, resource
import seccomp
from walengine import _native_ring
os.chdir(sys.argv[1])
if "WALENGINE_RING" in os.environ:
    _native_ring.liburing_problem()  # found while its files can be read
IO = IoUringConfig()
lines = []
class Keep(logging.Handler):
    def emit(self, record):
        lines.append([record.levelname, record.getMessage()])
logging.getLogger("walengine").addHandler(Keep())
logging.getLogger("walengine").setLevel(logging.INFO)
CASE
def told(backend, path):
    try:
        wal = PortableWalWriter(path, WalConfig(io=IO, backend=backend))
    except walengine.WalError as error:
        return {"error": type(error).__name__, "message": str(error), "errno": error.errno}
    with wal:
        wal.append_batched(b"x")
        wal.sync()
        stats = wal.stats()
    return {"backend": stats.backend, "ring": stats.ring, "fallbacks": list(stats.fallbacks)}
status = walengine.io_uring_status(IO)
facts = {"status": status.as_dict(), "sentence": str(status)}
facts["explicit"] = told("io_uring", "explicit.log")
del lines[:]
wal = PortableWalWriter("auto.log", WalConfig(io=IO))
for i in range(RECORDS):
    if i % 3:
        wal.append_batched(b"record %d" % i)
    else:
        wal.append(b"record %d" % i)
    if i % 5 == 4:
        wal.flush_batch()
stats = wal.stats()
facts["auto"] = stats.as_dict()
facts["lines"] = lines
print(json.dumps(facts), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run(directory, case, provider=None, *, prepare=None):
    """The facts of one case; the log that its "auto" left is whole, or this fails."""
    needs_linux()
    env = os.environ | {"PYTHONPATH": str(TESTS)}
    env.pop("WALENGINE_BACKEND", None)
    env.pop("WALENGINE_RING", None)
    if provider is not None:
        env["WALENGINE_RING"] = provider
    directory.mkdir(exist_ok=True)
    if prepare is not None:
        prepare(directory)
    program = PROGRAM.replace("CASE", case).replace("RECORDS", str(RECORDS))
    done = subprocess.run(
        command(program, directory), capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    log = directory / "auto.log"
    assert verify(log).ok
    assert [record.data for record in replay(log)] == [b"record %d" % i for i in range(RECORDS)]
    facts = json.loads(done.stdout)
    assert facts["auto"]["durable_lsn"] == RECORDS
    (facts["says"],) = [text for _, text in facts["lines"] if "writes with" in text]
    facts["warnings"] = [text for level, text in facts["lines"] if level == "WARNING"]
    facts["told"] = [text for _, text in facts["lines"] if "not in use" in text]
    return facts


def assert_no_io_uring(facts, reason, remedy, errno_name):
    """Explicit: an error with reason and remedy. Auto: pwrite, told, and no warning."""
    explicit, auto, status = facts["explicit"], facts["auto"], facts["status"]
    assert explicit["error"] == "WalError"
    assert reason in explicit["message"]
    assert remedy in explicit["message"]
    assert "explicit.log" in explicit["message"]
    assert explicit["errno"] == errno_name
    assert not status["available"]
    assert reason in status["reason"]
    assert remedy.lower() in status["remedy"].lower()
    assert status["errno"] == errno_name
    assert facts["sentence"].startswith("io_uring does not work here: ")
    assert (auto["backend"], auto["ring"], auto["fallbacks"]) == ("pwrite", None, ["io_uring"])
    assert set(auto["ring_ops"].values()) == {0}
    assert "writes with pwrite" in facts["says"]
    assert facts["warnings"] == []
    assert any(reason in text for _, text in facts["lines"])


def assert_less(facts, fallbacks, reason):
    """Explicit and auto: io_uring all the same, what is missing is named once."""
    auto = facts["auto"]
    assert (auto["backend"], auto["fallbacks"]) == ("io_uring", fallbacks)
    assert facts["explicit"]["backend"] == "io_uring"
    assert facts["explicit"]["fallbacks"] == fallbacks
    assert auto["syncs"] > 0
    assert auto["ring_ops"]["fsync"] + auto["ring_ops"]["rwf_dsync"] >= auto["syncs"]
    assert "writes with io_uring" in facts["says"]
    (told,) = facts["told"]
    assert reason in told
    assert all(name in told for name in fallbacks)


# ---- seccomp -------------------------------------------------------------------------------------

FILTER = "io_uring is forbidden by a seccomp filter"
PROFILE = "allow io_uring_setup, io_uring_enter and io_uring_register"
NEWER = "run on Linux 5.11 or newer"


@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [
        ("EPERM", FILTER, PROFILE),
        ("EACCES", FILTER, PROFILE),
        ("ENOSYS", "this kernel has no io_uring", NEWER),
        ("ENOMEM", "no memory for the ring within RLIMIT_MEMLOCK", "raise ulimit -l"),
        ("EMFILE", "too many open files for a ring's descriptor", "raise ulimit -n"),
        ("ENFILE", "too many open files for a ring's descriptor", "raise ulimit -n"),
        ("EINVAL", "the kernel does not know this kind of ring", NEWER),
    ],
)
@each_provider
def test_setup_is_refused(tmp_path, provider, name, reason, remedy):
    needs_ring(provider)
    case = f"seccomp.refuse(errno.{name}, 'io_uring_setup')"
    facts = run(tmp_path / "logs", case, provider)
    assert_no_io_uring(facts, reason, remedy, getattr(errno, name))


@each_provider
def test_entering_is_refused(tmp_path, provider):
    """Goal: a ring that can be set up and not be used is none."""
    needs_ring(provider)
    facts = run(tmp_path / "logs", "seccomp.refuse(errno.EPERM, 'io_uring_enter')", provider)
    assert_no_io_uring(facts, FILTER, PROFILE, 1)


@each_provider
def test_only_registering_is_refused(tmp_path, provider):
    needs_ring(provider)
    facts = run(tmp_path / "logs", "seccomp.refuse(errno.EPERM, 'io_uring_register')", provider)
    assert_less(facts, ["registered_buffers", "registered_files"], "not permitted")
    ops = facts["auto"]["ring_ops"]
    assert (ops["write_fixed"], ops["write"] > 0) == (0, True)
    assert facts["auto"]["registered_buffers"] == facts["auto"]["registered_files"] == 0
    assert facts["status"]["available"]
    assert facts["status"]["registered_buffers"] == 0


@each_provider
def test_direct_writes_want_registered_files(tmp_path, provider):
    """Goal: where nothing can be registered, direct writes go by pwrite; the lock needs it so."""
    needs_ring(provider)
    case = """
seccomp.refuse(errno.EPERM, "io_uring_register")
IO = IoUringConfig(direct_io=True)
PortableWalWriter("direct.log", WalConfig(io=IO)).close()
assert "io_uring" not in open("/proc/self/maps").read(), "the refused ring is still mapped"
"""
    facts = run(tmp_path / "logs", case, provider)
    explicit, auto = facts["explicit"], facts["auto"]
    assert explicit["error"] == "WalError"
    assert "use direct_io=False" in explicit["message"]
    assert (auto["backend"], auto["direct_io"], auto["fallbacks"]) == ("pwrite", True, ["io_uring"])


# ---- opcodes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("register", ["allowed", "refused"])
@pytest.mark.parametrize("opcode", [0, 3, 5, 23], ids=["nop", "fsync", "write_fixed", "write"])
@each_provider
def test_an_opcode_is_missing(tmp_path, provider, opcode, register):
    """Goal: found out by asking, and where asking is forbidden by using it."""
    needs_ring(provider)
    case = f"_native.lib.wal_ring_hide_op({opcode})"
    if register == "refused":
        case += "\nseccomp.refuse(errno.EPERM, 'io_uring_register')"
    facts = run(tmp_path / "logs", case, provider)
    if register == "refused" and opcode == 5:
        # Without registered buffers nobody needs it.
        assert_less(facts, ["registered_buffers", "registered_files"], "not permitted")
    else:
        reason = "the kernel does not know" if opcode == 0 else "lacks WRITE, WRITE_FIXED or FSYNC"
        assert_no_io_uring(facts, reason, NEWER, 22)


# ---- limits --------------------------------------------------------------------------------------

# Root has CAP_IPC_LOCK, and no limit of memory for it. The user is one that nobody else is: what is
# pinned counts against a user's limit, whatever process it is of.
POOR = """
def become(limit):
    user = 40000 + os.getpid() % 20000
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    os.chown(".", user, user)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
"""


@each_provider
def test_no_memory_may_be_locked(tmp_path, provider):
    needs_root()
    needs_ring(provider)
    facts = run(tmp_path / "logs", POOR + "become(0)", provider)
    if facts["status"]["available"]:  # kernels from 5.12 to 6.13 do not count the ring itself
        assert_less(facts, ["registered_buffers"], "raise ulimit -l")
    else:
        reason = "no memory for the ring within RLIMIT_MEMLOCK"
        assert_no_io_uring(facts, reason, "raise ulimit -l", 12)


@each_provider
def test_little_memory_may_be_locked(tmp_path, provider):
    needs_root()
    needs_ring(provider)
    facts = run(tmp_path / "logs", POOR + "become(64 * 1024)", provider)
    auto = facts["auto"]
    assert (auto["backend"], auto["registered_buffers"]) == ("io_uring", 0)
    assert "registered_buffers" in auto["fallbacks"]
    assert set(auto["fallbacks"]) <= {"registered_buffers", "sq_entries"}
    assert ("sq_entries" in auto["fallbacks"]) == (auto["sq_entries"] < 1024)
    assert auto["sq_entries"] >= 64
    (told,) = facts["told"]
    assert "raise ulimit -l" in told


@each_provider
def test_eight_mebibytes_are_enough_for_the_default_and_not_for_high_throughput(tmp_path, provider):
    needs_root()
    needs_ring(provider)
    facts = run(tmp_path / "default", POOR + "become(8 << 20)", provider)
    assert (facts["auto"]["backend"], facts["auto"]["fallbacks"]) == ("io_uring", [])
    assert facts["auto"]["registered_buffers"] == 64
    assert facts["told"] == []
    large = POOR + "become(8 << 20)\nIO = IoUringConfig(registered_buffers=256, buffer_size=262144)"
    facts = run(tmp_path / "large", large, provider)
    assert_less(facts, ["registered_buffers"], "raise ulimit -l (RLIMIT_MEMLOCK)")
    assert facts["auto"]["ring_ops"]["write_fixed"] == 0
    assert facts["status"]["errno"] == 12


@each_provider
def test_a_ring_right_behind_another_gets_what_that_one_had(tmp_path, provider):
    """Goal: the kernel counts a closed ring's memory for a moment more; nobody notices."""
    needs_root()
    needs_ring(provider)
    case = """
for limit, made in ((8 << 20, {(1024, 64)}), (64 << 10, {(512, 0), (1024, 0)})):
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    seen = set()
    for i in range(6):
        with PortableWalWriter("behind.log", WalConfig(io=IO, backend="io_uring")) as wal:
            seen.add((wal.stats().sq_entries, wal.stats().registered_buffers))
    assert len(seen) == 1 and seen <= made, (limit, seen)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
"""
    facts = run(tmp_path / "logs", POOR + "become(8 << 20)" + case, provider)
    assert facts["auto"]["backend"] == "io_uring"


@each_provider
def test_few_files_may_be_open(tmp_path, provider):
    """Goal: a limit below the table of registered files costs that table and nothing else."""
    needs_ring(provider)
    case = "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))"
    facts = run(tmp_path / "logs", case, provider)
    assert_less(facts, ["registered_files"], "Too many open files")
    assert facts["auto"]["ring_ops"]["write_fixed"] > 0
    assert facts["auto"]["registered_files"] == 0


@each_provider
def test_no_descriptor_is_left_for_a_ring(tmp_path, provider):
    needs_ring(provider)
    case = """
used = sorted(map(int, os.listdir("/proc/self/fd")))
spare = os.open("/", os.O_RDONLY)  # the lowest free one: the log's directory takes it
resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, spare + 1))
os.close(spare)
try:
    status = walengine.io_uring_status(IO)
    explicit = None
    PortableWalWriter("few.log", WalConfig(io=IO, backend="io_uring"))
except walengine.WalError as error:
    explicit = str(error)
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 4096))
"""
    case = (
        case.replace("(spare + 1, spare + 1)", "(spare + 1, 4096)")
        + """
assert "ulimit -n" in explicit, explicit
"""
    )
    facts = run(tmp_path / "logs", case, provider)
    assert facts["auto"]["backend"] == "io_uring", "what was refused once is tried again"


# ---- liburing ------------------------------------------------------------------------------------

HIDDEN = """
import importlib.util
find_spec = importlib.util.find_spec
hide = lambda name, *rest: None if name == "liburing" else find_spec(name, *rest)
importlib.util.find_spec = hide
"""


def test_liburing_is_not_installed(tmp_path):
    needs_ring("builtin")
    facts = run(tmp_path / "logs", HIDDEN)
    assert facts["status"]["liburing"] == "the package liburing is not installed"
    assert (facts["auto"]["backend"], facts["auto"]["ring"]) == ("io_uring", "builtin")
    assert (facts["auto"]["fallbacks"], facts["warnings"]) == ([], [])
    assert "the built-in ring" in facts["says"]


def test_liburing_is_not_installed_and_asked_for(tmp_path):
    """Goal: a misspelt wish is no reason to write with something else in silence, in auto too."""
    needs_ring("builtin")
    case = (
        HIDDEN
        + """
os.environ["WALENGINE_RING"] = "liburing"
wish = []
for backend in ("io_uring", "auto"):
    try:
        PortableWalWriter("wish.log", WalConfig(backend=backend))
    except walengine.WalError as error:
        wish.append(str(error))
assert len(wish) == 2, wish
for text in wish:
    assert "WALENGINE_RING asks for liburing, and the package liburing is not installed" in text
    assert "pip install 'walengine[liburing]'" in text
assert not os.path.exists("wish.log")
del os.environ["WALENGINE_RING"]
"""
    )
    facts = run(tmp_path / "logs", case)
    assert facts["auto"]["ring"] == "builtin"
