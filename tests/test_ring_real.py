"""It is io_uring and not a label: what the counters, the kernel and the linker say of it."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

import pytest
from needs import needs_linux, needs_ring
from processes import output_of
from rings import (
    PROVIDERS,
    deltas,
    each_provider,
    environment,
    kernels_ring,
    maintain,
    no_threads,
    open_kind,
    polling_threads,
    ring_descriptors,
    wait_until,
)

from walengine import IoUringConfig, PortableWalWriter, _core, replay
from walengine._native import ffi, lib

FLUSHES = 25
TABLE_MAX = 64


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


def flushed(path, provider, io):
    """What the counters moved by over FLUSHES flushes of a quiet writer, and the last snapshot."""
    with no_threads(), open_kind(path, provider, io) as wal:
        wal.append_batched(b"the first one begins the segment")
        wal.flush_batch()
        maintain(wal)  # zeros are written ahead now, and not by one of the flushes
        before = wal.stats()
        for i in range(FLUSHES):
            wal.append_batched(b"record %d" % i)
            wal.append_batched(b"and one more")
            wal.flush_batch()
        after = wal.stats()
    assert len(list(replay(path))) == 1 + 2 * FLUSHES
    return deltas(before, after), after


# ---- the counters --------------------------------------------------------------------------------


@each_provider
def test_a_flush_is_one_linked_pair_from_a_registered_buffer(path, provider):
    needs_ring(provider)
    moved, stats = flushed(path, provider, IoUringConfig())
    assert moved == {
        "nop": 0,
        "fsync": FLUSHES,
        "write": 0,
        "write_fixed": FLUSHES,
        "linked": FLUSHES,
        "rwf_dsync": 0,
        "syncs": FLUSHES,
        "ops_submitted": 2 * FLUSHES,
        "ops_completed": 2 * FLUSHES,
    }
    assert (stats.cqe_overflows, stats.sq_dropped, stats.fallbacks) == (0, 0, ())


@each_provider
def test_a_direct_flush_is_one_write_that_syncs_itself(path, provider):
    needs_ring(provider)
    moved, stats = flushed(path, provider, IoUringConfig(direct_io=True))
    assert stats.direct_io
    assert moved == {
        "nop": 0,
        "fsync": 0,
        "write": 0,
        "write_fixed": FLUSHES,
        "linked": 0,
        "rwf_dsync": FLUSHES,
        "syncs": FLUSHES,
        "ops_submitted": FLUSHES,
        "ops_completed": FLUSHES,
    }


@pytest.mark.parametrize("direct_io", [False, True], ids=["buffered", "direct"])
@each_provider
def test_with_a_kernel_thread_the_entries_are_the_same(path, provider, direct_io):
    needs_ring(provider)
    io = IoUringConfig(kernel_poll=True, direct_io=direct_io)
    moved, stats = flushed(path, provider, io)
    assert stats.kernel_poll
    assert moved["write_fixed"] == moved["syncs"] == FLUSHES
    assert moved["rwf_dsync" if direct_io else "fsync"] == FLUSHES


def test_pwrite_has_no_ring(path):
    moved, stats = flushed(path, "pwrite", IoUringConfig())
    assert moved["syncs"] == FLUSHES
    assert set(stats.ring_ops.values()) == {0}


@each_provider
def test_the_bytes_in_the_file_came_through_the_ring(path, provider):
    """Goal: no second way writes what the counters claim. Method: the entries become NOPs that
    report success; then nothing of a flush may be in the file."""
    needs_ring(provider)
    with no_threads(), open_kind(path, provider) as wal:
        wal.append_batched(b"before")
        wal.flush_batch()
        lib.wal_fault_set(lib.WAL_FAULT_CQE_WRITE, 1, 1, lib.WAL_FAULT_SKIP, 0)
        try:
            wal.append_batched(b"nobody wrote this one")
            wal.flush_batch()
        finally:
            lib.wal_fault_clear()
        (segment,) = path.glob("*.seg")
        content = segment.read_bytes()
    assert b"before" in content
    assert b"nobody wrote this one" not in content


# ---- the kernel ----------------------------------------------------------------------------------


@each_provider
def test_a_writer_has_one_ring_and_gives_it_back(path, provider):
    needs_ring(provider)
    assert ring_descriptors() == []
    with open_kind(path, provider) as wal:
        wal.append(b"x")
        ring = kernels_ring()
        stats = wal.stats()
        assert ring.sq_entries == stats.sq_entries
        assert len(ring.buffers) == stats.registered_buffers
        (segment,) = path.glob("*.seg")
        assert str(segment) in ring.files
    assert ring_descriptors() == []


@each_provider
def test_kernel_poll_is_a_thread_of_the_kernel(path, provider):
    needs_ring(provider)
    assert wait_until(lambda: polling_threads() == [])
    with open_kind(path, provider, IoUringConfig(kernel_poll=True)) as wal:
        wal.append_batched(b"x")
        wal.flush_batch()
        # A worker of that thread has its name for the moment until it gets one of its own.
        assert wait_until(lambda: polling_threads() == [kernels_ring().thread])
    assert wait_until(lambda: polling_threads() == [])
    with open_kind(path, provider) as wal:
        assert polling_threads() == []
        assert kernels_ring().thread is None


# ---- the linker ----------------------------------------------------------------------------------


class DlInfo(ctypes.Structure):
    _fields_ = [
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    ]


def objects_of_table(provider: str) -> list[Path]:
    """The file that each function of a provider's table lies in."""
    dladdr = ctypes.CDLL(None).dladdr
    dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(DlInfo)]
    addresses = ffi.new("uintptr_t[]", TABLE_MAX)
    number = getattr(lib, f"WAL_RING_{provider.upper()}")
    count = lib.wal_ring_functions(number, addresses, TABLE_MAX)
    assert 0 < count < TABLE_MAX
    found = []
    for address in addresses[0:count]:
        info = DlInfo()
        assert dladdr(address, ctypes.byref(info)) != 0
        found.append(Path(info.dli_fname.decode()).resolve())
    return found


