"""Kernel, io_uring, filesystem, limits, space and clock on machines that this one is not."""

from __future__ import annotations

import errno
import os
import resource

import pytest
from machines import Machine, levels, refused, the, works

from walengine import WalConfig
from walengine.doctor import (
    State,
    access,
    clock,
    examine,
    filesystem,
    kernel,
    limits,
    ring,
    space,
    writer,
)
from walengine.doctor._calls import DirectAlignment
from walengine.doctor.clock import Clocks
from walengine.doctor.findings import Findings, verdict_of
from walengine.doctor.limits import NO_LIMIT, Limits
from walengine.doctor.roots import Roots
from walengine.doctor.space import Space
from walengine.doctor.trial import Trial

MIB = 1 << 20
SEGMENT = 64 * MIB
FILTER = "io_uring is forbidden by a seccomp filter"
SYSCTL = "the sysctl kernel.io_uring_disabled forbids io_uring"


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# ---- kernel --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "level"),
    [
        ("6.18.44", "ok"),
        ("5.11.0-rc1", "ok"),
        ("5.10.0-28-amd64", "note"),
        ("4.18.0-553.el8", "note"),
        ("3.10.0-1160.el7", "warning"),
        ("strange", "warning"),
    ],
)
def test_kernels(tmp_path, release, level):
    found = kernel.examine(Machine(tmp_path, release).roots, "Linux")
    assert the(found, "version").level == level
    assert the(found, "version").facts["release"] == release


def test_another_system(machine):
    (found,) = kernel.examine(machine.roots, "Darwin")
    assert (found.name, found.level) == ("version", "warning")


@pytest.mark.parametrize(
    ("release", "virtual", "level"),
    [
        ("5.15.153.1-microsoft-standard-WSL2", "wsl2", "note"),
        ("4.4.0-19041-Microsoft", "wsl1", "warning"),
    ],
)
def test_wsl(tmp_path, release, virtual, level):
    found = the(kernel.examine(Machine(tmp_path, release).roots, "Linux"), "machine")
    assert (found.facts["virtual"], found.level) == (virtual, level)


def test_a_virtual_machine(machine):
    assert the(kernel.examine(machine.roots, "Linux"), "machine").level == "ok"
    machine.write("proc/cpuinfo", "flags\t\t: fpu hypervisor vme")
    machine.write("sys/class/dmi/id/sys_vendor", "QEMU")
    found = the(kernel.examine(machine.roots, "Linux"), "machine")
    assert (found.facts["virtual"], found.level) == ("QEMU", "note")


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        (".dockerenv", "", "Docker"),
        ("run/.containerenv", "", "Podman"),
        ("proc/1/cgroup", "0::/kubepods/besteffort/pod1", "kubepods"),
        ("proc/1/cgroup", "0::/init.scope", None),
    ],
)
def test_containers(machine, file, text, name):
    machine.write(file, text)
    assert kernel.container_of(machine.roots) == name
    said = [each.name for each in kernel.examine(machine.roots, "Linux")]
    assert ("container" in said) == (name is not None)


# ---- io_uring ------------------------------------------------------------------------------------


def test_a_ring_that_works(machine):
    machine.write("proc/sys/kernel/io_uring_disabled", "0")
    found = ring.examine(works(), machine.roots)
    assert levels(found) == {}
    assert the(found, "provider").text == "the ring is driven by C liburing 2.15"
    assert the(found, "works").facts["works"] is True


def test_the_sysctl_forbids_it_to_all(machine):
    machine.write("proc/sys/kernel/io_uring_disabled", "2")
    found = ring.examine(refused(errno.EPERM, SYSCTL), machine.roots)
    assert levels(found) == {"works": "warning", "sysctl": "warning"}
    assert "sysctl -w kernel.io_uring_disabled=0" in the(found, "sysctl").remedy


@pytest.mark.parametrize(
    ("group", "words"),
    [("1234", "add the user to group 1234"), ("-1", "set kernel.io_uring_group")],
)
def test_the_sysctl_allows_it_to_a_group(machine, group, words):
    machine.write("proc/sys/kernel/io_uring_disabled", "1")
    machine.write("proc/sys/kernel/io_uring_group", group)
    sysctl = the(ring.examine(refused(errno.EPERM, SYSCTL), machine.roots), "sysctl")
    assert (sysctl.level, sysctl.facts["io_uring_group"]) == ("warning", int(group))
    assert words in sysctl.remedy
    assert the(ring.examine(works(), machine.roots), "sysctl").level == "ok"


