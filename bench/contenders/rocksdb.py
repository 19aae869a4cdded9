"""RocksDB, through the package rocksdict."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from rocksdict import DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

from contenders.base import Contender

RECYCLED_LOGS = 4


class RocksDb(Contender):
    """A store whose keys are big-endian numbers.

    Options: ``WriteOptions.sync`` on every write (RocksDB wiki, "Basic Operations", synchronous
    writes; the writes of threads that wait share a sync); fdatasync, the default. As the page
    "WAL Performance" of the wiki advises: ``recycle_log_file_num``, which spares the sync of a
    file's size. As "Pipelined Write" advises: ``enable_pipelined_write``. No compression, since
    the records do not compress; raw bytes in place of pickled objects.
    """

    name = "RocksDB"
    package = "rocksdict"

    def open(self, path: Path) -> None:
        """Open the store; find the next key."""
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_enable_pipelined_write(True)
        options.set_recycle_log_file_num(RECYCLED_LOGS)
        options.set_compression_type(DBCompressionType.none())
        self._db = Rdict(str(path), options)
        self._durable = WriteOptions()
        self._durable.sync = True
        last = next(iter(self._db.keys(backwards=True)), b"\0")
        self._keys = itertools.count(int.from_bytes(last, "big") + 1)

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def put(self, record: bytes) -> None:
        """Put with a sync."""
        self._db.put(next(self._keys).to_bytes(8, "big"), record, self._durable)

    def put_many(self, records: Sequence[bytes]) -> None:
        """Write a batch with a sync."""
        batch = WriteBatch(raw_mode=True)
        for record in records:
            batch.put(next(self._keys).to_bytes(8, "big"), record)
        self._db.write(batch, self._durable)

    def scan(self) -> int:
        """Iterate over pairs."""
        count = 0
        for _key, _value in self._db.items():
            count += 1
        return count
