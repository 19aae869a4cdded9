"""LMDB, through the package lmdb."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import lmdb

from contenders.base import Contender

MAP_BYTES = 32 << 30


class Lmdb(Contender):
    """One database whose keys are big-endian numbers.

    Options: ``sync=True, metasync=True`` and ``writemap=False``, the defaults, with which every
    commit syncs data and meta page (https://lmdb.readthedocs.io/en/release/#lmdb.Environment);
    ``append=True`` for keys that only grow, as the same page advises for bulk loading. LMDB lets
    one write transaction run at a time; the others wait for its lock.
    """

    name = "LMDB"

    def version(self) -> str:
        """Return the library's and the package's."""
        return f"LMDB {'.'.join(map(str, lmdb.version()))}, lmdb {lmdb.__version__}"

    def open(self, path: Path) -> None:
        """Open the environment; find the next key."""
        self._env = lmdb.open(
            str(path), map_size=MAP_BYTES, sync=True, metasync=True, writemap=False
        )
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            last = int.from_bytes(cursor.key(), "big") if cursor.last() else 0
        self._keys = itertools.count(last + 1)

    def close(self) -> None:
        """Close it."""
        self._env.close()

    def put(self, record: bytes) -> None:
        """Commit one pair; the key is taken inside, where only one transaction is."""
        with self._env.begin(write=True) as transaction:
            transaction.put(next(self._keys).to_bytes(8, "big"), record, append=True)

    def put_many(self, records: Sequence[bytes]) -> None:
        """Commit all in one transaction, by one call of the package."""
        with self._env.begin(write=True) as transaction, transaction.cursor() as cursor:
            pairs = [(next(self._keys).to_bytes(8, "big"), record) for record in records]
            cursor.putmulti(pairs, append=True)

    def scan(self) -> int:
        """Follow a cursor."""
        count = 0
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            for _key, _value in cursor:
                count += 1
        return count
