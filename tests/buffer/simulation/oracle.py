"""The invariants, judged from the outside: from the store's history, the rows and what was told.

B0  everything comes to an end, and nobody is refused who has no reason to be
B1  what await_durable confirmed is delivered
B2  a sink that stores sequence, identity and data in one transaction has each entry once
B3  a producer's entries keep their order
B4  once an epoch is raised, no consumer of an older one changes the manifest
B5  the manifest is one chain: each version is the one before with batches appended, or dequeued, or
    the epoch raised; nobody lists his batch beside itself; nobody writes on who saw it go back
B6  the collector takes what nobody lists or is about to list, and in the end all of that

A violation ends the run at once, in the middle of the event that shows it.
"""

from __future__ import annotations

import re

from simulation import decoder
from simulation.mind import NAME_AGE_MAX_MS, Mind
from walengine.buffer import (
    FencedError,
    ManifestLostError,
    PairingError,
    SequenceGapError,
    StorageError,
)

OPERATOR = "operator"
MANIFEST = "ingest/manifest"
PREFIX = "ingest"
EMPTY_BATCH = b"\0\0\0\0\0\1\0"
BATCH_NAME = re.compile(PREFIX + r"/[0-7][0-9A-HJKMNP-TV-Z]{25}\.batch")


class InvariantError(AssertionError):
    """An invariant is broken; the first word of the message says which."""


