"""SIGKILL loops: writers of four threads die at random, at fail points, and in recovery.

Each round: four threads append, stage, flush, sync, rotate and trim, and acknowledge over a pipe;
the process dies; recovery is judged by tests/sessions.py; another writer appends a few records
behind it, and what follows is exactly what was found and those.

On each engine, and all of it in memory where possible: SIGKILL leaves the page cache alone.
"""

import random
from collections import Counter

import engines
import pytest
from sessions import Oracle, Server

ACKS_MIN = 100  # a round with fewer acknowledged records does not count
ACKS_MAX = 20 * ACKS_MIN  # a session that has not passed its fail point by then is killed

# Where a writer dies, and the kind of session that comes by there.
FAIL_POINTS = {
    "sync.before": "write",
    "sync.after": "write",
    "prepare.header_synced": "write",
    "prepare.renamed": "write",
    "rotate.index_written": "write",
    "rotate.synced": "write",
    "rotate.sealed": "write",
    "rotate.started": "write",
    "trim.before_meta": "write",
    "trim.meta_synced": "write",
    "trim.renamed": "write",
    "seal.synced": "close",
    "unseal.synced": "unseal",
}

# Where a writer dies that opens the log behind another one's death, and in its first append.
RECOVERY_FAIL_POINTS = ["recover.loaded", "recover.adopted", "rotate.prepared", "rotate.started"]


pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def totals():
    return Counter()


class Rounds:
    """One log that is killed again and again; what happened is counted."""

    def __init__(self, server, path, seed, **job):
        self.server = server
        self.path = path
        self.random = random.Random(seed)
        self.oracle = Oracle(path)
        self.job = job
        self.counted = 0
        self.at_fail_points = 0
        self.acknowledged = 0

    def session(self, **job):
        return self.server.start(
            self.path, **self.job | {"seed": self.random.getrandbits(32)} | job
        )

    def killed_at_random(self):
        session = self.session()
        session.read_acks(ACKS_MIN + self.random.randrange(4 * ACKS_MIN))
        session.kill()
        session.drain()
        return session

    def closed(self):
        """A log that was closed, so that the next one goes on in its tail."""
        session = self.session(mode="close")
        session.drain()
        assert session.status == 0
        return session

    def killed_at(self, fail_point, mode):
        """The point is armed once enough is acknowledged."""
        nth = self.random.randrange(1, 4) if mode in {"write", "tasks"} else 1
        session = self.session(mode=mode, fail_point=fail_point, nth=nth)
        session.read_acks(ACKS_MAX)
        session.kill()
        session.drain()
        self.at_fail_points += not session.was_killed
        return session

    def killed_in_recovery(self, **where):
        session = self.session(mode="recover", **where)
        session.drain()
        assert session.died_by_sigkill or session.finished
        self.at_fail_points += session.died_by_sigkill
        return session

    def judge(self, *sessions):
        acknowledged = sum(session.acks.count for session in sessions)
        self.acknowledged += acknowledged
        self.counted += acknowledged >= ACKS_MIN
        found = self.oracle.judge(*sessions)
        self.oracle.settle(self.extend, found)

    def extend(self):
        count = self.random.randrange(4)
        closing = self.random.random() < 0.5
        job = self.job | {"mode": "extend", "count": count, "close": closing}
        session = self.server.run(self.path, **job)
        assert len(session.acks.durable) == count
        assert session.died_by_sigkill != closing
        return session

    def report(self, totals, count):
        """Add to what the suite did so far."""
        engine = engines.current()
        totals[f"kills with 100 records acknowledged, {engine}"] += self.counted
        totals[f"of them at fail points, {engine}"] += self.at_fail_points
        totals[f"records acknowledged, {engine}"] += self.acknowledged
        for name, value in totals.items():
            count(name, value)


