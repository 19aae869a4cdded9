"""What the sinks ask of a database: the steps of one transaction, and what is known beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from walengine.buffer.entry import Metadata

__all__ = ["Batch", "Database", "Row", "Stored", "ToRows"]

Row: TypeAlias = Sequence[Any]

ToRows: TypeAlias = Callable[[bytes, Metadata | None], Iterable[Row]]
"""(entry, what its producer said of it, or None) -> the rows that the entry becomes, 0 or more."""


class Batch(Protocol):
    """What a consumer hands over, as far as a sink looks at it."""

    @property
    def entries(self) -> Sequence[bytes]:
        """What was produced, in order."""

    @property
    def sequence(self) -> int:
        """The batch's place in the queue."""

    @property
    def location(self) -> str:
        """The batch object's whole path; it holds the identity."""

    @property
    def metadata(self) -> Sequence[Metadata]:
        """What each produce() call said, in the order of their start indexes."""


class Stored(NamedTuple):
    """The state row.

    Attributes:
        sequence: Everything up to and including it is in the table, or was left out on purpose.
        queue: Whose sequences these are, in the words of who made the row; None: nobody said.
    """

    sequence: int
    queue: str | None


class Database(Protocol):
    """One connection to one table and its state; never used by two threads at once.

    Attributes:
        where: Which database and which table, for messages; never with a password.
        failures: What its driver raises.
    """

    where: str
    failures: tuple[type[Exception], ...]

    @property
    def lost(self) -> bool:
        """Whether there is no connection, or one that nothing can be done with."""

    def open(self) -> None:
        """Connect if that is lost; check the table, make the state tables where there are none."""

    def read_state(self) -> Stored | None:
        """Return the state row, outside of any transaction."""

    def begin(self) -> None:
        """Begin a transaction whose commit will be durable."""

    def insert_state(self, sequence: int) -> bool:
        """Make the state row; False, and nothing done, if there is one."""

    def move_state(self, known: int, sequence: int) -> bool:
        """Move the state row if it is still at known; False, and nothing done, if it is not."""

    def remember(self, identity: str, sequence: int) -> bool:
        """Store an identity; False, and nothing done, if it is known."""

    def forget(self, older_than_s: float) -> None:
        """Delete identities that were stored longer ago than so many seconds, a part at a time."""

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Insert rows into the table."""

    def commit(self) -> None:
        """Make the transaction durable."""

    def rollback(self) -> None:
        """End the transaction with nothing changed, or give the connection up; never raises."""

    def close(self) -> None:
        """Release the connection; the next ``open`` makes another one."""
