"""What the doctor says: findings, and the report that holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from walengine import types

__all__ = ["Finding", "Level", "Report", "State"]


class Level(StrEnum):
    """How much a finding matters, from least to most.

    OK: as it should be. NOTE: worth knowing, nothing to do. WARNING: a log works here, and is
    slower or less safe than it could be. PROBLEM: a writer cannot work here, or the log is damaged.
    """

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


class State(StrEnum):
    """What the findings come to: the worst of them decides."""

    READY = "ready"
    WARNINGS = "ready with warnings"
    UNUSABLE = "not usable"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding(types.Report):
    """One thing that was looked at.

    Attributes:
        topic: What it belongs to: target, log, access, writer, kernel, io_uring, filesystem,
            device, space, limits or clock.
        name: Of the check, unique in its topic but for devices: docs/DOCTOR.md lists them all.
        level: How much it matters.
        text: One sentence.
        remedy: What to do about it, or None.
        facts: The same for programs: values that JSON knows, units in their names.
    """

    topic: str
    name: str
    level: Level
    text: str
    remedy: str | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Report(types.Report):
    """What ``examine()`` found.

    Attributes:
        path: What was asked about, as it was given.
        directory: The directory that was examined: path, or the nearest one above it that exists.
        is_log: path is a log.
        verdict: ready, ready with warnings or not usable.
        findings: In the order of the topics.

    Example:
        >>> from walengine.doctor import examine
        >>> report = examine(".")
        >>> report.verdict.value in ("ready", "ready with warnings", "not usable")
        True
        >>> report.find("filesystem", "type").level.value in ("ok", "note", "warning", "problem")
        True
    """

    path: str
    directory: str
    is_log: bool
    verdict: State
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether a writer can work here."""
        return self.verdict is not State.UNUSABLE

    def at(self, *levels: Level) -> tuple[Finding, ...]:
        """Return the findings of these levels."""
        return tuple(finding for finding in self.findings if finding.level in levels)

    def find(self, topic: str, name: str) -> Finding:
        """Return the first finding of a check.

        Raises:
            LookupError: The check had nothing to say here.
        """
        for finding in self.findings:
            if (finding.topic, finding.name) == (topic, name):
                return finding
        raise LookupError(f"the report has no finding {topic}/{name}")


def verdict_of(findings: tuple[Finding, ...]) -> State:
    """Return what findings come to."""
    levels = {finding.level for finding in findings}
    if Level.PROBLEM in levels:
        return State.UNUSABLE
    return State.WARNINGS if Level.WARNING in levels else State.READY


# ---- for the probes ------------------------------------------------------------------------------


class Findings:
    """A topic's findings while they are made."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.made: list[Finding] = []

    def ok(self, name: str, text: str, /, **facts: Any) -> None:
        """Say that something is as it should be."""
        self.add(Level.OK, name, text, None, **facts)

    def note(self, name: str, text: str, remedy: str | None = None, /, **facts: Any) -> None:
        """Say what is worth knowing."""
        self.add(Level.NOTE, name, text, remedy, **facts)

    def warn(self, name: str, text: str, remedy: str | None = None, /, **facts: Any) -> None:
        """Say what is slower or less safe than it could be."""
        self.add(Level.WARNING, name, text, remedy, **facts)

    def problem(self, name: str, text: str, remedy: str | None = None, /, **facts: Any) -> None:
        """Say what keeps a writer from working."""
        self.add(Level.PROBLEM, name, text, remedy, **facts)

    def add(self, level: Level, name: str, text: str, remedy: str | None, /, **facts: Any) -> None:
        """Say something at a level that was worked out."""
        self.made.append(Finding(self._topic, name, level, text, remedy, facts))


KIB = 1024


def size(count: int) -> str:
    """Return bytes as people read them: 64 MiB, 1.5 GiB."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < KIB:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= KIB
    return f"{value:.0f} TiB" if value == int(value) else f"{value:.1f} TiB"
