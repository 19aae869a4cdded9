"""What befalls a run: processes killed and frozen, manifests deleted, databases restored."""

from __future__ import annotations

from collections import Counter

from simulation.oracle import MANIFEST, OPERATOR
from simulation.plan import ConsumerPlan

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
ENCORE = ConsumerPlan(start_s=0.0, poll_s=1.0, flush_rate=0.6, gc_interval=300.0, skew_ms=0)
CONSUMERS_MAX = 6


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
        if strike.role == "c" and len(self.run.drains) < CONSUMERS_MAX:
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
        for drain in self.run.drains:
            drain.process.crash()
        self.run.database.restore()
        self.run.oracle.restored = True
        self.counts["backups restored"] += 1
        self._after(RESTART_S, self.run.consume, self.run.drains[-1].plan)

    def lose_manifest(self):
        """An operator deletes the wrong object."""
        self.counts["manifests lost"] += 1
        self.run.objects.delete(OPERATOR, MANIFEST)

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
