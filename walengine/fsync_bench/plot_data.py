"""What the plots show, for whoever draws them: inline SVG in HTML, or matplotlib."""

from __future__ import annotations

from dataclasses import dataclass

from walengine.fsync_bench.results import RowResult, Run
from walengine.fsync_bench.rows import (
    BULK,
    DIRECT_DSYNC,
    FDATASYNC,
    NO_SYNC,
    ONE,
    RING_DIRECT,
    RING_LINKED,
    ZERO_FILLED,
)

# Methods over the number at once: name of the series, method, group commit.
SERIES = (
    ("fdatasync, each for itself", FDATASYNC, False),
    ("fdatasync, group commit", FDATASYNC, True),
    (DIRECT_DSYNC, DIRECT_DSYNC, False),
    (RING_LINKED, RING_LINKED, False),
    (RING_DIRECT, RING_DIRECT, False),
)
AT_ONCE = (1, 4, 16, 64)
SLOWEST_SHARE = 1e-4  # of the commits: beyond it a curve is single samples


@dataclass(frozen=True, slots=True)
class Span:
    """One row's latencies in microseconds; p99 is None below 100 samples."""

    label: str
    p50_us: float
    p90_us: float | None
    p99_us: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """Points of a curve, x ascending."""

    label: str
    points: tuple[tuple[float, float], ...]


def spans(run: Run) -> list[Span]:
    """Return the lone writer's rows: how long a commit takes."""
    return [
        Span(_label(result), result.p50_us, result.p90_us, result.p99_us)
        for result in run.results
        if result.row.section == ONE and result.row.method != NO_SYNC and result.p50_us
    ]


def rates(run: Run) -> list[Line]:
    """Return commits a second over how many are at once: 4 KiB, zero-filled."""
    found = []
    for label, method, group in SERIES:
        points = []
        for at_once in AT_ONCE:
            # One writer's group commit is that writer.
            result = run.find(method, ZERO_FILLED, at_once=at_once, group=group and at_once > 1)
            if result and result.commits_per_second:
                points.append((float(at_once), result.commits_per_second))
        if points:
            found.append(Line(label, tuple(points)))
    curves = [line for line in found if len(line.points) > 1]
    return curves or found  # a quick run has points that belong to no curve


def bulk(run: Run) -> list[tuple[str, float]]:
    """Return megabytes a second of the bulk rows."""
    return [
        (_label(result), result.mb_per_second)
        for result in run.results
        if result.row.section == BULK and result.mb_per_second
    ]


def tails(run: Run) -> list[Line]:
    """Return, for the lone writer's zero-filled rows, the share of commits that took longer."""
    return [
        Line(result.row.method, _tail(result))
        for result in run.results
        if result.row.section == ONE
        and result.row.state == ZERO_FILLED
        and result.row.method != NO_SYNC
        and result.histogram
    ]


def _tail(result: RowResult) -> tuple[tuple[float, float], ...]:
    points = []
    slower = result.commits
    for us, count in result.histogram:
        slower -= count
        share = slower / result.commits
        points.append((us, max(share, SLOWEST_SHARE)))
        if share <= SLOWEST_SHARE:
            break
    return tuple(points)


def _label(result: RowResult) -> str:
    row = result.row
    at_once = f", {row.concurrency} at once" if row.concurrency > 1 else ""
    return f"{row.method}, {row.state}{at_once}"
