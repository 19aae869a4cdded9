"""What is measured: the table of pairs that mean something. docs/GUIDE.md shows the same table.

A row is a method on a file in one state, with writes of one size, so many at once. Most of the
products of the four mean nothing: O_DIRECT cannot write 256 bytes, a group commit of one writer is
that writer, a second sync method on a state where two already agreed tells nothing new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from walengine.config import BLOCK_BYTES

GROWING = "growing"
FALLOCATED = "fallocated"
ZERO_FILLED = "zero-filled"
RECYCLED = "recycled"

NO_SYNC = "no sync"
FDATASYNC = "fdatasync"
FSYNC = "fsync"
DSYNC = "O_DSYNC"
DIRECT_DSYNC = "O_DIRECT+O_DSYNC"
RWF_DSYNC = "RWF_DSYNC"
RING_LINKED = "io_uring linked"
RING_DIRECT = "io_uring direct"

ONE = "one writer"
SIZES = "other sizes"
MANY = "many writers"
BULK = "bulk"
SECTIONS = (ONE, SIZES, MANY, BULK)

ETCD_BYTES = 2300  # what fio is told to write in the test that etcd's users run
POSTGRES_BYTES = 8192  # a page of PostgreSQL's WAL
SMALL_BYTES = 256
LARGE_BYTES = 64 << 10
BULK_BYTES = 1 << 20

DEPTHS = (4, 16, 64)


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        section: Part of the report.
        method: How a write is made durable.
        state: What the file is like where it is written.
        write_bytes: Bytes of one write.
        concurrency: Threads; with io_uring, commits in flight.
        group: One sync serves all threads that wait.
        quick: It is part of the quick run.
    """

    section: str
    method: str
    state: str
    write_bytes: int
    concurrency: int
    group: bool
    quick: bool

    @property
    def key(self) -> str:
        """What names the row in files: the same in every run."""
        group = "-group" if self.group else ""
        return f"{self.method}/{self.state}/{self.write_bytes}/{self.concurrency}{group}"

    @property
    def label(self) -> str:
        """Method and sharing as a table shows them."""
        return f"{self.method}, group" if self.group else self.method


@dataclass(frozen=True, slots=True)
class Pairs:
    """A line of the table: one method on some states, sizes and numbers at once.

    Attributes:
        quick: Those of its rows that the quick run has, by state and number at once.
        why: What the line is for.
    """

    section: str
    method: str
    states: tuple[str, ...]
    sizes: tuple[int, ...]
    at_once: tuple[int, ...]
    why: str
    group: bool = False
    quick: tuple[tuple[str, int], ...] = ()

    def rows(self) -> Iterator[Row]:
        """Yield the line's rows."""
        for size in self.sizes:
            for state in self.states:
                for count in self.at_once:
                    is_quick = (state, count) in self.quick
                    yield Row(self.section, self.method, state, size, count, self.group, is_quick)


ALL = (GROWING, FALLOCATED, ZERO_FILLED, RECYCLED)
PAGE = (BLOCK_BYTES,)
LONE = (1,)

TABLE: tuple[Pairs, ...] = (
    Pairs(ONE, NO_SYNC, (ZERO_FILLED,), PAGE, LONE,
          "the write alone: what the others add is the sync", quick=((ZERO_FILLED, 1),)),
    Pairs(ONE, FDATASYNC, ALL, PAGE, LONE,
          "what most programs do, and what a file's state is worth",
          quick=((GROWING, 1), (ZERO_FILLED, 1))),
    Pairs(ONE, FSYNC, (GROWING, ZERO_FILLED), PAGE, LONE,
          "what the time stamps cost on top of fdatasync"),
    Pairs(ONE, DSYNC, (GROWING, ZERO_FILLED), PAGE, LONE,
          "one call in place of two"),
    Pairs(ONE, DIRECT_DSYNC, ALL, PAGE, LONE,
          "past the page cache", quick=((ZERO_FILLED, 1),)),
    Pairs(ONE, RWF_DSYNC, (GROWING, ZERO_FILLED), PAGE, LONE,
          "O_DSYNC for a single write"),
    Pairs(ONE, RING_LINKED, (GROWING, ZERO_FILLED, RECYCLED), PAGE, LONE,
          "walengine on io_uring, through the page cache", quick=((ZERO_FILLED, 1),)),
    Pairs(ONE, RING_DIRECT, (FALLOCATED, ZERO_FILLED, RECYCLED), PAGE, LONE,
          "walengine with direct_io", quick=((ZERO_FILLED, 1),)),
    Pairs(SIZES, FDATASYNC, (ZERO_FILLED,), (SMALL_BYTES, LARGE_BYTES), LONE,
          "a small record, a large one"),
    Pairs(SIZES, RING_LINKED, (ZERO_FILLED,), (SMALL_BYTES,), LONE,
          "a small record on io_uring"),
    Pairs(SIZES, RING_DIRECT, (ZERO_FILLED,), (LARGE_BYTES,), LONE,
          "a large one with direct_io"),
    Pairs(SIZES, FDATASYNC, (FALLOCATED,), (ETCD_BYTES,), LONE,
          "as etcd's log writes", quick=((FALLOCATED, 1),)),
    Pairs(SIZES, FDATASYNC, (RECYCLED,), (POSTGRES_BYTES,), LONE,
          "as PostgreSQL's log writes: one writer", quick=((RECYCLED, 1),)),
    Pairs(MANY, FDATASYNC, (ZERO_FILLED,), PAGE, DEPTHS,
          "threads that each sync for themselves"),
    Pairs(MANY, FDATASYNC, (ZERO_FILLED,), PAGE, DEPTHS,
          "threads that share a sync: walengine through the page cache",
          group=True, quick=((ZERO_FILLED, 16),)),
    Pairs(MANY, DIRECT_DSYNC, (ZERO_FILLED,), PAGE, DEPTHS,
          "threads past the page cache"),
    Pairs(MANY, RING_LINKED, (ZERO_FILLED,), PAGE, (4, 16),
          "linked pairs in flight, each with its own sync"),
    Pairs(MANY, RING_DIRECT, (ZERO_FILLED,), PAGE, DEPTHS,
          "direct writes in flight: walengine with direct_io", quick=((ZERO_FILLED, 16),)),
    Pairs(MANY, FDATASYNC, (RECYCLED,), (POSTGRES_BYTES,), (16,),
          "as PostgreSQL's log writes: 16 writers", group=True, quick=((RECYCLED, 16),)),
    Pairs(BULK, FDATASYNC, (GROWING, FALLOCATED, ZERO_FILLED), (BULK_BYTES,), LONE,
          "large batches through the page cache", quick=((ZERO_FILLED, 1),)),
    Pairs(BULK, DIRECT_DSYNC, (ZERO_FILLED,), (BULK_BYTES,), LONE,
          "large batches past the page cache"),
    Pairs(BULK, RING_DIRECT, (ZERO_FILLED,), (BULK_BYTES,), (4,),
          "large direct writes in flight", quick=((ZERO_FILLED, 4),)),
)  # fmt: skip

ROWS: tuple[Row, ...] = tuple(row for pairs in TABLE for row in pairs.rows())


def rows_of(*, quick: bool) -> tuple[Row, ...]:
    """Return the rows of a run, in the order in which they are measured."""
    return tuple(row for row in ROWS if row.quick or not quick)


def size_text(size: int) -> str:
    """Return bytes as a table shows them."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
