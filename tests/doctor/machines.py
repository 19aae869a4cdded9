"""Made-up machines: trees like /proc and /sys, as kernels lay them out, for the doctor to read."""

from __future__ import annotations

from pathlib import Path

from walengine import IoUringStatus
from walengine.doctor.mounts import Mount, mount_of
from walengine.doctor.roots import Roots

DISK = {
    "queue/write_cache": "write back",
    "queue/fua": "0",
    "queue/rotational": "0",
    "queue/scheduler": "[none] mq-deadline",
    "queue/logical_block_size": "512",
    "queue/physical_block_size": "4096",
    "ro": "0",
    "removable": "0",
}


class Machine:
    """A machine in a directory; what is not told, it does not have."""

    def __init__(self, path: Path, release: str = "6.1.0-18-amd64") -> None:
        self.roots = Roots(path / "proc", path / "sys", path)
        self._mounts: list[str] = []
        self.write("proc/sys/kernel/osrelease", release)
        self.write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme sse4_2\n")
        self.status()

    def write(self, name: str, text: str) -> None:
        file = self.roots.top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")

    def status(self, seccomp: int = 0, capabilities: int = 0) -> None:
        filters = 1 if seccomp == 2 else 0
        lines = [f"Seccomp:\t{seccomp}", f"Seccomp_filters:\t{filters}"]
        self.write("proc/self/status", "\n".join([f"CapEff:\t{capabilities:016x}", *lines]))

    def mount(
        self, point: str, kind: str, source: str, device: str, options: str = "rw", own: str = "rw"
    ) -> Mount:
        """Mount something and return it as the doctor sees it."""
        number = len(self._mounts) + 20
        self._mounts.append(
            f"{number} 1 {device} / {point} {own},relatime shared:1 - {kind} {source} {options}"
        )
        self.write("proc/self/mountinfo", "\n".join(self._mounts))
        return mount_of(point.replace("\\040", " "), self.roots)

    def disk(self, name: str, number: str, place: str = "pci0000:00/ata1", **more: str) -> None:
        """Add a disk; more: its files, a double underscore for a slash."""
        files = DISK | {key.replace("__", "/"): text for key, text in more.items()}
        self._device(f"devices/{place}/block/{name}", number, files)

    def partition(self, disk: str, name: str, number: str) -> None:
        place = (self.roots.sys / "class/block" / disk).resolve()
        relative = place.relative_to(self.roots.sys.resolve())
        self._device(f"{relative}/{name}", number, {"partition": "1", "ro": "0"})

    def stack(self, name: str, number: str, slaves: list[str], **more: str) -> None:
        """Add a virtual device above others: dm, md, loop."""
        files = DISK | {key.replace("__", "/"): text for key, text in more.items()}
        self._device(f"devices/virtual/block/{name}", number, files)
        place = self.roots.sys / "devices/virtual/block" / name / "slaves"
        place.mkdir()
        for slave in slaves:
            (place / slave).symlink_to((self.roots.sys / "class/block" / slave).resolve())

    def _device(self, place: str, number: str, files: dict[str, str]) -> None:
        for name, text in files.items():
            self.write(f"sys/{place}/{name}", text)
        for link in (f"class/block/{Path(place).name}", f"dev/block/{number}"):
            path = self.roots.sys / link
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(self.roots.sys / place)


def works(**more: object) -> IoUringStatus:
    """The status of a ring that works, as asked for by default."""
    facts = {
        "available": True, "ring": "liburing", "ring_version": "2.15", "liburing": None,
        "reason": None, "remedy": None, "errno": None, "fallbacks": (), "sq_entries": 1024,
        "kernel_poll": False, "registered_buffers": 64, "registered_files": 48,
    }  # fmt: skip
    return IoUringStatus(**facts | more)


def refused(number: int, reason: str, remedy: str = "do something") -> IoUringStatus:
    """The status where there is no ring."""
    return works(
        available=False, ring=None, ring_version=None, reason=reason, remedy=remedy, errno=number,
        sq_entries=0, registered_buffers=0, registered_files=0,
    )  # fmt: skip


def levels(findings, *names: str) -> dict[str, str]:
    """Which checks said what, but for those that are ok; or those of the names."""
    return {
        finding.name: finding.level.value
        for finding in findings
        if finding.name in names or (not names and finding.level.value != "ok")
    }


def the(findings, name: str):
    """The one finding of a check."""
    (found,) = [finding for finding in findings if finding.name == name]
    return found
