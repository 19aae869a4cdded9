"""Which backend and whose ring: the choice, what came of it, and whether io_uring works here."""

from __future__ import annotations

import dataclasses
import logging

from walengine import _native_ring
from walengine._native_ring import BackendInfo
from walengine._status import sentence
from walengine.config import IoUringConfig, ring_override
from walengine.errors import WalError
from walengine.types import Report

__all__ = ["IoUringStatus", "io_uring_status", "is_io_uring_available"]

log = logging.getLogger("walengine")

INSTALL = "Install it with: pip install 'walengine[liburing]' (Linux x86-64)"
ELSE = "Go on with backend='auto' or 'pwrite', which keep the same promises"

QUIET = frozenset(("io_uring", "registered_buffers", "registered_files", "sq_entries"))

_warned: set[tuple[str, str]] = set()


@dataclasses.dataclass(frozen=True, slots=True)
class IoUringStatus(Report):
    """Whether io_uring works in this process, and why not; ``str()`` says it in words.

    Attributes:
        available: A ring was set up, and a write went through it.
        ring: Whose functions drive it, "liburing" or "builtin"; None where there is no ring.
        ring_version: Of liburing, such as "2.15"; None for the built-in ring.
        liburing: Why liburing does not drive the ring; None where it does, or is not wanted.
        reason: Why io_uring does not work, or what of the configuration is not in use; None where
            there is nothing to say.
        remedy: Where io_uring does not work: what to do about it.
        errno: Of the system call that failed, or None.
        fallbacks: Names of what was asked for and is not in use: kernel_poll, registered_buffers,
            registered_files, sq_entries, liburing.
        sq_entries: Submission entries of the ring.
        kernel_poll: A kernel thread submits.
        registered_buffers: Buffers that could be pinned; 0: plain memory.
        registered_files: Files that the ring can know; 0: none.

    Example:
        >>> import walengine
        >>> status = walengine.io_uring_status()
        >>> status.available == walengine.is_io_uring_available()
        True
        >>> str(status).startswith("io_uring works" if status.available else "io_uring does not")
        True
    """

    available: bool
    ring: str | None
    ring_version: str | None
    liburing: str | None
    reason: str | None
    remedy: str | None
    errno: int | None
    fallbacks: tuple[str, ...]
    sq_entries: int
    kernel_poll: bool
    registered_buffers: int
    registered_files: int

    def __str__(self) -> str:
        """Say it in one sentence, and what to do in a second one."""
        remedy = f" {self.remedy}." if self.remedy else ""
        if not self.available:
            return f"io_uring does not work here: {self.reason}.{remedy}"
        why = f" ({self.liburing})" if self.liburing and "liburing" not in self.fallbacks else ""
        less = f", with less than was asked for: {self.reason}" if self.reason else ""
        return (
            f"io_uring works, through {ring_name(self.ring, self.ring_version)}{why}{less}.{remedy}"
        )


def io_uring_status(config: IoUringConfig | None = None) -> IoUringStatus:
    """Find out by doing whether io_uring works in this process, and what a writer would use.

    A ring is set up as the configuration asks, and a write to a file in memory goes through it.
    ``WALENGINE_RING`` counts, ``WALENGINE_BACKEND`` does not.

    Args:
        config: What to ask for; None: the defaults.

    Returns:
        What was found. That io_uring does not work is no error here.

    Raises:
        TypeError: config is none.
        WalError: WALENGINE_RING has a value that does not exist.
    """
    if config is not None and not isinstance(config, IoUringConfig):
        raise TypeError(f"config must be an IoUringConfig, not {type(config).__name__}")
    asked = ring_override() or "auto"
    problem = _liburing_problem(asked)
    if asked == "liburing" and problem:
        reason = f"the variable WALENGINE_RING asks for liburing, and {problem}"
        return IoUringStatus(False, None, None, problem, reason, INSTALL, None, (), 0, False, 0, 0)
    info = _native_ring.probe(config or IoUringConfig(), asked)
    info = _with_liburing(info, problem)
    available = info.backend == "io_uring"
    # C's sentence is "what is in the way; what to do".
    reason, _, remedy = (info.reason, "", "") if available else info.reason.partition("; ")
    return IoUringStatus(
        available=available,
        ring=info.ring,
        ring_version=info.ring_version,
        liburing=problem,
        reason=reason or None,
        remedy=None if available else remedy[:1].upper() + remedy[1:] or ELSE,
        errno=info.errno,
        fallbacks=info.fallbacks if available else (),
        sq_entries=info.sq_entries,
        kernel_poll=info.kernel_poll,
        registered_buffers=info.registered_buffers,
        registered_files=info.registered_files,
    )


