"""Real power cuts: the kernel drops everything that had not reached the device.

Method: a filesystem in a file, four threads that append, sync, rotate and trim, and in the middle
of it the filesystem-shutdown ioctl, without a flush of the journal. The filesystem is mounted anew,
the log recovered and judged (tests/sessions.py), and written to again before the next cut.

An acknowledgement counts only if it was read before the cut: a sync that races with the shutdown
may return 0.
"""

import random

import pytest
from needs import needs_filesystem
from places import disk
from sessions import Oracle, Server

import walengine

CUTS = 60
LYING_CUTS = 10
ACKS_MIN = 20

FILESYSTEMS = ["ext4", "xfs"]


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


@pytest.mark.parametrize("strict_sectors", [False, True], ids=["packed", "strict-sectors"])
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_power_cuts_lose_nothing_acknowledged(
    server, memory_path, seed, scaled, count, filesystem, strict_sectors
):
    """Goal: what was acknowledged as durable is there after the power was cut, and nothing else."""
    needs_filesystem(filesystem)
    rng = random.Random(seed)
    job = {"strict_sectors": strict_sectors}
    acknowledged = 0
    with disk(memory_path, filesystem) as made:
        oracle = Oracle(made.path / "log")
        for _ in range(scaled(CUTS // 2)):
            session = server.start(oracle.path, may_fail=True, seed=rng.getrandbits(32), **job)
            cut_in_the_middle(made, session, ACKS_MIN + rng.randrange(200))
            acknowledged += session.acks.count
            found = oracle.judge(session, power_loss=True)
            extra = {"mode": "extend", "count": rng.randrange(4), "close": rng.random() < 0.5}
            oracle.settle(lambda extra=extra: server.run(oracle.path, **extra, **job), found)
    shape = "strict sectors" if strict_sectors else "packed"
    count(f"power cuts, {filesystem}, {shape}", scaled(CUTS // 2))
    count(f"acknowledged before them, {filesystem}, {shape}", acknowledged)


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_disk_that_lies_loses_records(server, memory_path, seed, scaled, count, filesystem):
    """Goal: these cuts are real. Method: the same with a sync that does nothing must fail."""
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
    count(f"power cuts with a lying sync, {filesystem}", scaled(LYING_CUTS))
    count(f"of them with a loss, {filesystem}", losses)


def has_lost_something(log, acks):
    assert acks.durable
    try:
        found = {record.lsn for record in walengine.replay(log)}
    except walengine.WalError:
        return True
    return not acks.durable.keys() <= found
