"""Real power cuts: the kernel drops everything that had not reached the device.

Method: a filesystem in a file, four threads that append, sync, rotate and trim, and in the middle
of it the filesystem-shutdown ioctl, without a flush of the journal. The filesystem is mounted anew,
the log recovered and judged (tests/sessions.py), and written to again before the next cut.

An acknowledgement counts only if it was read before the cut: a sync that races with the shutdown
may return 0.
"""

import random

import pytest
from engines import ENGINES
from needs import needs_filesystem
from places import disk
from sessions import Oracle, Server

import walengine

CUTS = 16  # of each filesystem, on each engine
LYING_CUTS = 5
ACKS_MIN = 20

FILESYSTEMS = ["ext4", "xfs"]
THROUGH_THE_PAGE_CACHE = [engine.name for engine in ENGINES.values() if not engine.direct]


@pytest.fixture
def server():
    with Server() as server:
        yield server


def cut_in_the_middle(made, session, acks):
    session.read_acks(acks)
    assert session.status is None, "the writer ended by itself"
    made.cut_power()
    session.stop_counting()
    session.kill()
    session.drain()
    made.power_up()


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_power_cuts_lose_nothing_acknowledged(
    server, memory_path, engine, seed, scaled, count, filesystem
):
    """Goal: what was acknowledged as durable is there after the power was cut, and nothing else.

    Method: every other writer has strict sectors.
    """
    needs_filesystem(filesystem)
    rng = random.Random(seed)
    acknowledged = 0
    with disk(memory_path, filesystem) as made:
        oracle = Oracle(made.path / "log")
        for number in range(scaled(CUTS)):
            job = {"strict_sectors": number % 2 == 1}
            session = server.start(oracle.path, may_fail=True, seed=rng.getrandbits(32), **job)
            cut_in_the_middle(made, session, ACKS_MIN + rng.randrange(200))
            acknowledged += session.acks.count
            found = oracle.judge(session, power_loss=True)
            job |= {"mode": "extend", "count": rng.randrange(4), "close": rng.random() < 0.5}
            oracle.settle(lambda job=job: server.run(oracle.path, **job), found)
    count(f"power cuts, {filesystem}, {engine}", scaled(CUTS))
    count(f"acknowledged before them, {filesystem}, {engine}", acknowledged)


@pytest.mark.parametrize("engine", THROUGH_THE_PAGE_CACHE, indirect=True)
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_disk_that_lies_loses_records(
    server, memory_path, engine, seed, scaled, count, filesystem
):
    """Goal: these cuts are real. Method: the same with a sync that does nothing must fail.

    A direct write is with the device when it returns, and this device has no cache of its own: a
    lying sync loses nothing then. That its flush reaches a device is for test_fsyncgate.py.
    """
    needs_filesystem(filesystem)
    rng = random.Random(seed)
    losses = 0
    with disk(memory_path, filesystem) as made:
        for number in range(scaled(LYING_CUTS)):
            log = made.path / f"log-{number}"
            session = server.start(
                log, may_fail=True, lying=True, trims=False, seed=rng.getrandbits(32)
            )
            cut_in_the_middle(made, session, ACKS_MIN + rng.randrange(200))
            losses += has_lost_something(log, session.acks)
    assert losses > 0
    count(f"power cuts with a lying sync, {filesystem}, {engine}", scaled(LYING_CUTS))
    count(f"of them with a loss, {filesystem}, {engine}", losses)


def has_lost_something(log, acks):
    assert acks.durable
    try:
        found = {record.lsn for record in walengine.replay(log)}
    except walengine.WalError:
        return True
    return not acks.durable.keys() <= found
