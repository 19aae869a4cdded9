"""A log on FUSE: what is acknowledged as durable has reached the filesystem's program as an fsync.

FUSE leaves out the sync of a direct write that completes later, as a ring's do (Linux 6.18: of 201
such writes 7 fsyncs arrived, and those were of other calls). A program above sees nothing of it. So
nothing here believes the log: the filesystem counts.
"""

from __future__ import annotations

import logging

import pytest
from engines import config
from needs import needs_fuse
from places import counting_filesystem

from walengine import PortableWalWriter, replay

ROUNDS = 30
SEGMENT_BYTES = 1 << 20  # it is allocated by writes here
OTHER_FSYNCS_MAX = 20  # of META, of the segment when it is made, of the seal


@pytest.fixture
def counting(memory_path):
    needs_fuse()
    with counting_filesystem(memory_path) as made:
        yield made


def flush(wal):
    wal.append_batched(b"a batch's only record")
    wal.flush_batch()


def append_and_sync(wal):
    wal.append(b"handed over")
    wal.sync()


def append_durable(wal):
    wal.append_durable(b"durable when it returns")


@pytest.mark.parametrize("commit", [flush, append_and_sync, append_durable])
def test_every_commit_is_an_fsync(counting, engine, commit, count, caplog):
    caplog.set_level(logging.INFO, "walengine")
    with PortableWalWriter(counting.path / "log", config(segment_bytes=SEGMENT_BYTES)) as wal:
        for _ in range(ROUNDS):
            commit(wal)
        assert wal.durable_lsn == wal.last_lsn == ROUNDS
        stats = wal.stats()
    fsyncs, _ = counting.end()
    assert ROUNDS <= stats.syncs <= fsyncs <= stats.syncs + OTHER_FSYNCS_MAX
    assert len(list(replay(counting.below / "log"))) == ROUNDS
    assert stats.backend == engine.backend
    assert stats.direct_io is False
    assert stats.fallbacks == (("direct_io",) if engine.direct else ())
    told = [text for text in caplog.messages if "may drop the sync of a direct write" in text]
    assert len(told) == engine.direct
    count(f"commits, {commit.__name__}, {engine}", ROUNDS)
    count(f"fsyncs that arrived, {commit.__name__}, {engine}", fsyncs)
