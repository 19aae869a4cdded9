"""The groups of rows: contenders that do the same work by turns, a slice each, round after round.

A group that fails for one contender goes on with the others; what went wrong is kept and printed.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loops import CannotRunError
from percentiles import cdf_us, latencies_us, spread
from players import Answer, Player, PlayerFailedError, player, wait_until_quiet

COUNT_MAX = 10_000_000

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done; make bench-quick has a smaller one."""

    puts_rounds: int = 6
    lone_rounds: int = 10
    batches_rounds: int = 6
    scan_rounds: int = 5
    open_rounds: int = 5
    stage_rounds: int = 15
    slice_ms: int = 400
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    tasks: tuple[int, ...] = (1, 10, 100, 1000)
    scan_records: int = 1_000_000
    verify_records: int = 2_000_000
    open_bytes: tuple[int, ...] = (100 * 10**6, 10**9)
    growth_bytes: int = 10**9
    growth_steps: int = 20


QUICK = Plan(
    puts_rounds=3,
    lone_rounds=5,
    batches_rounds=3,
    scan_rounds=3,
    open_rounds=3,
    stage_rounds=5,
    slice_ms=200,
    concurrency=(1, 32),
    tasks=(10, 100, 1000),
    scan_records=300_000,
    verify_records=500_000,
    open_bytes=(100 * 10**6,),
    growth_bytes=100 * 10**6,
    growth_steps=5,
)
# Whether everything runs; its figures say nothing.
TINY = Plan(
    puts_rounds=2,
    lone_rounds=2,
    batches_rounds=2,
    scan_rounds=1,
    open_rounds=1,
    stage_rounds=1,
    slice_ms=30,
    concurrency=(1, 4),
    tasks=(10, 100),
    scan_records=20_000,
    verify_records=20_000,
    open_bytes=(10 * 10**6,),
    growth_bytes=20 * 10**6,
    growth_steps=2,
)
LARGE = Plan(
    open_rounds=3,
    open_bytes=(100 * 10**6, 10**9, 10 * 10**9),
    growth_bytes=10 * 10**9,
    growth_steps=40,
)


@dataclass(slots=True)
class Bench:
    """One run: where it writes, how much it does, and what it came to so far."""

    scratch: Path
    plan: Plan
    rows: list[Row] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def players(self, names: list[str], group: str) -> Iterator[list[Player]]:
        """Start contenders and open their stores; end them, and remove what they wrote."""
        made = [player(name, self.scratch) for name in names]
        try:
            yield [each for each in made if self._opens(each, group)]
        finally:
            for each in made:
                each.kill()
                remove(each.directory)

    def _opens(self, of: Player, group: str) -> bool:
        answer = self.attempt(of, group, of.open)
        if answer and answer.get("version"):
            self.versions[of.name] = answer["version"]
        return answer is not None

    def attempt(self, of: Player, group: str, work: Callable[[], Answer]) -> Answer | None:
        """Do something; a contender that cannot do it is put down among the problems."""
        key = f"{group}: {of.name}"
        try:
            return work()
        except CannotRunError as error:
            self.problems.setdefault(key, f"left out: {error}")
        except PlayerFailedError as error:
            self.problems[key] = f"FAILED: {error}"
            of.give_up()
        except Exception as error:  # noqa: BLE001 (the other contenders are worth having)
            traceback.print_exception(error)
            self.problems[key] = f"FAILED: {type(error).__name__}: {error}"
            of.give_up()
        return None

    def by_turns(
        self, group: str, players: list[Player], rounds: int, work: Callable[[Player], Answer]
    ) -> dict[str, list[Answer]]:
        """Let each do a slice of work in each round; return the slices of those that did.

        Every second round goes the other way round: half of a drift goes one way and half the
        other.
        """
        print(f"  {group}: {', '.join(each.name for each in players)}", file=sys.stderr, flush=True)
        running = [each for each in players if not each.is_out]
        running = [each for each in running if self.attempt(each, group, lambda e=each: work(e))]
        taken: dict[str, list[Answer]] = {each.name: [] for each in running}
        for number in range(rounds):
            for each in list(running) if number % 2 == 0 else list(reversed(running)):
                wait_until_quiet(players)
                os.sync()
                answer = self.attempt(each, group, lambda e=each: work(e))
                if answer is None:
                    running.remove(each)
                else:
                    taken[each.name].append(answer)
        return {each.name: taken[each.name] for each in running}

    def add(self, group: str, contender: str, values: list[float], unit: str, **more: Any) -> None:
        """Keep a row."""
        self.rows.append(
            {
                "group": group,
                "contender": contender,
                "unit": unit,
                **spread(values),
                "rounds": len(values),
                "values": values,
                **more,
            }
        )

    def add_puts(self, group: str, name: str, slices: list[Answer], concurrency: int) -> None:
        """Keep a row of durable puts."""
        took = [duration for each in slices for duration in each["ns"]]
        self.add(
            group,
            name,
            [len(each["ns"]) / each["wall_ns"] * 1e9 for each in slices],
            "puts/s",
            concurrency=concurrency,
            samples=len(took),
            latency_us=latencies_us(took),
            p50_us=[latencies_us(each["ns"])["p50"] for each in slices],
            cdf_us=cdf_us(took),
        )


def remove(directory: Path) -> None:
    """Remove a contender's files, some of which may be on their way out."""
    shutil.rmtree(directory, ignore_errors=True)
