"""What befalls a run: processes killed and frozen, manifests deleted, databases restored."""

from __future__ import annotations

from collections import Counter

from simulation import collecting
from simulation.oracle import EMPTY_BATCH, MANIFEST, OPERATOR, PREFIX
from simulation.plan import ConsumerPlan
from walengine.buffer.location import BatchNamer

RESTART_S = 2.0
READS_OF_ONE = {"get", "get_if_changed"}
# The verbs of a sort of requests, and whether they are for the manifest.
SORTS = {
    "manifest write": ({"create", "replace"}, True),
    "manifest read": (READS_OF_ONE, True),
    "batch write": ({"put"}, False),
    "batch read": (READS_OF_ONE, False),
    "delete": ({"delete"}, False),
    "list": ({"list"}, False),
}
ENCORE = ConsumerPlan(
    start_s=0.0, poll_s=1.0, flush_rate=0.6, takes="next_batch", gc_interval=100.0, skew_ms=0
)
CONSUMERS_MAX = 6
COLLECTORS_MAX = 12


class Nemesis:
    """Carries out a plan's strikes.

    Attributes:
        counts: How often what happened.
        done: Whether nothing more is to come by the clock.
    """

    def __init__(self, run):
        self.run = run
        self.counts = Counter()
        self.left = list(run.plan.strikes)
        self._to_come = 0

    @property
    def done(self):
        return self._to_come == 0

    def begin(self):
        """Set the clock for what comes by the clock."""
        plan = self.run.plan
        if plan.lost_s:
            self._at(plan.lost_s, self.lose_manifest)
        if plan.by_hand_s:
            self.collectors = 0
            self._at(plan.by_hand_s, self.collect_by_hand)
        for at_s in plan.litter_s:
            self._at(at_s, self.litter)
        for step in plan.steps:
            self._at(step.at_s, self.set_clocks, step)

    def lie_in_wait(self, client, role):
        """Strike at a client's nth request of a sort."""
        mine = [strike for strike in self.left if strike.role == role]
        if not mine:
            return
        seen = Counter()

        def ambush(point, verb, name):
            for strike in mine:
                if strike.point is not point or not is_of(strike.sort, verb, name):
                    continue
                seen[strike] += 1
                if seen[strike] == strike.nth and strike in self.left:
                    self.left.remove(strike)
                    self.strike(client.process, strike)

        client.ambush = ambush

    def strike(self, process, strike):
        self.counts[f"{strike.deed}s"] += 1
        if strike.deed == "crash":
            process.crash()
        else:
            process.freeze(strike.seconds, suspend=strike.deed == "suspend")
        if strike.role != "p" and len(self.run.drains) < CONSUMERS_MAX:
            # Somebody notices, and starts another one: the frozen one wakes as a zombie.
            self._after(RESTART_S + min(strike.seconds / 2, 600.0), self.run.consume, ENCORE)

    def transacted(self, number):
        """The database has committed so many transactions."""
        if number == self.run.plan.backup_at:
            self.run.database.back_up()
        elif number == self.run.plan.restore_at:
            self._after(RESTART_S, self.restore)

    def restore(self):
        """An operator stops the consumers, restores the database, and starts one again."""
        stubborn = [drain.plan for drain in self.run.drains if drain.plan.stubborn]
        for drain in self.run.drains:
            drain.process.crash()
            drain.idle = False
        self.run.database.restore()
        self.run.oracle.restored = True
        self.counts["backups restored"] += 1
        self._after(RESTART_S, self.run.consume, (stubborn or [ENCORE])[0])

    def lose_manifest(self):
        """An operator deletes the wrong object."""
        self.counts["manifests lost"] += 1
        self.run.objects.delete(OPERATOR, MANIFEST)

    def collect_by_hand(self):
        """An operator runs a collector; and goes on doing so, a while apart."""
        self.collectors += 1
        collecting.collect(self.run, f"g{self.collectors}")
        if self.run.world.now_s < self.run.plan.end_s and self.collectors < COLLECTORS_MAX:
            self._after(self.run.plan.by_hand_s, self.collect_by_hand)

    def litter(self):
        """Leave a batch that nobody will list, as a producer does that dies behind an upload."""
        namer = BatchNamer(PREFIX, clock_ms=self.run.world.now_ms, random_bytes=self.randbytes)
        self.run.objects.put(OPERATOR, namer.new().location, EMPTY_BATCH)

    def randbytes(self, count):
        return self.run.world.chance.randbytes(count)

    def set_clocks(self, step):
        """Somebody sets the clocks of the machines on which these run."""
        for process in self.run.world.processes:
            if process.name.startswith(step.role) and process.running:
                process.skew_ms += step.skew_ms
        self.counts["clocks set"] += 1

    def _at(self, when_s, callback, *args):
        self._after(when_s - self.run.world.now_s, callback, *args)

    def _after(self, delay_s, callback, *args):
        self._to_come += 1

        def come():
            self._to_come -= 1
            callback(*args)

        self.run.world.after(delay_s, come)


def is_of(sort, verb, name):
    """Whether a request is of this sort."""
    if sort == "any":
        return True
    verbs, at_manifest = SORTS[sort]
    return verb in verbs and (name == MANIFEST) is at_manifest
