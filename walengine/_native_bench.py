"""The fsync bench in the C core: one row at a time, interruptible from another thread."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from walengine._native import encoded, ffi, lib, text_of
from walengine._native_writer import latency_summary
from walengine.types import LatencySummary

WRITE_BYTES_MAX = 16 << 20
CONCURRENCY_MAX: int = lib.WAL_BENCH_CONCURRENCY_MAX
NOT_SUPPORTED: int = lib.WAL_E_NO_IO_URING

METHODS = {
    "no sync": lib.WAL_BENCH_WRITE,
    "fdatasync": lib.WAL_BENCH_FDATASYNC,
    "fsync": lib.WAL_BENCH_FSYNC,
    "O_DSYNC": lib.WAL_BENCH_DSYNC,
    "O_DIRECT+O_DSYNC": lib.WAL_BENCH_DIRECT_DSYNC,
    "RWF_DSYNC": lib.WAL_BENCH_RWF_DSYNC,
    "io_uring linked": lib.WAL_BENCH_RING_LINKED,
    "io_uring direct": lib.WAL_BENCH_RING_DIRECT,
}
STATES = {
    "growing": lib.WAL_BENCH_GROWING,
    "fallocated": lib.WAL_BENCH_FALLOCATED,
    "zero-filled": lib.WAL_BENCH_ZERO_FILLED,
    "recycled": lib.WAL_BENCH_RECYCLED,
}
PROVIDERS = {
    "auto": lib.WAL_RING_AUTO,
    "liburing": lib.WAL_RING_LIBURING,
    "builtin": lib.WAL_RING_BUILTIN,
}
_RINGS = {number: name for name, number in PROVIDERS.items() if name != "auto"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What C measured in one row.

    Attributes:
        code: 0, or the status of what ended the row.
        problem: The same in words; "" where nothing went wrong.
        commits: Writes made durable while the clock ran.
        syncs: Calls and entries that sync, while the clock ran.
        warm_up_commits, warm_up_syncs, preparation_syncs: The same before it did.
        bytes: Written while the clock ran.
        elapsed_us: From the first commit's begin to the last one's end.
        stopped: The row was ended from outside.
        unnamed: The file never had a name.
        ring: "liburing", "builtin" or None.
        registered: The ring's memory was registered.
        latency: Of the commits, whatever their number.
        histogram: Upper bound of a bucket and the commits in it, ascending; no empty ones.
    """

    code: int
    problem: str
    commits: int
    syncs: int
    warm_up_commits: int
    warm_up_syncs: int
    preparation_syncs: int
    bytes: int
    elapsed_us: float
    stopped: bool
    unnamed: bool
    ring: str | None
    registered: bool
    latency: LatencySummary
    histogram: list[tuple[float, int]]


class NativeBench:
    """A directory to measure in.

    Raises:
        OSError: The directory cannot be opened.
    """

    def __init__(self, directory: str) -> None:
        handle = ffi.new("wal_bench **")
        error = ffi.new("wal_error *")
        code = lib.wal_bench_open(encoded(directory), handle, error)
        if code < 0:
            raise OSError(-code, text_of(error.message), directory)
        self._handle: Any = ffi.gc(handle[0], lib.wal_bench_close)

    def __enter__(self) -> Self:
        """Return the bench."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End what is under way; the handle goes with its last reference."""
        self.stop()

    def stop(self) -> None:
        """End the row under way, and let no further one begin."""
        lib.wal_bench_stop(self._handle)

    def run(
        self,
        method: str,
        state: str,
        *,
        write_bytes: int,
        concurrency: int,
        group: bool,
        provider: str,
        seconds: float,
        file_bytes_max: int,
    ) -> Measured:
        """Measure one row; blocks, in C, for as long as it takes.

        Raises:
            ValueError: A field is out of its range; the message says which.
        """
        row = ffi.new("wal_bench_row *")
        row.method = METHODS[method]
        row.state = STATES[state]
        row.write_bytes = write_bytes
        row.concurrency = concurrency
        row.group = group
        row.provider = PROVIDERS[provider]
        row.duration_us = max(1, int(seconds * 1e6))
        row.file_bytes_max = file_bytes_max
        result = ffi.new("wal_bench_result *")
        error = ffi.new("wal_error *")
        code = lib.wal_bench_run(self._handle, row, result, error)
        problem = text_of(error.message) if code < 0 else ""
        if code == lib.WAL_E_INVALID:
            raise ValueError(problem)
        return _measured(code, problem, result)


def _measured(code: int, problem: str, result: Any) -> Measured:
    return Measured(
        code=code,
        problem=problem,
        commits=result.commits,
        syncs=result.syncs,
        warm_up_commits=result.warm_up_commits,
        warm_up_syncs=result.warm_up_syncs,
        preparation_syncs=result.preparation_syncs,
        bytes=result.bytes,
        elapsed_us=result.elapsed_ns / 1000,
        stopped=bool(result.stopped),
        unnamed=bool(result.unnamed),
        ring=_RINGS.get(result.provider),
        registered=bool(result.registered),
        latency=latency_summary(result.latency),
        histogram=[
            (lib.wal_bench_bucket_us(bucket), count)
            for bucket, count in enumerate(result.buckets)
            if count
        ],
    )
