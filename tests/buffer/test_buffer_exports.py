"""What ``walengine.buffer`` exports: read from its files when asked for, with examples that run."""

import asyncio
import doctest
import importlib
import subprocess
import sys

import pytest

import walengine.buffer

HEAVY = ("zstandard", "ulid", "sqlite3", "walengine.buffer.producer", "walengine.buffer.consumer")


def test_every_public_name_has_one_home():
    homes = [name for names in walengine.buffer._HOMES.values() for name in names]
    assert sorted(homes) == walengine.buffer.__all__
    for name in homes:
        assert getattr(walengine.buffer, name).__module__ == "walengine.buffer"
    assert set(homes) <= set(dir(walengine.buffer))


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'walengine.buffer' has no attribute 'Nothing'"):
        walengine.buffer.Nothing  # noqa: B018
    with pytest.raises(ImportError, match="Nothing"):
        from walengine.buffer import Nothing  # noqa: F401, PLC0415


@pytest.mark.parametrize("module", ["walengine.cli", "walengine.sinks", "walengine.buffer.errors"])
def test_who_needs_no_queue_loads_none(module):
    source = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


NAMES = {name: getattr(walengine.buffer, name) for name in walengine.buffer.__all__}
INTERNAL = [("location", "BatchNamer"), ("manifest", "Manifest"), ("metrics", "Metrics")]


def run_example(kind, names):
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(kind, kind.__name__, globs=NAMES | {"asyncio": asyncio} | names)
    outcome = doctest.DocTestRunner().run(example)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)


@pytest.mark.parametrize("name", [name for name in NAMES if ">>>" in (NAMES[name].__doc__ or "")])
def test_the_examples_run(name):
    run_example(NAMES[name], {})


@pytest.mark.parametrize(("file", "name"), INTERNAL)
def test_the_examples_of_what_is_not_exported_run(file, name):
    module = importlib.import_module(f"walengine.buffer.{file}")
    run_example(getattr(module, name), vars(module))
