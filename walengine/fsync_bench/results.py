"""Figures: one row's, a run's; what they may say, and how they go into a file and come back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from walengine.fsync_bench.rows import NO_SYNC, ROWS, Row

FORMAT = 1  # of the JSON object; see from_dict

# Below so many samples a percentile is a guess.
SAMPLES_MIN = {"p50_us": 2, "p90_us": 10, "p99_us": 100, "p999_us": 1000}
PERCENTILES = tuple(SAMPLES_MIN)

TOO_FAST_US = 20.0  # no device outside memory answers a flush in less


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row's figures; latencies in microseconds.

    Attributes:
        row: What was measured.
        commits: Samples.
        syncs, warm_up_commits, warm_up_syncs, preparation_syncs: As counted by the C core.
        bytes: Written while the clock ran.
        elapsed_us: How long that took.
        p50_us, p90_us, p99_us, p999_us: None below SAMPLES_MIN.
        max_us: None without samples.
        histogram: Upper bound of a bucket and the commits in it, ascending.
        ring: Whose ring, or None.
        registered: The ring's memory was registered.
        stopped: The row was ended before its time.
        problem: Why it could not be measured, or not to its end; None.
    """

    row: Row
    commits: int = 0
    syncs: int = 0
    warm_up_commits: int = 0
    warm_up_syncs: int = 0
    preparation_syncs: int = 0
    bytes: int = 0
    elapsed_us: float = 0.0
    p50_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    max_us: float | None = None
    histogram: tuple[tuple[float, int], ...] = ()
    ring: str | None = None
    registered: bool = False
    stopped: bool = False
    problem: str | None = None

    @property
    def commits_per_second(self) -> float | None:
        """Commits while the clock ran, by its seconds."""
        return self.commits / self.elapsed_us * 1e6 if self.elapsed_us > 0 else None

    @property
    def mb_per_second(self) -> float | None:
        """Megabytes (10⁶) while the clock ran, by its seconds."""
        return self.bytes / self.elapsed_us if self.elapsed_us > 0 else None

    @property
    def is_too_fast(self) -> bool:
        """It claims to sync, faster than a device can answer."""
        syncs = self.row.method != NO_SYNC
        return syncs and self.p50_us is not None and self.p50_us < TOO_FAST_US

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into JSON."""
        row = dataclasses.asdict(self.row)
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del facts["row"]
        facts["commits_per_second"] = self.commits_per_second
        facts["mb_per_second"] = self.mb_per_second
        facts["histogram"] = [list(bucket) for bucket in self.histogram]
        return {"key": self.row.key} | row | facts


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the bench.

    Attributes:
        place: What was measured on: the facts of ``place.facts_of``.
        seconds_per_row: Time of a row.
        is_quick: The quick run's rows.
        is_complete: It came to its end.
        results: Rows in the order in which they were measured.
    """

    place: dict[str, Any]
    seconds_per_row: float
    is_quick: bool
    is_complete: bool
    results: tuple[RowResult, ...]

    def find(
        self,
        method: str,
        state: str,
        write_bytes: int = 4096,
        at_once: int = 1,
        *,
        group: bool = False,
    ) -> RowResult | None:
        """Return the row's figures where it was measured."""
        for result in self.results:
            row = result.row
            wanted = (method, state, write_bytes, at_once, group)
            found = (row.method, row.state, row.write_bytes, row.concurrency, row.group)
            if wanted == found and result.commits > 0:
                return result
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "format": FORMAT,
            "place": self.place,
            "seconds_per_row": self.seconds_per_row,
            "quick": self.is_quick,
            "complete": self.is_complete,
            "rows": [result.as_dict() for result in self.results],
        }


def run_from_dict(value: Any) -> Run:
    """Return the run that a JSON object holds; rows that this version does not measure are left.

    Raises:
        ValueError: It is no such object.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError("it does not hold what 'walengine bench fsync --json' prints")
    known = {row.key: row for row in ROWS}
    names = {f.name for f in dataclasses.fields(RowResult)} - {"row", "histogram"}
    results = []
    try:
        for each in value["rows"]:
            row = known.get(each["key"])
            if row is None:
                continue
            histogram = tuple((float(us), int(count)) for us, count in each["histogram"])
            facts = {name: each[name] for name in names}
            results.append(RowResult(row=row, histogram=histogram, **facts))
        return Run(
            place=dict(value["place"]),
            seconds_per_row=float(value["seconds_per_row"]),
            is_quick=bool(value["quick"]),
            is_complete=bool(value["complete"]),
            results=tuple(results),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it is not whole: {error!r}") from None