def test_a_container_with_a_seccomp_filter(machine):
    machine.write("proc/sys/kernel/io_uring_disabled", "0")
    machine.write(".dockerenv", "")
    machine.status(seccomp=2)
    found = ring.examine(refused(errno.EPERM, FILTER, "allow it"), machine.roots)
    assert levels(found) == {"works": "warning", "seccomp": "warning"}
    assert "container (Docker)" in the(found, "seccomp").text
    assert "docker run --security-opt seccomp=" in the(found, "seccomp").remedy
    assert the(found, "works").remedy == "allow it"


def test_a_filter_outside_of_a_container_and_one_that_is_innocent(machine):
    machine.status(seccomp=2)
    blamed = the(ring.examine(refused(errno.EPERM, FILTER), machine.roots), "seccomp")
    assert (blamed.level, "systemd" in blamed.remedy) == ("warning", True)
    innocent = the(ring.examine(works(), machine.roots), "seccomp")
    assert (innocent.level, "lets io_uring through" in innocent.text) == ("ok", True)
    machine.write("proc/sys/kernel/io_uring_disabled", "2")
    other = the(ring.examine(refused(errno.EPERM, SYSCTL), machine.roots), "seccomp")
    assert (other.level, "not what blocks" in other.text) == ("ok", True)


@pytest.mark.parametrize(
    ("release", "number", "words"),
    [
        ("5.4.0-190-generic", errno.ENOSYS, "older than 5.11"),
        ("6.1.0", errno.ENOSYS, "a sandbox hides it"),
        ("5.10.0", errno.EINVAL, "lacks an operation"),
    ],
)
def test_a_kernel_without_rings_or_their_operations(tmp_path, release, number, words):
    found = ring.examine(refused(number, "no"), Machine(tmp_path, release).roots)
    assert levels(found) == {"works": "warning", "kernel": "warning"}
    assert words in the(found, "kernel").text


def test_who_drives_the_ring(machine):
    missing = works(ring="builtin", ring_version=None, liburing="it is not installed")
    found = the(ring.examine(missing, machine.roots), "provider")
    assert (found.level, "pip install" in found.remedy) == ("note", True)
    broken = works(ring="builtin", liburing="it is broken", fallbacks=("liburing",))
    assert levels(ring.examine(broken, machine.roots)) == {"provider": "warning"}
    asked = works(ring="builtin", ring_version=None)
    assert "WALENGINE_RING" in the(ring.examine(asked, machine.roots), "provider").text


def test_a_ring_that_goes_without_something(machine):
    status = works(fallbacks=("registered_files",), reason="too many files; raise ulimit -n")
    found = the(ring.examine(status, machine.roots), "fallbacks")
    assert (found.level, found.remedy) == ("warning", "raise ulimit -n")


# ---- filesystem ----------------------------------------------------------------------------------

GOOD = Trial(direct_step_bytes=512, alignment=DirectAlignment(512, 512), nocow=True)


def on(machine, kind, options="rw", own="rw", trial=GOOD):
    mount = machine.mount("/data", kind, "/dev/sda1", "8:1", options, own)
    return filesystem.examine(mount, trial)


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("ext4", "ok"), ("xfs", "ok"), ("btrfs", "ok"), ("tmpfs", "warning"), ("ramfs", "warning"),
        ("nfs4", "problem"), ("cifs", "problem"), ("overlay", "warning"), ("9p", "warning"),
        ("fuse.sshfs", "warning"), ("zfs", "warning"), ("vfat", "warning"), ("new", "warning"),
    ],
)  # fmt: skip
def test_filesystems(machine, kind, level):
    found = the(on(machine, kind), "type")
    assert (found.level, found.facts["type"]) == (level, kind)
    assert (found.remedy is None) == (level == "ok")


