"""The log's lock and the ring: it outlives the process as long as its writes do, and no longer.

A killed process does not wait for direct writes that are under way, and its locks go at once. So
the ring holds the lock's file too: the kernel keeps a ring's files until nothing is in flight.
"""

import fcntl
import os

import pytest
from needs import needs_ring
from rings import each_provider, kernels_ring, open_kind

from walengine import IoUringConfig


def take_and_release(path):
    """Take the log's lock as another process would, at once or not at all."""
    descriptor = os.open(path / "LOCK", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


@each_provider
@pytest.mark.parametrize("direct", [False, True], ids=["cached", "direct"])
def test_the_ring_holds_the_locks_file(tmp_path, provider, direct):
    needs_ring(provider)
    with open_kind(tmp_path / "log", provider, IoUringConfig(direct_io=direct)) as wal:
        wal.append(b"record")
        assert str(tmp_path / "log" / "LOCK") in kernels_ring().files


@each_provider
def test_close_gives_the_lock_back_at_once(tmp_path, provider):
    needs_ring(provider)
    path = tmp_path / "log"
    for _ in range(20):
        with open_kind(path, provider) as wal:
            wal.append(b"record")
            wal.sync()
            with pytest.raises(BlockingIOError):
                take_and_release(path)
        take_and_release(path)
