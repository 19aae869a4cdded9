"""The same operations leave the same files, whoever writes them.

Method: random lists of operations, each done by one thread on pwrite, on io_uring through liburing
and through the built-in ring; salts, UUID and clock come from a seed, there is no idle watermark,
and what the background thread does is done where the list says so. Then the directories are
compared, byte for byte, LOCK excepted.

Commits are aligned to 4096 bytes throughout (strict_sectors). Direct writers are compared with
direct ones: their append() is synced, so what a frame says of durability differs.

A frame says what was durable when it was made. Where one flush is more groups than may be in
flight, that is a matter of timing: so here there is room for all of them, or for one.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import pytest
from needs import needs_ring
from places import memory_path  # noqa: F401 (a fixture)
from rings import KINDS, maintain, no_threads, open_kind

from walengine import IoUringConfig, recover, replay, verify

LISTS = 36
SHORT_MAX = 6000
SEGMENT_BYTES = 128 * 1024
FRAME_BYTES = 1 << 20
SIZES = (0, 1, 100, 4095, 4096, 4097, 8191, 8193, 20_000)
LARGE = (40_000, 70_000, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES + 4096, FRAME_BYTES + 1)
SHAPES = (
    IoUringConfig(sq_entries=1, registered_buffers=4, buffer_size=8192, max_inflight=1),
    IoUringConfig(sq_entries=8, registered_buffers=1, buffer_size=4096, max_inflight=1),
    IoUringConfig(),
)
VERBS = {
    "append": 6,
    "checked": 3,
    "stage": 8,
    "stage checked": 4,
    "flush": 6,
    "append and sync": 4,
    "large": 2,
    "many": 2,
    "trim": 1,
    "maintain": 2,
    "recover": 1,
    "reopen": 2,
}


@dataclass(frozen=True)
class Work:
    """One list of operations and the shape of the buffers that it goes through."""

    seed: int
    io: IoUringConfig
    steps: tuple[tuple[str, int], ...]


def work(seed: int) -> Work:
    draw = random.Random(seed)
    names, weights = zip(*VERBS.items(), strict=True)
    steps = []
    for verb in draw.choices(names, weights, k=draw.randrange(4, 30)):
        size = draw.choice(LARGE if verb == "large" else SIZES)
        steps.append((verb, draw.randrange(SHORT_MAX) if draw.random() < 0.3 else size))
    return Work(seed | 1, SHAPES[seed % len(SHAPES)], tuple(steps))


def content(number: int, size: int) -> bytes:
    return hashlib.shake_128(b"%d" % number).digest(size)


class Run:
    """The operations of one list on one kind of writer."""

    def __init__(self, path, kind, work, direct_io) -> None:
        self.path, self.kind, self.work = path, kind, work
        fields = {name: getattr(work.io, name) for name in work.io.__dataclass_fields__}
        self.io = IoUringConfig(**(fields | {"direct_io": direct_io}))
        self.openings = 0
        self.records = []  # (LSN, data) of all that was appended

    def open(self):
        self.openings += 1
        with no_threads(self.work.seed + 1000 * self.openings):
            return open_kind(self.path, self.kind, self.io, strict_sectors=True,
                             segment_bytes=SEGMENT_BYTES, max_record_bytes=4 << 20)  # fmt: skip

    def next(self, size: int) -> bytes:
        number = len(self.records) + 1
        self.records.append((number, content(number, size)))
        return self.records[-1][1]

    def run(self):
        wal = self.open()
        for verb, size in self.work.steps:
            if verb == "reopen":
                wal.close()
                wal = self.open()
            else:
                self.step(wal, verb, size)
        last = wal.stats()
        wal.close()
        return last

    def step(self, wal, verb, size) -> None:
        appends = {
            "append": wal.append,
            "append and sync": wal.append,
            "large": wal.append,
            "checked": wal.append_with_checksum,
            "stage": wal.append_batched,
            "stage checked": wal.append_with_checksum_batched,
            "many": wal.append_batched,
        }
        if append := appends.get(verb):
            for _ in range(40 if verb == "many" else 1):
                append(self.next(size))
        if verb in {"flush", "append and sync"}:
            wal.sync()
        elif verb == "trim":
            wal.truncate_before(max(1, len(self.records) * 2 // 3))
        elif verb == "maintain":
            maintain(wal)
        elif verb == "recover":
            wal.reopen()


def digests(path) -> dict[str, tuple[int, str]]:
    """Every file of the directory: its size, and what is in it."""
    return {
        entry.name: (entry.stat().st_size, hashlib.sha256(entry.read_bytes()).hexdigest())
        for entry in sorted(path.iterdir())
        if entry.name != "LOCK"
    }


def difference(one, other) -> str:
    """Where the first two files that differ differ, for the message."""
    for path in sorted(one.iterdir()):
        same = other / path.name
        if path.name == "LOCK" or not same.exists():
            continue
        left, right = path.read_bytes(), same.read_bytes()
        if left != right:
            at = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), -1)
            around = slice(max(0, at - 16), at + 48)
            return f"{path.name} at {at}: {left[around].hex()} and {right[around].hex()}"
    return "no common file differs"


def assert_alike(base, work, direct_io) -> dict[str, int]:
    """Run the list on every kind; how many files and bytes were compared."""
    seen, syncs = {}, {}
    for kind in KINDS:
        run = Run(base / kind, kind, work, direct_io)
        syncs[kind] = run.run().syncs
        first = recover(run.path).first_lsn
        kept = [(record.lsn, record.data) for record in replay(run.path)]
        assert kept == run.records[first - 1 :]
        assert verify(run.path).ok
        seen[kind] = digests(run.path)
    for kind in KINDS[1:]:
        assert seen[kind] == seen["pwrite"], (
            f"{kind}: {difference(base / 'pwrite', base / kind)}; {work}"
        )
        assert syncs[kind] == syncs["pwrite"], f"{syncs}; {work}"
    sizes = [size for files in seen.values() for size, _ in files.values()]
    return {"files": len(sizes), "bytes": sum(sizes)}


@pytest.fixture
def base(memory_path):  # noqa: F811
    return memory_path


@pytest.mark.parametrize("direct_io", [False, True], ids=["buffered", "direct"])
def test_every_backend_writes_the_same_files(base, seed, scaled, count, direct_io):
    for kind in KINDS:
        needs_ring(kind)
    totals = {"files": 0, "bytes": 0}
    lists = scaled(LISTS)
    for number in range(lists):
        place = base / str(number)
        place.mkdir()
        for name, value in assert_alike(place, work(seed + number), direct_io).items():
            totals[name] += value
        for kind in KINDS:
            for path in (place / kind).iterdir():
                path.unlink()
    suffix = "direct" if direct_io else "buffered"
    count(f"lists of operations, {suffix}", lists)
    count(f"files compared, {suffix}", totals["files"])


def test_the_seed_decides_about_salts_and_nothing_else_does(base):
    """Goal: the comparison above can fail. Method: the same list with another seed."""
    plain = Work(7, SHAPES[2], (("append and sync", 100), ("reopen", 0), ("append", 5)))
    other = Work(9, plain.io, plain.steps)
    for name, chosen in (("one", plain), ("same", plain), ("other", other)):
        Run(base / name, "pwrite", chosen, direct_io=False).run()
    assert digests(base / "one") == digests(base / "same")
    one, different = digests(base / "one"), digests(base / "other")
    assert [name for name in one if one[name] == different.get(name)] == []


def test_a_byte_that_differs_is_found(base):
    plain = Work(7, SHAPES[2], (("append and sync", 100),))
    for name in ("one", "other"):
        Run(base / name, "pwrite", plain, direct_io=False).run()
    (segment,) = (base / "other").glob("*.seg")
    with segment.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert digests(base / "one") != digests(base / "other")
    assert segment.name in difference(base / "one", base / "other")
