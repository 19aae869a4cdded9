"""Configuration: defaults, the three shapes, limits, and the environment's overrides."""

from __future__ import annotations

import dataclasses

import pytest

from walengine import (
    IoUringConfig,
    PortableWalWriter,
    RecoveryMode,
    WalConfig,
    WalError,
    io_uring_status,
    is_io_uring_available,
)

MIB = 1 << 20


def test_the_defaults_of_the_ring():
    assert dataclasses.astuple(IoUringConfig()) == (1024, False, 10, 256, False, 64, 65536)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("high_throughput", (4096, True, 100, 1024, True, 256, 262144)),
        ("low_latency", (256, True, 1, 64, True, 32, 16384)),
        ("minimal", (128, False, 0, 32, False, 8, 4096)),
    ],
)
def test_the_named_shapes(name, values):
    assert dataclasses.astuple(getattr(IoUringConfig, name)()) == values


@pytest.mark.parametrize("name", ["high_throughput", "low_latency", "minimal"])
def test_the_named_shapes_open_a_log(tmp_path, name):
    with PortableWalWriter(tmp_path / "log", getattr(IoUringConfig, name)()) as wal:
        wal.append_batched(b"x")
        wal.sync()
        assert wal.durable_lsn == 1


def test_the_defaults_of_the_log():
    config = WalConfig()
    assert config.io == IoUringConfig()
    assert (config.backend, config.segment_bytes) == ("auto", 64 * MIB)
    assert (config.max_record_bytes, config.max_log_bytes) == (64 * MIB, None)
    assert config.recovery is RecoveryMode.POINT_IN_TIME
    assert (config.strict_sectors, config.create, config.owner) == (False, True, None)
    assert not config.allow_shared_dir


def test_the_batch_is_what_the_buffers_hold(tmp_path):
    config = IoUringConfig(registered_buffers=3, buffer_size=8192)
    with PortableWalWriter(tmp_path / "log", config) as wal:
        assert wal.max_batch_bytes() == 3 * 8192


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (WalConfig(), 16 * MIB),
        (WalConfig(io=IoUringConfig(buffer_size=MIB)), 128 * MIB),
        (WalConfig(max_unsynced_bytes=5), 5),
    ],
)
def test_the_writer_syncs_by_itself_after_16_mib_or_two_batches(config, limit):
    assert config.unsynced_bytes_max == limit


@pytest.mark.parametrize(
    ("config", "alignment"),
    [
        (WalConfig(), 8),
        (WalConfig(strict_sectors=True), 4096),
        (WalConfig(io=IoUringConfig(direct_io=True)), 4096),
    ],
)
def test_the_alignment_of_commits(config, alignment):
    assert config.commit_alignment == alignment


@pytest.mark.parametrize("config", [IoUringConfig(), WalConfig()])
def test_configurations_are_frozen(config):
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field, 1)


@pytest.mark.parametrize(
    "values",
    [
        {"sq_entries": 0},
        {"sq_entries": 32769},
        {"sq_poll_idle_ms": -1},
        {"max_inflight": 0},
        {"registered_buffers": 0},
        {"registered_buffers": 16385},
        {"buffer_size": 0},
        {"buffer_size": 4095},
        {"buffer_size": 4097},
        {"registered_buffers": 16384, "buffer_size": MIB},
    ],
    ids=str,
)
def test_a_ring_out_of_range_is_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        IoUringConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"backend": "libaio"},
        {"segment_bytes": 0},
        {"segment_bytes": 32767},
        {"segment_bytes": 32769},
        {"segment_bytes": 64 * 1024 * MIB + 4096},
        {"max_record_bytes": 0},
        {"max_record_bytes": 2**32 - 8},
        {"max_log_bytes": 0},
        {"max_log_bytes": 64 * MIB - 1},
        {"max_unsynced_bytes": 0},
        {"recovery": RecoveryMode.SALVAGE},
        {"owner": ""},
        {"owner": "two\nlines"},
        {"owner": "nul\0"},
        {"owner": "ä" * 513},
    ],
    ids=str,
)
def test_a_log_out_of_range_is_refused_by_name(values):
    with pytest.raises(ValueError, match=r"backend|segment|max_|SALVAGE|owner"):
        WalConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"io": {"sq_entries": 1}},
        {"segment_bytes": "64M"},
        {"segment_bytes": 65536.0},
        {"max_record_bytes": True},
        {"recovery": "strict"},
        {"strict_sectors": 1},
        {"create": None},
        {"owner": b"bytes"},
        {"allow_shared_dir": "yes"},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_type_is_refused_by_name(values):
    with pytest.raises(TypeError, match=next(iter(values))):
        WalConfig(**values)


@pytest.mark.parametrize(
    "values", [{"sq_entries": 1.5}, {"kernel_poll": 1}, {"direct_io": "yes"}], ids=str
)
def test_a_ring_value_of_the_wrong_type_is_refused_by_name(values):
    with pytest.raises(TypeError, match=next(iter(values))):
        IoUringConfig(**values)


def test_limits_are_allowed():
    WalConfig(segment_bytes=32768, max_record_bytes=2**32 - 9, owner="x" * 1024)
    WalConfig(segment_bytes=64 * 1024 * MIB, max_log_bytes=64 * 1024 * MIB)


@pytest.mark.parametrize("config", ["pwrite", {}, 5, IoUringConfig])
def test_what_is_no_configuration_is_refused(tmp_path, config):
    with pytest.raises(TypeError, match="IoUringConfig or a WalConfig"):
        PortableWalWriter(tmp_path / "log", config)


def test_pwrite_is_what_was_asked_for(tmp_path):
    with PortableWalWriter(tmp_path / "log", WalConfig(backend="pwrite")) as wal:
        assert wal.backend == "pwrite"


def test_auto_is_io_uring_where_that_works(tmp_path):
    with PortableWalWriter(tmp_path / "log", WalConfig(backend="auto")) as wal:
        assert wal.backend == ("io_uring" if is_io_uring_available() else "pwrite")


def test_the_environment_overrides_the_backend(tmp_path, monkeypatch):
    monkeypatch.setenv("WALENGINE_BACKEND", "pwrite")
    with PortableWalWriter(tmp_path / "log", WalConfig(backend="io_uring")) as wal:
        assert wal.backend == "pwrite"


def test_an_empty_override_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("WALENGINE_BACKEND", "")
    PortableWalWriter(tmp_path / "log").close()


@pytest.mark.parametrize("name", ["WALENGINE_BACKEND", "WALENGINE_RING"])
def test_an_unknown_override_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "bogus")
    with pytest.raises(WalError, match=f"{name}.*bogus"):
        PortableWalWriter(tmp_path / "log")


@pytest.mark.parametrize("call", [io_uring_status, is_io_uring_available])
def test_an_unknown_override_is_named_by_the_status_too(monkeypatch, call):
    monkeypatch.setenv("WALENGINE_RING", "bogus")
    with pytest.raises(WalError, match="WALENGINE_RING.*bogus"):
        call()
