"""A block device's file that fails on demand: a FUSE filesystem, for a loop device on top of it.

Arguments: the image that holds its bytes, the mount point, in which the file is called "device".
Commands come as lines on standard input, each answered by a line:

    fail write NTH ERRNO    writes fail from the NTH on, until healed
    fail flush NTH ERRNO    the NTH flush fails, once, and what was written since the last is gone
    heal                    nothing fails any more
    counts                  writes, flushes and failures so far

A disk that tells of a failed flush has told once: what it lost then, no later flush brings back.
"""

# ruff: noqa: ARG002 (FUSE gives more than one file needs)

from __future__ import annotations

import errno
import os
import stat
import sys
import threading

import mfusepy

NAME = "/device"


class Device(mfusepy.Operations):
    """One file; its bytes are the image's."""

    use_ns = True

    def __init__(self, image: str) -> None:
        self.file = os.open(image, os.O_RDWR)
        self.mutex = threading.Lock()
        self.heal()
        self.writes = self.flushes = self.failures = 0
        self.unflushed: list[tuple[int, bytes]] = []  # what stood where something was written

    # ---- what fails ------------------------------------------------------------------------------

    def heal(self) -> None:
        self.failing = ""
        self.countdown = 0
        self.errno = 0

    def command(self, line: str) -> str:
        verb, *rest = line.split()
        with self.mutex:
            if verb == "fail":
                self.failing, self.countdown, self.errno = rest[0], int(rest[1]), int(rest[2])
            elif verb == "heal":
                self.heal()
            return f"{self.writes} {self.flushes} {self.failures}"

    def fails(self, operation: str) -> bool:
        if self.failing != operation:
            return False
        self.countdown -= 1
        is_failure = self.countdown <= 0
        self.failures += is_failure
        return is_failure

    # ---- the file --------------------------------------------------------------------------------

    def getattr(self, path: str, fi: mfusepy.fuse_file_info | None = None) -> dict:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path != NAME:
            raise mfusepy.FuseOSError(errno.ENOENT)
        size = os.fstat(self.file).st_size
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

    def readdir(self, path: str, fi: mfusepy.fuse_file_info) -> list[str]:
        return [".", "..", NAME[1:]]

    def open(self, path: str, fi: mfusepy.fuse_file_info) -> int:
        fi.direct_io = True  # no page cache in front of the device
        return 0

    def read(self, path: str, size: int, offset: int, fi: mfusepy.fuse_file_info) -> bytes:
        return os.pread(self.file, size, offset)

    def write(self, path: str, data: bytes, offset: int, fi: mfusepy.fuse_file_info) -> int:
        with self.mutex:
            self.writes += 1
            if self.fails("write"):
                raise mfusepy.FuseOSError(self.errno)
            self.unflushed.append((offset, os.pread(self.file, len(data), offset)))
            return os.pwrite(self.file, data, offset)

    def fsync(self, path: str, datasync: int, fi: mfusepy.fuse_file_info) -> int:
        with self.mutex:
            self.flushes += 1
            fails = self.fails("flush")
            if fails:
                for offset, before in reversed(self.unflushed):
                    os.pwrite(self.file, before, offset)
                self.failing = ""
            self.unflushed.clear()
            if fails:
                raise mfusepy.FuseOSError(self.errno)
            return 0


def obey(device: Device) -> None:
    for line in sys.stdin:
        print(device.command(line), flush=True)


def main() -> None:
    image, mount_point = sys.argv[1:]
    device = Device(image)
    threading.Thread(target=obey, args=(device,), daemon=True).start()
    mfusepy.FUSE(device, mount_point, raw_fi=True, foreground=True, nothreads=True)


if __name__ == "__main__":
    main()
