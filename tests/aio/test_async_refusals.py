"""Machines that refuse the event loop something: a ring's eventfd, descriptors, threads."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from needs import needs_linux, needs_ring
from processes import command
from rings import PROVIDERS

TESTS = Path(__file__).resolve().parent.parent

PROGRAM = """
import asyncio, errno, json, logging, resource, threading
import seccomp
from walengine import AsyncWalWriter
os.chdir(sys.argv[1])
lines = []
class Keep(logging.Handler):
    def emit(self, record):
        lines.append([record.levelname, record.getMessage()])
logging.getLogger("walengine").addHandler(Keep())

async def told(backend, path):
    try:
        wal = await AsyncWalWriter.open(path, WalConfig(backend=backend))
    except walengine.WalError as error:
        return {"error": type(error).__name__, "message": str(error), "errno": error.errno}
    async with asyncio.timeout(20):
        lsns = await asyncio.gather(*(wal.append_durable(b"%d" % i) for i in range(20)))
        await wal.aclose()
    return {"backend": wal.backend, "lsns": lsns}

async def main():
    CASE
    facts = {"explicit": await told("io_uring", "explicit.log")}
    facts["auto"] = await told("auto", "auto.log")
    facts["lines"] = lines
    return facts

facts = asyncio.run(main())
AFTER
for path in ("explicit.log", "auto.log"):
    if os.path.exists(path):
        PortableWalWriter(path, WalConfig(backend="pwrite")).close()  # it is not locked
print(json.dumps(facts))
"""


def facts_of(directory, case, provider, after=""):
    needs_linux()
    env = os.environ | {"PYTHONPATH": str(TESTS), "WALENGINE_RING": provider}
    env.pop("WALENGINE_BACKEND", None)
    program = PROGRAM.replace("CASE", case).replace("AFTER", after)
    done = subprocess.run(
        command(program, directory), capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_kernel_that_tells_no_descriptor_about_its_ring(tmp_path, provider):
    """Goal: "io_uring" says why, "auto" goes on with pwrite; neither leaves the log locked."""
    needs_ring(provider)
    facts = facts_of(tmp_path, "seccomp.refuse_registering(errno.EPERM, 4, 7)", provider)
    assert facts["explicit"]["error"] == "WalError"
    assert "eventfd" in facts["explicit"]["message"]
    assert "pwrite" in facts["explicit"]["message"]
    assert facts["explicit"]["errno"] == errno.EPERM
    assert facts["auto"] == {"backend": "pwrite", "lsns": list(range(1, 21))}
    assert any("using pwrite" in text for level, text in facts["lines"] if level == "WARNING")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_kernel_that_does_not_forget_a_descriptor(tmp_path, provider):
    """Unregistering is refused: the log closes all the same, and nobody else's file is written."""
    needs_ring(provider)
    facts = facts_of(tmp_path, "seccomp.refuse_registering(errno.EPERM, 5)", provider)
    for name in ("explicit", "auto"):
        assert facts[name] == {"backend": "io_uring", "lsns": list(range(1, 21))}


def test_no_descriptor_is_left_for_the_loop(tmp_path):
    case = (
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "    last = os.dup(0); os.close(last)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (last, hard))"
    )
    after = "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))"
    facts = facts_of(tmp_path, case, "builtin", after)
    assert facts["auto"]["errno"] == errno.EMFILE
    assert "auto.log" in facts["auto"]["message"]
    assert "ulimit -n" in facts["auto"]["message"]


def test_no_thread_is_to_be_had_for_a_slow_call(tmp_path):
    """Then the loop waits: it opens, and it closes."""
    case = (
        "start = threading.Thread.start\n"
        "    def refuse(self):\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    threading.Thread.start = refuse"
    )
    facts = facts_of(tmp_path, case, "builtin")
    assert facts["auto"]["lsns"] == list(range(1, 21))
