"""From figures to plain words. Pure: a run goes in, sentences come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from walengine.fsync_bench.advice import Choice, choices
from walengine.fsync_bench.results import SAMPLES_MIN, RowResult, Run
from walengine.fsync_bench.rows import (
    BULK,
    BULK_BYTES,
    DIRECT_DSYNC,
    ETCD_BYTES,
    FALLOCATED,
    FDATASYNC,
    GROWING,
    MANY,
    NO_SYNC,
    ONE,
    POSTGRES_BYTES,
    RECYCLED,
    RING_DIRECT,
    ZERO_FILLED,
)
from walengine.fsync_bench.suspicion import evidence, keeps_direct_syncs

ETCD_P99_US = 10_000.0
ETCD_SOURCE = (
    "etcd documentation, FAQ, on wal_fsync_duration_seconds: https://etcd.io/docs/v3.5/faq/"
)
NO_EVIDENCE = (
    "Nothing measured here speaks against this disk's syncs. That is no proof that it keeps what "
    "it acknowledged: only a power cut shows that."
)
SETTLE_FIRST = "Its syncs are in doubt, see below: settle that before you choose."
EVIDENCE = "This is evidence, not proof. Settle it before you trust a log to this disk."
WRITERS = 16


@dataclass(frozen=True, slots=True)
class Words:
    """What a run means.

    Attributes:
        summary: What this disk can do, a sentence each.
        choices: Which configuration of walengine to use on it.
        etcd: etcd's published threshold held against it.
        postgres: What PostgreSQL-like work would get.
        suspicions: What speaks against its syncs; empty: nothing does.
        best: Keys of the best row of each section.
    """

    summary: list[str]
    choices: list[Choice]
    etcd: str
    postgres: str
    suspicions: list[str]
    best: list[str]

    @property
    def trust(self) -> list[str]:
        """The suspicions, or that there are none; never more than that."""
        return [*self.suspicions, EVIDENCE] if self.suspicions else [NO_EVIDENCE]

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into JSON."""
        return {
            "summary": self.summary,
            "configurations": [choice.as_dict() for choice in self.choices],
            "etcd": self.etcd,
            "postgres": self.postgres,
            "suspicions": self.suspicions,
            "trust": self.trust,
            "best": self.best,
        }


def words_of(run: Run) -> Words:
    """Say what the figures of a run mean."""
    suspicions = evidence(run)
    return Words(
        summary=_summary(run),
        choices=choices(run),
        etcd=_etcd(run, in_doubt=bool(suspicions)),
        postgres=_postgres(run),
        suspicions=suspicions,
        best=best_of(run),
    )


# ---- the best of each section --------------------------------------------------------------------


def best_of(run: Run) -> list[str]:
    """Return the keys of the best rows: none that is too fast to be true, or no sync here."""
    found = []
    lost = {NO_SYNC} if keeps_direct_syncs(run.place) else {NO_SYNC, RING_DIRECT}
    for section in (ONE, MANY, BULK):
        rows = [
            result
            for result in run.results
            if result.row.section == section
            and result.row.method not in lost
            and result.p50_us is not None
            and not result.is_too_fast
            and result.problem is None
            and (section != MANY or result.row.write_bytes != POSTGRES_BYTES)
        ]
        if rows:
            found.append(min(rows, key=_rank).row.key)
    return found


def _rank(result: RowResult) -> float:
    if result.row.section == ONE:
        return result.p50_us or 0.0
    return -(result.commits_per_second or 0.0)


# ---- what this disk can do -----------------------------------------------------------------------


def _summary(run: Run) -> list[str]:
    said = [*_lone(run), *_states(run), *_many(run), *_bulk(run)]
    return said or ["Too little was measured to say anything about this disk."]


def _lone(run: Run) -> list[str]:
    plain = run.find(FDATASYNC, ZERO_FILLED)
    if plain is None or plain.p50_us is None:
        return []
    text = f"One writer makes 4 KiB durable in {duration(plain.p50_us)}"
    if plain.p99_us is not None:
        text += f" (99 of 100 in {duration(plain.p99_us)})"
    text += f" by fdatasync on a zero-filled file: {rate(plain)}."
    ones = [result for result in run.results if result.row.section == ONE]
    best = next((r for r in ones if r.row.key in best_of(run)), None)
    if best is None or best.p50_us is None or best.row == plain.row:
        return [text]
    name = f"{best.row.method} on a {best.row.state} file"
    return [text, f"The shortest way for one writer was {name}: {duration(best.p50_us)}."]


