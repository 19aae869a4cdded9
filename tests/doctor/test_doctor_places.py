"""walengine doctor on real filesystems, for ordinary users, and where io_uring is refused.

Every run is one of the real entry point, and whatever it finds, it leaves nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from examined import Examined, listing, look
from examined import doctor as doctor_of
from needs import (
    needs_filesystem,
    needs_linux,
    needs_overlay,
    needs_ring,
    needs_root,
    needs_tool,
)
from places import FILESYSTEMS, disk, small_tmpfs
from processes import command

from walengine import IoUringConfig, PortableWalWriter, WalConfig, recover

pytestmark = pytest.mark.not_quick

NOBODY = 65534
MIB = 1 << 20

# BEFORE takes something away; the entry point comes behind it, in the same process.
PROGRAM = """
import errno, resource
import seccomp
import walengine.cli.doctor
from walengine import _native_ring
_native_ring.liburing_problem()  # found while its files can be read
os.chdir("/")
def become(user):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
BEFORE
sys.argv = ["walengine", "doctor", sys.argv[1], "--json"]
walengine.cli.main()
"""


def run(path, before, inside=None):
    """Examine a place from a process that takes something away from itself first."""
    needs_linux()
    kept = listing(inside or path)
    program = PROGRAM.replace("BEFORE", before)
    done = subprocess.run(command(program, path), capture_output=True, check=False)
    assert done.stderr == b""
    assert listing(inside or path) == kept
    return Examined(json.loads(done.stdout), done.returncode)


# ---- filesystems ---------------------------------------------------------------------------------


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_filesystem_in_a_file(tmp_path, filesystem):
    """Roomy, then with a log in it, then full, then read-only."""
    needs_filesystem(filesystem)
    with disk(tmp_path, filesystem, 400) as made:
        place = made.path / "logs"
        place.mkdir(mode=0o700)
        roomy(place, filesystem, tmp_path)
        with_a_log(place)
        full(place)
        read_only(made, place)


def test_a_mount_that_a_later_one_covers_is_not_taken_for_it(tmp_path):
    needs_linux()
    needs_root()
    needs_tool("unshare")
    place = tmp_path / "above" / "below"
    place.mkdir(parents=True)
    commands = """
    mount -t tmpfs covered "$0" && mount -t tmpfs above "${0%/*}" && mkdir "$0" &&
    exec "$1" -c 'import sys; from walengine.doctor import examine
