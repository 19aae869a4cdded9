"""Attempts at one change of the manifest: read, swap, and again after a conflict.

A swap that lost, or whose outcome is not clear, brings no answer: whoever asks reads again and
looks. Three conflicts in a row are tried again at once; behind them each attempt waits a random
part of a measured trip to the store, so that no two programs go on in step.
"""

from __future__ import annotations

import asyncio
import logging

from walengine.buffer._queue import Queue, Snapshot
from walengine.buffer.errors import StorageError
from walengine.buffer.manifest import Manifest
from walengine.buffer.metrics import Metrics

__all__ = ["Swaps"]

log = logging.getLogger("walengine.buffer")

AT_ONCE_MAX = 3
UNCLEAR_MAX = 8
"""So many unclear outcomes of one change are the store's failure, and the caller's to judge."""


class Swaps:
    """The attempts at one change.

    Args:
        queue: Whose manifest.
        metrics: Counts the attempts and the conflicts.
    """

    def __init__(self, queue: Queue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self._lost = 0
        self._unclear = 0
        self._trip_s = 0.0

    async def read(self) -> Snapshot:
        """Return the manifest to change, after the wait that is due; raises as reading does."""
        if self._lost > AT_ONCE_MAX:
            await asyncio.sleep(self._trip_s * self._queue.environment.random.random())
        began_s = asyncio.get_running_loop().time()
        snapshot = await self._queue.read_manifest()
        self._trip_s = asyncio.get_running_loop().time() - began_s
        return snapshot

    async def swap(self, snapshot: Snapshot, manifest: Manifest) -> Snapshot | None:
        """Try once.

        Returns:
            The new snapshot, or None if the change is not known to be made: read again.

        Raises:
            StorageError: The store certainly did nothing, or has been unclear too often.
        """
        self._metrics.count("buffer.manifest_writes")
        try:
            swapped = await self._queue.swap(snapshot, manifest)
        except StorageError as error:
            self._unclear += 1
            if not error.unclear or self._unclear >= UNCLEAR_MAX:
                raise
            log.info("%s: unclear, read again: %s", self._queue.name, error)
            swapped = None
        else:
            if swapped is None:
                self._metrics.count("buffer.manifest_conflicts")
        if swapped is None:
            self._lost += 1
        return swapped
