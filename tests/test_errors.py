"""The tree of errors: its shape, what each carries, and what its message says."""

from __future__ import annotations

import errno
import inspect
import pickle

import pytest

import walengine
from walengine import WalError, _native, errors
from walengine._status import sentence

TREE = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_is_public_and_a_wal_error(kind):
    assert issubclass(kind, WalError)
    assert getattr(walengine, kind.__name__) is kind
    assert kind.__module__ == "walengine"
    assert kind.__name__ in walengine.__all__


def test_the_docstring_draws_the_whole_tree():
    drawn = [name for name in errors.__all__ if f"─ {name}" in errors.__doc__]
    assert sorted(drawn) == sorted(errors.__all__)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_errors_cross_process_pools(kind):
    facts = {"path": "/log", "segment": "wal-1.seg", "offset": 8192, "lsn": 7, "errno": errno.EIO}
    if kind is errors.WalPoisonedError:
        facts |= {"durable_lsn": 3, "lost": range(4, 9)}
    error = kind("what happened", **facts)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what happened"
    assert {name: getattr(copy, name) for name in facts} == facts


def test_an_os_error_is_one():
    error = errors.WalOSError("it failed", errno=errno.EACCES)
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, str(error)) == (
        errno.EACCES,
        "Permission denied",
        "it failed",
    )


def test_a_missing_record_is_a_lookup_error():
    assert issubclass(errors.LsnNotFoundError, LookupError)


STATUSES = [
    name for name in dir(_native.lib) if name.startswith("WAL_E_") and name != "WAL_E_AGAIN"
]


@pytest.mark.parametrize("name", STATUSES)
def test_every_status_has_an_exception_and_a_next_step(name):
    """A new status in the header cannot come without its exception."""
    code = getattr(_native.lib, name)
    assert code in _native.STATUSES
    error = _native.failure(code, _native.ffi.new("wal_error *"), "/the/log")
    assert str(error).startswith("/the/log: ")
    assert str(error).endswith(".")
    assert error.path == "/the/log"


def test_a_negative_errno_becomes_an_os_error():
    error = _native.failure(-errno.EROFS, _native.ffi.new("wal_error *"), "/the/log")
    assert isinstance(error, errors.WalOSError)
    assert error.errno == errno.EROFS
    assert "read-only" in str(error)


def test_a_message_names_each_fact_once():
    text = sentence("/log", "frame at offset 8192 is damaged.", "Do this", "wal-1.seg", 8192, 81)
    assert text == "/log: frame at offset 8192 is damaged (wal-1.seg, LSN 81). Do this."


def test_messages_do_not_echo_records(tmp_path):
    with pytest.raises(WalError) as caught, walengine.PortableWalWriter(tmp_path / "log") as wal:
        wal._limit = 3
        wal.append(b"secret")
    assert "secret" not in str(caught.value)


def test_the_binding_is_imported_in_one_place():
    """One module touches the C core; everything else goes through it."""
    from pathlib import Path  # noqa: PLC0415 (used here only)

    package = Path(inspect.getfile(walengine)).parent

    def importers(module):
        return [
            path.name
            for path in package.rglob("*.py")
            if f"walengine.{module} import" in path.read_text(encoding="utf-8")
        ]

    assert importers("_core") == ["_library.py"]
    assert importers("_library") == ["_native.py"]
