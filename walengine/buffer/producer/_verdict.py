"""Did it happen? What a manifest, read after an append of unclear outcome, says about it.

An append is a swap: all of its batches are listed at the sequences it asked for, or none is. So one
look at the manifest decides, by the first of these that holds:

    a batch's identity is listed                           it is in the queue, wherever
    every sequence asked for that is listed is listed      all of it happened, the batches that
    with the append's own location, and one is             were dequeued meanwhile included
    a sequence asked for is listed with another location   it did not happen, and never will
    a sequence asked for is still to come                  it did not happen, so far
    all of them were dequeued                              nobody knows

In the last three the batches are appended again, under the same identities. If nobody knows, that
may list them twice, and a sink that keeps identities drops the second. "So far" is safe too: what
comes late swaps the very manifest that the next append swaps, and only one of the two succeeds.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from typing import NamedTuple

from walengine.buffer.location import identity_of
from walengine.buffer.manifest import Manifest

__all__ = ["Attempt", "Judgement", "Listed", "Verdict", "judge", "verdict_on"]


class Attempt(NamedTuple):
    """An append whose outcome is not known.

    Attributes:
        first_sequence: What the first of its batches was to get.
        locations: Of its batches, in order.
    """

    first_sequence: int
    locations: tuple[str, ...]


class Verdict(enum.Enum):
    """What is known of an attempt by itself."""

    HAPPENED = "its batches are in the queue, or were dequeued from it"
    REFUTED = "its place was taken by others"
    TO_COME = "its place is still free"
    UNKNOWN = "its place was taken and dequeued"


class Listed(NamedTuple):
    """Where a batch is, or was, in the queue.

    Attributes:
        sequence: Its place.
        location: The name under which it is listed.
        is_gone: It was dequeued already.
    """

    sequence: int
    location: str
    is_gone: bool


class Judgement(NamedTuple):
    """What is known of all.

    Attributes:
        listed: By identity, the batches that are in the queue or were dequeued from it.
        unknown: Identities that may have been.
        open: Attempts that may still happen.
    """

    listed: dict[str, Listed]
    unknown: frozenset[str]
    open: list[Attempt]


def judge(
    manifest: Manifest, attempts: Iterable[Attempt], identities: Collection[str]
) -> Judgement:
    """Judge all attempts by one look at the manifest.

    Args:
        manifest: As it is after them.
        attempts: Those whose outcome is not known.
        identities: Of the batches that are not known to be listed.
    """
    listed = {
        identity: Listed(sequence, location, is_gone=False)
        for identity, (sequence, location) in manifest.find(identities).items()
    }
    unknown: set[str] = set()
    still_open: list[Attempt] = []
    for attempt in attempts:
        verdict = verdict_on(manifest, attempt)
        if verdict is Verdict.HAPPENED:
            for sequence, location in enumerate(attempt.locations, attempt.first_sequence):
                is_gone = sequence < manifest.sequences.start
                listed.setdefault(identity_of(location), Listed(sequence, location, is_gone))
        elif verdict is Verdict.UNKNOWN:
            unknown.update(map(identity_of, attempt.locations))
        elif verdict is Verdict.TO_COME:
            still_open.append(attempt)
    return Judgement(listed, frozenset(unknown - listed.keys()), still_open)


def verdict_on(manifest: Manifest, attempt: Attempt) -> Verdict:
    """Judge one attempt by the sequences that it asked for."""
    first, last = manifest.sequences.start, manifest.next_sequence
    if attempt.first_sequence >= last:
        return Verdict.TO_COME
    verdict = Verdict.UNKNOWN
    for sequence, location in enumerate(attempt.locations, attempt.first_sequence):
        if sequence < first:
            continue
        if sequence >= last or manifest.location(sequence) != location:
            return Verdict.REFUTED
        verdict = Verdict.HAPPENED
    return verdict
