"""A full disk: a clear error, nothing lost, readable, trimmable, and usable once there is space.

Method: a small tmpfs, ext4 and xfs are filled through the log itself. RLIMIT_FSIZE, which makes
the kernel say EFBIG where a disk says ENOSPC, is tried in a process of its own.
"""

import errno
import itertools
import logging
import os

import pytest
from engines import config, current
from needs import needs_filesystem, needs_root, needs_tool
from places import disk, small_tmpfs
from processes import output_of

import walengine
from walengine import PortableWalWriter, WalFullError, replay

SEGMENT_BYTES = 1 << 20
RECORD_BYTES = 8000
FREE_BYTES = 12 << 20

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(params=["tmpfs", "ext4", pytest.param("xfs", marks=pytest.mark.not_quick)])
def small_disk(request, memory_path, caplog):
    """A filesystem of a few MiB; its path."""
    caplog.set_level(logging.ERROR, logger="walengine")
    needs_root()
    needs_tool("mount")
    if request.param == "tmpfs":
        with small_tmpfs(memory_path, 12) as path:
            yield path
    else:
        needs_filesystem(request.param)
        with disk(memory_path, request.param) as made:
            free = os.statvfs(made.path)
            with (made.path / "others").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - FREE_BYTES)
            yield made.path


def content(lsn):
    return b"%08d" % lsn * (RECORD_BYTES // 8)


def fill(wal):
    """Append until the disk is full; the error that said so."""
    for lsn in itertools.count(wal.last_lsn + 1):
        try:
            assert wal.append(content(lsn)) == lsn
        except WalFullError as error:
            return error
    return None


def assert_holds(log, first, last):
    found = [(record.lsn, record.data) for record in replay(log)]
    assert found == [(lsn, content(lsn)) for lsn in range(first, last + 1)]


def fill_the_rest(directory):
    """Take what fallocate left of the disk, to the last block."""
    with (directory / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1 << 12, 1):
            try:
                while file.write(b"\1" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 (the loop ends by it)


def test_a_full_disk_is_a_clear_error(small_disk):
    log = small_disk / "log"
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        error = fill(wal)
        assert type(error) is WalFullError
        assert str(log) in str(error)
        assert "Free space" in str(error)


def test_nothing_is_lost_on_a_full_disk(small_disk, count):
    """Every record that append took is there, while the writer lives and after it closed."""
    log = small_disk / "log"
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        fill(wal)
        last = wal.last_lsn
        wal.sync()
        assert wal.durable_lsn == last
        assert_holds(log, 1, last)
    assert_holds(log, 1, last)
    assert walengine.recover(log).last_lsn == last
    count(f"records on the full {small_disk.name}, {current()}", last)


def test_a_full_disk_says_so_again_and_again(small_disk):
    """Goal: WalFullError takes nothing of its call and poisons nothing."""
    with PortableWalWriter(small_disk / "log", config(segment_bytes=SEGMENT_BYTES)) as wal:
        fill(wal)
        last = wal.last_lsn
        for _ in range(20):
            with pytest.raises(WalFullError):
                wal.append(content(last + 1))
            assert wal.last_lsn == last
        wal.sync()
        assert wal.durable_lsn == last


def test_the_writer_goes_on_when_space_is_freed(small_disk):
    log = small_disk / "log"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\1" * (4 << 20))
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        fill(wal)
        full_at = wal.last_lsn
        ballast.unlink()
        for lsn in range(full_at + 1, full_at + 151):
            assert wal.append(content(lsn)) == lsn
        wal.sync()
    assert_holds(log, 1, full_at + 150)


def test_a_full_log_can_be_trimmed_and_goes_on(small_disk):
    """Goal: trimming needs no space, not even one block."""
    log = small_disk / "log"
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        fill(wal)
        full_at = wal.last_lsn
        fill_the_rest(small_disk)
        wal.truncate_before(full_at - 50)
        assert wal.first_lsn == full_at - 50
        for lsn in range(full_at + 1, full_at + 151):
            assert wal.append(content(lsn)) == lsn
        wal.sync()
    assert_holds(log, full_at - 50, full_at + 150)


def test_a_log_on_a_full_disk_is_opened_and_trimmed(small_disk):
    """Goal: whoever restarts a program that filled the disk can help it."""
    log = small_disk / "log"
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        fill(wal)
        full_at = wal.last_lsn
        fill_the_rest(small_disk)
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        assert wal.last_lsn == full_at
        assert_holds(log, 1, full_at)
        fill(wal)
        wal.truncate_before(full_at - 10)
        last = wal.last_lsn
        for lsn in range(last + 1, last + 151):
            assert wal.append(content(lsn)) == lsn
    assert_holds(log, full_at - 10, last + 150)


def test_a_killed_writer_on_a_full_disk_is_recovered(small_disk):
    """Method: the process dies with the disk full to the last block; another one opens the log."""
    log = small_disk / "log"
    child = """
    import itertools, logging
    logging.disable()
    wal = PortableWalWriter(sys.argv[1], config(segment_bytes=1 << 20))
    try:
        for lsn in itertools.count(1):
            wal.append(b"%08d" % lsn * 1000)
    except walengine.WalFullError:
        print(wal.last_lsn, flush=True)
        os._exit(0)
    """
    full_at = int(output_of(child, log))
    fill_the_rest(small_disk)
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        assert wal.last_lsn == full_at
        assert_holds(log, 1, full_at)
        with pytest.raises(WalFullError):  # an unclean end asks for a new segment
            wal.append(b"no room")
        wal.truncate_before(full_at - 10)
        (small_disk / "ballast").unlink()
        assert wal.append(content(full_at + 1)) == full_at + 1
    assert_holds(log, full_at - 10, full_at + 1)


def test_what_is_staged_on_a_full_disk_stays_staged(small_disk):
    log = small_disk / "log"
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        fill(wal)
        full_at = wal.last_lsn
        for lsn in range(full_at + 1, full_at + 301):
            wal.append_batched(content(lsn))
        with pytest.raises(WalFullError):
            wal.flush_batch()
        assert wal.has_pending_batch()
        assert wal.last_lsn == full_at + 300
        wal.truncate_before(full_at - 10)
        wal.flush_batch()
        assert wal.durable_lsn == full_at + 300
    assert_holds(log, full_at - 10, full_at + 300)


def test_closing_a_full_log_releases_it(small_disk):
    """Goal: close() says that staged records did not fit, and another writer can open the log."""
    log = small_disk / "log"
    wal = PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES))
    fill(wal)
    full_at = wal.last_lsn
    for lsn in range(full_at + 1, full_at + 301):
        wal.append_batched(content(lsn))
    with pytest.raises(WalFullError):
        wal.close()
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as again:
        last = again.last_lsn
    assert full_at <= last < full_at + 300
    assert_holds(log, 1, last)


