"""The ratios that the log is judged by, each out of one run, and what they were when stored.

A ratio of two contenders of one group that had the same rounds is taken round by round; others are
ratios of medians. Absolute figures depend on the machine and its hour; a ratio can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

Row = dict[str, Any]
Results = dict[str, Any]

ENGINES = ("SQLite", "LMDB", "LevelDB", "RocksDB", "persist-queue")
WORSE_MAX = 1 / 3  # a ratio that became worse by more than this share is a regression


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of the log by another figure of the same run."""

    name: str
    values: list[float]
    target: float | None = None  # None: shown and not judged
    more_is_better: bool = True
    unit: str = "x"
    note: str = ""

    def as_row(self) -> Row:
        """Return what the JSON file has of it."""
        value = median(self.values)
        met = None
        if self.target is not None:
            met = value >= self.target if self.more_is_better else value <= self.target
        return {
            "name": self.name,
            "median": value,
            "min": min(self.values),
            "max": max(self.values),
            "unit": self.unit,
            "target": self.target,
            "more_is_better": self.more_is_better,
            "met": met,
            "note": self.note,
        }


class Rows:
    """The rows of a run, found by what they measure."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def find(self, group: str, contender: str, **more: Any) -> Row | None:
        """Return a row, or None where the run has none."""
        for row in self._rows:
            is_one = row["group"] == group and row["contender"] == contender
            if is_one and all(row.get(key) == value for key, value in more.items()):
                return row
        return None

    def best(self, group: str, contenders: tuple[str, ...]) -> Row | None:
        """Return the row with the largest median, at whichever concurrency."""
        rows = [r for r in self._rows if r["group"] == group and r["contender"] in contenders]
        return max(rows, key=lambda row: float(row["median"]), default=None)

    def lone_puts(self) -> list[Row]:
        """Return the rows of one thread."""
        return [r for r in self._rows if r["group"] == "puts" and r["concurrency"] == 1]


def by_round(mine: list[float], its: list[float]) -> list[float]:
    """Return the ratio in each round, or of the medians if the rounds differ."""
    if len(mine) != len(its):
        return [median(mine) / median(its)]
    return [left / right for left, right in zip(mine, its, strict=True)]


def ratios(rows: list[Row]) -> list[Row]:
    """Return every ratio that the rows allow."""
    found = Rows(rows)
    made = [
        *_lone(found),
        *_threads(found),
        *_tasks(found),
        *_batches(found),
        *_staging(found),
        *_reading(found),
        *_opening(found),
        *_growth(found),
    ]
    return [each.as_row() for each in made]


def _lone(rows: Rows) -> list[Ratio]:
    """One thread: the median time of a put."""
    mine = rows.find("puts", "walengine", concurrency=1)
    if mine is None:
        return []
    made = []
    if limit := rows.find("puts", "C limit", concurrency=1):
        values = by_round(mine["p50_us"], limit["p50_us"])
        made.append(Ratio("1 thread, p50: walengine by the C loop", values, 1.10, False))
    peers = [row for row in rows.lone_puts() if row["contender"] in ENGINES]
    if peers:
        best = min(peers, key=lambda row: median(row["p50_us"]))
        values = by_round(mine["p50_us"], best["p50_us"])
        name = "1 thread, p50: walengine by the fastest peer"
        made.append(Ratio(name, values, 1.0, False, note=best["contender"]))
    return made


def _threads(rows: Rows) -> list[Ratio]:
    """32 threads, by what each peer does at its best."""
    candidates = [
        row
        for name in ("walengine", "walengine direct_io")
        if (row := rows.find("puts", name, concurrency=32))
    ]
    made = []
    for mine in candidates:
        for peer, target in (("LevelDB", 2.0), ("RocksDB", 8.0)):
            if best := rows.best("puts", (peer,)):
                note = f"{peer}: {best['concurrency']} threads"
                name = f"32 threads, puts/s: {mine['contender']} by {peer}'s best"
                values = by_round(mine["values"], best["values"])
                judged = target if mine["contender"] == "walengine" else None
                made.append(Ratio(name, values, judged, note=note))
    return made


def _tasks(rows: Rows) -> list[Ratio]:
    """Tasks of a loop, by LevelDB's 32 threads in the same rounds."""
    made = []
    for tasks, target in ((10, 1.5), (100, 8.0), (1000, 12.0)):
        peer = rows.find("tasks", "LevelDB", concurrency=tasks)
        for loop in ("asyncio", "uvloop", "asyncio direct_io", "uvloop direct_io"):
            mine = rows.find("tasks", f"walengine {loop}", concurrency=tasks)
            if mine and peer:
                name = f"{tasks:,} tasks on {loop}, puts/s: walengine by LevelDB's 32 threads"
                made.append(Ratio(name, by_round(mine["values"], peer["values"]), target))
    return made


