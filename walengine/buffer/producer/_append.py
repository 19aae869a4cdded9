"""The one task that appends to the manifest: looks, chooses a group, swaps, and settles what came.

    look      read the manifest if the newest one known may be old; find there what appends of
              unclear outcome have done (_verdict.py)
    choose    the front of the line, as far as it is stored, fresh and fits (_group.py)
    swap      compare and set
    settle    listed, lost to somebody else, failed, or nobody knows; then look again

It lives while the front of the line is stored. The group is chosen anew for each swap, so it grows
while the task waits.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from walengine.buffer._pace import Pace
from walengine.buffer._queue import Queue, Snapshot
from walengine.buffer.entry import Listing
from walengine.buffer.errors import ObjectTooLargeError, StorageError
from walengine.buffer.manifest import Manifest
from walengine.buffer.metrics import Metrics
from walengine.buffer.producer._counters import Counters
from walengine.buffer.producer._forming import Batch
from walengine.buffer.producer._group import form_group
from walengine.buffer.producer._held import Held
from walengine.buffer.producer._names import Names
from walengine.buffer.producer._verdict import Attempt, Judgement, Listed, judge

__all__ = ["Appender", "Line"]

log = logging.getLogger("walengine.buffer")

HELD_UP_POLL_S: Final = 0.25
"""How often a manifest without room is looked at again."""

APPENDED_INLINE_BYTES_MAX: Final = 256 * 1024
"""A larger manifest is made off the event loop: all of it is copied."""


class Line(Protocol):
    """Who holds the batches, and wants to know what becomes of them."""

    held: Held

    def listed(self, batch: Batch, listed: Listed) -> None:
        """The batch is in the queue: it leaves the line."""
        ...

    def renew(self, batch: Batch) -> None:
        """The batch's name is too old: upload it again."""
        ...

    def hold_up(self, is_full: bool) -> None:
        """The manifest has no room for the next batch, or has some again."""
        ...