class Oracle:
    """Watches the store; is told what producers were told.

    Args:
        world: For the time.
        objects: Watched from now on.
        grace_ms: The collectors'.
    """

    def __init__(self, world, objects, grace_ms):
        self.world = world
        self.objects = objects
        self.grace_ms = grace_ms
        self.broken = None  # the first violation
        self.version = decoder.EMPTY
        self.listed = {}  # location -> sequence, of the version that is there
        self.lost = False  # the operator deleted the manifest
        self.batches = {}  # sequence -> location, ever
        self.contents = {}  # location -> the entries last put there
        self.ever_listed = set()  # entries
        self.appended = {}  # (who, identity) -> sequence
        self.epochs = {}  # who -> the highest epoch it raised
        self.minds = {}  # who -> Mind
        # A deletion may arrive when its collector has a new mind already.
        self.doomed = {}  # (who, name) -> why it ought not to be deleted
        self.calls = {}  # (producer, call) -> entries, in the order of the calls
        self.durable = set()
        self.excused = set()  # sequences that an operator gave up
        self.versions = {}  # etag -> Version
        self.restored = False  # an operator restored the database
        self.strangers = ()  # names of objects that are not the queue's
        self.skips = 0
        self.dequeued = 0
        self.collected = 0
        objects.watchers.append(self._changed)

    # ---- what is told ----------------------------------------------------------------------------

    def produced(self, who, call, entries):
        """A producer was asked to take these."""
        self.calls[who, call] = entries

    def withdrawn(self, who, call):
        """The producer had not taken them, and now must not."""
        self.world.note(who, "withdraws", call)
        del self.calls[who, call]

    def confirmed(self, who, call):
        """A producer said that this call is durable."""
        self.world.note(who, "durable", call)
        self.durable.add((who, call))
        unlisted = set(self.calls[who, call]) - self.ever_listed
        self._check("B1", not unlisted, f"{who} calls {sorted(unlisted)} durable: never listed")

    def asked(self, process, verb, name, data):
        """A process asks something of the store: whether it may is judged by what it knows now."""
        mind = self.mind_of(process)
        if verb == "delete":
            problems = mind.problems(name, self.epochs.get(process.name), self.grace_ms)
            self.doomed[process.name, name] = list(problems)
        elif verb == "list":
            mind.begin_pass()
        elif verb == "put":
            mind.put_ms[name] = self.world.now_ms()
        elif name == MANIFEST and data is not None:
            for location, age_ms in mind.old_names(data, self.world.now_ms()):
                message = f"{process.name} lists {location}, a name {age_ms / 1000:.0f} s old"
                self._check("B6", False, message)

    def answered(self, process, verb, name, result):
        """An answer of the store reached a process."""
        mind = self.mind_of(process)
        if verb == "list":
            mind.listed_at_ms = self.world.now_ms() + process.skew_at_first_ms
            mind.read_since = False
            mind.infos = {info.name: info for info in result} if isinstance(result, list) else {}
        elif name == MANIFEST and verb in {"get", "get_if_changed"}:
            mind.read(result)
        elif name == MANIFEST and isinstance(result, str):
            mind.saw(self.versions[result])

    def opens_anew(self, process):
        """A program of this process begins with a new consumer, which has seen nothing."""
        self.minds[process.name] = Mind()

    def mind_of(self, process):
        return self.mind_named(process.name)

    def mind_named(self, who):
        return self.minds.setdefault(who, Mind())

    def consumed(self, batch):
        """A consumer was given this batch."""
        location, entries = batch.location, list(map(bytes, batch.entries))
        listed = self.batches[batch.sequence]
        self._check("B2", location == listed or self.lost, f"{location}, {listed} is listed")
        self._check("B2", entries == self.contents[location], f"{location} has other entries")

    def refused(self, who, error):
        """A program was told that it cannot go on, or that a batch failed."""
        told_of_loss = isinstance(error, (ManifestLostError, PairingError, SequenceGapError))
        strange = not isinstance(error, (StorageError, FencedError))
        self._check("B0", self.lost or not told_of_loss, f"{who} is refused: {error}")
        self._check("B0", told_of_loss or not strange, f"{who} is told {error!r}")

    def skipped(self, sequence):
        """A sink went past a batch that is not there."""
        self.world.note("skipped", sequence)
        self.skips += 1

    def give_up(self, known):
        """An operator lets a restored database go on behind a gap; returns the first sequence."""
        self._check("B1", self.restored, f"a gap behind {known}, and no backup was restored")
        first = self.version.next_sequence - len(self.version.entries)
        self.world.note("given up", known + 1, "to", first - 1)
        self.excused.update(range(known + 1, first))
        return first

    # ---- the store's history ---------------------------------------------------------------------

    def _changed(self, happened):
        if happened.name == MANIFEST:
            self._manifest(happened)
        elif happened.data is None:
            self._deleted(happened)
        elif is_batch(happened.name):
            self.contents[happened.name] = decoder.batch(happened.data)

    def _manifest(self, happened):
        if happened.data is None:
            self._check("B5", happened.who == OPERATOR, f"{happened.who} deleted the manifest")
            self.lost = True
            self.version, self.listed = decoder.EMPTY, {}
            return
        before, after = self.version, decoder.manifest(happened.data)
        who = happened.who
        self._noticed_loss(who, before)
        kind = _kind(before, after)
        if kind == "raised":
            self.epochs[who] = after.epoch
        elif kind == "dequeued":
            mine = self.epochs.get(who)
            fenced = mine != before.epoch and not self.lost
            self._check("B4", not fenced, f"{who} of epoch {mine} dequeues at {before.epoch}")
            self.dequeued += len(before.entries) - len(after.entries)
        elif kind == "appended":
            self._appended(who, before, after)
        self._check("B5", kind is not None, f"{who} made {_words(after)} from {_words(before)}")
        self.version = after
        self.listed = {entry.location: entry.sequence for entry in after.entries}
        self.versions[self.objects.get(happened.name).etag] = after

    def _appended(self, who, before, after):
        for entry in after.entries[len(before.entries) :]:
            identity = decoder.identity(entry.location)
            again = (who, identity) in self.appended
            beside = identity in {decoder.identity(there) for there in self.listed}
            self._check("B5", not (again and beside), f"{who} lists {identity} beside itself")
            self.appended[who, identity] = entry.sequence
            self.batches[entry.sequence] = entry.location
            self.ever_listed.update(self.contents[entry.location])
            self._in_flight(who, entry.location)

    def _in_flight(self, who, location):
        """Check that nobody took a batch between a fresh upload and its listing."""
        put_ms = self.mind_named(who).put_ms.get(location, 0)
        is_fresh = self.world.now_ms() - put_ms <= NAME_AGE_MAX_MS
        taken = is_fresh and self.objects.get(location) is None
        self._check("B6", not taken, f"{who} lists {location}, which a collector took in flight")

    def _noticed_loss(self, who, before):
        seen = self.mind_named(who)
        back = (before.next_sequence, before.epoch) < (seen.next_sequence, 0) or (
            before.epoch < seen.epoch
        )
        self._check("B5", not back, f"{who} goes on behind a manifest that went back")

    def _deleted(self, happened):
        who, name = happened.who, happened.name
        if who == OPERATOR:
            return
        self._check("B6", is_batch(name), f"{who} deleted {name}: it is no batch of ours")
        self._check("B6", name not in self.listed, f"{who} deleted {name}: it is listed")
        for problem in self.doomed[who, name]:
            self._check("B6", False, f"{who} deleted {name}: {problem}")
        self.collected += 1

    # ---- in the end ------------------------------------------------------------------------------

    def judge_delivery(self, rows):
        """Check B1, B2 and B3 of the sink's rows, (sequence, entry) in the order they came."""
        entries = [entry for _, entry in rows]
        twice = {entry for entry in entries if entries.count(entry) > 1} if (
            len(set(entries)) != len(entries)
        ) else set()  # fmt: skip
        self._check("B2", not twice, f"twice in the sink: {sorted(twice)}")
        there = set(entries)
        known = {entry for made in self.calls.values() for entry in made}
        self._check("B2", there <= known, f"nobody made {sorted(there - known)}")
        excused = {
            entry
            for sequence in self.excused
            for entry in self.contents.get(self.batches.get(sequence), ())
        }
        for who, call in sorted(self.durable):
            gone = set(self.calls[who, call]) - there - excused
            self._check("B1", not gone, f"durable and not in the sink: {sorted(gone)}")
        self._judge_order(entries)

    def judge_loss(self, rows):
        """Check what holds though the manifest was deleted; the rest was seen on the way."""
        entries = [entry for _, entry in rows]
        self._check("B2", len(set(entries)) == len(entries), "entries are twice in the sink")
        self._judge_order(entries)

    def _judge_order(self, entries):
        place = {entry: at for at, entry in enumerate(entries)}
        last = {}
        for (who, call), made in self.calls.items():
            for entry in made:
                if entry in place:
                    behind = last.get(who, (-1, b""))
                    in_order = place[entry] > behind[0]
                    self._check("B3", in_order, f"{entry} of call {call} is before {behind[1]}")
                    last[who] = place[entry], entry

    def judge_orphans(self):
        """Check that the collector left nothing that nobody lists, nor took what is not ours."""
        gone = [name for name in self.strangers if self.objects.get(name) is None]
        self._check("B6", not gone, f"somebody else's objects are gone: {gone}")
        if self.version.next_sequence == 0:
            return  # a queue that never listed a batch is left alone
        left = [name for name, _ in self.objects.below(PREFIX)
                if is_batch(name) and name not in self.listed]  # fmt: skip
        self._check("B6", not left, f"orphans that no collector took: {left}")

    def _check(self, invariant, holds, message):
        if not holds:
            # Kept, because it may be raised where somebody catches everything.
            self.broken = self.broken or f"{invariant} at {self.world.now_s:.3f} s: {message}"
            raise InvariantError(self.broken)


def is_batch(name):
    """Whether an object is named as the queue's batches are."""
    return BATCH_NAME.fullmatch(name) is not None


def _kind(before, after):
    """Return what was done to the manifest, or None if it is none of the three things."""
    same_epoch = after.epoch == before.epoch
    same_end = after.next_sequence == before.next_sequence
    if after.epoch == before.epoch + 1 and after[:2] == before[:2]:
        return "raised"
    if same_epoch and after.next_sequence > before.next_sequence:
        return "appended" if after.entries[: len(before.entries)] == before.entries else None
    if same_epoch and same_end and len(after.entries) < len(before.entries):
        kept = before.entries[len(before.entries) - len(after.entries) :]
        return "dequeued" if kept == after.entries else None
    return None


def _words(version):
    return (
        f"[{len(version.entries)} before {version.next_sequence}, epoch {version.epoch}: "
        f"{[entry.location[-12:-6] for entry in version.entries]}]"
    )