def is_io_uring_available() -> bool:
    """Tell, by doing, whether io_uring works in this process.

    Raises:
        WalError: WALENGINE_RING has a value that does not exist.
    """
    return io_uring_status().available


def ring_name(ring: str | None, version: str | None) -> str:
    """Return what drives a ring as people call it."""
    return "the built-in ring" if ring == "builtin" else f"{ring} {version or ''}".rstrip()


# ---- for writers ---------------------------------------------------------------------------------


def chosen_ring(path: str, backend: str) -> str:
    """Return the provider to ask for, once liburing's functions are there where it may serve.

    Raises:
        WalError: WALENGINE_RING asks for liburing, and there is none.
    """
    asked = ring_override() or "auto"
    if backend == "pwrite":
        return asked
    problem = _liburing_problem(asked)
    if asked == "liburing" and problem:
        message = f"the variable WALENGINE_RING asks for liburing, and {problem}"
        raise WalError(sentence(path, message, INSTALL), path=path)
    return asked


def in_use(info: BackendInfo) -> BackendInfo:
    """Return what a writer writes with, a liburing that could not be loaded among its fallbacks."""
    if info.backend != "io_uring":
        return info
    return _with_liburing(info, _liburing_problem(ring_override() or "auto"))


def log_backend(path: str, info: BackendInfo) -> None:
    """Say what writes, and warn of what falls back: for one log, of the same things once.

    What only costs speed and is there by default is no warning: that "auto" comes to pwrite, or
    that an ordinary user may not pin a second log's buffers. Else every such program would complain
    on standard error.
    """
    if info.fallbacks and (path, info.reason) not in _warned:
        _warned.add((path, info.reason))
        level = logging.INFO if QUIET.issuperset(info.fallbacks) else logging.WARNING
        log.log(level, "%s: not in use: %s (%s)", path, ", ".join(info.fallbacks), info.reason)
    log.info("%s: writes with %s", path, describe(info))


def describe(info: BackendInfo) -> str:
    """Return what is in use, in words."""
    direct = "past the page cache" if info.direct_io else "through the page cache"
    if info.backend != "io_uring":
        return f"pwrite, {direct}"
    parts = [f"io_uring ({ring_name(info.ring, info.ring_version)})", direct]
    parts.append(f"{info.sq_entries} entries")
    if info.kernel_poll:
        parts.append("a kernel thread that submits")
    if info.registered_buffers:
        parts.append(f"{info.registered_buffers} registered buffers")
    return ", ".join(parts)


# ---- helpers -------------------------------------------------------------------------------------


def _liburing_problem(asked: str) -> str | None:
    return None if asked == "builtin" else _native_ring.liburing_problem()


def _with_liburing(info: BackendInfo, problem: str | None) -> BackendInfo:
    """Return info with a liburing that is there and cannot be loaded as a fallback."""
    is_broken = problem is not None and problem != _native_ring.NOT_INSTALLED
    if not is_broken or info.backend != "io_uring" or "liburing" in info.fallbacks:
        return info
    reason = "; ".join(filter(None, [info.reason, f"liburing does not serve: {problem}"]))
    return dataclasses.replace(info, fallbacks=(*info.fallbacks, "liburing"), reason=reason)


for _name in __all__:
    globals()[_name].__module__ = "walengine"
