"""A file without a name in the examined directory, on which things are tried out.

Nothing is left behind: the file has no name (O_TMPFILE), or, where the filesystem cannot do that,
loses it before a signal is let through to this thread. It is gone with its descriptor, however the
process ends. Only a process that is killed between those two system calls leaves an empty file: by
SIGKILL, or by a signal that nobody handles and that another thread of the program takes.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from walengine.doctor._calls import no_signals

BLOCK_BYTES = 4096  # what the log aligns direct writes to
NO_TMPFILE = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS, errno.ENOENT))


@contextmanager
def scratch_file(directory: Path) -> Iterator[int]:
    """Open a file without a name in directory; it is gone when the block is left.

    Raises:
        OSError: None can be made.
    """
    file = _nameless(directory)
    try:
        yield file
    finally:
        os.close(file)


def _nameless(directory: Path) -> int:
    flags = getattr(os, "O_TMPFILE", None)
    if flags is not None:
        try:
            return os.open(directory, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in NO_TMPFILE:
                raise
    name = directory / f".walengine-doctor-{secrets.token_hex(8)}"
    with no_signals():
        try:
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        finally:
            name.unlink(missing_ok=True)


@contextmanager
def aligned_block(count: int) -> Iterator[memoryview]:
    """Make memory of so many bytes that begins at a page."""
    memory = mmap.mmap(-1, max(count, BLOCK_BYTES))
    with memory, memoryview(memory) as whole, whole[:count] as part:
        yield part
