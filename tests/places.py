"""Where suites keep their logs: in memory, or on a filesystem of their own that can fail or fill.

A fixture here is imported by the conftest.py of the directories that use it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 1 << 30  # a container's 64 MiB are too small for a filesystem in a file

UNMOUNT_TRIES = 200

COUNTING = Path(__file__).parent / "counting_fs.py"
FAULTY_DEVICE = Path(__file__).parent / "power" / "faulty_device.py"

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2  # what only memory holds is gone, the journal's part too

# Smallest images, and the options that make them: xfs refuses less than 300 MiB.
FILESYSTEMS = {
    "ext4": (64, ["-F", "-J", "size=4"]),
    "xfs": (300, ["-f"]),
    "btrfs": (128, ["-f"]),
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


class FaultyDisk(Disk):
    """A filesystem on a block device that fails on demand (power/faulty_device.py)."""

    process: subprocess.Popen[str]

    def tell(self, command: str) -> list[int]:
        """Give the device a command; how many writes, flushes and failures it has seen."""
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return list(map(int, self.process.stdout.readline().split()))

    def fail(self, operation: str, number: int, nth: int = 1) -> None:
        """Writes fail from the nth on; or the nth flush does, and what it should flush is gone."""
        self.tell(f"fail {operation} {nth} {number}")

    def heal(self) -> None:
        self.tell("heal")


def make_image(directory: Path, filesystem: str, mebibytes: int = 0) -> Path:
    """Make a filesystem in a file below directory."""
    least, options = FILESYSTEMS.get(filesystem, (0, ()))
    image = directory / f"{filesystem}.img"
    with image.open("wb") as file:
        file.truncate(max(mebibytes, least) << 20)
    run(f"mkfs.{filesystem}", "-q", *options, image)
    return image


D = TypeVar("D", bound=Disk)


@contextmanager
def mounted(kind: type[D], file: Path, mount_point: Path) -> Iterator[D]:
    """Mount the filesystem in a file; clear up whatever happens."""
    mount_point.mkdir()
    device = run("losetup", "--find", "--show", file)
    try:
        made = kind(device, mount_point)
        made.mount()
        try:
            yield made
        finally:
            # Lazily, in case the test left something open.
            subprocess.run(["umount", "-l", mount_point], check=False, capture_output=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)


@contextmanager
def disk(directory: Path, filesystem: str, mebibytes: int = 0) -> Iterator[Disk]:
    """Make a filesystem in a file below directory and mount it; clear up whatever happens."""
    image = make_image(directory, filesystem, mebibytes)
    try:
        with mounted(Disk, image, directory / filesystem) as made:
            yield made
    finally:
        image.unlink()


@contextmanager
def faulty_disk(directory: Path, filesystem: str) -> Iterator[FaultyDisk]:
    """The same, with a program between the file and its loop device that fails on demand."""
    image = make_image(directory, filesystem)
    fuse = directory / "fuse"
    fuse.mkdir()
    process = subprocess.Popen(
        [sys.executable, FAULTY_DEVICE, image, fuse],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while not os.path.ismount(fuse):
            assert process.poll() is None, "the faulty device ended"
            time.sleep(0.002)
        with mounted(FaultyDisk, fuse / "device", directory / filesystem) as made:
            made.process = process
            try:
                yield made
            finally:
                made.heal()
    finally:
        # Ending it is what lets go of it, whoever is still busy with its file.
        subprocess.run(["fusermount3", "-u", "-z", fuse], check=False, capture_output=True)
        process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()
        image.unlink()


class CountingFilesystem:
    """A mounted FUSE filesystem (counting_fs.py) over a directory of its own."""

    def __init__(self, below: Path, mount_point: Path, process: subprocess.Popen[str]) -> None:
        self.below = below
        self.path = mount_point
        self.process = process

    def end(self) -> tuple[int, int]:
        """Unmount it; how many fsyncs and how many creations it has seen."""
        run("fusermount3", "-u", "-z", self.path)
        fsyncs, created = map(int, self.process.communicate(timeout=30)[0].split())
        return fsyncs, created


@contextmanager
def counting_filesystem(directory: Path) -> Iterator[CountingFilesystem]:
    """Mount a filesystem that counts below directory; clear up whatever happens."""
    below, mount_point = directory / "below", directory / "mounted"
    below.mkdir()
    mount_point.mkdir()
    process = subprocess.Popen(
        [sys.executable, COUNTING, below, mount_point], stdout=subprocess.PIPE, text=True
    )
    try:
        while not os.path.ismount(mount_point):
            assert process.poll() is None, "the filesystem ended"
            time.sleep(0.005)
        yield CountingFilesystem(below, mount_point, process)
    finally:
        if process.poll() is None:
            subprocess.run(["fusermount3", "-u", "-z", mount_point], check=False)
            process.kill()
            process.communicate()


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