class Appender:
    """Appends what is in line.

    Args:
        line: Whose batches.
        queue: Where.
        names: Tells old names from young ones.
        metrics: Counts swaps.
        counters: Counts the rest.

    Attributes:
        attempts: Appends whose outcome is not known.
    """

    def __init__(
        self, line: Line, queue: Queue, names: Names, metrics: Metrics, counters: Counters
    ) -> None:
        self._owner = line
        self._queue = queue
        self._names = names
        self._metrics = metrics
        self._counters = counters
        self._pace = Pace(queue.environment.random)
        self._loop = asyncio.get_running_loop()
        self._must_look = False
        self._is_contended = False
        self.attempts: list[Attempt] = []

    @property
    def has_work(self) -> bool:
        """Whether the front of the line can be appended."""
        line = self._owner.held.line
        return bool(line) and line[0].is_stored

    def forget(self) -> None:
        """What was in line has been given up: its attempts concern nobody any more."""
        self.attempts.clear()
        self._must_look = True

    async def run(self) -> None:
        """Append until the front of the line is not stored."""
        try:
            while self.has_work:
                snapshot = await self._look()
                if snapshot is not None:
                    await self._append_some(snapshot)
        finally:
            self._owner.hold_up(False)

    # ---- look ------------------------------------------------------------------------------------

    async def _look(self) -> Snapshot | None:
        """Return the manifest to append to, or None after a failure and a wait."""
        known = self._queue.latest
        if known is not None and not (self._must_look or self._is_contended):
            return known
        try:
            snapshot = await self._queue.read_manifest()
        except ObjectTooLargeError as error:
            await self._hold_up(error)
            return None
        except StorageError as error:
            await self._after_error(error)
            return None
        if snapshot is known and not self._must_look:
            self._is_contended = False
        self._must_look = False
        self._settle_found(snapshot.manifest)
        return snapshot

    def _settle_found(self, manifest: Manifest) -> None:
        """Settle what the manifest shows to be listed, by whichever attempt."""
        line = self._owner.held.line
        if not line:
            return
        judgement: Judgement = judge(manifest, self.attempts, {each.identity for each in line})
        self.attempts = judgement.open
        for batch in list(line):
            if (listed := judgement.listed.get(batch.identity)) is not None:
                self._counters.found_listed += 1
                self._owner.listed(batch, listed)
            elif batch.identity in judgement.unknown:
                self._counters.maybe_doubled += 1
                batch.maybe_listed = True

    # ---- choose ----------------------------------------------------------------------------------

    async def _append_some(self, snapshot: Snapshot) -> None:
        room_bytes = self._queue.max_manifest_bytes - len(snapshot.manifest.data)
        group = form_group(self._owner.held.line, room_bytes, self._names.is_fresh)
        for batch in group.stale:
            self._counters.names_renewed += 1
            self._owner.renew(batch)
        if group.batches:
            self._owner.hold_up(False)
            await self._append(snapshot, group.batches)
        elif group.is_held_up:
            await self._hold_up(None)

    async def _hold_up(self, error: StorageError | None) -> None:
        """Wait for the consumer to take something out of the manifest."""
        if error is not None:
            self._note(error)
        self._owner.hold_up(True)
        self._must_look = True
        await asyncio.sleep(HELD_UP_POLL_S)

    # ---- swap and settle -------------------------------------------------------------------------

    async def _append(self, snapshot: Snapshot, batches: list[Batch]) -> None:
        listings = [batch.listing() for batch in batches]
        first_sequence = snapshot.manifest.next_sequence
        attempt = Attempt(first_sequence, tuple(each.location for each in listings))
        appended = await self._appended(snapshot.manifest, listings, batches)
        # The making took time, if it was done elsewhere.
        if not all(map(self._names.is_fresh, batches)):
            return
        # Known before it begins: if this is cancelled, the attempt is of unclear outcome.
        was_open = attempt in self.attempts
        if not was_open:
            self.attempts.append(attempt)
        began_at = self._loop.time()
        self._counters.swaps += 1
        self._metrics.count("buffer.manifest_writes")
        try:
            swapped = await self._queue.swap(snapshot, appended)
        except StorageError as error:
            if error.unclear:
                self._counters.unclear_appends += 1
            elif not was_open:
                self.attempts.remove(attempt)
            await self._after_error(error)
            return
        self._pace.measured(self._loop.time() - began_at)
        if swapped is None:
            if not was_open:
                self.attempts.remove(attempt)
            await self._after_conflict()
            return
        # What every earlier attempt compares with is gone: none of them can happen any more.
        self.attempts.clear()
        self._pace.succeeded()
        for sequence, (batch, listing) in enumerate(
            zip(batches, listings, strict=True), first_sequence
        ):
            self._owner.listed(batch, Listed(sequence, listing.location, is_gone=False))

    async def _appended(
        self, manifest: Manifest, listings: list[Listing], batches: list[Batch]
    ) -> Manifest:
        more_bytes = sum(batch.manifest_bytes() for batch in batches)
        if len(manifest.data) + more_bytes <= APPENDED_INLINE_BYTES_MAX:
            return manifest.append(listings)
        return await self._queue.environment.offload(lambda: manifest.append(listings))

    async def _after_conflict(self) -> None:
        self._counters.conflicts += 1
        self._metrics.count("buffer.manifest_conflicts")
        self._must_look = self._is_contended = True
        if wait_s := self._pace.after_conflict():
            await asyncio.sleep(wait_s)

    async def _after_error(self, error: StorageError) -> None:
        self._counters.append_errors += 1
        text = "%s: an append failed and is tried again: %s"
        log.log(self._pace.level(), text, self._queue.name, error)
        self._note(error)
        self._must_look = True
        await asyncio.sleep(self._pace.after_error())

    def _note(self, error: StorageError) -> None:
        for batch in self._owner.held.line:
            batch.error = error
