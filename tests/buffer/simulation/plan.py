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

KINDS = {
    "calm": (),
    "faults": ("faults",),
    "crashes": ("faults", "crashes"),
    "freezes": ("freezes",),
    "outages": ("outages",),
    "zombies": ("zombies",),
    "clones": ("clones", "faults"),
    "clocks": ("clocks", "freezes"),
    "collector": ("collector", "outages"),
    "backup": ("backup", "zombies"),
    "lost manifest": ("lost", "crashes"),
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


@dataclass(frozen=True)
class ConsumerPlan:
    """One program that consumes into the database."""

    start_s: float
    poll_s: float
    flush_rate: float
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
    made_again: bool


def draw(seed):
    """Return the plan of a seed."""
    chance = random.Random(f"plan {seed}")
    kind = chance.choice(list(KINDS))
    troubles = KINDS[kind]
    pause_s = chance.choice((0.05, 1.0, 20.0))
    calls = chance.randint(2, 6)
    length_s = pause_s * calls
    has = troubles.__contains__
    return Plan(
        kind=kind,
        troubles=troubles,
        latency_s=chance.choice((0.002, 0.02, 0.3)),
        fault_rate=chance.choice((0.05, 0.15, 0.3)) if has("faults") else 0.0,
        outages=_outages(chance, length_s) if has("outages") else (),
        strikes=tuple(_strikes(chance, troubles)),
        producers=tuple(_producers(chance, troubles, calls, pause_s)),
        consumers=tuple(_consumers(chance, troubles, length_s)),
        grace_s=chance.choice((240.0, 600.0)),
        backup_at=(backup_at := chance.randint(1, 4) if has("backup") else 0),
        restore_at=backup_at and backup_at + chance.randint(1, 5),
        lost_s=chance.uniform(0.2, 2.0) * length_s if has("lost") else 0.0,
        made_again=chance.random() < 0.7,
    )


def _outages(chance, length_s):
    outages = []
    for _ in range(chance.randint(1, 2)):
        begin_s = chance.uniform(0.0, length_s)
        end_s = begin_s + _log_uniform(chance, 1.0, HOUR_S)
        what = chance.choice(
            ("manifest writes", "manifest writes", "batch writes", "reads", "everything")
        )
        outages.append(Outage(begin_s, end_s, what, chance.choice((0.5, 1.0, 1.0))))
    return tuple(outages)


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
            yield _strike(chance, role, sort, chance.choice(deeds))
    if "zombies" in troubles:
        yield _strike(chance, "c", chance.choice(SORTS["c"]), chance.choice(("stop", "suspend")))
    if "collector" in troubles:
        yield _strike(chance, "c", chance.choice(("list", "delete")), "stop")


def _strike(chance, role, sort, deed):
    nth = chance.randint(1, 4 if sort != "any" else 25)
    seconds = _log_uniform(chance, 0.5, 2 * HOUR_S)
    return Strike(role, sort, nth, chance.choice(list(Point)), deed, seconds)


def _producers(chance, troubles, calls, pause_s):
    twins = "clones" in troubles
    for number in range(2 if twins else chance.randint(1, 3)):
        twin = twins and number < 2
        yield ProducerPlan(
            calls=calls,
            start_s=0.0 if twin else chance.uniform(0.0, 2 * pause_s),
            pause_s=pause_s,
            flush_interval=0.1 if twin else chance.choice((0.01, 0.1, 2.0)),
            flush_size_bytes=1 if twin else chance.choice((1, 40, 1 << 20)),
            max_inflight_batches=chance.choice((1, 2, 16)),
            delivery_timeout=chance.choice((20.0, 120.0, 4 * HOUR_S)),
            skew_ms=_skew_ms(chance, troubles, 3_600_000),
            twin=twin,
        )


def _consumers(chance, troubles, length_s):
    count = chance.randint(2, 3) if "zombies" in troubles else chance.randint(1, 2)
    for number in range(count):
        yield ConsumerPlan(
            start_s=0.0 if number == 0 else chance.uniform(0.0, 1.5 * length_s),
            poll_s=chance.choice((0.05, 1.0, 10.0)),
            flush_rate=chance.choice((0.2, 0.6, 1.0)),
            gc_interval=chance.choice((30.0, 300.0)) if "collector" in troubles else 300.0,
            skew_ms=_skew_ms(chance, troubles, 60_000),
        )


def _skew_ms(chance, troubles, limit_ms):
    if "clocks" not in troubles:
        return 0
    return chance.choice((0, 1, -1)) * int(_log_uniform(chance, 10, limit_ms))


def _log_uniform(chance, low, high):
    return low * (high / low) ** chance.random()
