"""What the examined directory can do, found out by doing it on a file without a name."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
from pathlib import Path

from walengine.doctor._calls import DirectAlignment, direct_alignment, set_nocow
from walengine.doctor.scratch import BLOCK_BYTES, aligned_block, scratch_file

STEPS_BYTES = (512, 1024, 2048, 4096, 8192, 16384, 65536)
O_DIRECT = getattr(os, "O_DIRECT", 0)
RWF_DSYNC = getattr(os, "RWF_DSYNC", 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What came of it; an error is None where the step went well.

    Attributes:
        create_error: Making a file.
        write_error: Writing 4096 bytes to it through the page cache.
        sync_error: fdatasync of it.
        name_sync_error: fsync of the directory.
        direct_error: Writing 4096 bytes past the page cache, synced by themselves.
        direct_step_bytes: The smallest step in which direct writes were accepted, or None.
        alignment: What statx says of direct I/O, or None.
        nocow: Copy-on-write could be turned off; None: there is no such flag here.
        room_error: Allocating a segment; None also where that was not tried.
        room_tried: Allocating a segment was tried.
    """

    create_error: OSError | None = None
    write_error: OSError | None = None
    sync_error: OSError | None = None
    name_sync_error: OSError | None = None
    direct_error: OSError | None = None
    direct_step_bytes: int | None = None
    alignment: DirectAlignment | None = None
    nocow: bool | None = None
    room_error: OSError | None = None
    room_tried: bool = False

    @property
    def direct(self) -> bool:
        """Whether direct writes as the log does them work here."""
        return self.create_error is None and self.direct_error is None


def attempt(directory: Path, allocate_bytes: int) -> Trial:
    """Try everything; leave nothing.

    Args:
        directory: Where.
        allocate_bytes: Size of the segment to allocate for a moment; 0: do not.
    """
    try:
        with scratch_file(directory) as file:
            return dataclasses.replace(
                _on(file, allocate_bytes), name_sync_error=_sync_name(directory)
            )
    except OSError as error:
        return Trial(create_error=kept(error))


def _on(file: int, allocate_bytes: int) -> Trial:
    nocow = set_nocow(file)  # first: the flag takes on an empty file only
    write_error, sync_error = _buffered(file)
    direct_error, step_bytes = _direct(file) if write_error is None else (write_error, None)
    room_error = _allocate(file, allocate_bytes) if allocate_bytes else None
    return Trial(
        write_error=write_error,
        sync_error=sync_error,
        direct_error=direct_error,
        direct_step_bytes=step_bytes,
        alignment=direct_alignment(file),
        nocow=nocow,
        room_error=room_error,
        room_tried=bool(allocate_bytes),
    )


def _buffered(file: int) -> tuple[OSError | None, OSError | None]:
    try:
        os.pwrite(file, bytes(BLOCK_BYTES), 0)
    except OSError as error:
        return kept(error), None
    try:
        getattr(os, "fdatasync", os.fsync)(file)
    except OSError as error:
        return None, kept(error)
    return None, None


def _sync_name(directory: Path) -> OSError | None:
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return kept(error)
    try:
        os.fsync(opened)
    except OSError as error:
        return kept(error)
    finally:
        os.close(opened)
    return None


def _direct(file: int) -> tuple[OSError | None, int | None]:
    """Write past the page cache, in the log's steps, then in smaller and larger ones."""
    if not O_DIRECT or not RWF_DSYNC:
        return OSError(errno.EINVAL, "this system has no O_DIRECT or no RWF_DSYNC"), None
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | O_DIRECT)
    except OSError as error:
        return kept(error), None
    wanted = _write_direct(file, BLOCK_BYTES)
    accepted = (step for step in STEPS_BYTES if _write_direct(file, step) is None)
    smallest = next(accepted, None)
    # What comes next may write single bytes: posix_fallocate does where the kernel cannot allocate.
    fcntl.fcntl(file, fcntl.F_SETFL, flags)
    return wanted, smallest


def _write_direct(file: int, step_bytes: int) -> OSError | None:
    """Write a step of bytes, at its own distance from the beginning."""
    with aligned_block(step_bytes) as block:
        try:
            os.pwritev(file, [block], step_bytes, RWF_DSYNC)
        except OSError as error:
            return kept(error)
    return None


def _allocate(file: int, count: int) -> OSError | None:
    try:
        os.posix_fallocate(file, 0, count)
    except OSError as error:
        return kept(error)
    return None


def kept(error: OSError) -> OSError:
    """Return an error without its traceback, which would keep the frames and what they hold."""
    return error.with_traceback(None)
