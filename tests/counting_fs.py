"""A filesystem that counts: FUSE over a directory; what the kernel asks for, it writes down.

Arguments: the directory that holds the files, the mount point. At the end, on SIGTERM, it prints
how many fsyncs and how many creations it has seen. io_uring's operations arrive here like any
other, which strace cannot say of itself. It has no O_TMPFILE and no fallocate, and a directory's
syncs are not counted.
"""

# ruff: noqa: ARG002 (FUSE gives more than one file needs)

from __future__ import annotations

import os
import sys
from pathlib import Path

import mfusepy


class Counting(mfusepy.Operations):
    use_ns = True

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.fsyncs = 0
        self.created = 0

    def real(self, path: str) -> str:
        return self.directory + path

    def getattr(self, path: str, fi: mfusepy.fuse_file_info | None = None) -> dict:
        facts = os.lstat(self.real(path))
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_blocks")
        return {name: getattr(facts, name) for name in names}

    def readdir(self, path: str, fi: mfusepy.fuse_file_info) -> list[str]:
        return [".", "..", *(entry.name for entry in Path(self.real(path)).iterdir())]

    def statfs(self, path: str) -> dict:
        facts = os.statvfs(self.directory)
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree")
        return {name: getattr(facts, name) for name in names}

    def create(self, path: str, mode: int, fi: mfusepy.fuse_file_info) -> int:
        self.created += 1
        fi.fh = os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        return 0

    def open(self, path: str, fi: mfusepy.fuse_file_info) -> int:
        fi.fh = os.open(self.real(path), os.O_RDWR)
        return 0

    def read(self, path: str, size: int, offset: int, fi: mfusepy.fuse_file_info) -> bytes:
        return os.pread(fi.fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fi: mfusepy.fuse_file_info) -> int:
        return os.pwrite(fi.fh, data, offset)

    def mkdir(self, path: str, mode: int) -> int:
        Path(self.real(path)).mkdir(mode)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        Path(self.real(path)).chmod(mode)
        return 0

    def truncate(self, path: str, length: int, fi: mfusepy.fuse_file_info | None = None) -> int:
        os.truncate(self.real(path), length)
        return 0

    def fsync(self, path: str, datasync: int, fi: mfusepy.fuse_file_info) -> int:
        self.fsyncs += 1
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        Path(self.real(old)).rename(self.real(new))
        return 0

    def unlink(self, path: str) -> int:
        Path(self.real(path)).unlink()
        return 0

    def release(self, path: str, fi: mfusepy.fuse_file_info) -> int:
        os.close(fi.fh)
        return 0


def main() -> None:
    directory, mount_point = sys.argv[1:]
    counting = Counting(directory)
    mfusepy.FUSE(counting, mount_point, raw_fi=True, foreground=True, nothreads=True)
    print(counting.fsyncs, counting.created, flush=True)


if __name__ == "__main__":
    main()