@each_provider
def test_the_functions_lie_where_they_are_said_to(provider):
    needs_linux()
    needs_ring(provider)
    if provider == "liburing":
        (directory,) = importlib.util.find_spec("liburing").submodule_search_locations
        wanted = {path.resolve() for path in Path(directory).glob("liburing*.so")}
    else:
        wanted = {Path(_core.__file__).resolve()}
    assert len(wanted) == 1
    assert set(objects_of_table(provider)) == wanted


def test_liburing_is_the_default_where_it_is_installed(path):
    needs_ring("liburing")
    with environment(WALENGINE_RING=None, WALENGINE_BACKEND=None), PortableWalWriter(path) as wal:
        stats = wal.stats()
    assert (stats.backend, stats.ring) == ("io_uring", "liburing")
    assert stats.ring_version.startswith("2.")
    assert stats.fallbacks == ()


def test_the_python_module_liburing_is_never_imported(path):
    needs_ring("liburing")
    with environment(WALENGINE_RING=None, WALENGINE_BACKEND=None):
        output = output_of(
            """
            with PortableWalWriter(sys.argv[1]) as wal:
                wal.append_batched(b"x")
                wal.flush_batch()
                print(wal.stats().ring, walengine.io_uring_status().ring)
            print([name for name in sys.modules if name.partition(".")[0] == "liburing"])
            """,
            path,
        )
    assert output == "liburing liburing\n[]\n"
    assert "liburing" not in sys.modules


def test_both_providers_are_tested_here():
    """Goal: no run in CI passes with one of them skipped in silence (WALENGINE_REQUIRE_ALL)."""
    for provider in PROVIDERS:
        needs_ring(provider)
