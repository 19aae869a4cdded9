"""Where figures come from: filesystem, devices, machine, load; and whether it can be used."""

from __future__ import annotations

import dataclasses
import errno
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import walengine
from walengine.doctor.device import is_hosted
from walengine.doctor.devices import Device, chain_of
from walengine.doctor.mounts import MEMORY, mount_of
from walengine.doctor.roots import Roots
from walengine.errors import WalOSError

FREE_BYTES_MIN = 32 << 20
FILE_BYTES_MAX = 512 << 20
FREE_SHARE = 4  # the blocks of the row before may still be on their way back
BARRIERS_OFF = ("nobarrier", "volatile")


def file_bytes_max(directory: Path) -> int:
    """Return how large the bench's one file may become: a share of what is free, within its limit.

    Raises:
        WalOSError: The directory is not there, is none, cannot be written to, or has no room; one
            sentence says what to do.
    """
    try:
        if not directory.exists():
            raise _refused(directory, errno.ENOENT, "there is no such directory. Make it first")
        if not directory.is_dir():
            raise _refused(
                directory, errno.ENOTDIR, "this is not a directory. Give the one the log will be in"
            )
        facts = os.statvfs(directory)
    except PermissionError:
        raise _refused(directory, errno.EACCES, "this user may not look into it") from None
    if facts.f_flag & os.ST_RDONLY:
        raise _refused(
            directory,
            errno.EROFS,
            "the filesystem is mounted read-only. Remount it, or give another",
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _refused(
            directory, errno.EACCES, "this user may not write here. Give a directory of your own"
        )
    free = facts.f_bavail * facts.f_frsize
    if free < FREE_BYTES_MIN:
        raise full(directory, free)
    return min(FILE_BYTES_MAX, free // FREE_SHARE)


def full(directory: Path, free: int | None = None) -> WalOSError:
    """Return the error for a disk without room."""
    has = "" if free is None else f", and {free >> 20} MiB are free"
    text = f"the filesystem is full: the bench needs {FREE_BYTES_MIN >> 20} MiB{has}. Free space"
    return _refused(directory, errno.ENOSPC, text)


def _refused(directory: Path, number: int, text: str) -> WalOSError:
    return WalOSError(f"{directory}: {text}.", path=str(directory), errno=number)


# ---- facts ---------------------------------------------------------------------------------------


def facts_of(directory: Path, roots: Roots | None = None) -> dict[str, Any]:
    """Return the facts that figures depend on, ready for JSON; None where unknown."""
    roots = roots or Roots()
    mount = mount_of(directory, roots)
    chain = chain_of(mount, roots) if mount and mount.kind not in MEMORY else []
    status = walengine.io_uring_status()
    return {
        "directory": str(directory.resolve()),
        "filesystem": mount.kind if mount else None,
        "in_memory": bool(mount and mount.kind in MEMORY),
        "source": mount.source if mount else None,
        "mount_point": mount.point if mount else None,
        "options": list(mount.options) if mount else [],
        "barriers_off": _barriers_off(mount.options if mount else ()),
        "devices": [_device(device) for device in chain],
        "io_uring": str(status),
        "has_io_uring": status.available,
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": _processor(roots),
        "processors": os.cpu_count(),
        "load_before": _load(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "walengine": walengine.__version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _device(device: Device) -> dict[str, Any]:
    names = ("name", "kind", "label", "write_cache", "reported_cache", "fua", "rotational")
    facts = dataclasses.asdict(device)
    chosen = {name: facts[name] for name in (*names, "scheduler")}
    return chosen | {"hosted": is_hosted(device)}


def _barriers_off(options: tuple[str, ...]) -> str | None:
    """Return the mount option that keeps a sync from flushing the device, or None."""
    for option in options:
        if option in BARRIERS_OFF or option in {"barrier=0", "fsync_mode=nobarrier"}:
            return option
    return None


def _load() -> float | None:
    """Return the load of the last minute; a sandbox may hide it."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _processor(roots: Roots) -> str | None:
    try:
        text = (roots.proc / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None
