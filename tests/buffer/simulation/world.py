"""Virtual time: one heap of events for all processes, and what befalls processes as such.

An event belongs to a process or to the world. While a process is frozen its events are held, and
follow when it thaws. A dead process's events never come.
"""

from __future__ import annotations

import heapq
import random
import sys

from simulation.loop import ProcessLoop

EPOCH_MS = 1_700_000_000_000
"""The store's time at the beginning, in ms since 1970."""

EVENTS_MAX = 60_000
"""A run with more has gone astray: a plan ends after some thousand."""


class World:
    """The heap of events, the time, and everybody who lives by it.

    Attributes:
        now_s: Seconds since the beginning: the true time, which nobody in there can see.
        chance: Where everything that happens is drawn from.
        trace: What happened, in order; the same seed gives the same.
    """

    def __init__(self, seed):
        self.now_s = 0.0
        self.chance = random.Random(seed)
        self.trace = []
        self.processes = []
        self.events = 0
        self._heap = []
        self._serial = 0

    def at(self, when_s, callback, *args, process=None):
        """Call back at this time; of events at one time the order is drawn."""
        self._serial += 1
        item = (when_s, self.chance.random(), self._serial, process, callback, args)
        heapq.heappush(self._heap, item)

    def after(self, delay_s, callback, *args, process=None):
        self.at(self.now_s + delay_s, callback, *args, process=process)

    def now_ms(self):
        """The store's clock."""
        return EPOCH_MS + int(self.now_s * 1000)

    def note(self, *what):
        """Write a line of the trace."""
        self.trace.append((round(self.now_s, 6), *what))

    def start(self, name, program, *, skew_ms=0, random_seed=None):
        """Start a process; program(process) is its main coroutine."""
        process = Process(self, name, skew_ms, random_seed)
        self.processes.append(process)
        process.begin(program)
        return process

    def run(self, until):
        """Let events happen until until() is true, or none is left; True if it became true."""
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=leave_alone)
        try:
            return self._run(until)
        finally:
            sys.set_asyncgen_hooks(*before)

    def _run(self, until):
        heap = self._heap
        while heap:
            if until():
                return True
            when_s, _, _, process, callback, args = heapq.heappop(heap)
            self.events += 1
            if self.events > EVENTS_MAX:
                raise AssertionError(f"more than {EVENTS_MAX} events, at {self.now_s} s")
            self.now_s = max(self.now_s, when_s)
            if process is None:
                callback(*args)
            else:
                process.happen(callback, args)
        return until()

    def bury(self):
        """End everything that still runs."""
        for process in self.processes:
            process.loop.bury()


def leave_alone(_generator):
    """Do nothing for the generator of a dead process: nobody can await its end."""


class Process:
    """An operating system's process: an event loop, clocks that may be wrong, a life that may end.

    Attributes:
        name: Unique: a program that is started again is another process.
        chance: Its own randomness, apart from what the world draws.
        main: The task of its program.
    """

    def __init__(self, world, name, skew_ms, random_seed):
        self.world = world
        self.name = name
        self.skew_ms = self.skew_at_first_ms = skew_ms
        self.chance = random.Random(
            world.chance.getrandbits(64) if random_seed is None else random_seed
        )
        self.loop = ProcessLoop(self)
        self.main = None
        self.dead = False
        self.frozen = False
        self._counts_freezes = True
        self._frozen_at_s = 0.0
        self._lost_s = 0.0
        self._floor_s = 0.0
        self._held = []

    @property
    def running(self):
        return not self.dead and not self.main.done()

    def begin(self, program):
        self.main = self.loop.create_task(program(self))
        self.world.after(0.0, lambda: None, process=self)

    def happen(self, callback, args):
        """An event of this process: hold it, drop it, or let it happen and run what it wakes."""
        if self.dead:
            return
        if self.frozen:
            self._held.append((callback, args))
            return
        callback(*args)
        self.loop.run_ready()

    # ---- clocks ----------------------------------------------------------------------------------

    def monotonic_s(self):
        return max(self._floor_s, self.world.now_s - self._lost_s)

    def wall_ms(self):
        """The store's time as this process knows it."""
        return self.world.now_ms() + self.skew_ms

    def corrected_ms(self):
        """Return a clock like wall_ms, corrected now by the store's as far as it was at first."""
        drift_ms = self.skew_ms - self.skew_at_first_ms
        return lambda: self.wall_ms() - drift_ms

    def set_timer(self, timer):
        self.world.at(timer.when() + self._lost_s, self._fire, timer, process=self)

    def _fire(self, timer):
        if timer.when() > self.monotonic_s() + 1e-9:
            self.set_timer(timer)  # time stood still meanwhile
        else:
            self._floor_s = max(self._floor_s, timer.when())  # a difference of floats may be less
            self.loop.fire(timer)

    # ---- what befalls it -------------------------------------------------------------------------

    def crash(self):
        """Kill it. What it has sent is on its way all the same."""
        if not self.dead:
            self.world.note(self.name, "is killed")
            self.dead = True
            self.loop.die()

    def freeze(self, seconds, *, suspend=False):
        """Stop it for a while, as SIGSTOP does; suspended, its monotonic clock stands too."""
        if self.dead or self.frozen:
            return
        self.world.note(self.name, "is suspended" if suspend else "is stopped", round(seconds, 3))
        self.frozen = True
        self._counts_freezes = not suspend
        self._frozen_at_s = self.world.now_s
        self.world.after(seconds, self.thaw)

    def thaw(self):
        if self.dead or not self.frozen:
            return
        self.world.note(self.name, "goes on")
        self.frozen = False
        if not self._counts_freezes:
            self._lost_s += self.world.now_s - self._frozen_at_s
        held, self._held = self._held, []
        for at, (callback, args) in enumerate(held):
            # In their order, as one turn of an event loop would find them.
            self.world.after(at * 1e-7, callback, *args, process=self)
