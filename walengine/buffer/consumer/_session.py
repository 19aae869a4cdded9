"""One consumer's hold on the manifest: the epoch raised, every read checked, batches taken off.

Who raises the epoch is the only one to take batches off from then on. Each of its writes is a
compare-and-set from a snapshot that has its epoch, so no write succeeds once a newer consumer has
raised it: that consumer's swap came in between, and the comparison fails.

An outcome that is not clear is never guessed. A raise is raised again, from whatever is there: the
manifest may carry the very epoch that was asked for, and be another consumer's who asked for the
same. A dequeue is looked up: it is done when the batches are off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from walengine.buffer._queue import Queue, Snapshot
from walengine.buffer.consumer._progress import Progress
from walengine.buffer.consumer._rules import check_epoch, check_first, first_position
from walengine.buffer.consumer._swaps import Swaps
from walengine.buffer.errors import FencedError
from walengine.buffer.manifest import Manifest
from walengine.buffer.metrics import Metrics

__all__ = ["Session"]

SNAPSHOT_AGE_MAX_S = 1.0
"""An older snapshot is read again before anything is delivered from it: a consumer that was stopped
meanwhile must find out that it was replaced."""


class Session:
    """The manifest, held under one epoch.

    Attributes:
        queue: Its objects.
        epoch: This consumer's.
        progress: How far it is.
        on_fenced: Called once, when that becomes known.
    """

    def __init__(self, queue: Queue, snapshot: Snapshot, acked: int, metrics: Metrics) -> None:
        self.queue = queue
        self.epoch = snapshot.manifest.epoch
        self.progress = Progress(acked, snapshot.manifest.sequences.start)
        self.on_fenced: Callable[[], None] = lambda: None
        self._fenced: FencedError | None = None
        self._metrics = metrics
        self._snapshot = snapshot
        self._read_at_s = asyncio.get_running_loop().time()
        self._keep(snapshot)

    @classmethod
    async def open(
        cls, queue: Queue, last_acked_sequence: int | None, *, allow_gap: bool, metrics: Metrics
    ) -> Session:
        """Raise the epoch, and position behind the last acked sequence.

        Raises:
            PairingError: The queue never got that far.
            SequenceGapError: Batches behind it are gone, and that is not allowed.
            ManifestLostError: The manifest went back while it was raised.
            FormatError: The manifest is broken, or its epoch the last one.
            StorageError: The store failed; the epoch may be raised all the same.
        """
        swaps = Swaps(queue, metrics)
        while True:
            snapshot = await swaps.read()
            acked = first_position(
                snapshot.manifest, last_acked_sequence, allow_gap=allow_gap, queue=queue.name
            )
            swapped = await swaps.swap(snapshot, snapshot.manifest.raise_epoch())
            if swapped is not None:
                return cls(queue, swapped, acked, metrics)

    @property
    def is_fenced(self) -> bool:
        """Whether a newer consumer is known to have taken over."""
        return self._fenced is not None

    @property
    def queue_length(self) -> int:
        """How many batches the newest manifest seen lists."""
        return len(self._snapshot.manifest)

    def refuse_fenced(self) -> None:
        """Raise FencedError if a newer consumer is known to have taken over."""
        if self._fenced is not None:
            raise FencedError(*self._fenced.args, object=self._fenced.object)

    def listed(self, sequence: int) -> Manifest | None:
        """Return the manifest if a snapshot that is fresh enough lists this sequence, or None."""
        age_s = asyncio.get_running_loop().time() - self._read_at_s
        known = self._snapshot.manifest
        is_listed = not self.is_fenced and sequence in known.sequences
        return known if is_listed and age_s < SNAPSHOT_AGE_MAX_S else None

    async def read(self) -> Snapshot:
        """Return the manifest as it is now, if it is still this consumer's.

        Raises:
            FencedError: It is a newer consumer's; so from now on, always.
            ManifestLostError: It is gone, or went back.
            SequenceGapError: Somebody else took batches off.
            FormatError: Its framing is broken.
            StorageError: The store failed.
        """
        return await self._checked(self.queue.read_manifest)

    async def dequeue(self, through_sequence: int) -> None:
        """Take the batches up to this sequence off the manifest.

        Raises:
            FencedError: As with ``read``, and so on.
            StorageError: The store failed; they may be off all the same.
        """
        self.progress.ask(through_sequence)
        swaps = Swaps(self.queue, self._metrics)
        while True:
            snapshot = await self._checked(swaps.read)
            if snapshot.manifest.sequences.start > through_sequence:
                break
            swapped = await swaps.swap(snapshot, snapshot.manifest.dequeue(through_sequence))
            if swapped is not None:
                self._keep(swapped)
                break
        self.progress.dequeue(through_sequence)

    async def _checked(self, read: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
        self.refuse_fenced()
        began_s = asyncio.get_running_loop().time()
        snapshot = await read()
        try:
            check_epoch(snapshot.manifest, self.epoch, queue=self.queue.name)
        except FencedError as error:
            self._fence(error)
            raise
        check_first(snapshot.manifest, self.progress.asked, queue=self.queue.name)
        self._read_at_s = max(self._read_at_s, began_s)
        self._keep(snapshot)
        return snapshot

    def _fence(self, error: FencedError) -> None:
        if self._fenced is None:
            self._fenced = error.with_traceback(None)
            self.on_fenced()

    def _keep(self, snapshot: Snapshot) -> None:
        # Of reads that overlapped the older one may return last: then it is read again sooner.
        self._snapshot = snapshot
        self._metrics.set("buffer.queue_length", self.queue_length)
