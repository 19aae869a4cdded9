"""How a log is opened: frozen configuration, validated once, where it is made."""

from __future__ import annotations

import dataclasses
import logging
import os
from dataclasses import dataclass, field

from walengine.errors import WalError
from walengine.types import RecoveryMode

__all__ = ["IoUringConfig", "WalConfig"]

log = logging.getLogger("walengine")

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

BLOCK_BYTES = 4096
RECORD_BYTES_MAX = 2**32 - 9
SEGMENT_BYTES_MIN = 32 * KIB
SEGMENT_BYTES_MAX = 64 * GIB
BATCH_BYTES_MAX = GIB
OWNER_BYTES_MAX = 1024
U64_MAX = 2**64 - 1

BACKENDS = ("auto", "io_uring", "pwrite")
RINGS = ("auto", "liburing", "builtin")


def _integer(name: str, value: object, low: int, high: int, multiple: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value}")
    if value % multiple:
        raise ValueError(f"{name} must be a multiple of {multiple}, not {value}")


def _boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class IoUringConfig:
    """Shape of the ring and of the batches staged in front of it.

    Where the machine refuses a field, the next best is used and every promise is kept; ``stats()``
    and the log say what is in use. On the pwrite backend ``direct_io``, ``registered_buffers`` and
    ``buffer_size`` count; the others describe a ring that is not there.

    Attributes:
        sq_entries: Submission entries of the ring, from 1 to 32768; the kernel takes the next power
            of two. More than the groups under way need costs memory and gains nothing.
        kernel_poll: Let a kernel thread take entries from the ring (IORING_SETUP_SQPOLL), so that
            submitting is no system call. It costs a processor of its own while it is busy, and for
            ``sq_poll_idle_ms`` behind that.
        sq_poll_idle_ms: Milliseconds without an entry after which that thread goes to sleep; 0
            counts as 1. The entry that wakes it is a system call again.
        max_inflight: Groups at the device at once, from 1 to 32768, with ``direct_io``. Through the
            page cache one sync is under way at a time.
        direct_io: Write past the page cache, each write synced by itself (O_DIRECT and RWF_DSYNC),
            on either backend. Commits are aligned to 4096 bytes, which takes up to that much space
            for each, and ``append`` returns when its record is synced. Where the filesystem may
            drop such a sync (all but ext4, xfs and btrfs) writes go through the page cache.
        registered_buffers: Number of buffers, from 1 to 16384. Writes are submitted from them; the
            kernel pins them once, and on a ring they count against RLIMIT_MEMLOCK.
        buffer_size: Bytes of each, a multiple of 4096. ``registered_buffers x buffer_size`` is also
            the batch size, at which ``append_batched`` flushes by itself.

    Example:
        >>> IoUringConfig(registered_buffers=16).max_batch_bytes
        1048576
        >>> IoUringConfig.low_latency().sq_entries
        256
    """

    sq_entries: int = 1024
    kernel_poll: bool = False
    sq_poll_idle_ms: int = 10
    max_inflight: int = 256
    direct_io: bool = False
    registered_buffers: int = 64
    buffer_size: int = 65536

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            TypeError: A field has the wrong type.
            ValueError: A field is out of its range.
        """
        _integer("sq_entries", self.sq_entries, 1, 32768)
        _boolean("kernel_poll", self.kernel_poll)
        _integer("sq_poll_idle_ms", self.sq_poll_idle_ms, 0, 2**31 - 1)
        _integer("max_inflight", self.max_inflight, 1, 32768)
        _boolean("direct_io", self.direct_io)
        _integer("registered_buffers", self.registered_buffers, 1, 16384)
        _integer("buffer_size", self.buffer_size, BLOCK_BYTES, GIB, BLOCK_BYTES)
        if self.max_batch_bytes > BATCH_BYTES_MAX:
            raise ValueError(
                f"registered_buffers x buffer_size must be at most {BATCH_BYTES_MAX} bytes, "
                f"not {self.max_batch_bytes}"
            )

    @property
    def max_batch_bytes(self) -> int:
        """Staged bytes at which ``append_batched`` flushes by itself."""
        return self.registered_buffers * self.buffer_size

    @classmethod
    def high_throughput(cls) -> IoUringConfig:
        """Return large batches, deep queues and direct I/O, for bulk and for many writers at once.

        On a ring it pays from about four writers on, and in bulk. It pins 64 MiB, which only a
        process with a raised RLIMIT_MEMLOCK may, and while entries come a processor is busy with
        nothing but polling, so it wants more than two of them. On the pwrite backend direct writes
        go one at a time: there the defaults are faster, but for a lone writer.
        ``make bench-core BENCH_ARGUMENTS="--only depth --only bulk"`` in the repository shows what
        it does on a machine.
        """
        return cls(4096, True, 100, 1024, True, 256, 262144)

    @classmethod
    def low_latency(cls) -> IoUringConfig:
        """Return small batches, a polled queue and direct I/O, for many small commits at once.

        It pays on a ring, with several writers and a processor to spare for the polling. With two
        processors a lone writer may pay dearly: the polling thread can hold the processor that
        finishes the disk's writes, and each append then waits for the scheduler's next tick, 4 ms
        on many kernels. Batches of 512 KiB make bulk slower than the defaults do, and on the pwrite
        backend direct writes go one at a time. Measure before use, as for ``high_throughput()``.
        """
        return cls(256, True, 1, 64, True, 32, 16384)

    @classmethod
    def minimal(cls) -> IoUringConfig:
        """Return what fits the smallest machines: a ring of 128 entries and 32 KiB of buffers.

        Single commits cost what they cost by default; bulk is slower, since a batch is 32 KiB.
        """
        return cls(128, False, 0, 32, False, 8, 4096)


@dataclass(frozen=True, slots=True)
class WalConfig:
    """How a log is opened, filled and recovered.

    Attributes:
        io: Ring and batch shape.
        backend: "auto": io_uring where it works, else pwrite. "io_uring": an error where it does
            not work. "pwrite": io_uring is not tried. All keep the same promises.
        segment_bytes: Size of a segment file, a multiple of 4096 from 32 KiB to 64 GiB.
        max_record_bytes: Largest record taken, at most 2**32 - 9.
        max_log_bytes: Size of the whole log at which appends raise WalFullError; None: the disk's.
            At least one segment, and at least two if trimming is to make room, since the newest
            one stays. A record that needs a segment of its own may take half of it.
        max_unsynced_bytes: The writer syncs by itself when so much is not synced; None: the larger
            of 16 MiB and two batches.
        recovery: What to do about a torn end at open.
        strict_sectors: Align commits to 4096 bytes, so that no acknowledged sector is ever written
            again and a device that tears sectors cannot hurt them.
        create: Make the log where there is none.
        owner: A line of up to 1 KiB kept in the log and compared at open.
        allow_shared_dir: Accept a directory that group or others may write to.

    Example:
        >>> config = WalConfig(segment_bytes=16 * 1024 * 1024, owner="billing")
        >>> config.unsynced_bytes_max
        16777216
    """

    io: IoUringConfig = field(default_factory=IoUringConfig)
    backend: str = "auto"
    segment_bytes: int = 64 * MIB
    max_record_bytes: int = 64 * MIB
    max_log_bytes: int | None = None
    max_unsynced_bytes: int | None = None
    recovery: RecoveryMode = RecoveryMode.POINT_IN_TIME
    strict_sectors: bool = False
    create: bool = True
    owner: str | None = None
    allow_shared_dir: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            TypeError: A field has the wrong type.
            ValueError: A field is out of its range, or recovery is SALVAGE: a writer cannot go on
                behind a hole.
        """
        if not isinstance(self.io, IoUringConfig):
            raise TypeError(f"io must be an IoUringConfig, not {type(self.io).__name__}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        _integer(
            "segment_bytes", self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX, BLOCK_BYTES
        )
        _integer("max_record_bytes", self.max_record_bytes, 1, RECORD_BYTES_MAX)
        if self.max_log_bytes is not None:
            _integer("max_log_bytes", self.max_log_bytes, self.segment_bytes, U64_MAX)
        if self.max_unsynced_bytes is not None:
            _integer("max_unsynced_bytes", self.max_unsynced_bytes, 1, U64_MAX)
        self._check_recovery()
        _boolean("strict_sectors", self.strict_sectors)
        _boolean("create", self.create)
        self._check_owner()
        _boolean("allow_shared_dir", self.allow_shared_dir)

    def _check_recovery(self) -> None:
        if not isinstance(self.recovery, RecoveryMode):
            raise TypeError(f"recovery must be a RecoveryMode, not {self.recovery!r}")
        if self.recovery is RecoveryMode.SALVAGE:
            raise ValueError(
                "a writer cannot recover with SALVAGE: it would append behind a hole; "
                "read with WalReader(path, RecoveryMode.SALVAGE) and write a new log"
            )

    def _check_owner(self) -> None:
        if self.owner is None:
            return
        if not isinstance(self.owner, str):
            raise TypeError(f"owner must be a str or None, not {type(self.owner).__name__}")
        if not self.owner or not self.owner.isprintable():
            raise ValueError("owner must be one line of printable text")
        if len(self.owner.encode()) > OWNER_BYTES_MAX:
            raise ValueError(f"owner must be at most {OWNER_BYTES_MAX} bytes of UTF-8")

    @property
    def unsynced_bytes_max(self) -> int:
        """``max_unsynced_bytes`` with its default worked out."""
        if self.max_unsynced_bytes is not None:
            return self.max_unsynced_bytes
        return max(16 * MIB, 2 * self.io.max_batch_bytes)

    @property
    def commit_alignment(self) -> int:
        """Bytes that a commit is padded to: 4096 with direct_io or strict_sectors, else 8."""
        return BLOCK_BYTES if self.io.direct_io or self.strict_sectors else 8


