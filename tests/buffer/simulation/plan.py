"""What a seed draws: who runs when, with which settings, and what will befall them.

A kind says which troubles a run has, so that each is met often, alone and together with others.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from simulation.client import Point
from simulation.weather import Outage

HOUR_S = 3600.0
TAKES = ("next_batch", "batches", "descriptors")

KINDS = {
    "calm": (),
    "faults": ("faults",),
    "crashes": ("faults", "crashes"),
    "freezes": ("freezes",),
    "outages": ("outages",),
    "zombies": ("zombies",),
    "sleepers": ("sleepers",),
    "clones": ("clones", "faults"),
    "clocks": ("clocks", "freezes", "crashes"),
    "collector": ("collector", "crashes", "outages"),
    "takeovers": ("collector", "zombies"),
    "eager": ("eager", "clocks"),
    "backup": ("backup", "zombies"),
    "lost manifest": ("lost", "crashes", "collector"),
    "crowded": ("crowded", "faults"),
    "everything": ("faults", "crashes", "freezes", "outages", "zombies", "clocks", "collector"),
}


class Strike(NamedTuple):
    """At a process's nth request of a sort something befalls it."""

    role: str
    sort: str
    nth: int
    point: Point
    deed: str
    seconds: float


class Step(NamedTuple):
    """Somebody sets a clock, of the processes of one role that run then."""

    at_s: float
    role: str
    skew_ms: int


@dataclass(frozen=True)
class ProducerPlan:
    """One program that produces: its calls, and how it batches them."""

    calls: int
    start_s: float
    pause_s: float
    flush_interval: float
    flush_size_bytes: int
    max_inflight_batches: int
    delivery_timeout: float
    skew_ms: int
    twin: bool
    max_buffered_bytes: int
    max_manifest_bytes: int
    metadata_bytes: int
    patience_s: float | None  # a call that has found no room by then is withdrawn
    closing_s: float | None  # what aclose() waits for


@dataclass(frozen=True)
class ConsumerPlan:
    """One program that consumes into the database."""

    start_s: float
    poll_s: float
    flush_rate: float  # how often it takes what it acked off the manifest
    takes: str  # by which of the consumer's methods
    gc_interval: float
    skew_ms: int
    stubborn: bool = False  # it takes over again when it was fenced


@dataclass(frozen=True)
class Plan:
    """A run."""

    kind: str
    troubles: tuple[str, ...]
    latency_s: float
    fault_rate: float
    outages: tuple[Outage, ...]
    strikes: tuple[Strike, ...]
    producers: tuple[ProducerPlan, ...]
    consumers: tuple[ConsumerPlan, ...]
    grace_s: float
    backup_at: int  # number of the transaction behind which the database is backed up; 0: never
    restore_at: int  # and restored
    lost_s: float
    by_hand_s: float  # pause between collections by hand; 0: none
    litter_s: tuple[float, ...]  # when somebody dies behind an upload
    steps: tuple[Step, ...]
    end_s: float  # when the outages are over and the plan's programs have had their time


def draw(seed, kinds=tuple(KINDS)):
    """Return the plan of a seed, of one of these kinds."""
    chance = random.Random(f"plan {seed}")
    kind = chance.choice(kinds)
    troubles = KINDS[kind]
    pause_s = 20.0 if "sleepers" in troubles else chance.choice((0.05, 1.0, 20.0))
    calls = chance.randint(2, 6)
    length_s = pause_s * calls
    has = troubles.__contains__
    outages = ()
    if has("outages") or has("eager"):
        outages = tuple(_outages(chance, length_s, short=has("eager")))
    backup_at = chance.randint(1, 4) if has("backup") else 0
    return Plan(
        kind=kind,
        troubles=troubles,
        latency_s=chance.choice((0.002, 0.02, 0.3)),
        fault_rate=chance.choice((0.05, 0.15, 0.3)) if has("faults") else 0.0,
        outages=outages,
        strikes=tuple(_strikes(chance, troubles)),
        producers=tuple(_producers(chance, troubles, calls, pause_s)),
        consumers=tuple(_consumers(chance, troubles, length_s)),
        grace_s=chance.choice((240.0, 600.0)),
        backup_at=backup_at,
        restore_at=backup_at and backup_at + chance.randint(1, 5),
        lost_s=chance.uniform(0.2, 2.0) * length_s if has("lost") else 0.0,
        by_hand_s=chance.choice((60.0, 150.0)) if has("collector") else 0.0,
        litter_s=tuple(chance.uniform(0.0, 1000.0) for _ in range(8 * has("collector"))),
        steps=tuple(_steps(chance, length_s)) if has("clocks") else (),
        end_s=max(
            2 * length_s + (0.0 if has("eager") else 300.0),
            1200.0 * has("collector"),
            *(outage.end_s + 300.0 for outage in outages),
            0.0,
        ),
    )


def _steps(chance, length_s):
    for _ in range(chance.randint(0, 2)):
        skew_ms = chance.choice((1, -1)) * int(_log_uniform(chance, 1000, HOUR_S * 1000))
        yield Step(chance.uniform(0.0, 2 * length_s), chance.choice("pc"), skew_ms)


