"""The objects of one queue in the store: its manifest, read and swapped, and its owner object.

The manifest is one object that everybody swaps by compare-and-set. Each change moves its next
sequence, its epoch or its first sequence, and none of the three ever goes back. So:

- its content never repeats, and an etag that is a hash of the content is as good as a version;
- a manifest that was seen and is gone, or has gone back, was deleted or replaced by somebody else:
  ``ManifestLostError``. Writing on would hand out sequences a second time, so it is never made
  anew by who has seen it.

Reads are conditional: what did not change is not sent again, and not parsed again.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from walengine.buffer._environment import Environment
from walengine.buffer.config import ConsumerConfig, ProducerConfig
from walengine.buffer.errors import ManifestLostError, ObjectTooLargeError
from walengine.buffer.location import parse_batch_name
from walengine.buffer.manifest import Manifest
from walengine.buffer.pairing import ensure_owner
from walengine.buffer.store.port import NOT_MODIFIED, ObjectStore, StoredObject, Unchanged

__all__ = ["Queue", "Snapshot", "went_back"]

log = logging.getLogger("walengine.buffer")

PARSED_INLINE_BYTES_MAX = 256 * 1024
"""A larger manifest is parsed off the event loop: its entries are walked one by one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The manifest as it was at one moment.

    Attributes:
        manifest: It; the empty one where there is no object.
        etag: What ``swap`` compares; None where there is no object.
    """

    manifest: Manifest
    etag: str | None

    @property
    def exists(self) -> bool:
        """Whether there is an object."""
        return self.etag is not None


class Queue:
    """The store's objects of one queue, for one producer or consumer.

    Attributes:
        environment: The store, and the rest of the world.
        data_path_prefix: Batches are below it.
        manifest_path: Name of the manifest.
        max_manifest_bytes: A larger one is not read.
        latest: The newest snapshot seen, by a read or by a swap; None before the first.
    """

    def __init__(self, environment: Environment, config: ProducerConfig | ConsumerConfig) -> None:
        self.environment = environment
        self.data_path_prefix = config.data_path_prefix
        self.manifest_path = config.manifest_path
        self.max_manifest_bytes = config.max_manifest_bytes
        self.latest: Snapshot | None = None

    @property
    def store(self) -> ObjectStore:
        """Where the objects are."""
        return self.environment.store

    @property
    def name(self) -> str:
        """What the queue is called in messages: the store and the manifest."""
        return f"{self.store.url} {self.manifest_path}"

    async def pair(self) -> list[str]:
        """Check that the prefix is this queue's, and claim it where nobody has.

        Returns:
            Warnings: sentences about what is there and should not be.

        Raises:
            PairingError: The prefix is another manifest's.
            StorageError: The store failed.
        """
        await ensure_owner(self.store, self.data_path_prefix, self.manifest_path)
        if await self.store.head(self.manifest_path) is not None:
            return []
        if (batch := await self._any_batch()) is None:
            return []
        warning = (
            f"{self.name}: there is no manifest, but there are batches, {batch} for one: a "
            "producer writes below this prefix for another manifest, or the manifest was deleted"
        )
        log.warning("%s", warning)
        return [warning]

    async def read_manifest(self) -> Snapshot:
        """Return the manifest as it is now, or the empty one where there is none.

        Reads may overlap each other and swaps: each is held against what was known when it began.

        Raises:
            ManifestLostError: One that was seen is gone, or has gone back.
            FormatError: Its framing is broken.
            ObjectTooLargeError: It is larger than max_manifest_bytes.
            StorageError: The store failed.
        """
        known = self.latest
        found = await self._get(known)
        if found is NOT_MODIFIED:
            assert known is not None  # noqa: S101 (nothing else is unchanged)
            return known
        if found is None:
            snapshot = Snapshot(Manifest.empty(self.manifest_path), None)
        else:
            snapshot = Snapshot(await self._parsed(found.data), found.etag)
        if known is not None and (problem := went_back(known, snapshot)):
            raise ManifestLostError(
                f"{self.name}: {problem}: it was deleted, or replaced by an older one or by "
                "another queue's; stop all producers and consumers and find out which",
                object=self.manifest_path,
            )
        self._keep(snapshot)
        return snapshot

    async def swap(self, snapshot: Snapshot, manifest: Manifest) -> Snapshot | None:
        """Write the manifest, if the one in the store is still the snapshot's.

        Args:
            snapshot: What the new manifest was made from; if that is no object, it is created.
            manifest: The new one, with something moved.

        Returns:
            The new snapshot, or None if somebody else was faster: nothing was written.

        Raises:
            StorageError: ``unclear`` says whether it may have been written all the same, now or in
                a moment.
        """
        data = manifest.data
        if snapshot.etag is None:
            etag = await self.store.create(self.manifest_path, data)
        else:
            etag = await self.store.replace(self.manifest_path, data, snapshot.etag)
        if etag is None:
            return None
        swapped = Snapshot(manifest, etag)
        self._keep(swapped)
        return swapped

    async def aclose(self) -> None:
        """Close the environment."""
        await self.environment.aclose()

    async def _get(self, known: Snapshot | None) -> StoredObject | Unchanged | None:
        limit = self.max_manifest_bytes
        try:
            if known is None or known.etag is None:
                return await self.store.get(self.manifest_path, max_bytes=limit)
            return await self.store.get_if_changed(self.manifest_path, known.etag, max_bytes=limit)
        except ObjectTooLargeError:
            raise ObjectTooLargeError(
                f"{self.name}: the manifest has more than {limit} bytes: let a consumer with a "
                "larger max_manifest_bytes catch up",
                object=self.manifest_path,
                max_bytes=limit,
            ) from None

    async def _parsed(self, data: bytes) -> Manifest:
        if len(data) <= PARSED_INLINE_BYTES_MAX:
            return Manifest.parse(data, self.manifest_path)
        return await self.environment.offload(lambda: Manifest.parse(data, self.manifest_path))

    def _keep(self, snapshot: Snapshot) -> None:
        # Of reads that overlapped, the older one may return last.
        if self.latest is None or went_back(self.latest, snapshot) is None:
            self.latest = snapshot

    async def _any_batch(self) -> str | None:
        """Return the name of some batch below the prefix."""
        # Every store's list is a generator; what is left of the listing need not be asked for.
        async with aclosing(cast("Any", self.store.list(self.data_path_prefix))) as found:
            async for info in found:
                if parse_batch_name(info.name, self.data_path_prefix):
                    return str(info.name)
        return None


def went_back(before: Snapshot, after: Snapshot) -> str | None:
    """Return what the later snapshot has less of than the earlier one, or None if it is later."""
    if before.exists and not after.exists:
        return f"the manifest is gone; it was at sequence {before.manifest.next_sequence}"
    old, new = before.manifest, after.manifest
    for what, was, is_now in (
        ("next sequence", old.next_sequence, new.next_sequence),
        ("epoch", old.epoch, new.epoch),
        ("first sequence", old.sequences.start, new.sequences.start),
    ):
        if is_now < was:
            return f"the manifest's {what} went back from {was} to {is_now}"
    return None