def normalised(config: IoUringConfig | WalConfig | None) -> WalConfig:
    """Return the WalConfig that is meant, with the environment's overrides applied.

    Raises:
        TypeError: config is neither.
        WalError: WALENGINE_BACKEND has a value that does not exist.
    """
    if config is None:
        config = WalConfig()
    elif isinstance(config, IoUringConfig):
        config = WalConfig(io=config)
    elif not isinstance(config, WalConfig):
        raise TypeError(
            f"config must be an IoUringConfig or a WalConfig, not {type(config).__name__}"
        )
    backend = _from_environment("WALENGINE_BACKEND", BACKENDS)
    if not backend or backend == config.backend:
        return config
    if config.backend != "auto":
        log.warning("WALENGINE_BACKEND=%s overrides backend=%r", backend, config.backend)
    return dataclasses.replace(config, backend=backend)


def ring_override() -> str | None:
    """Return the ring provider that WALENGINE_RING asks for, or None.

    Raises:
        WalError: It has a value that does not exist.
    """
    return _from_environment("WALENGINE_RING", RINGS)


def _from_environment(name: str, values: tuple[str, ...]) -> str | None:
    value = os.environ.get(name)
    if not value:
        return None
    if value not in values:
        known = ", ".join(values)
        raise WalError(f"the variable {name} must be one of {known}, not {value!r}")
    return value


for _name in __all__:
    globals()[_name].__module__ = "walengine"
