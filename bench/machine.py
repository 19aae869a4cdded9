"""What a figure depends on besides the code: machine, kernel, filesystem, versions, commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import walengine

ROOT = Path(__file__).resolve().parent.parent


def describe(directory: Path, command: str, crc: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the facts that are printed above every table; crc: what ``limit crc`` printed."""
    calibration = {}
    if crc is not None:
        calibration["c_copy_and_crc"] = f"{crc['ns']:.1f} ns for 256 B ({crc['crc32c']})"
    return {
        "machine": f"{_processor()}, {os.cpu_count()} processors, {platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": filesystem_of(directory),
        "device": _device(directory),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "walengine": walengine.__version__,
        "commit": _commit(),
        "packages": ", ".join(f"{name} {version(name)}" for name in ("cffi", "crc32c")),
        "switch_interval": f"{sys.getswitchinterval() * 1000:g} ms",
        **calibration,
        "command": command,
        "processors_used": ", ".join(map(str, sorted(os.sched_getaffinity(0)))),
        "load_before": os.getloadavg()[0],
    }


def filesystem_of(directory: Path) -> str:
    """Return the type of the filesystem that a directory is on."""
    best, kind = "", "unknown"
    place = str(directory.resolve())
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return kind
    for line in mounts.read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def block_device(directory: Path) -> Path | None:
    """Return where the kernel tells of the disk that a directory is on; None: it is on none."""
    number = directory.stat().st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    for device in (place, place.parent):  # a partition has no queue of its own
        if (device / "queue").exists():
            return device
    return None


def _device(directory: Path) -> str:
    """Return what the kernel says of the disk: without a write cache a sync is another thing."""
    device = block_device(directory)
    if device is None:
        return "unknown"
    queue = device / "queue"

    def read(name: str) -> str:
        file = queue / name
        return file.read_text(encoding="ascii").strip() if file.exists() else "unknown"

    rotates = {"0": "not rotating", "1": "rotating"}.get(read("rotational"), "unknown")
    return f"{device.name}, {rotates}, cache {read('write_cache')}, FUA {read('fua')}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _commit() -> str:
    """Return the commit of the checkout, and whether what is measured differs from it."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return "unknown"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [git, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    measured = ("csrc", "walengine", "bench", ":!bench/results", ":!bench/README.md")
    changed = run("status", "--porcelain", "--", *measured)
    return run("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
