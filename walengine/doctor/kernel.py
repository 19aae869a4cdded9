"""The kernel, and what kind of machine it runs on."""

from __future__ import annotations

import os
import platform
import re

from walengine.doctor.findings import Finding, Findings
from walengine.doctor.roots import Roots, read_text

IO_URING_SINCE = (5, 11)  # with all that the ring needs
ERRORS_TOLD_SINCE = (4, 13)  # before, a writeback error could be told to nobody

CONTAINER_MARKS = {".dockerenv": "Docker", "run/.containerenv": "Podman"}
CONTAINER_GROUPS = re.compile(r"/(docker|kubepods|containerd|lxc|libpod|buildkit)[/-]")


def examine(roots: Roots, system: str = platform.system()) -> list[Finding]:
    """Say what the kernel is and what it runs in.

    Args:
        roots: Where the machine tells about itself.
        system: Name of the operating system.
    """
    say = Findings("kernel")
    if system != "Linux":
        release = platform.release()
        say.warn(
            "version",
            f"this is {system} {release}: walengine is written for it and not tested on it",
            "run on Linux where the data matters",
            system=system,
            release=release,
        )
        return say.made
    release = kernel_release(roots)
    _version(say, release)
    _machine(say, roots, release)
    container = container_of(roots)
    if container:
        say.note(
            "container",
            f"this looks like a container ({container}): its profile decides about io_uring, and "
            "a log outlives it on a volume only",
            container=container,
        )
    return say.made


def kernel_release(roots: Roots) -> str:
    """Return what uname -r prints."""
    return read_text(roots.proc / "sys/kernel/osrelease") or platform.release()


def version_of(release: str) -> tuple[int, int]:
    """Return major and minor number of a release; (0, 0) where it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def container_of(roots: Roots) -> str | None:
    """Return what kind of container this process seems to be in, or None."""
    for mark, name in CONTAINER_MARKS.items():
        if os.path.lexists(roots.top / mark):
            return name
    groups = CONTAINER_GROUPS.search(read_text(roots.proc / "1/cgroup") or "")
    return groups[1] if groups else None


def _version(say: Findings, release: str) -> None:
    version = version_of(release)
    facts = {"release": release, "machine": platform.machine()}
    if version < ERRORS_TOLD_SINCE:
        say.warn(
            "version",
            f"Linux {release}: before 4.13 a failed write of the page cache could go unreported",
            "run on Linux 5.11 or newer",
            **facts,
        )
    elif version < IO_URING_SINCE:
        say.note(
            "version",
            f"Linux {release}: io_uring needs 5.11 or newer, so logs are written with pwrite",
            "run on Linux 5.11 or newer",
            **facts,
        )
    else:
        say.ok("version", f"Linux {release}", **facts)


def _machine(say: Findings, roots: Roots, release: str) -> None:
    """Say whether somebody stands between this kernel and the device."""
    lower = release.lower()
    if "microsoft" in lower and version_of(release) < (4, 19):
        say.warn(
            "machine",
            "this is WSL 1, which translates system calls: what a sync does there is not tested",
            "convert the distribution to WSL 2 (wsl --set-version NAME 2)",
            virtual="wsl1",
        )
        return
    virtual = "wsl2" if "microsoft" in lower else _hypervisor(roots)
    if virtual is None:
        say.ok("machine", "no hypervisor is seen below this kernel", virtual=None)
        return
    name = "WSL 2" if virtual == "wsl2" else "a virtual machine"
    detail = "" if virtual in {"wsl2", "unknown"} else f" ({virtual})"
    say.note(
        "machine",
        f"this is {name}{detail}: the host decides whether a flush reaches the hardware",
        virtual=virtual,
    )


def _hypervisor(roots: Roots) -> str | None:
    kind = read_text(roots.sys / "hypervisor/type")
    if kind:
        return kind
    cpu = read_text(roots.proc / "cpuinfo") or ""
    if not re.search(r"^flags\s*:.*\bhypervisor\b", cpu, re.MULTILINE):
        return None
    return read_text(roots.sys / "class/dmi/id/sys_vendor") or "unknown"
