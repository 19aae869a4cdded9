"""Attempts at one change of the manifest: read, swap, and again after a conflict.

A swap that lost, or whose outcome is not clear, brings no answer: whoever asks reads again and
looks. How long it waits before that is the same for all who swap (``_pace.py``).
"""

from __future__ import annotations

import asyncio
import logging

from walengine.buffer._pace import Pace
from walengine.buffer._queue import Queue, Snapshot
from walengine.buffer.errors import StorageError
from walengine.buffer.manifest import Manifest
from walengine.buffer.metrics import Metrics

__all__ = ["Swaps"]

log = logging.getLogger("walengine.buffer")

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
        self._pace = Pace(queue.environment.random)
        self._wait_s = 0.0
        self._unclear = 0

    async def read(self) -> Snapshot:
        """Return the manifest to change, after the wait that is due; raises as reading does."""
        if self._wait_s:
            await asyncio.sleep(self._wait_s)
        began_s = asyncio.get_running_loop().time()
        snapshot = await self._queue.read_manifest()
        self._pace.measured(asyncio.get_running_loop().time() - began_s)
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
            self._wait_s = self._pace.after_conflict()
        return swapped
