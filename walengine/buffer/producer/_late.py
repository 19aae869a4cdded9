"""A batch that was listed under a name that is too old: its object is looked after for a minute.

The name was young when the swap began, and then the process was frozen, or the request on its way
for minutes. Meanwhile a collector may have found the object old and unlisted, and may be about to
delete it: its pass can have read the manifest before the swap. So the object is checked, put again
where it is missing, and the batch counts as durable when the last check, a minute later, finds it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from walengine.buffer._queue import Queue
from walengine.buffer.errors import StorageError
from walengine.buffer.producer._counters import Counters
from walengine.buffer.producer._forming import Batch

__all__ = ["look_after"]

WATCHED_S: Final = 60.0
CHECK_INTERVAL_S: Final = 5.0


async def look_after(queue: Queue, batch: Batch, location: str, counters: Counters) -> None:
    """Return when the object under this location is safe from collectors' passes that had begun."""
    loop = asyncio.get_running_loop()
    until = loop.time() + WATCHED_S
    while True:
        is_there = await _restored(queue, batch, location, counters)
        if is_there and loop.time() >= until:
            return
        await asyncio.sleep(CHECK_INTERVAL_S)


async def _restored(queue: Queue, batch: Batch, location: str, counters: Counters) -> bool:
    """Tell whether the object is there, having put it where it was not."""
    try:
        if await queue.store.head(location) is None:
            assert batch.data is not None  # noqa: S101 (it was stored once)
            await queue.store.put(location, batch.data)
            counters.restored += 1
    except StorageError as error:
        batch.error = error
        return False
    return True
