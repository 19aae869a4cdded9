"""The clocks: what latencies are measured with, and what segments and batches are dated by.

Order and durability need no clock. Two things read the time of day: the creation time of a segment,
by which a reader seeks, and names that are sorted by time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from walengine.doctor._calls import clock_is_synchronised
from walengine.doctor.findings import Finding, Findings
from walengine.doctor.roots import Roots, read_text

LOOK_SECONDS = 0.02
TRIES = 20
STEP_US = 5_000  # more between the two clocks in that time is a step, and no slewing
PLAUSIBLE_FROM_S = 1_735_689_600  # 2025-01-01: this was written later
PLAUSIBLE_TO_S = 4_102_444_800  # 2100-01-01
SLOW_SOURCES = frozenset(("hpet", "acpi_pm", "jiffies", "pit", "refined-jiffies"))


@dataclass(frozen=True, slots=True)
class Clocks:
    """One look at the clocks.

    Attributes:
        realtime_s: Seconds since 1970.
        drift_us: How much further the time of day went than the monotonic clock.
        monotonic_us: How far that one went.
        synchronised: Something disciplines the clock; None: the kernel does not say.
    """

    realtime_s: float
    drift_us: float
    monotonic_us: float
    synchronised: bool | None


def look() -> Clocks:
    """Read both clocks, twice."""
    real, steady = _both()
    time.sleep(LOOK_SECONDS)
    real_after, steady_after = _both()
    went = steady_after - steady
    drift = (real_after - real) - went
    return Clocks(real_after / 1e9, drift / 1e3, went / 1e3, clock_is_synchronised())


def _both() -> tuple[int, int]:
    """Read both at one moment: of several tries the one that was interrupted least."""
    tries = []
    for _ in range(TRIES):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after - before, real, (before + after) // 2))
    _, real, steady = min(tries)
    return real, steady


def examine(clocks: Clocks, roots: Roots) -> list[Finding]:
    """Say whether the clocks can be trusted, and for what."""
    say = Findings("clock")
    _source(say, roots)
    _sanity(say, clocks)
    _synchronised(say, clocks)
    return say.made


def _source(say: Findings, roots: Roots) -> None:
    place = roots.sys / "devices/system/clocksource/clocksource0"
    source = read_text(place / "current_clocksource")
    others = (read_text(place / "available_clocksource") or "").split()
    facts: dict[str, Any] = {"source": source, "available": others}
    if source is None:
        say.note("source", "the machine does not tell what its clock runs by", **facts)
    elif source in SLOW_SOURCES:
        say.note(
            "source",
            f"the clock runs by {source}: reading it takes a microsecond or more, which every "
            "latency in stats() contains",
            "find out in dmesg why the kernel gave up the processor's own counter",
            **facts,
        )
    else:
        say.ok("source", f"the clock runs by {source}", **facts)


def _sanity(say: Findings, clocks: Clocks) -> None:
    facts: dict[str, Any] = {
        "realtime_s": round(clocks.realtime_s, 3),
        "drift_us": round(clocks.drift_us, 1),
    }
    if clocks.monotonic_us <= 0:
        say.warn(
            "sanity",
            "the monotonic clock stood still: latencies mean nothing here",
            "look at the clock source and at the hypervisor",
            **facts,
        )
    elif not PLAUSIBLE_FROM_S <= clocks.realtime_s < PLAUSIBLE_TO_S:
        day = time.strftime("%Y-%m-%d", time.gmtime(clocks.realtime_s))
        say.warn(
            "sanity",
            f"the clock says {day}: segments and batches get wrong dates",
            "set the clock, and run an NTP client",
            **facts,
        )
    elif abs(clocks.drift_us) > STEP_US:
        say.warn(
            "sanity",
            f"the time of day moved by {clocks.drift_us / 1000:.0f} ms against the "
            "monotonic clock while it was looked at",
            "find out who steps the clock",
            **facts,
        )
    else:
        say.ok("sanity", "the time of day and the monotonic clock go together", **facts)


def _synchronised(say: Findings, clocks: Clocks) -> None:
    facts: dict[str, Any] = {"synchronised": clocks.synchronised}
    if clocks.synchronised is None:
        say.note("ntp", "the kernel does not tell whether the clock is synchronised", **facts)
    elif clocks.synchronised:
        say.ok("ntp", "the kernel holds the clock to be synchronised", **facts)
    else:
        say.note(
            "ntp",
            "nothing synchronises the clock as far as the kernel knows: dates may be off, the "
            "log's order and durability are not",
            "run chrony or systemd-timesyncd (a virtual machine may get its time from the host)",
            **facts,
        )