print(examine(sys.argv[1]).find("filesystem", "type").facts["source"])' "$0"
    """
    run = ["unshare", "--mount", "sh", "-c", commands, place, sys.executable]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout == "above\n", done.stderr


def test_a_filesystem_that_cannot_allocate_is_usable(tmp_path):
    """ext3: posix_fallocate writes there, as it does in a writer."""
    needs_filesystem("ext3")
    with disk(tmp_path, "ext3", 700) as made:
        made.path.chmod(0o700)
        found = doctor_of(made.path)
        assert found.level("space", "free") == "warning"  # room for few segments
        assert found.fact("space", "free", "allocation_tried") is True
        assert (found.verdict, found.code) == ("ready with warnings", 0)
        with PortableWalWriter(made.path / "wal.log") as wal:
            assert wal.append_durable(b"one") == 1


def roomy(place, filesystem, below):
    found = doctor_of(place)
    assert found.fact("filesystem", "type", "type") == filesystem
    assert found.level("filesystem", "type") == "ok"
    assert found.fact("filesystem", "type", "mount_point") == str(place.parent)
    assert found.level("filesystem", "sync") == found.level("filesystem", "barriers") == "ok"
    assert found.fact("filesystem", "direct_io", "works") is True
    assert (found.level("device", "loop"), found.code) == ("note", 0)
    assert str(below / f"{filesystem}.img") in found.text("device", "loop")
    chain = found.fact("device", "chain", "devices")
    assert chain[0]["kind"] == "loop"
    assert len(chain) > 1, "what the image lies on is seen too"
    assert ("filesystem", "nocow") in found.findings or filesystem != "btrfs"
    if filesystem != "btrfs":
        step = found.fact("filesystem", "direct_io", "step_bytes")
        told = found.fact("filesystem", "direct_io", "statx_offset_bytes")
        assert told in (None, step), "what statx tells is what was found by doing"


def with_a_log(place):
    log = place / "wal.log"
    with PortableWalWriter(log, WalConfig(segment_bytes=MIB)) as wal:
        wal.append(b"one")
    assert recover(log).warnings == (), "the C core holds it for a tested filesystem too"
    found = doctor_of(log)
    assert (found.facts["is_log"], found.level("log", "end"), found.code) == (True, "ok", 0)


def full(place):
    with (place / "filler").open("wb") as file:
        end, step = 0, 64 * MIB
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), end, step)
                end += step
            except OSError:
                step //= 2
    found = doctor_of(place)
    assert (found.verdict, found.level("space", "free")) == ("not usable", "problem")
    assert "free space" in found.findings["space", "free"]["remedy"]
    log = look(place / "wal.log")
    assert log.level("space", "free") != "ok"
    assert log.level("log", "end") == "ok", "a log on a full disk can be read"


def read_only(made, place):
    subprocess.run(["mount", "-o", "remount,ro", made.path], check=True)
    found = doctor_of(place)
    assert (found.verdict, found.code) == ("not usable", 1)
    assert found.level("filesystem", "read_only") == "problem"
    assert "readers work" in found.findings["access", "writable"]["remedy"]
    log = look(place / "wal.log")
    assert (log.level("log", "end"), log.code) == ("ok", 1)


def test_tmpfs(tmp_path):
    needs_linux()
    needs_root()
    with small_tmpfs(tmp_path, 512) as place:
        found = doctor_of(place)
        assert (found.verdict, found.code) == ("ready with warnings", 0)
        assert found.level("filesystem", "type") == "warning"
        assert "nothing survives power loss" in found.text("filesystem", "type")
        assert ("device", "chain") not in found.findings
        assert found.fact("space", "free", "allocation_tried") is False
        with PortableWalWriter(place / "wal.log", WalConfig(segment_bytes=MIB)) as wal:
            wal.append(b"one")
        (warning,) = recover(place / "wal.log").warnings
        assert "kept in memory" in warning


def test_a_small_tmpfs(tmp_path):
    needs_linux()
    needs_root()
    with small_tmpfs(tmp_path, 32) as place:
        found = doctor_of(place)
        assert (found.verdict, found.level("space", "free")) == ("not usable", "problem")
        assert "smaller WalConfig.segment_bytes" in found.findings["space", "free"]["remedy"]


def test_barriers_that_are_off(tmp_path):
    needs_filesystem("ext4")
    with disk(tmp_path, "ext4") as made:
        options = "remount,nobarrier,noauto_da_alloc"
        subprocess.run(["mount", "-o", options, made.path], check=True)
        found = doctor_of(made.path, inside=made.path)
        assert found.level("filesystem", "barriers") == "warning"
        assert found.fact("filesystem", "barriers", "option") == "nobarrier"


def test_overlay(tmp_path):
    needs_overlay()
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    parts = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    merged = tmp_path / "merged"
    mount = ["mount", "-t", "overlay", "overlay", "-o", parts, merged]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        found = doctor_of(merged)
        assert (found.level("filesystem", "type"), found.code) == ("warning", 0)
        assert "volume" in found.findings["filesystem", "type"]["remedy"]
        assert found.level("filesystem", "direct_io") == "note"
        with direct_writer(merged / "direct.log") as wal:
            assert wal.stats().direct_io is False
            assert found.fact("writer", "backend", "direct_io_possible") is False
    finally:
        subprocess.run(["umount", merged], check=True)


# ---- ordinary users, and what is refused ---------------------------------------------------------


def test_an_ordinary_user(tmp_path):
    needs_root()
    place = open_to_all(tmp_path)
    os.chown(place, NOBODY, NOBODY)
    found = run(place, f"become({NOBODY})")
    assert (found.level("access", "writable"), found.level("access", "owner")) == ("ok", "ok")
    assert found.fact("access", "writable", "user") == NOBODY
    assert found.fact("limits", "memlock", "exempt") is False
    assert found.code == 0


def test_an_ordinary_user_in_a_directory_of_somebody_else(tmp_path):
    needs_root()
    place = open_to_all(tmp_path)
    found = run(place, f"become({NOBODY})")
    assert (found.level("access", "writable"), found.verdict) == ("problem", "not usable")
    assert "permission denied" in found.text("access", "writable")


def test_an_ordinary_user_and_a_log_of_somebody_else(tmp_path):
    needs_root()
    log = open_to_all(tmp_path) / "wal.log"
    with PortableWalWriter(log, WalConfig(segment_bytes=MIB)) as wal:
        wal.append(b"one")
        log.chmod(0o755)
        wal.sync()
        time.sleep(0.1)  # or the idle mark, 20 ms behind a sync, would be a change
        found = run(log, f"become({NOBODY})")
        assert (found.level("log", "end"), found.level("access", "owner")) == ("problem", "problem")
        assert found.fact("access", "lock", "locked") is True
        assert f"process {os.getpid()}" in found.text("access", "lock")
    found = run(log, f"become({NOBODY})")
    assert found.fact("access", "lock", "locked") is False
    log.chmod(0o700)
    closed = run(log / "below", f"become({NOBODY})", log)
    assert (closed.level("target", "path"), closed.code) == ("problem", 1)
    assert "permission denied" in closed.text("target", "path")


def test_no_memory_may_be_locked(tmp_path):
    needs_root()
    needs_ring()
    place = open_to_all(tmp_path)
    user = 40000 + os.getpid() % 20000
    os.chown(place, user, user)
    limit = "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))"
    found = run(place, f"{limit}\nbecome({user})")
    assert found.level("limits", "memlock") == "warning"
    assert "RLIMIT_MEMLOCK is 0 bytes" in found.text("limits", "memlock")
    assert found.fact("limits", "memlock", "default_bytes") == 4 * MIB
    assert found.fact("limits", "memlock", "registered_buffers") == 0
    assert (found.verdict, found.code) == ("ready with warnings", 0)


def test_a_filter_refuses_io_uring(tmp_path):
    needs_ring()
    found = run(tmp_path, "seccomp.refuse(errno.EPERM, 'io_uring_setup')")
    assert (found.verdict, found.code) == ("ready with warnings", 0)
    assert found.level("io_uring", "works") == found.level("io_uring", "seccomp") == "warning"
    assert "io_uring_setup" in found.findings["io_uring", "seccomp"]["remedy"]
    assert found.fact("writer", "backend", "backend") == "pwrite"


def test_a_filter_hides_io_uring_and_one_lets_only_registering_out(tmp_path):
    needs_ring()
    hidden = run(tmp_path, "seccomp.refuse(errno.ENOSYS, 'io_uring_setup')")
    assert hidden.level("io_uring", "kernel") == "warning"
    assert hidden.level("io_uring", "seccomp") == "ok", "nothing says that it was the filter"
    less = run(tmp_path, "seccomp.refuse(errno.EPERM, 'io_uring_register')")
    assert less.level("io_uring", "works") == "ok"
    assert less.level("io_uring", "fallbacks") == "warning"
    assert less.fact("writer", "backend", "registered_buffers") == 0


def test_an_operation_is_missing(tmp_path):
    needs_ring()
    found = run(tmp_path, "_native_ring.lib.wal_ring_hide_op(3)")  # FSYNC
    assert found.level("io_uring", "works") == found.level("io_uring", "kernel") == "warning"
    assert "lacks an operation" in found.text("io_uring", "kernel")
    assert found.fact("writer", "backend", "backend") == "pwrite"


@pytest.mark.parametrize("backend", ["auto", "pwrite"])
def test_a_writer_uses_what_the_doctor_said(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("WALENGINE_BACKEND", backend)
    found = look(tmp_path)
    with (
        PortableWalWriter(tmp_path / "plain.log", WalConfig(segment_bytes=MIB)) as plain,
        direct_writer(tmp_path / "direct.log") as past_the_cache,
    ):
        stats = plain.stats()
        for name in ("backend", "ring", "ring_version", "registered_buffers"):
            assert found.fact("writer", "backend", name) == getattr(stats, name)
        possible = found.fact("writer", "backend", "direct_io_possible")
        assert possible == past_the_cache.stats().direct_io


def test_small_files_and_few(tmp_path):
    limits = "RLIMIT_FSIZE, (1 << 20, 1 << 20)", "RLIMIT_NOFILE, (32, 32)"
    found = run(tmp_path, "\n".join(f"resource.setrlimit(resource.{each})" for each in limits))
    assert found.level("limits", "fsize") == "problem"
    assert found.level("limits", "nofile") != "ok"
    assert found.code == 1


def direct_writer(path):
    """A writer that asks for direct writes."""
    return PortableWalWriter(path, WalConfig(io=IoUringConfig(direct_io=True), segment_bytes=MIB))


def open_to_all(tmp_path):
    """Return a new directory in a place that every user can reach; pytest's own is closed."""
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.geteuid() and above.name.startswith(("pytest-", "popen-")):
            above.chmod(above.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    return place
