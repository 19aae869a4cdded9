"""docs/DOCTOR.md: every check is on it, none is that does not exist, and what it shows runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "DOCTOR.md").read_text(encoding="utf-8")


def checks() -> set[str]:
    """Every topic/name that a probe can say."""
    found = set()
    for path in (ROOT / "walengine" / "doctor").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        names = re.findall(r'\bsay\.(?:ok|note|warn|problem)\(\s*"(\w+)"', source)
        (topic,) = re.findall(r'= Findings\("(\w+)"\)', source) or [None]
        assert topic or not names
        found |= {f"{topic}/{name}" for name in names}
    return found


def test_the_page_has_every_check():
    page = set(re.findall(r"`(\w+/\w+)`", PAGE)) - {"queue/write_cache"}
    assert len(page) > 30
    assert page == checks()


def test_the_python_example_runs(tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"(not usable|ready( with warnings)?) (io_uring|pwrite)\n", done.stdout)
