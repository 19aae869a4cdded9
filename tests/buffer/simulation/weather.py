"""What the store is like to talk to: latencies, faults at random, and hours when a part is down."""

from __future__ import annotations

import math
from typing import NamedTuple

from faults import CONDITIONAL, READS, Fault, possible


class Outage(NamedTuple):
    """For a while, this share of some requests fails: see ``concerns``."""

    begin_s: float
    end_s: float
    what: str
    rate: float

    def concerns(self, verb, name, manifest_path):
        if self.what == "manifest writes":
            return name == manifest_path and verb in CONDITIONAL
        if self.what == "batch writes":
            return verb == "put"
        if self.what == "reads":
            return verb in READS
        return True


class Weather:
    """Answers what befalls a request. Once ``clear`` is set, nothing does.

    Args:
        world: Chance and time.
        latency_s: Of a request one way, as a median.
        fault_rate: Share of the requests that fail.
        outages: When more of them do.
        manifest_path: To know the manifest by.
    """

    def __init__(self, world, latency_s, fault_rate, outages, manifest_path):
        self.world = world
        self.median_s = latency_s
        self.fault_rate = fault_rate
        self.outages = outages
        self.manifest_path = manifest_path
        self.clear = False

    def latency_s(self):
        # Its spread is that of real stores: one in a hundred takes five times as long.
        return self.median_s * math.exp(self.world.chance.gauss(0.0, 0.7))

    def dawdles(self):
        """Whether a process takes its time between asking and sending."""
        return self.world.chance.random() < 0.1

    def slow_s(self):
        return self._log_uniform(0.1, 1.0 if self.clear else 60.0)

    def timeout_s(self):
        return self._log_uniform(1.0, 30.0)

    def late_s(self):
        """How long after its process gave up a request still arrives."""
        return self._log_uniform(0.01, 90.0)

    def connection_breaks(self):
        """Whether a database's transaction is cut off: before or after its commit."""
        if self.clear or self.world.chance.random() >= self.fault_rate / 2:
            return None
        return self.world.chance.choice(("before", "after"))

    def fault(self, verb, name):
        if self.clear:
            return None
        chance, rate = self.world.chance, self.fault_rate
        for outage in self.outages:
            if outage.begin_s <= self.world.now_s < outage.end_s and outage.concerns(
                verb, name, self.manifest_path
            ):
                rate = max(rate, outage.rate)
                if outage.rate == 1.0:
                    return chance.choice((Fault.FAIL_BEFORE, Fault.UNAVAILABLE))
        if chance.random() >= rate:
            return None
        return chance.choice(possible(verb))

    def _log_uniform(self, low, high):
        return low * (high / low) ** self.world.chance.random()
