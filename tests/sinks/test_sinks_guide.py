"""docs/SINKS.md and the docstrings: what they show runs, what exists is in them."""

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from walengine import sinks

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "SINKS.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MODULES = ("batch", "callback", "fan_out", "log", "options", "stats", "wal")


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_guide_run(example, tmp_path):
    run = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", sinks.__all__)
def test_every_public_name_is_in_the_guide(name):
    assert re.search(rf"`[^`\n]*\b{name}\b", PAGE)


def test_every_option_is_in_the_guide():
    fields = sinks.SinkOptions.__dataclass_fields__
    assert [name for name in fields if f"`{name}`" not in PAGE] == []


def test_the_examples_of_the_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name in MODULES:
        module = importlib.import_module(f"walengine.sinks.{name}")
        for public in module.__all__:
            for test in finder.find(getattr(module, public), public, module=False, globs={}):
                runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 20
