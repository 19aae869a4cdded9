"""Which walengine configuration a disk asks for, from the figures alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from walengine.fsync_bench.results import RowResult, Run
from walengine.fsync_bench.rows import (
    DIRECT_DSYNC,
    FDATASYNC,
    RING_DIRECT,
    RING_LINKED,
    ZERO_FILLED,
)
from walengine.fsync_bench.suspicion import keeps_direct_syncs

CLEARLY_FASTER = 0.9  # of the other's latency: what differs by less is noise
CLEARLY_MORE = 1.2  # times the other's commits/s
WRITERS = 16

DIRECT = "WalConfig(io=IoUringConfig(direct_io=True))"
PWRITE = 'WalConfig(backend="pwrite")'
DEFAULT = "WalConfig()"
DIRECT_COST = "Each commit then takes at least 4096 bytes of the log."
# bench/README.md: with 32 threads a direct log commits half of what the default does.
THREADS = (
    "That is for the tasks of an asyncio loop; threads are bound by waking one another, and a "
    "sync that they share serves them better: keep WalConfig() for them."
)

_PROGRAM = """\
from walengine import {imports}

with PortableWalWriter("wal.log", {config}) as wal:
    wal.append_durable(b"a record")  # it is on the disk when this returns
"""
_LOOP_PROGRAM = """\
import asyncio

from walengine import {imports}

async def main():
    async with AsyncWalWriter("wal.log", {config}) as wal:
        await wal.append_durable(b"a record")  # it is on the disk when this returns

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """One configuration.

    Attributes:
        need: What it is for.
        config: The configuration as code.
        why: The figures behind it, a sentence.
        for_a_loop: It is for AsyncWalWriter.
    """

    need: str
    config: str
    why: str
    for_a_loop: bool = False

    @property
    def code(self) -> str:
        """A program that uses it."""
        names = ["IoUringConfig"] if "IoUringConfig" in self.config else []
        names += ["WalConfig", "AsyncWalWriter" if self.for_a_loop else "PortableWalWriter"]
        program = _LOOP_PROGRAM if self.for_a_loop else _PROGRAM
        return program.format(imports=", ".join(sorted(names)), config=self.config)

    def as_dict(self) -> dict[str, str]:
        """Return what goes into JSON."""
        return dataclasses.asdict(self) | {"code": self.code}


def choices(run: Run) -> list[Choice]:
    """Return the configuration for one writer and the one for many; one where they agree."""
    lone, many = _for_one(run), _for_many(run)
    if lone and many and lone.config == many.config:
        why = f"{lone.why.removesuffix(DIRECT_COST).rstrip()} {many.why}"
        if many.for_a_loop:
            return [Choice("one writer, or many in an event loop", lone.config, why)]
        return [Choice("any number of writers", lone.config, why)]
    return [choice for choice in (lone, many) if choice]


# ---- one writer ----------------------------------------------------------------------------------


def _for_one(run: Run) -> Choice | None:
    plain = run.find(FDATASYNC, ZERO_FILLED)
    if plain is None or plain.p50_us is None:
        return None
    linked = run.find(RING_LINKED, ZERO_FILLED)
    direct = None
    if keeps_direct_syncs(run.place):
        direct = run.find(RING_DIRECT, ZERO_FILLED) or run.find(DIRECT_DSYNC, ZERO_FILLED)
    need = "one writer at a time"
    cached = min(_p50_us(plain), _p50_us(linked))
    if _p50_us(direct) <= cached * CLEARLY_FASTER:
        why = f"A direct write is durable in {_us(direct)} (p50), through the page cache it takes "
        return Choice(need, DIRECT, f"{why}{cached:.0f} µs. {DIRECT_COST}")
    if linked is None:
        if run.place.get("has_io_uring"):
            return None  # it was not asked to measure the ring: nothing can be said of it
        return Choice(need, PWRITE, f"pwrite and fdatasync take {_us(plain)} (p50); no io_uring.")
    if _p50_us(plain) <= _p50_us(linked) * CLEARLY_FASTER:
        why = f"pwrite and fdatasync take {_us(plain)} (p50), the same through a ring {_us(linked)}"
        return Choice(need, PWRITE, f"{why}.")
    why = f"The ring commits in {_us(linked)} (p50), pwrite in {_us(plain)}; nothing is clearly "
    return Choice(need, DEFAULT, f"{why}faster than the default.")


# ---- many writers --------------------------------------------------------------------------------


def _for_many(run: Run) -> Choice | None:
    group = run.find(FDATASYNC, ZERO_FILLED, at_once=WRITERS, group=True)
    if group is None or not group.commits_per_second:
        return None
    flying = run.find(RING_DIRECT, ZERO_FILLED, at_once=WRITERS)
    need = "many writers at once"
    keeps = keeps_direct_syncs(run.place)
    if flying is None and keeps and run.place.get("has_io_uring"):
        return None  # the same
    if flying is None or not keeps:
        why = f"{WRITERS} writers that share a sync make {_rate(group)}"
        if run.place.get("has_io_uring"):
            return Choice(need, DEFAULT, f"{why}; direct writes in flight are not to be had.")
        return Choice(need, PWRITE, f"{why}; there is no io_uring.")
    compared = f"{WRITERS} direct writes in flight make {_rate(flying)}, {WRITERS} writers that "
    compared += f"share a sync {_rate(group)}"
    if (flying.commits_per_second or 0.0) >= group.commits_per_second * CLEARLY_MORE:
        why = f"{compared}. {THREADS} {DIRECT_COST}"
        return Choice("many writers in an event loop", DIRECT, why, for_a_loop=True)
    return Choice(need, DEFAULT, f"{compared}: through the page cache is as good.")


# ---- figures in words ----------------------------------------------------------------------------


def _p50_us(result: RowResult | None) -> float:
    return result.p50_us if result and result.p50_us is not None else float("inf")


def _us(result: RowResult | None) -> str:
    return f"{_p50_us(result):.0f} µs"


def _rate(result: RowResult) -> str:
    return f"{result.commits_per_second or 0.0:,.0f} commits/s"