SHAPES = {
    "many-segments": {},
    "strict-sectors": {"strict_sectors": True, "segment_bytes": 262144},
    "few-segments": {"segment_bytes": 1 << 20},
    "changing": {},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_kills_at_random(server, memory_path, seed, scaled, totals, count, shape):
    """Goal: nothing handed over is lost. Method: SIGKILL from outside, at any moment."""
    rounds = Rounds(server, memory_path / "log", seed, **SHAPES[shape])
    while rounds.counted < scaled(28):
        if shape == "changing":  # each writer finds segments that do not serve it
            rounds.job = rounds.random.choice([SHAPES["many-segments"], *SHAPES.values()])
        rounds.judge(rounds.killed_at_random())
    rounds.report(totals, count)


@pytest.mark.parametrize("durable", [0.5, 0.98])
def test_kills_of_sixteen_threads_that_append_durable(
    server, memory_path, seed, scaled, totals, count, durable
):
    """Goal: the same in lanes, open nearly all the time, or opened and closed again and again."""
    rounds = Rounds(server, memory_path / "log", seed, threads=16, durable=durable)
    while rounds.counted < scaled(12):
        rounds.judge(rounds.killed_at_random())
    rounds.report(totals, count)


@pytest.mark.parametrize("shape", ["many-segments", "strict-sectors"])
def test_kills_of_many_tasks(server, memory_path, seed, scaled, totals, count, shape):
    """Goal: asyncio acknowledges nothing early. Method: 200 tasks on one loop, and SIGKILL."""
    rounds = Rounds(server, memory_path / "log", seed, mode="tasks", **SHAPES[shape])
    while rounds.counted < scaled(15):
        rounds.judge(rounds.killed_at_random())
    for fail_point in ("sync.before", "sync.after", "rotate.sealed", "trim.meta_synced"):
        rounds.judge(rounds.killed_at(fail_point, "tasks"))
    rounds.report(totals, count)


@pytest.mark.parametrize("fail_point", FAIL_POINTS)
def test_kills_at_a_fail_point(server, memory_path, seed, scaled, totals, count, fail_point):
    """Goal: the worst moments are met. Method: the process kills itself between two steps."""
    rounds = Rounds(server, memory_path / "log", seed)
    while rounds.at_fail_points < scaled(4):
        rounds.judge(rounds.killed_at(fail_point, FAIL_POINTS[fail_point]))
        assert rounds.counted < scaled(40), "the fail point is hardly ever passed"
    rounds.report(totals, count)


@pytest.mark.parametrize("fail_point", RECOVERY_FAIL_POINTS)
def test_kills_at_a_fail_point_of_recovery(
    server, memory_path, seed, scaled, totals, count, fail_point
):
    """Goal: recovery may die too. Method: the next writer kills itself while it opens the log."""
    rounds = Rounds(server, memory_path / "log", seed)
    for _ in range(scaled(4)):
        sessions = [rounds.killed_at_random()]
        for _ in range(rounds.random.randrange(1, 3)):
            sessions.append(rounds.killed_in_recovery(fail_point=fail_point))  # noqa: PERF401
        rounds.judge(*sessions)
    rounds.report(totals, count)


@pytest.mark.not_quick
@pytest.mark.parametrize("before", ["killed_at_random", "closed"])
def test_kills_at_every_operation_of_recovery(
    server, memory_path, seed, scale, totals, count, before
):
    """Goal: recovery and the first append may die at any of their operations on files.

    Method: the nth operation kills the process, for nth from 1 until all of them succeed; every
    third at scale 1, beginning with another one in each run.
    """
    rounds = Rounds(server, memory_path / "log", seed)
    step = max(1, round(3 / scale))
    for nth in range(1 + seed % step, 1000, step):
        before_it = getattr(rounds, before)()
        recovery = rounds.killed_in_recovery(nth=nth)
        rounds.judge(before_it, recovery)
        if recovery.finished:
            break
    assert recovery.finished
    rounds.report(totals, count)


@pytest.mark.not_quick
def test_kills_at_every_operation_of_creation(server, memory_path, seed, totals, count):
    """Goal: a log whose creation died is made anew, or goes on, and never counts as damaged."""
    finished = False
    nth = 0
    while not finished:
        nth += 1
        rounds = Rounds(server, memory_path / f"log-{nth}", seed)
        creation = rounds.killed_in_recovery(nth=nth)
        finished = creation.finished
        next_life = server.run(rounds.path, mode="extend", count=2, close=True)
        assert next_life.status == 0
        found = rounds.oracle.judge(creation, next_life)
        assert len(found) - 2 in {0, 1}
        rounds.report(totals, count)
