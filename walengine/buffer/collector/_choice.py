"""Which objects may be deleted: decisions, without a store in sight.

A batch object is garbage when no manifest lists it and none ever will. The second half cannot be
seen, so each guard here closes a way in which it could be wrong:

- **unreferenced**: no entry has its name, read before the listing of objects and again after it;
- **older than the oldest listed batch**: what a producer is about to list is newer than that;
- **older than the grace period**, by the later of the name's time and the store's: a producer that
  uploads, and swaps the manifest minutes later, is given the time. Producers here never list a
  name older than two minutes, and the grace period is at least four;
- **a direct child of the prefix with a batch's name**: everything else is somebody else's.

And nothing at all is deleted on the word of a manifest that is missing, that has never listed a
batch, whose epoch is another consumer's, or with an entry that cannot be read: what it does not
list for such a reason is not garbage.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from walengine.buffer._queue import Snapshot
from walengine.buffer.location import parse_batch_name
from walengine.buffer.manifest import Manifest
from walengine.buffer.store.port import ObjectInfo

__all__ = ["Candidate", "Keep", "References", "judge", "refusal"]


class Keep(enum.Enum):
    """Why an object is not deleted."""

    FOREIGN = "not a batch directly below the prefix"
    LISTED = "in the manifest"
    NEWER_THAN_OLDEST = "not older than the oldest listed batch"
    YOUNG = "within the grace period"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An object that may be deleted.

    Attributes:
        name: Its name.
        time_ms: The time in its name.
        size_bytes: Its size.
    """

    name: str
    time_ms: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class References:
    """What a manifest keeps alive.

    Attributes:
        locations: What it lists.
        oldest_ms: The earliest time in a listed batch's name; None if there is none to go by.
        unreadable: The first sequence whose location cannot be read, or None.
    """

    locations: frozenset[str]
    oldest_ms: int | None
    unreadable: int | None

    @classmethod
    def of(cls, manifest: Manifest) -> References:
        """Return what this manifest keeps alive."""
        listed = [manifest.location(sequence) for sequence in manifest.sequences]
        names = map(parse_batch_name, listed)
        times_ms = [name.time_ms for name in names if name is not None]
        unreadable = manifest.sequences[listed.index("")] if "" in listed else None
        return cls(frozenset(listed), min(times_ms, default=None), unreadable)

    def keep(self, name: str, time_ms: int) -> Keep | None:
        """Return why an object of this name and time must stay, or None."""
        if name in self.locations:
            return Keep.LISTED
        if not self.locations:
            return None
        if self.oldest_ms is None or time_ms >= self.oldest_ms:
            return Keep.NEWER_THAN_OLDEST
        return None


def refusal(first: Snapshot, now: Snapshot, references: References) -> str | None:
    """Return why nothing may be deleted on the word of this manifest, or None.

    Args:
        first: The manifest at the beginning of the pass.
        now: The manifest as it is now.
        references: What it keeps alive.
    """
    if not now.exists:
        return "there is no manifest"
    if now.manifest.next_sequence == 0:
        return "the manifest has never listed a batch"
    if now.manifest.epoch != first.manifest.epoch:
        return "a newer consumer took the queue over during the pass"
    if references.unreadable is not None:
        return f"nobody knows which batch sequence {references.unreadable} means"
    return None


def judge(
    info: ObjectInfo, references: References, *, data_path_prefix: str, now_ms: int, grace_ms: int
) -> Candidate | Keep:
    """Return the object as a candidate for deletion, or why it stays.

    Args:
        info: What a listing of the prefix showed of it.
        references: Of the manifest read before the listing.
        data_path_prefix: Normalised.
        now_ms: When the listing began, in ms since 1970.
        grace_ms: The grace period.
    """
    name = parse_batch_name(info.name, data_path_prefix)
    if name is None:
        return Keep.FOREIGN
    if now_ms - max(name.time_ms, info.last_modified_ms) <= grace_ms:
        return Keep.YOUNG
    reason = references.keep(info.name, name.time_ms)
    return reason or Candidate(info.name, name.time_ms, info.size_bytes)
