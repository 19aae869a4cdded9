"""What is compared: one function for each group of rows, in the order of the report."""

from __future__ import annotations

import os
import time
from functools import partial

from contenders.base import RECORD_BYTES
from groups import COUNT_MAX, Bench
from players import LIMIT, Answer, Player, wait_until_quiet

PEERS = ["SQLite", "LMDB", "LevelDB", "RocksDB", "persist-queue", "os.write + fdatasync"]
THREADED = ["walengine", "walengine direct_io", *PEERS, LIMIT]
TASKS = [
    "walengine asyncio",
    "walengine uvloop",
    "walengine asyncio direct_io",
    "walengine uvloop direct_io",
    "LevelDB in an executor",
]
READ = ["walengine", "SQLite", "LMDB", "LevelDB", "RocksDB", "os.write + fdatasync"]
BATCHED_AT_ONCE = [
    "walengine",
    "walengine direct_io",
    "walengine asyncio direct_io",
    "LMDB",
    "LevelDB",
    "RocksDB",
]
KILLED = ["walengine", "SQLite", "LMDB", "LevelDB", "RocksDB"]
GROWN = ["walengine", "SQLite", "LMDB", "LevelDB", "RocksDB"]

BATCH_RECORDS = 1000
BATCHES_MAX = 4000  # of one slice: 1 GB
BATCHES_AT_ONCE = 16
LEVELDB_BEST_THREADS = 32  # as measured: its writers share a sync
PEER_BYTES_MAX = 10**9  # a peer's largest store in the rows of opening and growing
TAIL_RECORDS = 65_536  # 16 MiB since the last kill
TAIL_SECONDS = 0.2
STAGED_RECORDS = 10_000  # below max_batch_bytes: no flush among them
WORDS = {10**6: "MB", 10**9: "GB"}


def put(concurrency: int, milliseconds: int, player: Player) -> Answer:
    """Run a slice of durable puts."""
    return player.ask("puts", concurrency, milliseconds, COUNT_MAX)


def puts(bench: Bench, names: list[str], levels: tuple[int, ...]) -> None:
    """One record of 256 bytes made durable, by one thread and by several."""
    with bench.players(names, "puts") as players:
        for level in levels:
            rounds = bench.plan.lone_rounds if level == 1 else bench.plan.puts_rounds
            work = partial(put, level, bench.plan.slice_ms)
            what = f"durable puts, {level} thread{'s' if level > 1 else ''}"
            for name, slices in bench.by_turns(what, players, rounds, work).items():
                bench.add_puts("puts", name, slices, level)


def tasks(bench: Bench) -> None:
    """The same from asyncio tasks; beside it LevelDB from threads, as many as are best for it."""
    with bench.players([*TASKS, "LevelDB"], "tasks") as players:
        for level in bench.plan.tasks:

            def work(player: Player, level: int = level) -> Answer:
                is_threaded = player.name == "LevelDB"
                concurrency = LEVELDB_BEST_THREADS if is_threaded else level
                return put(concurrency, bench.plan.slice_ms, player)

            what = f"durable puts, {level} asyncio task{'s' if level > 1 else ''}"
            taken = bench.by_turns(what, players, bench.plan.puts_rounds, work)
            for name, slices in taken.items():
                bench.add_puts("tasks", name, slices, level)


def batches(bench: Bench, names: list[str], at_once: int = 1) -> None:
    """Batches of 1,000 records; each thread (or task) has one durable before its next."""
    group = "batches" if at_once == 1 else "batches-at-once"

    def work(player: Player) -> Answer:
        words = ["batches", BATCH_RECORDS, bench.plan.slice_ms, BATCHES_MAX]
        answer = player.ask(*words, *([] if at_once == 1 else [at_once]))
        player.ask("trim")
        return answer

    with bench.players(names, group) as players:
        what = f"durable batches of {BATCH_RECORDS:,}, {at_once} at once"
        for name, slices in bench.by_turns(what, players, bench.plan.batches_rounds, work).items():
            rates = [BATCH_RECORDS * len(each["ns"]) / each["wall_ns"] * 1e9 for each in slices]
            bench.add(
                group,
                name,
                rates,
                "records/s",
                concurrency=at_once,
                samples=sum(len(each["ns"]) for each in slices),
                record_bytes=RECORD_BYTES,
            )


def staging(bench: Bench) -> None:
    """append_batched, the flush left out, alone and beside a busy thread."""
    with bench.players(["walengine"], "staging") as players:
        for command in ("stage", "stage-busy"):
            taken = bench.by_turns(
                f"append_batched ({command})",
                players,
                bench.plan.stage_rounds,
                lambda player, command=command: player.ask(command, STAGED_RECORDS),
            )
            for name, slices in taken.items():
                bench.add(
                    command,
                    name,
                    [each["ns"] for each in slices],
                    "ns/call",
                    samples=STAGED_RECORDS * len(slices),
                    reference_ns=[each["reference_ns"] for each in slices],
                )


