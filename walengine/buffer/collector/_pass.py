"""One pass of the collector: look at the manifest, at the objects, at the manifest again; delete.

The second look is what makes the first one safe to act on. A batch that was listed after the first
is in the second; one that was taken off after the second was listed before it, so its consumer has
acked it. What the second look says of the manifest itself counts as well: if it is gone, or another
consumer's, nothing is deleted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from walengine.buffer._queue import Queue, Snapshot
from walengine.buffer.collector._choice import Candidate, Keep, References, judge, refusal
from walengine.buffer.errors import StorageError
from walengine.buffer.pairing import check_owner

__all__ = ["Collection", "Pass"]

DELETES_AT_ONCE: Final = 16

LOOK_AGE_MAX_S: Final = 20.0
"""An older look at the manifest is taken again before anything more is deleted."""


@dataclass(slots=True)
class Collection:
    """What a pass of the collector found and did.

    Attributes:
        refused: Why it deleted nothing at all, or None.
        objects: How many objects there are below the prefix.
        deleted: What was deleted; of a dry run, what would have been.
        failed: What could not be deleted, each with the reason; the next pass tries again.
        kept: How many stay, by reason.
    """

    refused: str | None = None
    objects: int = 0
    deleted: list[Candidate] = field(default_factory=list)
    failed: list[tuple[Candidate, str]] = field(default_factory=list)
    kept: Counter[Keep] = field(default_factory=Counter)

    @property
    def deleted_bytes(self) -> int:
        """The size of what was deleted."""
        return sum(each.size_bytes for each in self.deleted)


class Pass:
    """One pass.

    Args:
        queue: Whose objects.
        read: Reads the manifest; raises if it is not the caller's any more.
        now_ms: The time, in ms since 1970 by the store's clock.
        grace_ms: The grace period.
        dry_run: Delete nothing.
    """

    def __init__(
        self,
        queue: Queue,
        read: Callable[[], Awaitable[Snapshot]],
        *,
        now_ms: int,
        grace_ms: int,
        dry_run: bool = False,
    ) -> None:
        self._queue = queue
        self._read = read
        self._now_ms = now_ms
        self._grace_ms = grace_ms
        self._dry_run = dry_run
        self._result = Collection()

    async def run(self) -> Collection:
        """Run it, once.

        Raises:
            PairingError: The prefix is another manifest's.
            QueueError: Whatever reading the manifest raises.
            StorageError: The store failed before anything was deleted.
        """
        result, queue = self._result, self._queue
        if not await check_owner(queue.store, queue.data_path_prefix, queue.manifest_path):
            result.refused = "nobody owns the prefix: producers and consumers claim it at opening"
            return result
        first = await self._read()
        references = await self._references(first)
        result.refused = refusal(first, first, references)
        if result.refused:
            return result
        left = await self._candidates(references)
        while left:
            looked = self._moment()
            left = await self._still_garbage(first, left)
            while left and self._passed_s(looked) < LOOK_AGE_MAX_S:
                await asyncio.gather(*map(self._delete_one, left[:DELETES_AT_ONCE]))
                del left[:DELETES_AT_ONCE]
        return result

    async def _still_garbage(self, first: Snapshot, left: list[Candidate]) -> list[Candidate]:
        """Look at the manifest again; return what of this may go: nothing, if it is refused."""
        now = await self._read()
        references = await self._references(now)
        self._result.refused = refusal(first, now, references)
        if self._result.refused:
            return []
        return [each for each in left if self._is_garbage(each, references)]

    def _moment(self) -> tuple[float, float]:
        # One of the clocks stands while the machine sleeps, the other may be set back.
        return asyncio.get_running_loop().time(), self._queue.environment.wall_ms() / 1000

    def _passed_s(self, since: tuple[float, float]) -> float:
        return max(now - then for now, then in zip(self._moment(), since, strict=True))

    async def _references(self, snapshot: Snapshot) -> References:
        return await self._queue.environment.offload(lambda: References.of(snapshot.manifest))

    async def _candidates(self, references: References) -> list[Candidate]:
        found = []
        prefix = self._queue.data_path_prefix
        async for info in self._queue.store.list(prefix):
            self._result.objects += 1
            verdict = judge(
                info, references,
                data_path_prefix=prefix, now_ms=self._now_ms, grace_ms=self._grace_ms,
            )  # fmt: skip
            if isinstance(verdict, Candidate):
                found.append(verdict)
            else:
                self._result.kept[verdict] += 1
        return found

    def _is_garbage(self, candidate: Candidate, references: References) -> bool:
        reason = references.keep(candidate.name, candidate.time_ms)
        if reason is not None:
            self._result.kept[reason] += 1
        return reason is None

    async def _delete_one(self, candidate: Candidate) -> None:
        try:
            if not self._dry_run:
                await self._queue.store.delete(candidate.name)
        except StorageError as error:
            self._result.failed.append((candidate, str(error)))
        else:
            self._result.deleted.append(candidate)


Collection.__module__ = "walengine.buffer"
