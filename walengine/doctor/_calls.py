"""System calls that Python 3.11 has no function for. Where there is none of them: None."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_AT_EMPTY_PATH = 0x1000
_STATX_DIOALIGN = 0x2000
_STATX_BYTES = 256
_STATX_MASK_OFFSET = 0  # u32 stx_mask
_STATX_DIO_OFFSET = 152  # u32 stx_dio_mem_align, u32 stx_dio_offset_align

_FS_IOC_GETFLAGS = 0x80086601  # _IOR('f', 1, long) of 64 bits
_FS_IOC_SETFLAGS = 0x40086602
_FS_NOCOW_FL = 0x00800000

_TIMEX_BYTES = 512  # struct timex has 208 bytes on 64 bits; the kernel writes no more
_TIMEX_STATUS = struct.Struct("@IllllI")  # modes, offset, freq, maxerror, esterror, status
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5  # of adjtimex(): the clock is not synchronised


@dataclasses.dataclass(frozen=True, slots=True)
class DirectAlignment:
    """What statx says of direct I/O: 0 and 0 where the file has none."""

    memory_bytes: int
    offset_bytes: int


def direct_alignment(file: int) -> DirectAlignment | None:
    """Return what the kernel says of direct I/O to an open file; Linux 6.1, some filesystems."""
    statx = _function("statx")
    if statx is None:
        return None
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if statx(file, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, answer) != 0:
        return None
    (mask,) = struct.unpack_from("=I", answer, _STATX_MASK_OFFSET)
    if not mask & _STATX_DIOALIGN:
        return None
    return DirectAlignment(*struct.unpack_from("=II", answer, _STATX_DIO_OFFSET))


def clock_is_synchronised() -> bool | None:
    """Return whether something disciplines the clock, as the kernel knows it."""
    adjtimex = _function("adjtimex")
    if adjtimex is None:
        return None
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only read
    state = adjtimex(timex)
    if state < 0:
        return None
    status = _TIMEX_STATUS.unpack_from(timex)[-1]
    return state != _TIME_ERROR and not status & _STA_UNSYNC


def set_nocow(file: int) -> bool | None:
    """Turn copy-on-write off for an empty file; False: refused, None: there is no such flag."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(file, _FS_IOC_GETFLAGS, flags)
        (before,) = struct.unpack_from("=I", flags)
        struct.pack_into("=I", flags, 0, before | _FS_NOCOW_FL)
        fcntl.ioctl(file, _FS_IOC_SETFLAGS, flags)
        fcntl.ioctl(file, _FS_IOC_GETFLAGS, flags)
    except OSError as error:
        return None if error.errno in {errno.ENOTTY, errno.ENOSYS} else False
    return bool(struct.unpack_from("=I", flags)[0] & _FS_NOCOW_FL)


@contextmanager
def no_signals() -> Iterator[None]:
    """Let signals wait: between making a file and taking its name away nothing may end us."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError):
        return None
    return found


def error_text(error: OSError) -> str:
    """Return what an error is called, in lower case, to stand inside a sentence."""
    text = error.strerror or os.strerror(error.errno or 0)
    return text[:1].lower() + text[1:]
