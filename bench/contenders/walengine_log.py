"""walengine itself, from threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import walengine
from contenders.base import RECORD, CannotRunError, Contender
from walengine import IoUringConfig, PortableWalWriter, WalConfig, replay, verify


def require(owner: object, name: str, where: str) -> None:
    """See that this walengine has a name.

    Raises:
        CannotRunError: It is an older one.
    """
    if not hasattr(owner, name):
        raise CannotRunError(
            f"walengine {walengine.__version__} has no {where}.{name}: measure a commit that has"
        )


def ring_syncs(stats: walengine.IoUringStatsSnapshot) -> int:
    """Return the syncs that the ring of a log was given: entries of their own, and writes' own."""
    return stats.ring_ops["fsync"] + stats.ring_ops["rwf_dsync"]


class Walengine(Contender):
    """A log as ``PortableWalWriter(path)`` opens it.

    Options: none, the defaults (docs/API.md).
    """

    name = "walengine"
    package = "walengine"
    config = WalConfig()

    def open(self, path: Path) -> None:
        """Open the log."""
        self._path = path / "log"
        self._wal = PortableWalWriter(self._path, self.config)

    def close(self) -> None:
        """Close it."""
        self._wal.close()

    def put(self, record: bytes) -> None:
        """Append, and wait until it is durable."""
        self._wal.append_durable(record)

    def put_of_a_thread(self) -> Callable[[bytes], object]:
        """Return the writer's own method: no call of ours around it."""
        require(PortableWalWriter, "append_durable", "PortableWalWriter")
        append: Callable[[bytes], object] = self._wal.append_durable
        return append

    def put_many(self, records: Sequence[bytes]) -> None:
        """Append all, and wait until they are durable."""
        require(PortableWalWriter, "append_many", "PortableWalWriter")
        self._wal.append_many(records, durable=True)

    @property
    def stage(self) -> Callable[[bytes], int]:
        """The writer's own method that stages a record."""
        return self._wal.append_batched

    @property
    def flush(self) -> Callable[[], None]:
        """The writer's own method that makes durable what is staged."""
        return self._wal.flush_batch

    def load(self, count: int) -> None:
        """Stage and flush."""
        for _ in range(count):
            self._wal.append_batched(RECORD)
        self._wal.flush_batch()

    def scan(self) -> int:
        """Replay, one ``Record`` at a time."""
        count = 0
        for _record in replay(self._path):
            count += 1
        return count

    def scan_pairs(self) -> int:
        """Look at each LSN and its bytes, out of batches: what others' cursors give, a pair."""
        require(walengine.WalReader, "batches", "WalReader")
        count = 0
        with walengine.WalReader(self._path) as reader:
            for batch in reader.batches():
                for _lsn, _data in zip(batch.lsns, batch.payloads(), strict=True):
                    count += 1
        return count

    def scan_batches(self) -> int:
        """Look at blocks with their tables of offsets; no object is made of a record."""
        require(walengine.WalReader, "batches", "WalReader")
        with walengine.WalReader(self._path) as reader:
            return sum(len(batch) for batch in reader.batches())

    def verify(self, threads: int) -> tuple[int, int]:
        """Check everything; return records and the bytes of their frames."""
        report = verify(self._path, threads=threads)
        return report.records, report.bytes

    def trim(self) -> None:
        """Drop all records but the last; the segments are used again."""
        self._wal.truncate_before(self._wal.last_lsn)

    def count_of(self, what: str) -> int | None:
        """Return the syncs that its ring was given."""
        return ring_syncs(self._wal.stats()) if what == "ring syncs" else None


class WalengineDirect(Walengine):
    """A log that writes past the page cache, several commits at the device at once.

    Options: ``IoUringConfig(direct_io=True)`` (docs/API.md).
    """

    name = "walengine direct_io"
    config = WalConfig(io=IoUringConfig(direct_io=True))

    def open(self, path: Path) -> None:
        """Open the log.

        Raises:
            CannotRunError: The filesystem has no O_DIRECT.
        """
        super().open(path)
        if not self._wal.stats().direct_io:
            self._wal.close()
            raise CannotRunError("the filesystem has no O_DIRECT")


class WalenginePwrite(Walengine):
    """A log without io_uring.

    Options: ``backend="pwrite"`` (docs/API.md).
    """

    name = "walengine pwrite"
    config = WalConfig(backend="pwrite")
