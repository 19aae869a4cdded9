"""Prove that every contender syncs: count its system calls and the disk's flushes per durable put.

    python bench/proof.py [--dir DIRECTORY] [--json FILE] [--puts N]

Each contender runs twice under strace, in a fresh directory, once with one warm-up put and once
with N puts more; the difference is what N puts cost, whatever opening and closing cost. A sync is
a call of fsync, fdatasync, msync(MS_SYNC) or pwritev2(RWF_DSYNC); a ring's syncs make no system
call, so the log's own count of the sync entries that it submitted stands in a column beside it.
The third count asks nobody: flushes that the disk was sent in the same time, without strace, from
/sys/block. Whatever else writes to that disk counts there too, so it can only be too large.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from compare import BUILT, GO, RESULTS, RUST, interrupted_as_exit
from comparisons import PEERS
from contenders import CONTENDERS
from groups import remove
from loops import CannotRunError
from machine import block_device, describe
from players import LIMIT, NATIVE, Player, PlayerFailedError
from report import print_table

TRACED = "fsync,fdatasync,msync,pwritev2"
SYNC = re.compile(r"(?:fsync|fdatasync)\(|msync\(.*MS_SYNC|pwritev2\(.*RWF_DSYNC")
RETURNED = re.compile(r"= \d+$")
HOUR_MS = 3_600_000
FLUSHES_FIELD = 15  # of /sys/block/NAME/stat, see the kernel's Documentation/block/stat.rst
PUTS = 200


class TracedPlayer(Player):
    """A contender whose process runs under strace."""

    def __init__(self, name: str, directory: Path, trace: Path) -> None:
        super().__init__(name, directory)
        self._trace = trace

    def command(self) -> list[str]:
        """Return what is run."""
        strace = ["strace", "-f", "-qq", "-e", f"trace={TRACED}", "-o", str(self._trace)]
        return [*strace, *super().command()]

    def syncs(self) -> int:
        """Return how many syncs were called and did not fail."""
        lines = self._trace.read_text(encoding="utf-8", errors="replace").splitlines()
        return count_syncs(lines)


def count_syncs(lines: list[str]) -> int:
    """Count the syncs in a trace; a call may be cut in two where threads take turns."""
    count = 0
    begun: set[str] = set()
    for line in lines:
        thread = line.split(maxsplit=1)[0]
        if "resumed>" in line:
            is_sync = thread in begun
            begun.discard(thread)
        else:
            is_sync = SYNC.search(line) is not None
            if line.rstrip().endswith("<unfinished ...>"):
                if is_sync:
                    begun.add(thread)
                continue
        count += is_sync and RETURNED.search(line.rstrip()) is not None
    return count


def traced(name: str, directory: Path, puts: int) -> tuple[int, int | None]:
    """Return the syncs that strace saw of a whole life with so many puts, and the ring's."""
    trace = directory.parent / "trace"
    player = TracedPlayer(name, directory, trace)
    try:
        player.open()
        player.ask("puts", 1, HOUR_MS, puts)
        ring = own_count(player)
        player.end()
        return player.syncs(), ring
    finally:
        player.kill()
        remove(directory)
        trace.unlink(missing_ok=True)


def own_count(player: Player) -> int | None:
    """Return the sync entries that a log gave its ring; None: it has none, or says nothing."""
    try:
        value = player.ask("counter", "ring", "syncs").get("value")
    except CannotRunError:
        return None
    return int(value) if value is not None else None


def flushes_of(name: str, directory: Path, puts: int, device: Path) -> int:
    """Return how many flushes the disk was sent during so many puts."""
    player = Player(name, directory)
    try:
        player.open()
        player.ask("puts", 1, HOUR_MS, 1)
        os.sync()
        before = flushes(device)
        player.ask("puts", 1, HOUR_MS, puts)
        return flushes(device) - before
    finally:
        player.kill()
        remove(directory)


def flushes(device: Path) -> int:
    """Return how many flushes a disk has completed since it is there."""
    return int((device / "stat").read_text(encoding="ascii").split()[FLUSHES_FIELD])


def prove(name: str, scratch: Path, puts: int, device: Path | None) -> dict[str, Any]:
    """Return a contender's counts for so many puts by one thread or task."""
    few, few_ring = traced(name, scratch / "few", 1)
    many, many_ring = traced(name, scratch / "many", puts + 1)
    ring = many_ring - few_ring if many_ring is not None and few_ring is not None else None
    sent = flushes_of(name, scratch / "flushes", puts, device) if device else None
    syncs = many - few
    return {
        "contender": name,
        "puts": puts,
        "sync_calls": syncs,
        "ring_syncs": ring,
        "device_flushes": sent,
        "syncs_every_put": syncs + (ring or 0) >= puts,
    }


def contenders() -> list[str]:
    """Return everyone that can be asked here: Python's, and those that are built."""
    own = [name for name in CONTENDERS if name.startswith("walengine")]
    native = [name for name in RUST + GO if NATIVE[name].exists()]
    return [*own, *PEERS, "LevelDB in an executor", *native]


def cells(row: dict[str, Any]) -> list[str]:
    """Return a line of the table."""
    shown = ["-" if row[key] is None else f"{row[key]:,}" for key in COLUMNS]
    return [row["contender"], *shown, "yes" if row["syncs_every_put"] else "NO"]


COLUMNS = ("puts", "sync_calls", "ring_syncs", "device_flushes")


def main() -> int:
    """Prove, print, write JSON; fail if a contender does not sync every put."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk")
    parser.add_argument("--json", type=Path, help="default: build/bench/proof.json")
    parser.add_argument("--store", action="store_true", help="keep it in bench/results")
    parser.add_argument("--puts", type=int, default=PUTS)
    options = parser.parse_args()
    if shutil.which("strace") is None:
        print("bench-proof: skipped, there is no strace")
        return 0
    interrupted_as_exit()
    device = block_device(options.dir)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(
        prefix="walengine-bench-", dir=options.dir, ignore_cleanup_errors=True
    ) as scratch:
        for name in contenders():
            print(f"  {name}", file=sys.stderr, flush=True)
            try:
                rows.append(prove(name, Path(scratch), options.puts, device))
            except (CannotRunError, PlayerFailedError) as error:
                print(f"{name}: left out: {error}")
    print_table([["contender", *COLUMNS, "syncs every put"], *map(cells, rows)])
    facts = describe(options.dir, shlex.join(["python", *sys.argv]))
    written = RESULTS / "proof.json" if options.store else options.json or BUILT / "proof.json"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps({"setting": facts, "rows": rows}, indent=1) + "\n")
    print(f"the C loops ({LIMIT}) and fio are not traced: bench/limit.c is short enough to read")
    print(f"written: {written}")
    return int(not all(row["syncs_every_put"] for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; every file is removed", file=sys.stderr)
        sys.exit(130)
