"""io_uring: whether it works, by doing; everything that can block it; whose ring it is."""

from __future__ import annotations

import errno
import os
from typing import Any

from walengine.backend import IoUringStatus, ring_name
from walengine.doctor.findings import Finding, Findings
from walengine.doctor.kernel import IO_URING_SINCE, container_of, kernel_release, version_of
from walengine.doctor.roots import Roots, field, read_integer, read_text

FILTERED = "2"  # Seccomp: of /proc/self/status; 1 is the strict mode, which no Python survives
REFUSED = frozenset((errno.EPERM, errno.EACCES))
CONTAINER_REMEDY = (
    "give the container a seccomp profile that allows io_uring_setup, io_uring_enter and "
    "io_uring_register (docker run --security-opt seccomp=PROFILE.json)"
)


def examine(status: IoUringStatus, roots: Roots) -> list[Finding]:
    """Say what the probe came to, and what of the machine explains it.

    Args:
        status: What io_uring_status() found.
        roots: Where the machine tells about itself.
    """
    say = Findings("io_uring")
    facts = {"works": status.available, "reason": status.reason, "errno": status.errno}
    if status.available:
        say.ok(
            "works",
            f"io_uring works: a write and a sync went through a ring{_extent(status)}",
            **facts,
        )
    else:
        say.warn(
            "works",
            f"io_uring does not work here: {status.reason}; logs are written with pwrite, which "
            "keeps the same promises",
            status.remedy,
            **facts,
        )
    _sysctl(say, status, roots)
    _seccomp(say, status, roots)
    _opcodes(say, status, roots)
    _provider(say, status)
    _fallbacks(say, status)
    return say.made


def _extent(status: IoUringStatus) -> str:
    buffers = f", {status.registered_buffers} registered buffers"
    return f" of {status.sq_entries} entries{buffers if status.registered_buffers else ''}"


# ---- what may block it ---------------------------------------------------------------------------


def _sysctl(say: Findings, status: IoUringStatus, roots: Roots) -> None:
    """kernel.io_uring_disabled: 0 all may, 1 CAP_SYS_ADMIN and a group may, 2 nobody may."""
    disabled = read_integer(roots.proc / "sys/kernel/io_uring_disabled")
    group = read_integer(roots.proc / "sys/kernel/io_uring_group")
    facts: dict[str, Any] = {"io_uring_disabled": disabled, "io_uring_group": group}
    if disabled is None:
        say.ok("sysctl", "this kernel has no sysctl kernel.io_uring_disabled", **facts)
    elif disabled == 0:
        say.ok("sysctl", "kernel.io_uring_disabled is 0: every process may use io_uring", **facts)
    elif status.available:
        say.ok("sysctl", f"kernel.io_uring_disabled is {disabled}, and this process may", **facts)
    elif disabled == 1:
        named = group is not None and group >= 0
        who = f"of group {group}" if named else "with CAP_SYS_ADMIN"
        remedy = (
            f"add the user to group {group}, or set kernel.io_uring_disabled to 0"
            if named
            else "set kernel.io_uring_group to a group of this user, or io_uring_disabled to 0"
        )
        say.warn(
            "sysctl",
            f"kernel.io_uring_disabled is 1: only processes {who} may make a ring",
            f"as root: {remedy} (sysctl -w, and a file in /etc/sysctl.d)",
            is_member=named and _is_member(group or 0),
            **facts,
        )
    else:
        say.warn(
            "sysctl",
            "kernel.io_uring_disabled is 2: no process of this machine may make a ring",
            "as root: sysctl -w kernel.io_uring_disabled=0 (and a file in /etc/sysctl.d)",
            **facts,
        )


def _is_member(group: int) -> bool:
    return group in {os.getegid(), *os.getgroups()}


def _seccomp(say: Findings, status: IoUringStatus, roots: Roots) -> None:
    own = read_text(roots.proc / "self/status")
    filtered = field(own, "Seccomp") == FILTERED
    container = container_of(roots)
    facts = {"filters": int(field(own, "Seccomp_filters") or 0), "container": container}
    if not filtered:
        say.ok("seccomp", "no seccomp filter is on this process", **facts)
    elif status.available or status.errno not in REFUSED or _sysctl_blocks(roots):
        say.ok(
            "seccomp",
            "a seccomp filter is on this process, and is not what blocks io_uring"
            if not status.available
            else "a seccomp filter is on this process and lets io_uring through",
            **facts,
        )
    else:
        remedy = (
            CONTAINER_REMEDY
            if container
            else (
                "allow io_uring_setup, io_uring_enter and io_uring_register in the filter of what "
                "starts this process (systemd: SystemCallFilter=@aio)"
            )
        )
        who = f"the seccomp filter of this container ({container})" if container else "a filter"
        say.warn("seccomp", f"{who} refuses io_uring", remedy, **facts)


def _sysctl_blocks(roots: Roots) -> bool:
    return bool(read_integer(roots.proc / "sys/kernel/io_uring_disabled"))


def _opcodes(say: Findings, status: IoUringStatus, roots: Roots) -> None:
    """An old kernel, or one without the operations; by doing, not by the version."""
    release = kernel_release(roots)
    facts = {"release": release}
    if status.available:
        say.ok("kernel", "the kernel has NOP, WRITE, WRITE_FIXED and FSYNC for rings", **facts)
    elif status.errno == errno.EINVAL:
        say.warn(
            "kernel",
            f"the ring of Linux {release} lacks an operation that the log needs",
            "run on Linux 5.11 or newer",
            **facts,
        )
    elif status.errno == errno.ENOSYS:
        old = version_of(release) < IO_URING_SINCE
        why = "is older than 5.11" if old else "was built without it, or a sandbox hides it"
        say.warn(
            "kernel",
            f"Linux {release} has no io_uring: it {why}",
            "run on Linux 5.11 or newer, outside of gVisor and qemu-user",
            **facts,
        )


# ---- what drives it ------------------------------------------------------------------------------


def _provider(say: Findings, status: IoUringStatus) -> None:
    name = ring_name(status.ring, status.ring_version)
    facts = {"ring": status.ring, "version": status.ring_version, "liburing": status.liburing}
    if not status.available:
        return
    if status.ring == "liburing":
        say.ok("provider", f"the ring is driven by C {name}", **facts)
    elif "liburing" in status.fallbacks:
        say.warn(
            "provider",
            f"{name} serves, since liburing cannot: {status.liburing}",
            "pip install --upgrade 'walengine[liburing]'",
            **facts,
        )
    elif status.liburing:
        say.note(
            "provider",
            f"{name} serves: {status.liburing}",
            "pip install 'walengine[liburing]' (Linux x86-64)",
            **facts,
        )
    else:
        say.note("provider", f"{name} serves, as WALENGINE_RING asks", **facts)


def _fallbacks(say: Findings, status: IoUringStatus) -> None:
    """What a ring that works does without; memory is the topic of limits."""
    left = [name for name in status.fallbacks if name != "liburing"]
    if not left:
        return
    reason, _, remedy = (status.reason or "").partition("; ")
    say.warn(
        "fallbacks",
        f"the ring goes without {', '.join(left)}: {reason}",
        remedy or "allow io_uring_register in the seccomp profile, or raise ulimit -l and -n",
        fallbacks=left,
    )