def _outages(chance, length_s, *, short):
    for _ in range(chance.randint(1, 2)):
        begin_s = chance.uniform(0.0, length_s)
        if short:
            # Long enough for collectors to come by, too short for another upload.
            end_s = begin_s + _log_uniform(chance, 2.0, 100.0)
            yield Outage(begin_s, end_s, "manifest writes", 1.0)
            continue
        end_s = begin_s + _log_uniform(chance, 1.0, HOUR_S)
        what = chance.choice(
            ("manifest writes", "manifest writes", "batch writes", "reads", "everything")
        )
        yield Outage(begin_s, end_s, what, chance.choice((0.5, 1.0, 1.0)))


DEEDS = {"crashes": ("crash",), "freezes": ("stop", "suspend")}
SORTS = {
    "p": ("any", "batch write", "manifest write", "manifest write", "manifest read"),
    "c": ("any", "manifest write", "manifest read", "batch read", "delete", "list"),
}


def _strikes(chance, troubles):
    for trouble, deeds in DEEDS.items():
        if trouble not in troubles:
            continue
        for _ in range(chance.randint(1, 3)):
            role = chance.choice("pc")
            sort = chance.choice(SORTS[role])
            # Where the one clock stands and the other is set back, nobody could know the time.
            deed = chance.choice(deeds[:1] if "clocks" in troubles else deeds)
            yield _strike(chance, role, sort, deed)
    if "zombies" in troubles:
        yield _strike(chance, "c", chance.choice(SORTS["c"]), "stop")
    if "collector" in troubles:
        yield _strike(chance, "c", chance.choice(("list", "delete")), "stop")
        # The kth collection by hand, in the middle of its pass, while others take over.
        strike = _strike(chance, f"g{chance.randint(3, 9)}", "list", "stop")
        yield strike._replace(nth=1, seconds=60.0 + strike.seconds)
    if "sleepers" in troubles:
        # Between the decision to list a batch and the request, for longer than collectors wait.
        deed, seconds = chance.choice(("stop", "suspend")), _log_uniform(chance, 300.0, HOUR_S)
        nth = chance.randint(2, 4)
        yield Strike("p", "manifest write", nth, Point.BEFORE, deed, seconds)


def _strike(chance, role, sort, deed):
    nth = chance.randint(1, 4 if sort != "any" else 25)
    seconds = _log_uniform(chance, 0.5, 2 * HOUR_S)
    return Strike(role, sort, nth, chance.choice(list(Point)), deed, seconds)


def _producers(chance, troubles, calls, pause_s):
    twins, crowded = "clones" in troubles, "crowded" in troubles
    count = 2 if twins else 1 if "sleepers" in troubles else chance.randint(1, 3)
    for number in range(count):
        twin = twins and number < 2
        yield ProducerPlan(
            calls=calls,
            start_s=0.0 if twin else chance.uniform(0.0, 2 * pause_s),
            pause_s=pause_s,
            flush_interval=0.1 if twin else chance.choice((0.01, 0.1, 2.0)),
            flush_size_bytes=1 if twin else chance.choice((1, 40, 1 << 20)),
            max_inflight_batches=chance.choice((1, 2, 16)),
            # What one twin gives up, the other may list behind what came later.
            delivery_timeout=4 * HOUR_S if twin else chance.choice((20.0, 120.0, 4 * HOUR_S)),
            skew_ms=_skew_ms(chance, troubles, 3_600_000),
            twin=twin,
            max_buffered_bytes=chance.choice((700, 1400)) if crowded else 1 << 28,
            max_manifest_bytes=4096 if crowded else 1 << 24,
            metadata_bytes=500 if crowded else 0,
            patience_s=chance.choice((None, 0.01, 10.0)) if crowded else None,
            closing_s=None if twin else chance.choice((None, None, 5.0)),
        )


def _consumers(chance, troubles, length_s):
    count = chance.randint(2, 3) if "zombies" in troubles else chance.randint(1, 2)
    collector = "collector" in troubles or "sleepers" in troubles
    flush_rates = (0.0, 0.6, 1.0) if collector else (0.0, 0.2, 0.6, 1.0)
    intervals = (30.0, 100.0) if collector else (300.0,)
    if "eager" in troubles:
        flush_rates, intervals = (1.0,), (1.0, 5.0)
    for number in range(count):
        yield ConsumerPlan(
            start_s=0.0 if number == 0 else chance.uniform(0.0, 1.5 * length_s),
            poll_s=chance.choice((0.05, 1.0, 10.0)),
            flush_rate=chance.choice(flush_rates),
            takes=chance.choice(TAKES),
            gc_interval=chance.choice(intervals),
            skew_ms=_skew_ms(chance, troubles, 60_000),
        )


def _skew_ms(chance, troubles, limit_ms):
    if "clocks" not in troubles:
        return 0
    return chance.choice((0, 1, -1)) * int(_log_uniform(chance, 10, limit_ms))


def _log_uniform(chance, low, high):
    return low * (high / low) ** chance.random()