def _states(run: Run) -> list[str]:
    growing, filled = run.find(FDATASYNC, GROWING), run.find(FDATASYNC, ZERO_FILLED)
    if not growing or not filled or not growing.p50_us or not filled.p50_us:
        return []
    ratio = growing.p50_us / filled.p50_us
    text = f"A commit to a file that grows takes {ratio:.1f} times as long as to one that was "
    text += "filled with zeros beforehand"
    if ratio >= 1.1:  # noqa: PLR2004 (a tenth is noise)
        return [f"{text}; walengine fills its segments ahead of the writer."]
    return [f"{text}: on this filesystem it makes no difference."]


def _many(run: Run) -> list[str]:
    lone = run.find(FDATASYNC, ZERO_FILLED)
    group = run.find(FDATASYNC, ZERO_FILLED, at_once=WRITERS, group=True)
    flying = run.find(RING_DIRECT, ZERO_FILLED, at_once=WRITERS)
    if not lone or not group:
        return []
    text = f"{WRITERS} writers that share a sync (group commit) make {rate(group)}"
    if lone.commits_per_second and group.commits_per_second:
        text += f", {group.commits_per_second / lone.commits_per_second:.1f} times one writer's"
    if flying:
        text += f"; {WRITERS} direct writes in flight make {rate(flying)}"
    return [f"{text}."]


def _bulk(run: Run) -> list[str]:
    rows = [
        ("through the page cache", run.find(FDATASYNC, ZERO_FILLED, BULK_BYTES)),
        ("past it", run.find(DIRECT_DSYNC, ZERO_FILLED, BULK_BYTES)),
        ("past it, 4 in flight", run.find(RING_DIRECT, ZERO_FILLED, BULK_BYTES, 4)),
        ("to a file that grows", run.find(FDATASYNC, GROWING, BULK_BYTES)),
    ]
    parts = [
        f"{row.mb_per_second:,.0f} MB/s {how}" for how, row in rows if row and row.mb_per_second
    ]
    if not parts:
        return []
    return [f"In batches of 1 MiB, each durable before the next is counted: {', '.join(parts)}."]


# ---- what others ask of a disk -------------------------------------------------------------------


def _etcd(run: Run, *, in_doubt: bool) -> str:
    rule = f"etcd asks that 99 of 100 syncs of its log take less than 10 ms ({ETCD_SOURCE})."
    result = run.find(FDATASYNC, FALLOCATED, ETCD_BYTES)
    if result is None or result.p99_us is None:
        least = SAMPLES_MIN["p99_us"]
        return f"{rule} Fewer than {least} such commits were measured here: nothing can be said."
    text = f"{rule} Here a write of {ETCD_BYTES} bytes and its fdatasync took "
    text += f"{duration(result.p99_us)} (p99 of {result.commits:,})"
    if result.p99_us < ETCD_P99_US:
        doubt = ", if they are syncs at all" if in_doubt else ""
        return f"{text}: within it, while nothing else used the disk{doubt}."
    return f"{text}: this disk is too slow for etcd."


def _postgres(run: Run) -> str:
    one = run.find(FDATASYNC, RECYCLED, POSTGRES_BYTES)
    many = run.find(FDATASYNC, RECYCLED, POSTGRES_BYTES, WRITERS, group=True)
    if one is None or many is None:
        return "Work like PostgreSQL's was not measured."
    return (
        "Work like PostgreSQL's (pages of 8 KiB into recycled segments, fdatasync, one sync for "
        f"all who wait): {rate(one)} with 1 writer, {rate(many)} with {WRITERS}. PostgreSQL "
        "publishes no threshold, and a real transaction does more than its commit."
    )


# ---- figures as text -----------------------------------------------------------------------------


def duration(us: float) -> str:
    """Return microseconds as people say them."""
    if us >= 1e6:  # noqa: PLR2004 (a second)
        return f"{us / 1e6:.2f} s"
    if us >= 1e3:  # noqa: PLR2004 (a millisecond)
        return f"{us / 1e3:.3g} ms"
    return f"{us:.0f} µs" if us >= 10 else f"{us:.1f} µs"  # noqa: PLR2004


def rate(result: RowResult) -> str:
    """Return a row's commits a second as people say them."""
    return f"{result.commits_per_second or 0.0:,.0f} commits/s"
