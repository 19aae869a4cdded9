"""What a local store does with one file: plain functions on descriptors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat

from walengine.buffer.store._tree import open_regular
from walengine.buffer.store.port import Data, ObjectInfo

_READ_BYTES_MIN = 4096


def etag_of(data: Data) -> str:
    """Return the etag of a content: its SHA-256, which no collision can be made for."""
    return hashlib.sha256(data).hexdigest()


def etag_of_file(last: str, directory: int) -> str | None:
    """Return the etag of the file of this name, or None where there is none."""
    descriptor = open_regular(last, directory)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_absent(last: str, directory: int) -> bool:
    """Tell whether nothing at all has this name."""
    try:
        found = os.stat(last, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    refuse_odd(found.st_mode, last)
    return False


def refuse_odd(mode: int, last: str) -> None:
    """Raise OSError unless this is the mode of a regular file.

    Raises:
        OSError: EISDIR, ELOOP or EINVAL.
    """
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        code = errno.EISDIR
    else:
        code = errno.ELOOP if stat.S_ISLNK(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code), last)


def write_all(descriptor: int, data: Data) -> None:
    """Write all of data at the file's position."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_all(descriptor: int, size_bytes: int, max_bytes: int | None) -> bytes:
    """Read the file to its end, or one byte further than max_bytes.

    A file that grows under a foreign hand must not grow in memory without bounds.
    """
    left = (size_bytes if max_bytes is None else max_bytes) + 1
    parts = []
    while left > 0:
        # The size was just asked for, so that one call gets all of an ordinary file.
        part = os.read(descriptor, min(left, max(size_bytes + 1, _READ_BYTES_MIN)))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def info_of(name: str, found: os.stat_result) -> ObjectInfo:
    """Return what is known of an object by its file's status."""
    return ObjectInfo(name, found.st_size, found.st_mtime_ns // 1_000_000)


def remove(last: str, directory: int) -> None:
    """Remove the file and make that durable."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(last, dir_fd=directory)
    os.fsync(directory)
