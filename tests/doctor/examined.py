"""The doctor as users run it, and what must be as before when it is over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from processes import cli

from walengine.doctor import examine


def listing(path: Path) -> list[tuple[str, int, int, int]]:
    """Everything below a directory: name, inode, size, time of the last change to the bytes."""
    found = []
    for place, directories, files in os.walk(path):
        for name in directories + files:
            status = Path(place, name).lstat()
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return sorted(found)


class Examined:
    """What 'walengine doctor --json' said."""

    def __init__(self, facts: dict[str, Any], code: int) -> None:
        self.facts = facts
        self.verdict = self.facts["verdict"]
        self.code = code
        self.findings = {
            (each["topic"], each["name"]): each for each in reversed(self.facts["findings"])
        }
        assert (code == 1) == (self.verdict == "not usable")
        assert not [each for each in self.facts["findings"] if each["name"] == "unknown"]

    def level(self, topic: str, name: str) -> str:
        return self.findings[topic, name]["level"]

    def text(self, topic: str, name: str) -> str:
        return self.findings[topic, name]["text"]

    def fact(self, topic: str, name: str, fact: str) -> object:
        return self.findings[topic, name]["facts"][fact]

    def at(self, level: str) -> set[tuple[str, str]]:
        return {key for key, each in self.findings.items() if each["level"] == level}


def doctor(path: Path | str, *, inside: Path | None = None, cwd: Path | None = None, **env: str):
    """Examine path; what is inside (by default in path) has to stay as it is."""
    inside = inside or Path(path)
    before = listing(inside)
    result = cli("doctor", path, "--json", cwd=cwd, **env)
    assert result.stderr == b""
    assert listing(inside) == before
    return Examined(json.loads(result.stdout), result.returncode)


def look(path: Path) -> Examined:
    """The same in this process, which is quicker."""
    before = listing(path)
    report = examine(path)
    assert listing(path) == before
    facts = json.loads(json.dumps(report.as_dict()))
    return Examined(facts, 0 if report.usable else 1)
