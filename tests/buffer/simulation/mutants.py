"""Deliberate bugs in the buffer, switched on from here: each replaces one guard by nothing.

A simulation that finds no violation proves something only if it finds these.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from simulation.plan import KINDS
from walengine.buffer import StorageError, location
from walengine.buffer._queue import Queue, Snapshot
from walengine.buffer.collector import _choice, _pass
from walengine.buffer.collector._choice import Candidate, Keep, References
from walengine.buffer.consumer import _session
from walengine.buffer.producer import _append, _pipeline
from walengine.buffer.producer._names import Names
from walengine.buffer.producer._verdict import Judgement

LONG_AGO_MS = 0
SWAP = Queue.swap
FORM_GROUP = _append.form_group


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        name: As docs/RELIABILITY.md has it.
        bug: In words.
        patches: What is replaced: an object, the name of its attribute, the replacement.
        options: Of the run, which it switches off.
        kinds: Of the runs that can show it.
    """

    name: str
    bug: str
    patches: tuple[tuple[Any, str, Callable[..., Any]], ...] = ()
    options: tuple[str, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)

    @contextlib.contextmanager
    def alive(self) -> Iterator[dict[str, bool]]:
        """Switch it on; yields options for the run."""
        with contextlib.ExitStack() as stack:
            for owner, attribute, replacement in self.patches:
                assert attribute in vars(owner), f"{owner} has no {attribute}: the seam has moved"
                stack.enter_context(mock.patch.object(owner, attribute, replacement))
            yield dict.fromkeys(self.options, False)


def nothing(*_args, **_options):
    """Look the other way."""


async def overwrite(self, snapshot, manifest):
    """Swap without comparing."""
    del snapshot
    await self.store.put(self.manifest_path, manifest.data)
    there = await self.store.get(self.manifest_path)
    swapped = Snapshot(manifest, there.etag)
    self._keep(swapped)
    return swapped


async def believe(self, snapshot, manifest):
    """Swap, and take an unclear outcome for success."""
    try:
        return await SWAP(self, snapshot, manifest)
    except StorageError as error:
        if not error.unclear:
            raise
        return Snapshot(manifest, "an etag that nobody knows")


def backwards(*arguments):
    """Form a group as always, and turn it round."""
    group = FORM_GROUP(*arguments)
    group.batches.reverse()
    return group


def know_nothing(_manifest, _attempts, _identities):
    """Find no batch in any manifest."""
    return Judgement({}, frozenset(), [])


def judged_by(*times):
    """Return the collector's judge with these times of an object only, of "name" and "store"."""

    def judge(info, references, *, data_path_prefix, now_ms, grace_ms):
        name = location.parse_batch_name(info.name, data_path_prefix)
        if name is None:
            return Keep.FOREIGN
        known_ms = {"name": name.time_ms, "store": info.last_modified_ms}
        if now_ms - max((known_ms[time] for time in times), default=LONG_AGO_MS) <= grace_ms:
            return Keep.YOUNG
        reason = references.keep(info.name, name.time_ms)
        return reason or Candidate(info.name, name.time_ms, info.size_bytes)

    return judge


def keep_listed(self, name, time_ms):
    """Keep what is listed, whatever else is there."""
    del time_ms
    return Keep.LISTED if name in self.locations else None


def refusal_without(guard):
    """Return the collector's refusal without one of its reasons."""
    real = _choice.refusal

    def refusal(first, now, references):
        reason = real(first, now, references)
        return None if reason and guard in reason else reason

    return refusal


def never_empty(first, now, references):
    """Refuse for another epoch only."""
    reason = _choice.refusal(first, now, references)
    return reason if reason and "newer consumer" in reason else None


def read_once(real):
    """Return the making of a pass that takes its first look for the second, too."""

    @functools.wraps(real)
    def make(self, queue, read, **options):
        looks = []

        async def look():
            if not looks:
                looks.append(await read())
            return looks[0]

        real(self, queue, look, **options)

    return make


def parse_anywhere(name, _prefix=None):
    """Take a batch for ours wherever it is."""
    return location.parse_batch_name(name)


async def look_away(_queue, _batch, _location, _counters):
    """Look after nothing."""


def stored(_self, batch):
    """Take any name that has an object."""
    return batch.name is not None


TAKEN_OVER = ("collector", "takeovers", "everything")

MUTANTS = (
    Mutant("M13", "a consumer does not look at the epoch", ((_session, "check_epoch", nothing),)),
    Mutant("M14", "compare-and-set is an overwrite", ((Queue, "swap", overwrite),)),
    Mutant("M16", "after an unclear swap nobody looks", ((_append, "judge", know_nothing),)),
    Mutant("M17", "the collector knows no grace period", ((_pass, "judge", judged_by()),)),
    Mutant("Q1", "names of any age are listed", ((Names, "is_fresh", stored),)),
    Mutant(
        "Q2",
        "what was listed late is not looked after",
        ((_pipeline, "look_after", look_away),),
        kinds=("sleepers",),
    ),
    Mutant("Q3", "the sink forgets identities", options=("sink_knows_identities",)),
    Mutant(
        "Q4", "the collector sees an age in the name alone", ((_pass, "judge", judged_by("name")),)
    ),
    Mutant(
        "Q5",
        "the collector sees an age in the store's time alone",
        ((_pass, "judge", judged_by("store")),),
        kinds=("clocks", "everything"),
    ),
    Mutant("Q6", "the collector takes what is listed", ((References, "keep", nothing),)),
    Mutant(
        "Q7",
        "the collector takes what is newer than the oldest listed batch",
        ((References, "keep", keep_listed),),
        kinds=("sleepers", "collector", "everything", "lost manifest"),
    ),
    Mutant(
        "Q8",
        "the collector does not look at the manifest again",
        ((_pass.Pass, "__init__", read_once(_pass.Pass.__init__)),),
    ),
    Mutant(
        "Q9",
        "the collector works on a missing or new manifest",
        ((_pass, "refusal", never_empty),),
    ),
    Mutant(
        "Q10",
        "a collector by hand goes on when the epoch was raised",
        ((_pass, "refusal", refusal_without("newer consumer")),),
        kinds=TAKEN_OVER,
    ),
    Mutant(
        "Q11",
        "the collector takes what lies deeper",
        ((_choice, "parse_batch_name", parse_anywhere),),
    ),
    Mutant("Q12", "an unclear swap counts as done", ((Queue, "swap", believe),)),
    Mutant("Q13", "a group is listed backwards", ((_append, "form_group", backwards),)),
)