UNSYNCED = {"type": "warning", "barriers": "warning", "direct_io": "note"}


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("ext4", "rw,nobarrier", {"barriers": "warning"}),
        ("ext4", "rw,barrier=0", {"barriers": "warning"}),
        ("ext4", "rw,barrier=1", {}),
        ("xfs", "rw,nobarrier,noquota", {"barriers": "warning"}),
        ("ext4", "rw,data=writeback", {"journal": "note"}),
        ("ext4", "rw,data=ordered", {}),
        ("ext4", "rw,data=journal", {"journal": "warning"}),
        ("ext4", "rw,sync", {"synchronous": "note"}),
        ("xfs", "rw,attr2,prjquota", {"quota": "note"}),
        ("f2fs", "rw,fsync_mode=nobarrier", UNSYNCED),
        ("overlay", "rw,upperdir=/u,volatile", UNSYNCED),
        ("ext4", "ro,errors=remount-ro", {"read_only": "problem"}),
    ],
)
def test_mount_options(machine, kind, options, expected):
    assert levels(on(machine, kind, options)) == expected


def test_a_bind_mount_may_be_read_only_alone(machine):
    assert levels(on(machine, "ext4", own="ro")) == {"read_only": "problem"}


def test_of_mounts_the_nearest_counts_and_of_two_on_one_point_the_later(machine):
    machine.mount("/", "ext4", "/dev/sda1", "8:1")
    machine.mount("/data\\040base", "xfs", "/dev/sdb1", "8:17")
    assert machine.mount("/data\\040base", "btrfs", "/dev/sdc1", "0:30").kind == "btrfs"
    assert filesystem.examine(machine.mount("/d", "ext4", "x", "8:2"), GOOD)[0].level == "ok"
    assert levels(filesystem.examine(None, GOOD)) == {"type": "note"}


@pytest.mark.parametrize("where", ["write_error", "sync_error", "name_sync_error"])
def test_what_fails_when_it_is_tried(machine, where):
    trial = Trial(direct_step_bytes=4096, **{where: OSError(errno.EIO, "Input/output error")})
    found = on(machine, "ext4", trial=trial)
    assert levels(found) == {"sync": "problem"}
    assert "input/output error" in the(found, "sync").text
    assert "dmesg" in the(found, "sync").remedy


def test_no_direct_writes(machine):
    trial = Trial(direct_error=OSError(errno.EINVAL, "Invalid argument"))
    found = the(on(machine, "ext4", trial=trial), "direct_io")
    assert (found.level, found.facts["works"], found.facts["step_bytes"]) == ("note", False, None)


def test_direct_writes_that_statx_says_nothing_of(machine):
    found = the(on(machine, "btrfs", trial=Trial(direct_step_bytes=1024, nocow=True)), "direct_io")
    assert "steps of 1024 bytes were accepted" in found.text
    assert found.facts["statx_offset_bytes"] is None


def test_btrfs_that_refuses_nocow(machine):
    trial = Trial(direct_step_bytes=512, nocow=False)
    assert levels(on(machine, "btrfs", trial=trial)) == {"nocow": "warning"}


# ---- limits --------------------------------------------------------------------------------------


def limited(machine, status=None, **less):
    own = Limits(**{"locked_bytes": NO_LIMIT, "files": 20000, "file_bytes": NO_LIMIT} | less)
    return limits.examine(own, status or works(), WalConfig(), SEGMENT, machine.roots)


@pytest.mark.parametrize(
    ("limit", "level"),
    [
        (0, "warning"), (64 << 10, "warning"), (4 * MIB, "note"), (8 * MIB, "note"),
        (64 * MIB, "ok"), (NO_LIMIT, "ok"),
    ],
)  # fmt: skip
def test_locked_memory(machine, limit, level):
    found = the(limited(machine, locked_bytes=limit), "memlock")
    assert (found.level, found.facts["default_bytes"]) == (level, 4 * MIB)
    assert ("ulimit -l" in (found.remedy or "")) == (level != "ok")


def test_locked_memory_is_no_limit_for_who_may_lock_all(machine):
    machine.status(capabilities=1 << 14)
    assert levels(limited(machine, locked_bytes=0)) == {}


