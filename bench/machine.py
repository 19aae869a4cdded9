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


def describe(directory: Path, command: str, crc: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that are printed above every table."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} processors, {platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": filesystem_of(directory),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "walengine": walengine.__version__,
        "commit": _commit(),
        "packages": ", ".join(f"{name} {version(name)}" for name in ("cffi", "crc32c")),
        "switch_interval": f"{sys.getswitchinterval() * 1000:g} ms",
        "c_copy_and_crc": f"{crc['ns']:.1f} ns for 256 B ({crc['crc32c']})",
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

    changed = run("status", "--porcelain", "--", "csrc", "walengine", "bench")
    return run("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
