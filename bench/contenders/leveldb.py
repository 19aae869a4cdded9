"""LevelDB, through the package plyvel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import plyvel

from contenders.base import Contender

WRITE_BUFFER_BYTES = 64 << 20


class LevelDb(Contender):
    """A store whose keys are big-endian numbers.

    Options: ``sync=True`` on every write (doc/index.md of LevelDB, "Synchronous Writes"; it groups
    the writes of threads that wait into one sync by itself). ``write_buffer_size`` of 64 MiB in
    place of 4, which its include/leveldb/options.h recommends for bulk loads, and no compression,
    since the records do not compress.
    """

    name = "LevelDB"

    def version(self) -> str:
        """Return the library's and the package's."""
        return f"LevelDB {plyvel.__leveldb_version__}, plyvel {plyvel.__version__}"

    def open(self, path: Path) -> None:
        """Open the store; find the next key."""
        self._db = plyvel.DB(
            str(path),
            create_if_missing=True,
            write_buffer_size=WRITE_BUFFER_BYTES,
            compression=None,
        )
        with self._db.iterator(reverse=True, include_value=False) as keys:
            last = int.from_bytes(next(keys, b"\0"), "big")
        self._keys = itertools.count(last + 1)

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def put(self, record: bytes) -> None:
        """Put with a sync."""
        self._db.put(next(self._keys).to_bytes(8, "big"), record, sync=True)

    def put_many(self, records: Sequence[bytes]) -> None:
        """Write a batch with a sync."""
        batch = self._db.write_batch(sync=True)
        for record in records:
            batch.put(next(self._keys).to_bytes(8, "big"), record)
        batch.write()

    def scan(self) -> int:
        """Iterate, blocks not kept in the cache."""
        count = 0
        with self._db.iterator(fill_cache=False) as pairs:
            for _key, _value in pairs:
                count += 1
        return count