def _batches(rows: Rows) -> list[Ratio]:
    """Batches of 1,000, by the best engine and by what the disk takes."""
    mine = rows.find("batches", "walengine")
    best = rows.best("batches", ENGINES)
    made = []
    if mine and best:
        name = "durable batches of 1,000, records/s: walengine by the fastest peer"
        made.append(
            Ratio(name, by_round(mine["values"], best["values"]), 10.0, note=best["contender"])
        )
    many = rows.best("batches-at-once", ("walengine asyncio direct_io", "walengine direct_io"))
    if many and (best := rows.best("batches-at-once", ENGINES)):
        name = f"the same, {many['concurrency']} at once: {many['contender']} by the fastest peer"
        made.append(Ratio(name, by_round(many["values"], best["values"]), note=best["contender"]))
    if mine and (disk := rows.find("batches", "fio")):
        name = "durable batches of 1,000, bytes/s: walengine by fio's direct writes"
        made.append(Ratio(name, by_round(mine["values"], disk["values"]), 2 / 3))
    return made


def _staging(rows: Rows) -> list[Ratio]:
    """append_batched by a plain method, and beside a thread that counts."""
    made = []
    if alone := rows.find("stage", "walengine"):
        values = by_round(alone["values"], alone["reference_ns"])
        name = "append_batched by a method with lock, list.append and a count"
        made.append(Ratio(name, values, 3.0, False))
    if beside := rows.find("stage-busy", "walengine"):
        name = "append_batched beside a busy thread"
        made.append(Ratio(name, beside["values"], 1000.0, False, unit="ns"))
    return made


def _reading(rows: Rows) -> list[Ratio]:
    """Replay by LMDB's scan; blocks; checking."""
    made = []
    mine, peer = rows.find("scan", "walengine"), rows.find("scan", "LMDB")
    if mine and peer:
        values = by_round(mine["values"], peer["values"])
        made.append(Ratio("replay, records/s: walengine by LMDB's scan", values, 1.0))
    pairs = rows.find("pairs-scan", "walengine")
    if pairs and peer:
        values = by_round(pairs["values"], peer["values"])
        made.append(Ratio("pairs out of batches(), records/s, by LMDB's scan", values, 1.0))
    if blocks := rows.find("batches-scan", "walengine"):
        values = [value / 1e6 for value in blocks["values"]]
        made.append(Ratio("batches()", values, 10.0, unit="M records/s"))
    if verify := rows.find("verify", "walengine", concurrency=2):
        made.append(Ratio("verify on 2 threads", verify["values"], 8.0, unit="GB/s"))
    return made


def _opening(rows: Rows) -> list[Ratio]:
    """Opening the largest log, by the limit of 100 ms and by the smallest log."""
    sizes = (10 * 10**6, 100 * 10**6, 10**9, 10 * 10**9)
    logs = [r for size in sizes if (r := rows.find("open", "walengine", store_bytes=size))]
    if not logs:
        return []
    gigabytes = logs[-1]["store_bytes"] / 1e9
    name = f"opening {gigabytes:g} GB after kill -9"
    made = [Ratio(name, logs[-1]["values"], 100.0, False, unit="ms")]
    if len(logs) > 1:
        values = [logs[-1]["median"] / logs[0]["median"]]
        name = f"the same, by opening {logs[0]['store_bytes'] / 1e9:g} GB"
        made.append(Ratio(name, values, None, False))
    return made


def _growth(rows: Rows) -> list[Ratio]:
    """The last quarter of the growth by the first, and memory."""
    mine = rows.find("growth", "walengine")
    if mine is None:
        return []
    quarter = max(1, len(mine["values"]) // 4)
    values = [median(mine["values"][-quarter:]) / median(mine["values"][:quarter])]
    resident = [size / 2**20 for size in mine["memory_bytes"]]
    gigabytes = mine["store_bytes"][-1] / 1e9
    return [
        Ratio(f"a put's p50 at {gigabytes:g} GB by the first quarter's", values, 1.25, False),
        Ratio("resident memory, interpreter included", resident, 68.0, False, unit="MiB"),
    ]


def regressions(now: list[Row], stored: list[Row]) -> list[str]:
    """Return a sentence for each ratio that became worse by more than a third."""
    before = {row["name"]: row for row in stored}
    said = []
    for row in now:
        old = before.get(row["name"])
        if old is None or not old["median"] or not row["median"]:
            continue
        change = row["median"] / old["median"] - 1
        if (-change if row["more_is_better"] else change) > WORSE_MAX:
            said.append(
                f"{row['name']}: {row['median']:.2f} {row['unit']}, was {old['median']:.2f}"
            )
    return said
