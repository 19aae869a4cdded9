"""The sinks' one rule: a batch's rows and the queue's position change together, exactly once.

One transaction

1. moves the stored sequence, *if it is still what this sink last knew* (at first: makes the row);
2. stores the batch's identity under a unique key;
3. writes the rows, unless the identity was there already: then an earlier append of the same batch
   is in the table, and only the sequence moves.

What that is worth, by cases:

- **Killed anywhere before the commit**: nothing changed. The next sink starts at the old sequence.
- **Killed behind the commit, before the ack**: the next sink's sequence is behind the batch, and
  the consumer that is opened with it never delivers it again.
- **A commit whose answer was lost**: the sink reads the row before its next step. Whoever moved it
  to this batch's sequence wrote this batch's rows.
- **Two sinks at once**, one of them a zombie that does not know yet that it was fenced: they take
  turns at the row. Who comes second finds it moved, writes nothing, and reads it again: the batch
  is in.
- **The database went back**, restored from a backup or failed over to a copy that is behind: the
  row is behind what this sink knew. It stops: those batches have to be read again, and may have
  been acked.

The sequence must grow by one with each batch. Otherwise a batch that was passed over could not be
told from one that was written.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypeVar

from walengine.buffer.database._port import Batch, Database, Row, ToRows
from walengine.buffer.database._rows import rows_of
from walengine.buffer.durations import from_code
from walengine.buffer.errors import (
    AckOrderError,
    DatabaseError,
    InvalidInputError,
    PairingError,
    SequenceGapError,
)
from walengine.buffer.location import identity_of

__all__ = ["DEDUPE_RETENTION", "DatabaseSink", "DatabaseSinkStats"]

T = TypeVar("T")

DEDUPE_RETENTION: Final = timedelta(days=30)
"""How long identities are kept: far longer than a producer tries a batch again by itself."""

FORGET_EVERY = 100
ATTEMPTS_MAX = 4
SEQUENCE_MAX = (1 << 63) - 1  # what the databases' integers hold


@dataclass(frozen=True, slots=True)
class DatabaseSinkStats:
    """What a sink has done since it was made.

    Attributes:
        batches: Batches whose rows it wrote.
        rows: Rows it wrote.
        duplicates: Batches that were in the table already: their identity, or their sequence.
        sequence: Where the state row is as far as it knows; None: there is none.
    """

    batches: int = 0
    rows: int = 0
    duplicates: int = 0
    sequence: int | None = None


class DatabaseSink:
    """A table that gets every batch of a queue exactly once; base of the synchronous sinks.

    May be shared by threads: calls wait for each other.
    """

    def __init__(
        self,
        database: Database,
        to_rows: ToRows,
        columns: Sequence[str],
        *,
        queue: str | None,
        dedupe_retention: timedelta | float,
    ) -> None:
        retention = from_code("dedupe_retention", dedupe_retention)
        if retention <= timedelta(0):
            raise ValueError("dedupe_retention must be longer than nothing")
        self._database = database
        self._to_rows = to_rows
        self._width = len(columns)
        self._queue = queue
        self._retention_s = retention.total_seconds()
        # Re-entrant, so that to_rows and signals' handlers that come back are refused, not hung.
        self._lock = threading.RLock()
        self._is_busy = False
        self._pid = os.getpid()
        self._closed = False
        # The sequence that the row was last known to have; settled: nothing has happened since
        # that could have moved it without us knowing.
        self._known: int | None = None
        self._settled = False
        self._transactions = 0
        self._batches = self._rows = self._duplicates = 0

    def __repr__(self) -> str:
        """Show where the rows go, and no password."""
        return f"<{type(self).__name__} {self._database.where}>"

    def open(self) -> None:
        """Connect, check the table, and read the state.

        Raises:
            DatabaseError: The database cannot be reached, or the table cannot be written.
            PairingError: The state is another queue's.
        """
        with self._turn():
            try:
                self._read()
            except BaseException:
                self._database.close()
                raise

    def start_sequence(self) -> int | None:
        """Return the sequence of the last batch in the table, for the consumer's ``open``.

        It is read anew, and from here the sink goes on, also after a ``SequenceGapError``.

        Returns:
            The sequence; None if nothing was ever written.

        Raises:
            DatabaseError: The database failed.
            PairingError: The state is another queue's.
        """
        with self._turn():
            self._known = None
            self._read()
            return self._known

    def write(self, batch: Batch) -> bool:
        """Write a batch's rows and move the sequence, in one transaction.

        Args:
            batch: The next one; one that is in the table already changes nothing.

        Returns:
            True if this call wrote the rows, False if they were there.

        Raises:
            AckOrderError: It is not the next one: one was passed over (see ``skip``).
            DatabaseError: The database failed; nothing was written, or if ``unclear`` perhaps all.
                Call it again with the same batch.
            SequenceGapError: The database went back; see ``start_sequence``.
            PairingError: The state is another queue's.
        """
        with self._turn():
            wrote = self._advance(batch.sequence, batch)
            if not wrote:
                self._duplicates += 1
            return wrote

    def skip(self, sequence: int) -> None:
        """Move the sequence without rows, over what the consumer skipped or a gap it allowed.

        Args:
            sequence: The last one that is left out; what is written next is the one behind.

        Raises:
            DatabaseError: As with ``write``; so with the others.
        """
        with self._turn():
            self._advance(sequence, None)

    def stats(self) -> DatabaseSinkStats:
        """Return what this sink has done."""
        return DatabaseSinkStats(self._batches, self._rows, self._duplicates, self._known)

    def close(self) -> None:
        """Release the connection; twice is once. There is nothing to flush.

        Raises:
            DatabaseError: Called in the middle of another call, by to_rows or a signal's handler.
        """
        if os.getpid() != self._pid:
            return  # the connection is the parent's
        with self._alone():
            self._closed = True
            self._database.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, whether the block ended well or not."""
        self.close()

    # ---- the rule --------------------------------------------------------------------------------

    def _advance(self, sequence: int, batch: Batch | None) -> bool:
        """Bring the row to a sequence, with the batch's rows; False if it was there already."""
        if not 0 <= sequence <= SEQUENCE_MAX:
            raise InvalidInputError(f"sequence {sequence}: a table can hold 0 to {SEQUENCE_MAX}")
        rows: list[Row] | None = None
        for _ in range(ATTEMPTS_MAX):
            if not self._settled:
                self._read()
            known = self._known
            if known is not None and sequence <= known:
                return False
            if batch is not None and known is not None and sequence != known + 1:
                raise AckOrderError(
                    f"{self._database.where}: batch {sequence} does not follow {known}, the last "
                    "one written: write them in order, and skip() what the consumer skipped",
                    sequence=sequence,
                )
            if batch is not None and rows is None:
                rows = rows_of(batch, self._to_rows, self._width)
            identity = identity_of(batch.location) if batch is not None else None
            moved = self._transaction(known, sequence, identity, rows or [])
            if moved is not None:
                return moved
        raise DatabaseError(
            f"{self._database.where}: the state row was changed by others {ATTEMPTS_MAX} times: "
            "find who else feeds this table",
            sequence=sequence,
        )

    def _transaction(
        self, known: int | None, sequence: int, identity: str | None, rows: list[Row]
    ) -> bool | None:
        """Run it. True: with the rows; False: without; None: the row had moved, nothing is done."""
        database = self._database
        self._settled = False
        try:
            with self._failing("begin a transaction"):
                self._reconnecting(database.begin)
            with self._failing("move the sequence"):
                moved = (
                    database.insert_state(sequence)
                    if known is None
                    else database.move_state(known, sequence)
                )
            if not moved:
                database.rollback()
                return None
            new = True
            with self._failing("store the identity"):
                if identity is not None:
                    new = database.remember(identity, sequence)
                if self._transactions % FORGET_EVERY == 0:
                    database.forget(self._retention_s)
            if new and rows:
                with self._failing(f"write the rows of batch {sequence}"):
                    database.write_rows(rows)
            with self._failing("commit", unclear=True):
                database.commit()
        except BaseException:
            database.rollback()
            raise
        self._known = sequence
        self._settled = True
        self._transactions += 1
        if new and identity is not None:
            self._batches += 1
            self._rows += len(rows)
        return new

    def _reconnecting(self, step: Callable[[], T]) -> T:
        """Do what begins something; a connection lost since then is made anew, once."""
        self._open()
        try:
            return step()
        except self._database.failures:
            if not self._database.lost:
                raise
        self._open()
        return step()

    def _open(self) -> None:
        with self._failing("open it"):
            self._database.open()

    def _read(self) -> None:
        """Learn where the row is.

        Raises:
            SequenceGapError: It is behind what this sink knew.
        """
        with self._failing("read the state"):
            stored = self._reconnecting(self._database.read_state)
        if stored is not None and None not in (stored.queue, self._queue):
            self._check_queue(stored.queue)
        sequence = None if stored is None else stored.sequence
        if self._known is not None and (sequence is None or sequence < self._known):
            raise SequenceGapError(
                f"{self._database.where}: the database went back: this sink had written up to "
                f"sequence {self._known}, and the state row "
                + ("is gone" if sequence is None else f"says {sequence}")
                + ". Was it restored from a backup? Open the consumer again from start_sequence(); "
                "what was acked since is no longer in the queue",
                sequence=sequence,
            )
        self._known = sequence
        self._settled = True

    def _check_queue(self, stored: str | None) -> None:
        if stored != self._queue:
            raise PairingError(
                f"{self._database.where}: the state row is that of queue {stored}, and this is "
                f"{self._queue}: give the sink a name of its own; if it is the same queue in "
                "another place, change the row's column queue"
            )

    # ---- around it -------------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if os.getpid() != self._pid:
            raise DatabaseError(
                f"{self._database.where}: this sink belongs to process {self._pid}, which was "
                "forked: make one here"
            )
        with self._alone():
            if self._closed:
                raise DatabaseError(f"{self._database.where}: the sink is closed: make a new one")
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            if self._is_busy:
                raise DatabaseError(
                    f"{self._database.where}: called in the middle of another call, by to_rows or "
                    "by a signal's handler: call it when that one has returned"
                )
            self._is_busy = True
            try:
                yield
            finally:
                self._is_busy = False

    @contextmanager
    def _failing(self, what: str, *, unclear: bool = False) -> Iterator[None]:
        """Turn the driver's error into ours, with the place and the step."""
        try:
            yield
        except self._database.failures as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise DatabaseError(
                f"{self._database.where}: cannot {what}: {text}", unclear=unclear
            ) from error


DatabaseSink.__module__ = DatabaseSinkStats.__module__ = "walengine.buffer"
