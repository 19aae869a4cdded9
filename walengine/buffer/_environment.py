"""What producers and consumers get from the world around them: a store, a clock, chance, threads.

They take all of it from here, and time that passes (``loop.time()``, ``asyncio.sleep``) from the
running event loop. So a simulation that brings its own store, clock, generator and loop owns
everything that happens, and repeats it from a seed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from walengine.buffer.store.port import ObjectStore
from walengine.buffer.store.probe import ClockReading, open_store
from walengine.buffer.store_config import ObjectStoreConfig

__all__ = ["Environment", "Offload", "open_environment"]

T = TypeVar("T")

NO_SKEW = ClockReading(0, 0)


class Offload(Protocol):
    """How work that would hold up the event loop is done: encoding, compression, parsing."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """Return what gives work's result; it raises what work raises."""
        ...


async def in_executor(work: Callable[[], T], /) -> T:
    """Do the work in a thread of the running loop's executor."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def system_ms() -> int:
    """Return this machine's time, in ms since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What one producer or consumer lives on.

    Attributes:
        store: Where the queue is.
        wall_ms: Now, in ms since 1970, by the store's clock as far as that is known.
        random: For identities and jitter; identities need all of its bits to be unpredictable.
        offload: Does work off the event loop.
        clock: How the store's clock differed from this machine's when it was opened.
        owns_store: ``aclose`` closes the store.
    """

    store: ObjectStore
    wall_ms: Callable[[], int] = system_ms
    random: random.Random = field(default_factory=random.SystemRandom)
    offload: Offload = in_executor
    clock: ClockReading = NO_SKEW
    owns_store: bool = False

    async def aclose(self) -> None:
        """Close the store, if it was opened for this environment."""
        if self.owns_store:
            await self.store.aclose()

    def skew_warning(self, limit_ms: int) -> str | None:
        """Return a sentence if the machine's clock is off by more than the limit, or None.

        Names are stamped with the corrected time all the same. But a clock so far off is likely to
        be set right while the program runs, and the correction is wrong from then on.
        """
        skew_ms = self.clock.skew_ms
        if abs(skew_ms) <= limit_ms:
            return None
        where = "behind" if skew_ms > 0 else "ahead of"
        return (
            f"this machine's clock is {abs(skew_ms) / 1000:g} s {where} that of {self.store.url}: "
            "set it right (NTP), then restart"
        )


async def open_environment(config: ObjectStoreConfig) -> Environment:
    """Open the store, probed once per process, and return an environment that closes it.

    Raises:
        UnsupportedStoreError: The store ignores a condition, or its package is missing.
        StorageError: It failed, or cannot be reached.
    """
    opened = await open_store(config)
    skew_ms = opened.clock.skew_ms
    return Environment(
        store=opened.store,
        wall_ms=lambda: system_ms() + skew_ms,
        clock=opened.clock,
        owns_store=True,
    )
