"""One seed: its plan is drawn, its world runs, calms down and is judged."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections import Counter
from typing import NamedTuple

from simulation import plan as plans
from simulation.client import Client
from simulation.consuming import Drain
from simulation.database import Database
from simulation.nemesis import Nemesis
from simulation.objects import Objects
from simulation.oracle import EMPTY_BATCH, MANIFEST, OPERATOR, PREFIX, InvariantError, Oracle
from simulation.plan import ConsumerPlan
from simulation.producing import Source
from simulation.weather import Weather
from simulation.world import World

COLLECTED_EVERY = 50
SETTLED_S_MAX = 200_000.0
"""By then a run must have come to rest: outages and freezes last for hours, not for days."""

LAST = ConsumerPlan(
    start_s=0.0, poll_s=1.0, flush_rate=1.0, takes="next_batch", gc_interval=600.0, skew_ms=0,
    stubborn=True,
)  # fmt: skip


class Verdict(NamedTuple):
    """What became of a seed.

    Attributes:
        seed: It.
        kind: Of its plan.
        violation: What was violated, or None.
        trace: Everything that happened, in order.
        counts: How much of it.
    """

    seed: int
    kind: str
    violation: str | None
    trace: list
    counts: Counter


class Run:
    """The world of one seed, and what its programs share.

    Attributes:
        sink_knows_identities: Off, the sink forgets half of its rule: a mutant.
    """

    def __init__(self, seed, kinds=tuple(plans.KINDS), *, sink_knows_identities=True):
        self.seed = seed
        self.sink_knows_identities = sink_knows_identities
        self.plan = plans.draw(seed, kinds)
        self.world = World(seed)
        self.objects = Objects(self.world)
        self.weather = Weather(
            self.world, self.plan.latency_s, self.plan.fault_rate, self.plan.outages, MANIFEST
        )
        self.oracle = Oracle(self.world, self.objects, self.plan.grace_s * 1000)
        self.nemesis = Nemesis(self)
        self.database = Database(self.world, self.nemesis.transacted)
        self.counts = Counter()
        self.drains = []
        self.sources = [
            Source(self, number, plan) for number, plan in enumerate(self.plan.producers)
        ]

    def furnish(self):
        """Put what is there before anybody comes: leavings of the dead, and others' objects."""
        old = "01HF0000000000000000000000.batch"  # of days before the beginning
        self.objects.put(OPERATOR, f"{PREFIX}/{old}", EMPTY_BATCH)
        self.oracle.strangers = (
            f"{PREFIX}/below/{old}", f"{PREFIX}2/{old}", f"{PREFIX}/{old}.copy",
            f"{PREFIX}/x{old}", f"{PREFIX}/{old.lower()}", f"{PREFIX}/notes.txt", old,
        )  # fmt: skip
        for name in self.oracle.strangers:
            self.objects.put(OPERATOR, name, b"a stranger's")

    def client(self, process, role):
        """Return a process's way to the store."""
        client = Client(process, self.objects, self.weather, self.oracle)
        self.nemesis.lie_in_wait(client, role)
        return client

    def refused(self, process, error):
        """A program was told that it cannot go on, or that a batch failed."""
        self.oracle.refused(process.name, error)
        self.world.note(process.name, "was told", type(error).__name__)
        self.counts[type(error).__name__] += 1

    def consume(self, plan):
        """Start a consumer; it takes over."""
        self.drains.append(Drain(self, f"c{len(self.drains)}", plan))

    def go(self):
        """Let everything happen, then judge."""
        for source in self.sources:
            self.world.at(source.plan.start_s, source.live)
        for consumer in self.plan.consumers:
            self.world.at(consumer.start_s, self.consume, consumer)
        self.world.at(self.plan.end_s, lambda: None)
        self.furnish()
        self.nemesis.begin()
        self.until("trouble is over", self.trouble_is_over)
        self.weather.clear = True
        self.nemesis.left.clear()
        if not self.oracle.lost:
            self.consume(LAST)
        self.until("the producers end", lambda: all(source.done for source in self.sources))
        if self.oracle.lost:
            return self.oracle.judge_loss(self.database.state.rows)
        self.until("the queue is drained", self.drained)
        self.oracle.judge_delivery(self.database.state.rows)
        self.collect()
        return self.oracle.judge_delivery(self.database.state.rows)

    def counted(self):
        """Return how much happened."""
        oracle = self.oracle
        self.counts["events"] = self.world.events
        self.counts["batches listed"] = len(oracle.batches)
        self.counts["calls durable"] = len(oracle.durable)
        self.counts["objects collected"] = oracle.collected
        return self.counts + self.nemesis.counts

    def trouble_is_over(self):
        """Whether the plan's time is up, the nemesis done, and nobody frozen."""
        return (
            self.world.now_s >= self.plan.end_s
            and self.nemesis.done
            and not any(process.frozen and not process.dead for process in self.world.processes)
        )

    def drained(self):
        """Whether the last consumer has been at the end, and nothing is listed any more."""
        idle = any(drain.idle for drain in self.drains if drain.plan is LAST)
        return self.nemesis.done and idle and not self.oracle.version.entries

    def collect(self):
        """Wait for as long as the last consumer's collector may take, whatever the clocks say."""
        fastest_ms = max(plan.skew_ms for plan in self.plan.producers)
        fastest_ms += sum(abs(step.skew_ms) for step in self.plan.steps)
        enough_s = self.plan.grace_s + max(0, fastest_ms) / 1000 + 2.5 * LAST.gc_interval
        end_s = self.world.now_s + enough_s
        self.until("time passes", lambda: self.world.now_s >= end_s)
        self.oracle.judge_orphans()

    def until(self, what, reached):
        limit_s = self.world.now_s + SETTLED_S_MAX
        self.world.run(lambda: self.oracle.broken or reached() or self.world.now_s > limit_s)
        if self.oracle.broken or not reached():
            in_vain = f"B0 at {self.world.now_s:.0f} s: in vain one waits that {what}"
            raise InvariantError(self.oracle.broken or in_vain)


def run(seed, kinds=tuple(plans.KINDS), **mutant):
    """Run a seed to its verdict."""
    simulated = Run(seed, kinds, **mutant)
    with silence():
        try:
            simulated.go()
            violation = None
        except AssertionError as error:
            violation = f"{type(error).__name__}: {error}"
        if not simulated.oracle.broken:
            violation = uncaught(simulated.world) or violation
        simulated.world.bury()
    return Verdict(seed, simulated.plan.kind, violation, simulated.world.trace, simulated.counted())


def run_all(seeds, kinds=tuple(plans.KINDS), **mutant):
    """Yield the verdicts of many seeds; what dead programs leave is collected in between."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for number, seed in enumerate(seeds, 1):
            yield run(seed, kinds, **mutant)
            if number % COLLECTED_EVERY == 0:
                with silence():
                    gc.collect()
    finally:
        with silence():
            gc.collect()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def silence():
    """Keep to itself what the buffer logs of all these troubles, and what dead programs left open.

    What a killed process leaves open is nobody's mistake.
    """
    log = logging.getLogger("walengine.buffer")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        log.setLevel(level)


def uncaught(world):
    """Return what some process did not expect: an exception that nobody took."""
    for process in world.processes:
        if process.main.done() and not process.main.cancelled() and process.main.exception():
            return f"{process.name} died of {process.main.exception()!r}"
        for context in process.loop.uncaught:
            if not process.dead:
                return f"{process.name}: {context.get('message')}: {context.get('exception')!r}"
    return None
