"""Backends from Python: whose ring, what is in use, why not, what the log says of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import sys
from collections.abc import Mapping
from types import ModuleType

import pytest
from needs import needs_io_uring
from processes import output_of

from walengine import (
    IoUringConfig,
    PortableWalWriter,
    WalConfig,
    WalError,
    _native,
    _native_ring,
    backend,
    io_uring_status,
    is_io_uring_available,
    replay,
)

OPS = ("nop", "fsync", "write", "write_fixed", "linked", "rwf_dsync")
BACKENDS = ["pwrite", *(["io_uring"] if is_io_uring_available() else [])]
INFO = _native_ring.BackendInfo(
    "io_uring", "liburing", "2.15", 1024, False, 256, False, 64, 1, (), "", None
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


@pytest.fixture
def wal(path):
    with PortableWalWriter(path) as opened:
        yield opened


@pytest.fixture
def search():
    """The answer to "where is liburing" is kept for the process: forget it before and after."""
    _native_ring.liburing_problem.cache_clear()
    yield
    _native_ring.liburing_problem.cache_clear()


def data_of(path):
    return [record.data for record in replay(path)]


# ---- the status ----------------------------------------------------------------------------------


def test_the_status_is_found_out_by_doing():
    status = io_uring_status()
    assert status.available is is_io_uring_available()
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.available = True
    if status.available:
        assert status.ring in {"liburing", "builtin"}
        assert status.remedy is None
        assert status.sq_entries >= 64
    else:
        assert (status.ring, status.sq_entries) == (None, 0)
        assert status.reason
        assert status.remedy


def test_the_status_tells_of_the_configuration_that_it_is_given():
    status = io_uring_status(IoUringConfig(sq_entries=128, registered_buffers=2))
    if status.available and not status.fallbacks:
        assert (status.sq_entries, status.registered_buffers) == (128, 2)


def test_the_status_is_json():
    status = io_uring_status()
    facts = json.loads(json.dumps(status.as_dict()))
    assert list(facts) == [field.name for field in dataclasses.fields(status)]
    assert facts["fallbacks"] == list(status.fallbacks)


def test_the_built_in_ring_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("WALENGINE_RING", "builtin")
    status = io_uring_status()
    assert status.available is is_io_uring_available()
    assert (status.ring, status.ring_version, status.liburing) in {
        ("builtin", None, None),
        (None, None, None),
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "io_uring works, through liburing 2.15."),
        (
            {"ring": "builtin", "ring_version": None, "liburing": "the package is not there"},
            "io_uring works, through the built-in ring (the package is not there).",
        ),
        (
            {"fallbacks": ("registered_buffers",), "reason": "no memory; raise it"},
            (
                "io_uring works, through liburing 2.15, with less than was asked for: "
                "no memory; raise it."
            ),
        ),
        (
            {"available": False, "ring": None, "reason": "a filter forbids it", "remedy": "Ask"},
            "io_uring does not work here: a filter forbids it. Ask.",
        ),
    ],
    ids=["works", "built-in", "less", "not"],
)
def test_the_status_is_a_sentence(changes, sentence):
    whole = backend.IoUringStatus(
        available=True,
        ring="liburing",
        ring_version="2.15",
        liburing=None,
        reason=None,
        remedy=None,
        errno=None,
        fallbacks=(),
        sq_entries=1024,
        kernel_poll=False,
        registered_buffers=64,
        registered_files=1,
    )
    assert str(dataclasses.replace(whole, **changes)) == sentence


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("a filter forbids it; allow it", ("a filter forbids it", "Allow it")),
        ("it does not answer", ("it does not answer", backend.ELSE)),
    ],
    ids=["with remedy", "without"],
)
def test_the_core_says_why_and_what_to_do(monkeypatch, reason, told):
    refused = dataclasses.replace(INFO, backend="pwrite", ring=None, reason=reason, errno=1)
    monkeypatch.setattr(_native_ring, "probe", lambda *_: refused)
    status = io_uring_status()
    assert not status.available
    assert (status.reason, status.remedy) == told
    assert status.errno == 1


# ---- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_stats_say_what_is_in_use(path, name):
    with PortableWalWriter(path, WalConfig(backend=name)) as wal:
        wal.append_batched(b"x")
        wal.sync()
        stats = wal.stats()
    assert (wal.backend, stats.backend) == (name, name)
    assert stats.ring in ({"liburing", "builtin"} if name == "io_uring" else {None})
    assert (stats.ring_version is not None) == (stats.ring == "liburing")
    assert isinstance(stats.ring_ops, Mapping)
    assert tuple(stats.ring_ops) == OPS
    for field in ("cqe_overflows", "sq_dropped", "sq_entries", "max_inflight",
                  "registered_buffers", "registered_files"):  # fmt: skip
        assert type(getattr(stats, field)) is int, field
    for field in ("direct_io", "kernel_poll"):
        assert type(getattr(stats, field)) is bool, field
    assert type(stats.fallbacks) is tuple
    assert stats.in_flight() >= 0
    assert json.loads(json.dumps(stats.as_dict()))["ring_ops"] == dict(stats.ring_ops)


def test_a_writer_without_a_ring_has_none_in_its_stats(path):
    with PortableWalWriter(path, WalConfig(backend="pwrite")) as wal:
        wal.append(b"x")
        wal.sync()
        stats = wal.stats()
    assert set(stats.ring_ops.values()) == {0}
    assert (stats.sq_entries, stats.kernel_poll, stats.registered_buffers) == (0, False, 0)


def test_every_sync_of_a_ring_is_one_of_its_entries(path):
    needs_io_uring()
    with PortableWalWriter(path, WalConfig(backend="io_uring")) as wal:
        for _ in range(10):
            wal.append_batched(b"x")
            wal.sync()
        stats = wal.stats()
    assert stats.syncs == 10
    assert stats.ring_ops["fsync"] >= 10


def test_a_log_changes_backends(path):
    needs_io_uring()
    for i, name in enumerate(["io_uring", "pwrite", "io_uring"]):
        with PortableWalWriter(path, WalConfig(backend=name)) as wal:
            assert wal.append(b"%d" % i) == i + 1
    assert data_of(path) == [b"0", b"1", b"2"]


# ---- what the log says ---------------------------------------------------------------------------


def test_opening_logs_what_writes(path, caplog):
    caplog.set_level(logging.INFO, "walengine")
    with PortableWalWriter(path) as wal:
        name = wal.backend
    (line,) = [line for line in caplog.messages if "writes with" in line]
    assert f"writes with {name}" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ("io_uring (liburing 2.15)", "1024 entries", "64 registered buffers")),
        (
            {"direct_io": True, "kernel_poll": True, "registered_buffers": 0, "ring": "builtin"},
            ("io_uring (the built-in ring), past the page cache", "a kernel thread that submits"),
        ),
        ({"backend": "pwrite", "ring": None}, ("pwrite, through the page cache",)),
    ],
    ids=["buffered", "direct", "pwrite"],
)
def test_what_is_in_use_in_words(changes, words):
    sentence = backend.describe(dataclasses.replace(INFO, **changes))
    assert [part for part in words if part not in sentence] == []


def test_fallbacks_are_warned_of_once(path, caplog):
    info = dataclasses.replace(
        INFO, fallbacks=("registered_buffers", "kernel_poll"), reason="no memory; raise ulimit -l"
    )
    backend.log_backend(str(path), info)
    backend.log_backend(str(path), info)
    assert caplog.messages == [
        f"{path}: not in use: registered_buffers, kernel_poll (no memory; raise ulimit -l)"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_auto_that_comes_to_pwrite_is_told_and_no_warning(path, caplog):
    """Goal: in a container that forbids io_uring no program complains on standard error."""
    caplog.set_level(logging.INFO, "walengine")
    info = dataclasses.replace(
        INFO, backend="pwrite", ring=None, fallbacks=("io_uring",), reason="a filter forbids it"
    )
    backend.log_backend(str(path), info)
    assert caplog.messages[0] == f"{path}: not in use: io_uring (a filter forbids it)"
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_what_does_not_fall_back_is_no_warning(path, caplog):
    backend.log_backend(str(path), INFO)
    assert caplog.messages == []


# ---- whose ring ----------------------------------------------------------------------------------


HIDDEN = "sys.modules['liburing'] = None\n"


def test_without_liburing_the_built_in_ring_serves(path):
    output_of(
        HIDDEN
        + """
