"""What the suites of the ring share: both providers, repeatable writers, and the kernel's view.

/proc tells what a ring really is, whatever the writer says of itself: fdinfo of its descriptor
shows its queues, its registered files and buffers, and the kernel thread that polls it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from walengine import IoUringConfig, PortableWalWriter, WalConfig, _native_writer
from walengine._native import lib

PROVIDERS = ("liburing", "builtin")
KINDS = ("pwrite", *PROVIDERS)  # of writers: no ring, or whose

# Liburing is the ring of make test-quick's direct engine; these have the built-in one there.
_LIBURING = pytest.param("liburing", marks=pytest.mark.not_quick)
each_provider = pytest.mark.parametrize("provider", [_LIBURING, "builtin"])
each_kind = pytest.mark.parametrize("kind", ["pwrite", _LIBURING, "builtin"])

GONE_SECONDS_MAX = 30  # until the kernel has let go of a closed ring; it does so later, by a worker


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Set variables for a while; None takes one away."""
    before = {name: os.environ.get(name) for name in variables}

    def put(values: dict[str, str | None]) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(variables)
    try:
        yield
    finally:
        put(before)


# ---- writers -------------------------------------------------------------------------------------


class _Repeatable:
    """The C library with other options at open: no threads, no idle mark, perhaps a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)

    def wal_writer_open(self, name, options, *rest):
        options.flags |= lib.WAL_NO_THREADS | lib.WAL_NO_IDLE_MARK
        options.test_seed = self._seed
        return lib.wal_writer_open(name, options, *rest)


@contextmanager
def no_threads(seed: int = 0) -> Iterator[None]:
    """Writers opened meanwhile do nothing by themselves; maintain() does what is due.

    A seed makes their salts, UUIDs and clocks repeatable.
    """
    _native_writer.lib = _Repeatable(seed)
    try:
        yield
    finally:
        _native_writer.lib = lib


def maintain(wal: PortableWalWriter) -> None:
    assert lib.wal_writer_maintain(wal._native._handle) >= 0


def open_kind(path: Path, kind: str, io: IoUringConfig | None = None, **options: object):
    """Open a writer of one of KINDS, which gets what it asks for."""
    backend = "pwrite" if kind == "pwrite" else "io_uring"
    config = WalConfig(io=io or IoUringConfig(), backend=backend, **options)
    ring = None if kind == "pwrite" else kind
    with environment(WALENGINE_RING=ring, WALENGINE_BACKEND=None):
        wal = PortableWalWriter(path, config)
    stats = wal.stats()
    assert (stats.backend, stats.ring) == (backend, ring)
    return wal


@contextmanager
def faults(op_mask: int, effect: int, value: int = 0, *, nth: int = 1, sticky: bool = True):
    lib.wal_fault_set(op_mask, nth, int(sticky), effect, value)
    try:
        yield
    finally:
        lib.wal_fault_clear()


def deltas(before, after) -> dict[str, int]:
    """What the counters moved by: the ring's entries, and syncs and operations beside them."""
    moved = {name: after.ring_ops[name] - count for name, count in before.ring_ops.items()}
    for name in ("syncs", "ops_submitted", "ops_completed"):
        moved[name] = getattr(after, name) - getattr(before, name)
    return moved


# ---- what the kernel says ------------------------------------------------------------------------


@dataclass
class Ring:
    """A ring as /proc shows it."""

    sq_entries: int
    cq_entries: int
    thread: int | None
    files: list[str]
    buffers: list[int]  # the size of each


def ring_descriptors(process: int | str = "self") -> list[int]:
    found = []
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # the listing's own
        if target == "anon_inode:[io_uring]":
            found.append(int(entry.name))
    return found


def kernels_ring() -> Ring:
    """Return the one ring of this process."""
    (descriptor,) = ring_descriptors()
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")

    def number(name: str) -> int:
        return int(re.search(rf"^{name}:\s*(\S+)$", text, re.MULTILINE)[1], 0)

    thread = number("SqThread")
    after_files = text.partition("UserFiles:")[2]
    files, _, buffers = after_files.partition("UserBufs:")
    return Ring(
        sq_entries=number("SqMask") + 1,
        cq_entries=number("CqMask") + 1,
        thread=thread if thread > 0 else None,
        files=re.findall(r"^\s+\d+: (\S.*)$", files, re.MULTILINE),
        buffers=[int(size) for size in re.findall(r"^\s+\d+: 0x\w+/(\d+)", buffers, re.MULTILINE)],
    )


def flags_of_open(path: Path) -> list[int]:
    """Return the open flags of every descriptor that this process has of a file."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if entry.readlink() != path:
                continue
            info = Path(f"/proc/self/fdinfo/{entry.name}").read_text(encoding="ascii")
        except OSError:
            continue
        found.append(int(re.search(r"^flags:\s*(\d+)$", info, re.MULTILINE)[1], 8))
    return found


def polling_threads() -> list[int]:
    """Return the kernel threads that poll rings of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text(encoding="ascii").strip()
        except OSError:
            continue  # it has ended
        if re.fullmatch(r"iou-sqp-\d+", name):
            found.append(int(task.name))
    return found


def wait_until(condition) -> bool:
    """Whether a condition came true before patience ran out."""
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
