"""The doctor: what a machine and a directory mean for a log, and what to do about it.

Each topic has a file that returns findings; what they find out by themselves (system calls,
``/proc``, ``/sys``) is kept apart from what they say about it, so that tests can describe machines
that they do not run on. Nothing is written but to files without a name in the examined directory,
which are gone when it is over.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from walengine.backend import io_uring_status
from walengine.config import WalConfig, normalised
from walengine.doctor import (
    access,
    clock,
    device,
    filesystem,
    found_log,
    kernel,
    limits,
    ring,
    space,
    target,
    writer,
)
from walengine.doctor.findings import Finding, Level, Report, State, verdict_of
from walengine.doctor.mounts import MEMORY, Mount, mount_of
from walengine.doctor.roots import Roots
from walengine.doctor.trial import attempt

__all__ = ["Finding", "Level", "Report", "State", "examine"]


def examine(path: str | os.PathLike[str] = ".", *, roots: Roots | None = None) -> Report:
    """Examine the machine and a place for a log.

    Takes well under a second. Nothing is left in the directory, and nothing outside of it is
    written to. A writer may be at work meanwhile.

    Args:
        path: A directory, a log, or a name that is free; where it does not exist, the nearest
            directory above it is examined.
        roots: Where /proc and /sys are; for tests.

    Returns:
        What was found; that a log cannot work here is a finding and no error.

    Raises:
        ValueError: The path is empty.
        WalError: WALENGINE_BACKEND or WALENGINE_RING has a value that does not exist.

    Example:
        >>> from walengine.doctor import examine
        >>> report = examine(".")
        >>> [finding.text for finding in report.findings if finding.level == "problem"]
        []
    """
    text = os.fsdecode(path)
    if not text:
        raise ValueError("the path is empty")
    roots = roots or Roots()
    place = target.find_target(text)
    config = normalised(None)
    findings = tuple(_here(place, config, roots))
    return Report(
        path=text,
        directory=str(place.directory),
        is_log=place.is_log,
        verdict=verdict_of(findings),
        findings=findings,
    )


def _here(place: target.Target, config: WalConfig, roots: Roots) -> list[Finding]:
    """Look at everything, then say what it means, topic by topic."""
    log = found_log.read_log(place.directory) if place.is_log else None
    segment_bytes = (log and log.segment_bytes) or config.segment_bytes
    mount = mount_of(place.directory, roots)
    free = space.space_of(place.directory)
    trial = attempt(place.directory, _segment_to_try(mount, free, segment_bytes))
    status = io_uring_status(config.io)
    own = limits.own_limits()
    topics: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("target", lambda: target.examine(place)),
        ("log", lambda: found_log.examine(log) if log else []),
        ("access", lambda: access.examine(place, mount, trial, roots)),
        ("writer", lambda: writer.examine(status, mount, trial, config)),
        ("kernel", lambda: kernel.examine(roots)),
        ("io_uring", lambda: ring.examine(status, roots)),
        ("filesystem", lambda: filesystem.examine(mount, trial)),
        ("device", lambda: device.examine(mount, roots)),
        ("space", lambda: space.examine(free, trial, segment_bytes, is_log=place.is_log)),
        ("limits", lambda: limits.examine(own, status, config, segment_bytes, roots)),
        ("clock", lambda: clock.examine(clock.look(), roots)),
    ]
    return [finding for topic, look in topics for finding in _topic(topic, look)]


def _topic(topic: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Return a topic's findings: one that meets a strange machine must not hide the others."""
    try:
        return look()
    except (OSError, ValueError) as error:
        text = f"this could not be examined: {type(error).__name__}: {error}"
        return [Finding(topic, "unknown", Level.NOTE, text, "report it with this line")]


def _segment_to_try(mount: Mount | None, free: space.Space | None, segment_bytes: int) -> int:
    """Return the bytes to allocate for a moment: none where somebody could miss them."""
    in_memory = mount is not None and mount.kind in MEMORY
    if in_memory or not space.may_try(free, segment_bytes):
        return 0
    return segment_bytes if limits.own_limits().may_make(segment_bytes) else 0


for _name in __all__:
    globals()[_name].__module__ = "walengine.doctor"
