"""A C writer as an event loop drives it: calls that never wait, and a descriptor to watch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from walengine import errors
from walengine._native import failure, ffi, lib
from walengine._native_writer import NativeWriter
from walengine._staging import Joined

_NO_WAIT: int = lib.WAL_NO_WAIT
_RECORD_CRC: int = lib.WAL_RECORD_CRC
_DURABLE: int = lib.WAL_DURABLE
_ATOMIC: int = lib.WAL_ATOMIC
_AGAIN: int = lib.WAL_E_AGAIN

_append_batch = lib.wal_writer_append_batch
_poll = lib.wal_writer_poll
_from_buffer = ffi.from_buffer


class Handed(NamedTuple):
    """What became of a hand-over.

    Attributes:
        taken: How many of the records went down, in order.
        is_durable: All of them did, and they are synced already.
        problem: Why the others did not; None: there was no room yet, or there are none.
    """

    taken: int
    is_durable: bool
    problem: errors.WalError | None


class PolledWriter:
    """The calls of one event loop; one thread makes them all."""

    def __init__(self, path: str, native: NativeWriter) -> None:
        self._path = path
        self._native = native  # holds the handle
        self._handle = native.handle
        self._error = ffi.new("wal_error *")
        self._lsn = ffi.new("uint64_t *")
        self._taken = ffi.new("uint32_t *")

    def notify(self, fd: int) -> None:
        """Have fd raised when there is news; -1: no more.

        Raises:
            WalError: The kernel refuses to tell a descriptor about this ring.
        """
        code = lib.wal_writer_notify(self._handle, fd, self._error)
        if code < 0:
            raise failure(code, self._error, self._path)

    def hand_over(
        self,
        records: Sequence[bytes],
        crcs: Sequence[int] | None,
        *,
        durable: bool,
        atomic: bool,
    ) -> Handed:
        """Hand over what there is room for; with durable, begin the sync too."""
        flags = _NO_WAIT
        sums = ffi.NULL
        # The arrays live until the call returns: the views hold them.
        if crcs is not None:
            flags |= _RECORD_CRC
            sums = _from_buffer("uint32_t[]", array("I", crcs))
        if durable:
            flags |= _DURABLE
        if atomic:
            flags |= _ATOMIC
        joined = records if type(records) is Joined else Joined.of(records)
        count = len(records)
        taken = self._taken
        code = _append_batch(
            self._handle,
            joined.data,
            _from_buffer("uint32_t[]", joined.lengths),
            sums,
            count,
            flags,
            self._lsn,
            taken,
            self._error,
        )
        if code >= 0:
            return Handed(count, durable, None)
        problem = None if code == _AGAIN else self._native.failed(code, self._error)
        return Handed(taken[0], False, problem)

    def poll(self, lsn: int) -> int:
        """See what is done, begin what is missing up to lsn; return the durable LSN.

        Raises:
            WalPoisonedError: A write or sync failed.
        """
        code = _poll(self._handle, lsn, self._lsn, self._error)
        if code < 0 and code != _AGAIN:
            raise self._native.failed(code, self._error)
        return int(self._lsn[0])

    def durable_lsn(self) -> int:
        """Return how far it is durable, also of a poisoned writer."""
        return int(self._native.position().durable_lsn)

    def last_lsn(self) -> int:
        """Return the newest record that was handed over, as C counts."""
        return int(self._native.position().last_lsn)