def test_root_of_a_rootless_container_has_the_limit(machine):
    """Its capabilities count in its own user namespace only."""
    machine.status(capabilities=1 << 14)
    machine.write("proc/self/uid_map", "         0       1000          1")
    status = works(registered_buffers=0, fallbacks=("registered_buffers",))
    assert levels(limited(machine, status, locked_bytes=65536)) == {"memlock": "warning"}
    machine.write("proc/self/uid_map", "         0          0 4294967295")
    assert levels(limited(machine, locked_bytes=0)) == {}


def test_buffers_that_were_refused_decide_whatever_the_limit_says(machine):
    status = works(registered_buffers=0, fallbacks=("registered_buffers",))
    assert levels(limited(machine, status, locked_bytes=8 * MIB)) == {"memlock": "warning"}


@pytest.mark.parametrize(("limit", "level"), [(8, "warning"), (64, "note"), (1024, "ok")])
def test_open_files(machine, limit, level):
    assert the(limited(machine, files=limit), "nofile").level == level


@pytest.mark.parametrize(("limit", "level"), [(SEGMENT - 1, "problem"), (SEGMENT, "ok")])
def test_the_size_of_a_file(machine, limit, level):
    assert the(limited(machine, file_bytes=limit), "fsize").level == level


def test_the_limits_of_this_process():
    own = limits.own_limits()
    assert own.files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert own.may_make(0)


# ---- space ---------------------------------------------------------------------------------------


def room(free, *, trial=GOOD, is_log=False, files=(1 << 20, 1 << 20)):
    return space.examine(Space(1 << 40, free, *files), trial, SEGMENT, is_log=is_log)


@pytest.mark.parametrize(
    ("free", "is_log", "level"),
    [
        (SEGMENT - 1, False, "problem"), (SEGMENT - 1, True, "warning"),
        (SEGMENT, False, "warning"), (15 * SEGMENT, False, "warning"), (16 * SEGMENT, False, "ok"),
    ],
)  # fmt: skip
def test_free_space(free, is_log, level):
    assert the(room(free, is_log=is_log), "free").level == level


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EDQUOT, "raise the quota"), (errno.ENOSPC, "free space")]
)
def test_a_segment_that_was_refused(number, remedy):
    trial = Trial(room_error=OSError(number, os.strerror(number)), room_tried=True)
    found = the(room(1 << 39, trial=trial), "free")
    assert found.level == "problem"
    assert found.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("files", "level"),
    [((0, 0), "ok"), ((100, 7), "problem"), ((10000, 999), "warning"), ((10000, 1000), "ok")],
)
def test_inodes(files, level):
    assert the(room(1 << 39, files=files), "inodes").level == level


def test_a_segment_is_tried_only_where_nobody_misses_it():
    assert not space.may_try(None, SEGMENT)
    assert not space.may_try(Space(1 << 40, 8 * SEGMENT, 0, 0), SEGMENT)
    assert space.may_try(Space(1 << 40, 9 * SEGMENT, 0, 0), SEGMENT)


# ---- clock ---------------------------------------------------------------------------------------

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("clocks", "expected"),
    [
        (Clocks(NOW, 10.0, 20000.0, True), {}),
        (Clocks(NOW, 10.0, 20000.0, False), {"ntp": "note"}),
        (Clocks(NOW, 10.0, 20000.0, None), {"ntp": "note"}),
        (Clocks(NOW, -6000.0, 20000.0, True), {"sanity": "warning"}),
        (Clocks(NOW, 0.0, 0.0, True), {"sanity": "warning"}),
        (Clocks(0.0, 0.0, 20000.0, True), {"sanity": "warning"}),
    ],
)
def test_clocks(machine, clocks, expected):
    machine.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
    assert levels(clock.examine(clocks, machine.roots)) == expected


def test_a_slow_clock(machine):
    machine.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")
    found = clock.examine(Clocks(NOW, 0.0, 20000.0, True), machine.roots)
    assert levels(found) == {"source": "note"}


def test_a_look_at_the_clocks_of_this_machine():
    clocks = clock.look()
    assert clocks.monotonic_us > 0
    assert clocks.synchronised in (True, False, None)


# ---- writer, verdict, all of it ------------------------------------------------------------------