status = walengine.io_uring_status()
assert status.ring == ("builtin" if status.available else None)
assert status.liburing == "the package liburing is not installed"
assert status.fallbacks == ()
import logging
logging.getLogger("walengine").setLevel(logging.ERROR)
with PortableWalWriter(sys.argv[1]) as wal:
    assert wal.stats().ring == status.ring
    assert "liburing" not in wal.stats().fallbacks
""",
        path,
    )


def test_liburing_asked_for_and_absent_is_an_error(path):
    output_of(
        HIDDEN
        + """
os.environ["WALENGINE_RING"] = "liburing"
for backend in ("auto", "io_uring"):
    try:
        PortableWalWriter(sys.argv[1], WalConfig(backend=backend))
    except walengine.WalError as error:
        assert "WALENGINE_RING asks for liburing, and the package" in str(error), error
        assert "pip install 'walengine[liburing]'" in str(error), error
        assert error.path == sys.argv[1]
    else:
        raise AssertionError(backend)
PortableWalWriter(sys.argv[1], WalConfig(backend="pwrite")).close()
status = walengine.io_uring_status()
assert not status.available and not walengine.is_io_uring_available()
assert "WALENGINE_RING" in status.reason and "pip install" in status.remedy
""",
        path,
    )


def test_a_liburing_that_cannot_be_loaded_falls_back(path, tmp_path):
    """Method: a decoy in front of the real package; importing it would end the program."""
    decoy = tmp_path / "decoy" / "liburing"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise SystemExit('imported')")
    (decoy / "liburing.so").write_bytes(b"no shared object")
    output_of(
        """
