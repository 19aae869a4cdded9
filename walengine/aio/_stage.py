"""What waits to be handed over: records in the order of their calls, and who waits for which.

A stage is some records in a row that go down in one go; an atomic group is a stage of its own, and
so are many records of one call, which are joined already. Most others come from ``append_durable``,
so their futures stand in a list beside the records and cost nothing else. All that wait otherwise
are marks: a place in the stage, and a future to settle when the record there is handed over, or
durable.
"""

from __future__ import annotations

from asyncio import Future, InvalidStateError
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from walengine._staging import (
    JOINED_BYTES_MAX,
    JOINED_RECORD_BYTES_MAX,
    Piece,
    Run,
    Staged,
    pieces,
    record_bytes,
)
from walengine.errors import WalError
from walengine.types import Lsn

Waiter: TypeAlias = "Future[Lsn]"


class Mark(NamedTuple):
    """Somebody waits for the record at a place of a stage.

    Attributes:
        place: Its index.
        waiter: Settled with its LSN.
        durable: When it is synced; else when it is handed over.
        owns: The record goes if it is refused: its caller is told so.
    """

    place: int
    waiter: Waiter
    durable: bool
    owns: bool


class Stage:
    """Records that go down together, in order.

    Args:
        atomic: After a crash all of them are there or none.
        run: The records, where one call brought many.

    Attributes:
        records: Bytes, or bytes with their CRC32C.
        waiters: For each record, who waits until it is durable, or None.
        marks: All others that wait, by ascending place.
        atomic: After a crash all of them are there or none.
        has_crcs: Some of them are with their CRC32C.
    """

    __slots__ = ("atomic", "has_crcs", "marks", "records", "waiters")

    def __init__(self, *, atomic: bool = False, run: Run | None = None) -> None:
        # A Run stays one as long as all of it is here, and nothing is put behind it.
        self.records: list[Staged] = [] if run is None else run  # type: ignore[assignment]
        self.waiters: list[Waiter | None] = [None] * len(self.records)
        self.marks: list[Mark] = []
        self.atomic = atomic
        self.has_crcs = False

    def add(self, record: Staged) -> None:
        """Put a record behind the others."""
        self.records.append(record)
        self.waiters.append(None)
        if type(record) is tuple:
            self.has_crcs = True

    def mark_last(self, waiter: Waiter, *, durable: bool, owns: bool) -> None:
        """Note who waits for the newest record."""
        self.marks.append(Mark(len(self.records) - 1, waiter, durable, owns))

    @property
    def is_closed(self) -> bool:
        """Nothing may be put behind its records."""
        return self.atomic or isinstance(self.records, Run)

    @property
    def must_be_handed(self) -> bool:
        """Somebody waits for no sync, only for the operating system to have it."""
        return any(not mark.durable for mark in self.marks)

    def calls(self) -> Sequence[Piece]:
        """Split the records into native calls, in order.

        Most stages hold small records without CRCs: those are cut by their mean size, without a
        look at each.
        """
        records = self.records
        if isinstance(records, Run):
            return [(part, None) for part in records.parts]
        if self.atomic or not records:
            return [(records, None)] if records else []  # type: ignore[list-item]
        if self.has_crcs or max(map(len, records)) > JOINED_RECORD_BYTES_MAX:
            return pieces(records)
        per_call = max(1, len(records) * JOINED_BYTES_MAX // (sum(map(len, records)) or 1))
        if len(records) <= per_call:
            return [(records, None)]  # type: ignore[list-item]
        starts = range(0, len(records), per_call)
        return [(records[at : at + per_call], None) for at in starts]  # type: ignore[misc]

    def bytes_of(self, count: int) -> int:
        """Return the bytes of the first count records."""
        records = self.records
        if isinstance(records, Run) and count == len(records):
            return records.bytes
        return sum(map(record_bytes, records[:count]))

    def cut(self, count: int) -> tuple[list[Waiter | None], list[Mark]]:
        """Take the first count records out; return who waits for them."""
        if count == len(self.records):
            waiters, marks = self.waiters, self.marks
            self.records, self.waiters, self.marks = [], [], []
            return waiters, marks
        self.records = list(self.records)
        waiters = self.waiters[:count]
        marks = [mark for mark in self.marks if mark.place < count]
        del self.records[:count], self.waiters[:count]
        rest = self.marks[len(marks) :]
        self.marks = [mark._replace(place=mark.place - count) for mark in rest]
        return waiters, marks

    def refuse(self, problem: WalError) -> None:
        """Tell all who wait; keep the records whose caller was not told: staged is staged."""
        gone = {mark.place for mark in self.marks if mark.owns and not mark.waiter.done()}
        gone |= {place for place, waiter in enumerate(self.waiters) if waiter and not waiter.done()}
        if self.atomic and any(not mark.waiter.done() for mark in self.marks):
            gone = set(range(len(self.records)))
        for waiter in self.everybody():
            fail(waiter, problem)
        self.records = [record for at, record in enumerate(self.records) if at not in gone]
        self.waiters = [None] * len(self.records)
        self.marks = []

    def everybody(self) -> Iterator[Waiter]:
        """Yield all who wait for a record here, by its place."""
        marks = iter([*self.marks, None])
        mark = next(marks)
        for place, waiter in enumerate(self.waiters):
            if waiter is not None:
                yield waiter
            while mark is not None and mark.place == place:
                yield mark.waiter
                mark = next(marks)


def settle_all(waiters: Iterable[tuple[Lsn, Waiter | None]]) -> int:
    """Tell all who wait, but those who went away; return how many were told."""
    told = 0
    rest = iter(waiters)
    while True:
        try:
            for lsn, waiter in rest:
                if waiter is not None:
                    waiter.set_result(lsn)
                    told += 1
        except InvalidStateError:  # cancelled, which is rarer than a look at each is dear
            continue
        return told


def fail(waiter: Waiter, problem: WalError) -> None:
    """Tell who waits what went wrong, unless they went away."""
    if not waiter.done():
        waiter.set_exception(problem.with_traceback(None))