def test_what_a_writer_would_use(machine):
    mount = machine.mount("/data", "xfs", "/dev/sda1", "8:1")
    (ringed,) = writer.examine(works(), mount, GOOD, WalConfig())
    assert "io_uring (liburing 2.15)" in ringed.text
    assert ringed.facts["registered_buffers"] == 64
    (plain,) = writer.examine(refused(1, "no"), mount, GOOD, WalConfig())
    assert (plain.facts["backend"], plain.level) == ("pwrite", "ok")
    (asked,) = writer.examine(works(), mount, GOOD, WalConfig(backend="pwrite"))
    assert "as WALENGINE_BACKEND asks" in asked.text
    (wished,) = writer.examine(refused(1, "no"), mount, GOOD, WalConfig(backend="io_uring"))
    assert wished.level == "problem"
    (unknown,) = writer.examine(works(), mount, Trial(create_error=OSError(13, "no")), WalConfig())
    assert "was not tried" in unknown.text
    assert not unknown.facts["direct_io_possible"]


@pytest.mark.parametrize(
    ("kind", "possible"),
    [("ext4", True), ("btrfs", True), ("tmpfs", True), ("overlay", False), ("fuse.sshfs", False),
     ("fuseblk", False), ("virtiofs", False), ("9p", False), ("zfs", False)],
)  # fmt: skip
def test_where_direct_io_is_direct(machine, kind, possible):
    """Goal: as the C core decides, by the type of the filesystem; accepting them is not enough."""
    mount = machine.mount("/data", kind, "what", "0:50")
    (found,) = writer.examine(works(), mount, GOOD, WalConfig())
    assert found.facts["direct_io_possible"] is possible
    told = the(filesystem.examine(mount, GOOD), "direct_io")
    assert (told.level == "ok", told.facts["works"]) == (possible, True)
    assert ("may drop their sync" in told.text) is not possible
    (unknown,) = writer.examine(works(), None, GOOD, WalConfig())
    assert unknown.facts["direct_io_possible"]


def test_the_worst_finding_is_the_verdict():
    say = Findings("topic")
    verdicts = [verdict_of(())]
    for report in (say.ok, say.note, say.warn, say.problem):
        report("name", "text")
        verdicts.append(verdict_of(tuple(say.made)))
    assert verdicts == [State.READY, State.READY, State.READY, State.WARNINGS, State.UNUSABLE]


def test_a_machine_that_tells_nothing(tmp_path):
    """Goal: no /proc and no /sys, as in a jail: everything else is still said."""
    nowhere = tmp_path / "nowhere"
    report = examine(tmp_path, roots=Roots(nowhere / "proc", nowhere / "sys", nowhere))
    assert report.find("filesystem", "type").facts == {"type": None}
    assert report.find("filesystem", "sync").level == "ok"
    assert "unknown" not in {finding.name for finding in report.findings}
    with pytest.raises(LookupError, match="device/chain"):
        report.find("device", "chain")


class Lock:
    """A LOCK that may not be opened, on the device 8:17 or on one of several."""

    def __init__(self, major):
        self.device = os.makedev(major, 17)

    def lstat(self):
        return os.stat_result((0o600, 4242, self.device, 1, 0, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("major", "listed", "locked"),
    [(8, "08:11:4242", True), (8, "08:12:4242", False), (8, "08:11:42423", False),
     (0, "00:1f:4242", True)],
)  # fmt: skip
def test_the_lock_of_another_file_is_not_taken_for_the_logs(machine, major, listed, locked):
    """Inodes have the same numbers on every filesystem."""
    machine.write("proc/locks", f"1: FLOCK  ADVISORY  WRITE 4711 {listed} 0 EOF")
    say = Findings("access")
    access._lock_by_table(say, Lock(major), PermissionError(), machine.roots)
    assert say.made[0].facts["locked"] is locked


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "\x00\xff", "- - - -\n1 0 8:1 / / rw"])
def test_a_machine_that_tells_nonsense(tmp_path, text):
    machine = Machine(tmp_path)
    for name in (
        "proc/self/mountinfo", "proc/self/status", "proc/cpuinfo", "proc/1/cgroup", "proc/locks",
        "proc/sys/kernel/io_uring_disabled", "proc/sys/kernel/osrelease",
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
    ):  # fmt: skip
        machine.write(name, text)
    report = examine(tmp_path, roots=machine.roots)
    assert report.find("filesystem", "sync").level == "ok"
    assert [each.text for each in report.findings if each.name == "unknown"] == []
