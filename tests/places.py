"""Where suites keep their logs: in memory, or on a filesystem of their own that can fail or fill.

A fixture here is imported by the conftest.py of the directories that use it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 1 << 30  # a container's 64 MiB are too small for a filesystem in a file

UNMOUNT_TRIES = 200

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2  # what only memory holds is gone, the journal's part too

# Smallest images, and the options that make them: xfs refuses less than 300 MiB.
FILESYSTEMS = {
    "ext4": (64, ["-F", "-J", "size=4"]),
    "xfs": (300, ["-f"]),
}


@pytest.fixture
def memory_path(tmp_path):
    """A directory in memory where there is one, else an ordinary one.

    SIGKILL leaves the page cache alone, so for it a disk would only be slow.
    """
    usable = os.access(MEMORY, os.W_OK | os.X_OK)
    if not usable or shutil.disk_usage(MEMORY).free < MEMORY_BYTES_MIN:
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="walengine-", dir=MEMORY))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def run(*command: object) -> str:
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True
    ).stdout.strip()


class Disk:
    """A filesystem in a file, which can lose its power."""

    def __init__(self, device: str, mount_point: Path) -> None:
        self.device = device
        self.path = mount_point

    def mount(self) -> None:
        run("mount", self.device, self.path)

    def unmount(self) -> None:
        """A killed process's ring keeps the filesystem busy for some 50 ms more."""
        for _ in range(UNMOUNT_TRIES):
            attempt = subprocess.run(["umount", self.path], check=False, capture_output=True)
            if attempt.returncode == 0:
                return
            time.sleep(0.01)
        run("umount", self.path)

    def cut_power(self) -> None:
        """From now on nothing reaches the device, and what had not reached it is gone."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def power_up(self) -> None:
        """Mount again, as a machine does when it starts: the journal is replayed."""
        self.unmount()
        self.mount()


@contextmanager
def disk(directory: Path, filesystem: str, mebibytes: int = 0) -> Iterator[Disk]:
    """Make a filesystem in a file below directory and mount it; clear up whatever happens."""
    least, options = FILESYSTEMS[filesystem]
    image, mount_point = directory / f"{filesystem}.img", directory / filesystem
    with image.open("wb") as file:
        file.truncate(max(mebibytes, least) << 20)
    mount_point.mkdir()
    run(f"mkfs.{filesystem}", "-q", *options, image)
    device = run("losetup", "--find", "--show", image)
    try:
        made = Disk(device, mount_point)
        made.mount()
        try:
            yield made
        finally:
            # Lazily, in case the test left something open.
            subprocess.run(["umount", "-l", mount_point], check=False, capture_output=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)
        image.unlink()


@contextmanager
def small_tmpfs(directory: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a tmpfs of this size below directory."""
    mount_point = directory / "tmpfs"
    mount_point.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "tmpfs", mount_point)
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", "-l", mount_point], check=False, capture_output=True)