def test_no_log_is_made_on_a_full_disk(small_disk):
    """Goal: a clear error, and a log as soon as there is space."""
    log = small_disk / "log"
    fill_the_rest(small_disk)
    with pytest.raises((WalFullError, walengine.WalOSError)) as caught:
        PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES))
    assert "Free space" in str(caught.value)
    (small_disk / "ballast").unlink()
    with PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES)) as wal:
        assert wal.append(content(1)) == 1
    assert_holds(log, 1, 1)


# ---- limits that are not the disk's --------------------------------------------------------------


def test_max_log_bytes_is_a_full_disk_that_trimming_ends(memory_path):
    log = memory_path / "log"
    limited = config(segment_bytes=1 << 20, max_log_bytes=4 << 20)
    with PortableWalWriter(log, limited) as wal:
        error = fill(wal)
        assert "max_log_bytes" in str(error)
        full_at = wal.last_lsn
        assert full_at * RECORD_BYTES > 3 << 20
        assert sum(path.stat().st_size for path in log.glob("wal-*")) <= 4 << 20
        wal.truncate_before(full_at - 10)
        assert wal.append(content(full_at + 1)) == full_at + 1
    assert_holds(log, full_at - 10, full_at + 1)


LIMIT_AT_CREATION = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
try:
    PortableWalWriter(sys.argv[1], config(segment_bytes=1 << 20))
except walengine.WalError as error:
    print(type(error).__name__, error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
with PortableWalWriter(sys.argv[1], config(segment_bytes=1 << 20)) as wal:
    print(wal.append(b"a record"))
"""


def test_a_limit_of_file_size_below_a_segment_is_an_error_at_once(tmp_path):
    """Goal: EFBIG by name when the log is made; nothing in the way once the limit is raised."""
    assert output_of(LIMIT_AT_CREATION, tmp_path / "log") == f"WalOSError {errno.EFBIG}\n1\n"


LIMIT_AT_WORK = """
import logging, resource
logging.disable()  # it would tell of the torn end
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
wal = PortableWalWriter(sys.argv[1], config(segment_bytes=1 << 20))
wal.append(b"before")
wal.sync()
resource.setrlimit(resource.RLIMIT_FSIZE, (24 * 4096, hard))
try:
    while True:
        taken = wal.append(bytes(10_000))
except walengine.WalPoisonedError as error:
    print(type(error).__name__, error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(wal.reopen().last_lsn == taken)
wal.append(b"after")
wal.close()
"""


def test_a_limit_of_file_size_met_at_work_poisons_and_reopening_goes_on(tmp_path):
    """Goal: the write that was cut short by the limit is no record, and nothing else is lost."""
    log = tmp_path / "log"
    assert output_of(LIMIT_AT_WORK, log) == f"WalPoisonedError {errno.EFBIG}\nTrue\n"
    found = [record.data for record in replay(log)]
    assert found == [b"before", *[bytes(10_000)] * (len(found) - 2), b"after"]
    assert len(found) > 5
