"""How old a batch's name is: what keeps collectors from taking what is about to be listed.

A collector deletes what is unlisted and older than the grace period, and it reads an object's age
off its name. So no name older than NAME_AGE_MAX is ever listed, which is far less than any grace
period: such a batch is uploaded again under a new name.

Age is what either of two clocks says, whichever says more. The store's clock is the one that
collectors judge by, but it may be set back; the loop's cannot, but it stands while the machine
sleeps.
"""

from __future__ import annotations

import asyncio

from walengine.buffer._environment import Environment
from walengine.buffer.config import NAME_AGE_MAX
from walengine.buffer.location import BatchName, BatchNamer, parse_batch_name
from walengine.buffer.producer._forming import Batch

__all__ = ["Names"]

AGE_MAX_MS = NAME_AGE_MAX.total_seconds() * 1000


class Names:
    """Gives names to a producer's batches and tells how old they are.

    Args:
        environment: Clock and chance.
        data_path_prefix: Where the objects are.
    """

    def __init__(self, environment: Environment, data_path_prefix: str) -> None:
        self._wall_ms = environment.wall_ms
        self._loop = asyncio.get_running_loop()
        self._namer = BatchNamer(
            data_path_prefix,
            clock_ms=environment.wall_ms,
            random_bytes=environment.random.randbytes,
        )

    def new_identity(self) -> str:
        """Return an identity that no other batch has."""
        return self._namer.new().identity

    def stamp(self, batch: Batch) -> tuple[BatchName, float]:
        """Return a name with the time it is now, and that time by the loop's clock."""
        return self._namer.restamp(batch.identity), self._loop.time()

    def is_fresh(self, batch: Batch) -> bool:
        """Tell whether the name of a stored batch may be listed now."""
        return batch.name is not None and self.is_young(batch, batch.name.location)

    def is_young(self, batch: Batch, location: str) -> bool:
        """Tell whether a name of the batch is still below the limit."""
        name = parse_batch_name(location)
        if name is None:
            return False
        age_ms = float(self._wall_ms() - name.time_ms)
        if (stamped_at := batch.stamped_at.get(location)) is not None:
            age_ms = max(age_ms, (self._loop.time() - stamped_at) * 1000)
        return age_ms <= AGE_MAX_MS