sys.path.insert(0, sys.argv[2])
import logging
logging.getLogger("walengine").setLevel(logging.ERROR)
status = walengine.io_uring_status()
assert status.liburing, status
with PortableWalWriter(sys.argv[1]) as wal:
    stats = wal.stats()
    assert stats.ring in ("builtin", None)
    assert ("liburing" in stats.fallbacks) == (stats.ring == "builtin"), stats.fallbacks
if status.available:
    assert status.ring == "builtin" and status.fallbacks == ("liburing",)
    assert "liburing does not serve" in str(status), status
""",
        path,
        decoy.parent,
    )


def test_a_package_of_that_name_without_a_library_is_none(monkeypatch, tmp_path, search):
    (tmp_path / "liburing").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "liburing" / "__init__.py").touch()
    assert _native_ring.liburing_problem() == "the package liburing holds no shared object"


def test_a_module_that_cannot_be_looked_up_is_none(monkeypatch, search):
    module = ModuleType("liburing")
    module.__spec__ = None
    monkeypatch.setitem(sys.modules, "liburing", module)
    assert _native_ring.liburing_problem() == _native_ring.NOT_INSTALLED


def test_liburing_is_looked_for_once(monkeypatch, path, search):
    calls = []
    find_spec = importlib.util.find_spec

    def counted(name):
        calls.append(name)
        return find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", counted)
    for _ in range(2):
        PortableWalWriter(path).close()
        io_uring_status()
    assert calls.count("liburing") == 1


@pytest.mark.parametrize(
    ("config", "environment"),
    [(WalConfig(backend="pwrite"), {}), (WalConfig(), {"WALENGINE_RING": "builtin"})],
    ids=["pwrite", "builtin"],
)
def test_liburing_is_not_looked_for_where_it_is_not_wanted(
    monkeypatch, path, search, config, environment
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_native_ring, "_package_directories", lambda: pytest.fail("looked for it"))
    with PortableWalWriter(path, config) as wal:
        assert wal.stats().ring in {"builtin", None}


def test_the_environment_overrides_the_ring(monkeypatch, path):
    monkeypatch.setenv("WALENGINE_RING", "builtin")
    with PortableWalWriter(path) as wal:
        assert wal.stats().ring == ("builtin" if wal.backend == "io_uring" else None)


def test_the_status_of_no_io_uring_has_a_next_step():
    error = _native.ffi.new("wal_error *")
    error.message = b"a filter forbids io_uring; allow it"
    error.os_error = 1
    problem = _native.failure(_native.lib.WAL_E_NO_IO_URING, error, "/the/log")
    assert type(problem) is WalError
    assert str(problem).startswith("/the/log: a filter forbids io_uring; allow it. ")
    assert "backend='auto'" in str(problem)
    assert problem.errno == 1
