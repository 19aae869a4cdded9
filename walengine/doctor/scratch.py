"""A file without a name in the examined directory, on which things are tried out.

Nothing can be left behind: the file has no name (O_TMPFILE), or, where the filesystem cannot do
that, loses it before any signal is let through. It is gone with its descriptor, however the process
ends; only SIGKILL between those two system calls would leave an empty file.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
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
    with no_signals():
        file, name = tempfile.mkstemp(prefix=".walengine-doctor-", dir=directory)
        os.unlink(name)  # noqa: PTH108 (the name that mkstemp gave)
        return file


@contextmanager
def aligned_block(count: int) -> Iterator[memoryview]:
    """Make memory of so many bytes that begins at a page."""
    memory = mmap.mmap(-1, max(count, BLOCK_BYTES))
    with memory, memoryview(memory) as whole, whole[:count] as part:
        yield part