def scans(bench: Bench) -> None:
    """Reading every record into a Python loop, from the page cache."""
    count = bench.plan.scan_records

    def prepare(player: Player) -> Answer:
        player.ask("load", count)
        player.ask("close")
        return player.ask("open", player.directory)

    def checked(player: Player, command: str) -> Answer:
        answer = player.ask(command)
        if answer["count"] != count:
            raise RuntimeError(f"{player.name} read {answer['count']} of {count} records")
        return answer

    with bench.players(READ, "scan") as players:
        ready = [each for each in players if bench.attempt(each, "scan", partial(prepare, each))]
        own = [each for each in ready if each.name == "walengine"]
        groups = [("scan", ready), ("pairs-scan", own), ("batches-scan", own)]
        for command, readers in groups:
            work = partial(checked, command=command)
            taken = bench.by_turns(command, readers, bench.plan.scan_rounds, work)
            for name, slices in taken.items():
                rates = [count / each["wall_ns"] * 1e9 for each in slices]
                bench.add(command, name, rates, "records/s", samples=count * len(slices))


def verifying(bench: Bench) -> None:
    """Checking every frame of a log in the page cache, with one thread and with two."""
    with bench.players(["walengine"], "verify") as players:
        for each in players:
            bench.attempt(each, "verify", partial(each.ask, "load", bench.plan.verify_records))
        for threads in (1, 2):
            taken = bench.by_turns(
                f"verify, {threads} thread{'s' if threads > 1 else ''}",
                players,
                bench.plan.scan_rounds,
                lambda player, threads=threads: player.ask("verify", threads),
            )
            for name, slices in taken.items():
                bench.add(
                    "verify",
                    name,
                    [each["bytes"] / each["wall_ns"] for each in slices],
                    "GB/s",
                    concurrency=threads,
                    samples=len(slices),
                )


def opening(bench: Bench) -> None:
    """Opening what a killed process left behind, at several sizes."""
    for size in bench.plan.open_bytes:
        names = KILLED if size <= PEER_BYTES_MAX else ["walengine"]
        group = f"open {size_text(size)} after kill -9"
        with bench.players(names, group) as players:
            for each in players:
                fill = partial(each.ask, "load", size // RECORD_BYTES)
                if bench.attempt(each, group, fill) is None:
                    each.give_up()
            work = partial(killed_and_opened, players)
            for name, slices in bench.by_turns(
                group, players, bench.plan.open_rounds, work
            ).items():
                bench.add(
                    "open",
                    name,
                    [each["wall_ns"] / 1e6 for each in slices],
                    "ms",
                    store_bytes=size,
                    samples=len(slices),
                )


def killed_and_opened(players: list[Player], player: Player) -> Answer:
    """Kill a contender among its puts, and open the store in a new process."""
    player.ask("load", TAIL_RECORDS)
    player.begin("puts", 1, 60_000, COUNT_MAX)
    time.sleep(TAIL_SECONDS)
    player.kill()
    player.ask("memory")  # the new process has imported everything
    wait_until_quiet(players)
    os.sync()
    return player.open()


def growth(bench: Bench) -> None:
    """What a durable put costs, and how much memory is resident, as the store grows."""
    plan = bench.plan
    names = GROWN if plan.growth_bytes <= PEER_BYTES_MAX else ["walengine"]
    step_records = plan.growth_bytes // plan.growth_steps // RECORD_BYTES

    def work(player: Player) -> Answer:
        loaded = player.ask("load", step_records)
        answer = put(1, plan.slice_ms // 2, player)
        memory = player.ask("memory")["bytes"]
        return {**answer, "load_ns": loaded["wall_ns"], "memory_bytes": memory}

    with bench.players(names, "growth") as players:
        what = f"growth to {size_text(plan.growth_bytes)}"
        # One step of the growth is the warm-up of by_turns.
        taken = bench.by_turns(what, players, plan.growth_steps - 1, work)
        for name, slices in taken.items():
            at = [(number + 2) * step_records * RECORD_BYTES for number in range(len(slices))]
            rates = [step_records / each["load_ns"] * 1e9 for each in slices]
            bench.add(
                "growth",
                name,
                [sorted(each["ns"])[len(each["ns"]) // 2] / 1000 for each in slices],
                "us",
                samples=sum(len(each["ns"]) for each in slices),
                store_bytes=at,
                memory_bytes=[each["memory_bytes"] for each in slices],
                load_per_second=rates,
            )


def size_text(size: int) -> str:
    """Return a round number of bytes as people say it."""
    unit = 10**9 if size >= 10**9 else 10**6
    return f"{size // unit:,} {WORDS[unit]}"
