"""What was asked about: a directory for logs, a log, a name that is still free, or a file."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shlex
import stat
from pathlib import Path

from walengine.doctor._calls import error_text
from walengine.doctor.findings import Finding, Findings

SEGMENT_NAME = re.compile(r"wal-[0-9a-f]{16}\.seg")
NAMES_MAX = 100_000  # of a directory that is full of other things


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where to look.

    Attributes:
        path: As it was given.
        directory: What is examined: path, or the nearest directory above it.
        is_log: path is a log.
        missing: Components of path that do not exist.
        problem: Why path cannot be a log's place, or None.
        remedy: What to do about that.
    """

    path: str
    directory: Path
    is_log: bool
    missing: int
    problem: str | None
    remedy: str | None


def find_target(path: str) -> Target:
    """Find out what path is; nothing is opened but directories."""
    if not Path(path).is_absolute() and not _is_anywhere():
        problem = "the current directory was removed"
        return Target(path, Path("/"), False, 0, problem, "change to a directory that exists")
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        return _without(path, error)
    if not stat.S_ISDIR(status.st_mode):
        problem = f"{path} is {_kind(status.st_mode)}, and a log is a directory"
        remedy = "give the directory that the log is in or will be in"
        return Target(path, _existing(path)[0], False, 0, problem, remedy)
    return Target(path, Path(path).absolute(), _is_log(path), 0, None, None)


def examine(target: Target) -> list[Finding]:
    """Say what path is."""
    say = Findings("target")
    facts = {"path": target.path, "directory": str(target.directory), "is_log": target.is_log}
    if target.problem:
        say.problem("path", target.problem, target.remedy, **facts)
    elif target.missing > 1:
        say.warn(
            "path",
            f"{target.path} does not exist, so {target.directory} above it was examined; a writer "
            "makes the log's own directory and none above it",
            f"mkdir -p {shlex.quote(str(Path(target.path).parent))}",
            **facts,
        )
    elif target.missing:
        where = f"{target.directory} above it was examined"
        say.ok("path", f"{target.path} does not exist: a writer makes it; {where}", **facts)
    elif target.is_log:
        say.ok("path", f"{target.directory} is a log", **facts)
    else:
        say.ok("path", f"{target.directory} is a directory, and no log yet", **facts)
    return say.made


def _without(path: str, error: OSError | ValueError) -> Target:
    """Return the target of a path that cannot be examined."""
    if isinstance(error, ValueError):  # a NUL in it
        return Target(
            path, Path().absolute(), False, 0, f"{path!r} is no path", "give another path"
        )
    directory, missing = _existing(path)
    if error.errno == errno.ENOENT and not _is_link(path):
        return Target(path, directory, False, missing, None, None)
    if error.errno == errno.ENOENT:
        problem = f"{path} is a symbolic link that leads nowhere"
        return Target(path, directory, False, 0, problem, "make what it points to, or remove it")
    problem = f"{path} cannot be reached: {error_text(error)}"
    remedies = {
        errno.EACCES: "run as a user who may enter every directory of the path",
        errno.ENOTDIR: "a part of the path is a file: give another path",
    }
    remedy = remedies.get(error.errno or 0, "give another path")
    return Target(path, directory, False, 0, problem, remedy)


def _existing(path: str) -> tuple[Path, int]:
    """Return the nearest directory above path that can be reached, and what of path is beyond."""
    above = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() fails on what cannot be reached)
    missing = 0
    while above != above.parent:
        above = above.parent
        missing += 1
        try:
            if above.is_dir():
                break
        except OSError:
            continue
    return above, missing


def _is_anywhere() -> bool:
    """Return whether the current directory exists."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_log(path: str) -> bool:
    """Return whether a directory has what only logs have."""
    try:
        if stat.S_ISREG(os.lstat(os.path.join(path, "META")).st_mode):  # noqa: PTH118
            return True
        with os.scandir(path) as entries:
            names = (entry.name for entry, _ in zip(entries, range(NAMES_MAX), strict=False))
            return any(SEGMENT_NAME.fullmatch(name) for name in names)
    except OSError:
        return False


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a file"
    names = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")
