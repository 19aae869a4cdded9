"""The ring in the C core: where its functions come from, what is asked of it, what it came to be.

C liburing comes out of the shared object that the package liburing brings along. The package is
found and never imported: its Python calls hold the global lock while they wait, and none of them is
needed here.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from walengine._native import STATUSES, apart, encoded, ffi, lib, text_of
from walengine.config import IoUringConfig

_IO_URING: int = lib.WAL_BACKEND_IO_URING
_BACKENDS = {
    "auto": lib.WAL_BACKEND_AUTO,
    "pwrite": lib.WAL_BACKEND_PWRITE,
    "io_uring": lib.WAL_BACKEND_IO_URING,
}
_PROVIDERS = {
    "auto": lib.WAL_RING_AUTO,
    "liburing": lib.WAL_RING_LIBURING,
    "builtin": lib.WAL_RING_BUILTIN,
}
_RINGS = {lib.WAL_RING_LIBURING: "liburing", lib.WAL_RING_BUILTIN: "builtin"}
_FALLBACKS = {
    lib.WAL_FALLBACK_NO_IO_URING: "io_uring",
    lib.WAL_FALLBACK_KERNEL_POLL: "kernel_poll",
    lib.WAL_FALLBACK_BUFFERS: "registered_buffers",
    lib.WAL_FALLBACK_FILES: "registered_files",
    lib.WAL_FALLBACK_DIRECT: "direct_io",
    lib.WAL_FALLBACK_DIRECT_UNSYNCED: "direct_io",  # never both
    lib.WAL_FALLBACK_SQ_ENTRIES: "sq_entries",
    lib.WAL_FALLBACK_LIBURING: "liburing",
}
_OPS = (
    ("nop", lib.WAL_RING_OP_NOP),
    ("fsync", lib.WAL_RING_OP_FSYNC),
    ("write", lib.WAL_RING_OP_WRITE),
    ("write_fixed", lib.WAL_RING_OP_WRITE_FIXED),
    ("linked", lib.WAL_RING_OP_LINKED),
    ("rwf_dsync", lib.WAL_RING_OP_DSYNC),
)

NOT_INSTALLED = "the package liburing is not installed"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What of a configuration is in use.

    Attributes:
        backend: "io_uring" or "pwrite".
        ring: "liburing", "builtin", or None where there is no ring.
        ring_version: Of liburing.
        sq_entries: Submission entries of the ring.
        kernel_poll: A kernel thread submits.
        max_inflight: Groups at the device at once.
        direct_io: Writes go past the page cache.
        registered_buffers: Buffers pinned for the kernel; 0: plain memory.
        registered_files: Files that the ring knows; 0: none.
        fallbacks: Names of what was asked for and is not in use.
        reason: Those in words, with what to do about them.
        errno: Of the first of them that has one.
    """

    backend: str
    ring: str | None
    ring_version: str | None
    sq_entries: int
    kernel_poll: bool
    max_inflight: int
    direct_io: bool
    registered_buffers: int
    registered_files: int
    fallbacks: tuple[str, ...]
    reason: str
    errno: int | None


def backend_info(info: Any) -> BackendInfo:
    """Return a struct wal_backend_info as Python sees it."""
    ring = _RINGS.get(info.provider)
    version = text_of(info.version) if ring == "liburing" else ""
    fallbacks = [name for bit, name in _FALLBACKS.items() if info.fallbacks & bit]
    if "io_uring" in fallbacks and "liburing" in fallbacks:
        fallbacks.remove("liburing")  # the built-in ring was refused as well: it is not to blame
    return BackendInfo(
        backend="io_uring" if info.backend == _IO_URING else "pwrite",
        ring=ring,
        ring_version=version or None,
        sq_entries=info.sq_entries,
        kernel_poll=bool(info.kernel_poll),
        max_inflight=info.max_inflight,
        direct_io=bool(info.direct_io),
        registered_buffers=info.registered_buffers,
        registered_files=info.registered_files,
        fallbacks=tuple(fallbacks),
        reason=text_of(info.reason),
        errno=info.os_error or None,
    )


def set_options(ring: Any, config: IoUringConfig, backend: str, provider: str) -> None:
    """Fill in a struct wal_ring_options."""
    ring.backend = _BACKENDS[backend]
    ring.provider = _PROVIDERS[provider]
    ring.sq_entries = config.sq_entries
    ring.kernel_poll = config.kernel_poll
    ring.sq_poll_idle_ms = config.sq_poll_idle_ms
    ring.max_inflight = config.max_inflight
    ring.direct_io = config.direct_io
    ring.registered_buffers = config.registered_buffers
    ring.buffer_bytes = config.buffer_size


def probe(config: IoUringConfig, provider: str) -> BackendInfo:
    """Set a ring up, send something through it and return what a writer would use.

    Where io_uring does not work, the backend is "pwrite" and the reason says why.
    """
    options = ffi.new("wal_ring_options *")
    set_options(options, config, "io_uring", provider)
    info = ffi.new("wal_backend_info *")
    error = ffi.new("wal_error *")
    code = apart(lambda: int(lib.wal_ring_probe(options, info, error)))
    found = backend_info(info)
    if code >= 0 and found.backend == "io_uring":
        return found
    number = error.os_error or (-code if code < 0 and code not in STATUSES else 0)
    return replace(
        found,
        backend="pwrite",
        ring=None,
        ring_version=None,
        sq_entries=0,
        kernel_poll=False,
        registered_buffers=0,
        registered_files=0,
        reason=text_of(error.message) or found.reason or text_of(lib.wal_status_text(code)),
        errno=number or found.errno,
    )


def ring_ops(counters: Any) -> dict[str, int]:
    """Return the entries by opcode of a struct wal_stats."""
    return {name: counters.ring_ops[index] for name, index in _OPS}


@cache
def liburing_problem() -> str | None:
    """Take C liburing's functions, once a process; return why there are none."""
    directories = _package_directories()
    if not directories:
        return NOT_INSTALLED
    for directory in directories:
        # By its plain name first, then by one with an ABI tag in it.
        for path in (directory / "liburing.so", *sorted(directory.glob("liburing*.so"))):
            if path.is_file():
                return _load(path)
    return "the package liburing holds no shared object"


def _package_directories() -> list[Path]:
    """Return where the package liburing lies; finding it does not import it."""
    try:
        spec = importlib.util.find_spec("liburing")
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    return [Path(place) for place in spec.submodule_search_locations or ()]


def _load(path: Path) -> str | None:
    error = ffi.new("wal_error *")
    code = lib.wal_ring_load(encoded(str(path)), error)
    if code < 0:
        return text_of(error.message) or text_of(lib.wal_status_text(code))
    return None
