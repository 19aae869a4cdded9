"""What a contender is: a store that keeps records in order and can make them durable.

One process holds one contender (serve.py), so that none has to share its interpreter lock, its
memory or its background threads with another one, and so that it can be killed.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from loops import CannotRunError

__all__ = ["RECORD", "RECORD_BYTES", "AsyncContender", "CannotRunError", "Contender"]

RECORD_BYTES = 256
# Does not compress: a contender that compresses must not look as if it had written less.
RECORD = random.Random(1).randbytes(RECORD_BYTES)


class Named:
    """What is printed of a contender."""

    name: str
    package = ""

    def version(self) -> str:
        """Return the version of what is measured."""
        return f"{self.package} {version(self.package)}" if self.package else ""

    def count_of(self, what: str) -> int | None:  # noqa: ARG002 (most count nothing)
        """Return a counter of its own, for the proof that it syncs; None: it has none."""
        return None


class Contender(Named, ABC):
    """A store under test. Whatever it promises, put and put_many return after a sync.

    A class's docstring tells its options and where they are documented.
    """

    @abstractmethod
    def open(self, path: Path) -> None:
        """Open what is at path, or make it; the directory path is there."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    @abstractmethod
    def put(self, record: bytes) -> None:
        """Make one record durable; from any thread."""

    def put_of_a_thread(self) -> Callable[[bytes], object]:
        """Return what one more thread is to call; the default is ``put``."""
        return self.put

    def put_many(self, records: Sequence[bytes]) -> None:  # noqa: ARG002
        """Make all of them durable together.

        Raises:
            CannotRunError: It has no such call.
        """
        raise CannotRunError(f"{self.name} has no durable batches")

    def load(self, count: int) -> None:
        """Write so many records as fast as it can, durable at the end."""
        step = 10_000
        batch = [RECORD] * step
        for done in range(0, count, step):
            self.put_many(batch[: min(step, count - done)])

    def scan(self) -> int:
        """Read every record, oldest first, into a Python loop; return how many there were.

        Raises:
            CannotRunError: Reading is not what it does.
        """
        raise CannotRunError(f"{self.name} cannot be read from the first record to the last")

    def trim(self) -> None:
        """Drop what is there, if that is cheap: so that a long run needs no full disk."""


class AsyncContender(Named, ABC):
    """A store that is called from an event loop; serve.py makes the loop and all calls in it."""

    loop = "asyncio"  # or "uvloop"

    @abstractmethod
    async def open(self, path: Path) -> None:
        """Open what is at path, or make it; the directory path is there."""

    @abstractmethod
    async def close(self) -> None:
        """Close it."""

    @abstractmethod
    async def put(self, record: bytes) -> None:
        """Make one record durable."""

    def put_of_a_task(self) -> Callable[[bytes], Awaitable[object]]:
        """Return what each task is to await; the default is ``put``."""
        return self.put

    async def put_many(self, records: Sequence[bytes]) -> None:  # noqa: ARG002
        """Make all of them durable together.

        Raises:
            CannotRunError: It has no such call.
        """
        raise CannotRunError(f"{self.name} has no durable batches")

    async def trim(self) -> None:
        """Drop what is there, if that is cheap."""
