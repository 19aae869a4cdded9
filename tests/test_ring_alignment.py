"""Direct writes on filesystems that insist on alignment, and on one that has no direct writes.

ext4 and xfs refuse a direct write whose offset, length or memory is not aligned, other filesystems
let it pass: so ext4 and xfs it is, on loop devices with sectors of 512 and of 4096 bytes.
"""

from __future__ import annotations

import logging
import os
import subprocess
from contextlib import contextmanager

import pytest
from needs import needs_filesystem, needs_ring, needs_root, needs_tool
from places import memory_path, run  # noqa: F401 (a fixture)
from rings import KINDS, each_kind, flags_of_open, open_kind

from walengine import IoUringConfig, recover, replay, verify
from walengine._native import lib

MIB = 1 << 20
SIZES = (0, 1, 511, 4095, 4096, 4097, 65_535, 65_536, 65_537, MIB - 1, MIB, MIB + 1)
DIRECT = IoUringConfig(direct_io=True)
SEGMENT_BYTES = 2 * MIB
IMAGES = {"ext4": (96, ["-F", "-J", "size=4"]), "xfs": (300, ["-f"])}


@pytest.fixture
def base(memory_path):  # noqa: F811
    return memory_path


def content(number, size):
    return (b"%08d" % number * (size // 8 + 1))[:size]


@contextmanager
def mounted(base, filesystem, sector_bytes):
    """A filesystem on a loop device with sectors of this size."""
    needs_filesystem(filesystem)
    mebibytes, options = IMAGES[filesystem]
    image, place = base / "image", base / "mounted"
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    place.mkdir()
    device = run("losetup", "--find", "--show", "--sector-size", sector_bytes, image)
    try:
        run(f"mkfs.{filesystem}", "-q", *options, device)
        run("mount", device, place)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)
        image.unlink()


def write_all_sizes(path, kind):
    """Every size alone, then all in one flush, then with checksums; the records."""
    records = []

    def next_one(size):
        records.append(content(len(records), size))
        return records[-1]

    with open_kind(path, kind, DIRECT, segment_bytes=SEGMENT_BYTES) as wal:
        stats = wal.stats()
        assert (stats.direct_io, stats.fallbacks) == (True, ())
        for size in SIZES:
            assert wal.append(next_one(size)) == wal.durable_lsn == len(records)
        for size in SIZES:
            wal.append_batched(next_one(size))
        wal.flush_batch()
        for size in SIZES:
            wal.append_with_checksum(next_one(size))
        stats = wal.stats()
        assert stats.durable_lsn == len(records)
        assert wal.stats().syncs >= 2 * len(SIZES)
    return records


@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_records_of_every_size_are_written_past_the_cache(base, filesystem, sector_bytes):
    with mounted(base, filesystem, sector_bytes) as place:
        for kind in KINDS:
            needs_ring(kind)
            path = place / kind
            records = write_all_sizes(path, kind)
            assert [record.data for record in replay(path)] == records
            assert verify(path).ok
            with open_kind(path, kind, DIRECT, segment_bytes=SEGMENT_BYTES) as wal:
                assert wal.recovery_report.warnings == ()
                assert wal.append(b"once more") == len(records) + 1
            assert recover(path).last_lsn == len(records) + 1
            for file in path.iterdir():
                file.unlink()


@each_kind
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_short_direct_write_is_finished_in_whole_sectors(base, filesystem, kind):
    """Goal: the rest of a write that came back short is aligned again. Method: every write is
    short, by bytes that are no sector."""
    needs_ring(kind)
    fault = lib.WAL_FAULT_WRITE if kind == "pwrite" else lib.WAL_FAULT_CQE_WRITE
    with mounted(base, filesystem, 512) as place:
        with open_kind(place / "log", kind, DIRECT) as wal:
            wal.append(b"first")
            lib.wal_fault_set(fault, 1, 0, lib.WAL_FAULT_SHORT, 5000)
            try:
                wal.append(content(2, 40_000))
                assert lib.wal_fault_hits() == 1
            finally:
                lib.wal_fault_clear()
        found = [record.data for record in replay(place / "log")]
        assert found == [b"first", content(2, 40_000)]


@pytest.fixture
def no_direct_writes(base):
    """A ramfs, which has no direct writes on any kernel."""
    needs_root()
    needs_tool("mount")
    place = base / "ramfs"
    place.mkdir()
    run("mount", "-t", "ramfs", "-o", "mode=700", "ramfs", place)
    yield place
    subprocess.run(["umount", "-l", place], check=False, capture_output=True)


@each_kind
def test_a_filesystem_without_direct_writes_is_told_of(no_direct_writes, kind, caplog):
    """Goal: the same promises through the page cache, and everybody can see it."""
    needs_ring(kind)
    caplog.set_level(logging.INFO, "walengine")
    path = no_direct_writes / "log"
    with open_kind(path, kind, DIRECT) as wal:
        wal.append_batched(content(1, 5000))
        wal.flush_batch()
        stats = wal.stats()
        assert (stats.direct_io, stats.fallbacks) == (False, ("direct_io",))
        (segment,) = path.glob("*.seg")
        assert {flags & os.O_DIRECT for flags in flags_of_open(segment)} == {0}
        assert wal.append(b"handed over") == 2
        assert wal.durable_lsn == 1, "append() waits for its sync with direct writes only"
        syncs = stats.ring_ops["fsync"] if kind != "pwrite" else stats.syncs
        assert syncs > 0
        assert stats.ring_ops["rwf_dsync"] == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text for text in warnings if "not in use: direct_io" in text and "O_DIRECT" in text]
    (says,) = [text for text in caplog.messages if "writes with" in text]
    assert "through the page cache" in says
    assert [record.data for record in replay(path)] == [content(1, 5000), b"handed over"]
