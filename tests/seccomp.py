"""Seccomp filters for the process that calls: io_uring's system calls refused one by one.

Containers refuse io_uring like this. The filter is a few instructions of classic BPF, put in place
by prctl; it holds for the calling thread and for what it starts from then on, and cannot be undone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

# io_uring's numbers are the same everywhere.
CALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_NUMBER_OFFSET = 0  # in struct seccomp_data
_ARCHITECTURE_OFFSET = 4
_SECOND_ARGUMENT_OFFSET = 24  # its low half, on a little-endian machine


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def _step(code: int, value: int, when_equal: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_equal, otherwise, value)


def refuse(number: int, *names: str) -> None:
    """From now on these system calls of this thread fail with an errno."""
    steps = []
    for name in names:
        steps += [_step(_JUMP_IF_EQUAL, CALLS[name], 0, 1), _step(_RETURN, _ERRNO | number)]
    _install(steps)


def refuse_registering(number: int, *opcodes: int) -> None:
    """From now on io_uring_register of this thread fails with an errno for these opcodes."""
    steps = [
        _step(_JUMP_IF_EQUAL, CALLS["io_uring_register"], 1, 0),
        _step(_RETURN, _ALLOW),
        _step(_LOAD, _SECOND_ARGUMENT_OFFSET),
    ]
    for opcode in opcodes:
        steps += [_step(_JUMP_IF_EQUAL, opcode, 0, 1), _step(_RETURN, _ERRNO | number)]
    _install(steps)


def _install(judgement: list[bytes]) -> None:
    """Put a filter in place that judges by the call's number, which is loaded; else it allows."""
    architecture = _AUDIT_ARCHITECTURES[platform.machine()]
    steps = [
        _step(_LOAD, _ARCHITECTURE_OFFSET),
        _step(_JUMP_IF_EQUAL, architecture, 1, 0),
        _step(_RETURN, _ALLOW),
        _step(_LOAD, _NUMBER_OFFSET),
        *judgement,
        _step(_RETURN, _ALLOW),
    ]
    code = b"".join(steps)
    memory = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(memory))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
