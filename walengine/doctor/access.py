"""Whether this user may write here, whose directory it is, and whether a writer is at work."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shlex
import stat
from pathlib import Path
from typing import Any

from walengine.doctor._calls import error_text
from walengine.doctor.findings import Finding, Findings
from walengine.doctor.mounts import Mount
from walengine.doctor.roots import Roots, read_text
from walengine.doctor.target import Target
from walengine.doctor.trial import Trial

SHARED = stat.S_IWGRP | stat.S_IWOTH
PID_BYTES_MAX = 32


def examine(target: Target, mount: Mount | None, trial: Trial, roots: Roots) -> list[Finding]:
    """Say who may do what."""
    say = Findings("access")
    try:
        status = target.directory.stat()
    except OSError as error:
        say.problem(
            "directory",
            f"{target.directory} cannot be examined: {error_text(error)}",
            "run as a user who may enter it",
            errno=error.errno,
        )
        return say.made
    _writable(say, target, mount, trial)
    _owner(say, target, status)
    if target.is_log:
        _lock(say, target.directory / "LOCK", roots)
    return say.made


def _writable(say: Findings, target: Target, mount: Mount | None, trial: Trial) -> None:
    error = trial.create_error
    facts: dict[str, Any] = {
        "writable": error is None,
        "errno": error.errno if error else None,
        "user": _user(),
    }
    if error is None:
        say.ok("writable", f"this user ({_name(_user())}) can make files here", **facts)
    elif mount is not None and "ro" in mount.options:
        say.problem(
            "writable",
            "nothing can be made here: the filesystem is read-only",
            "readers work; give writers another directory",
            **facts,
        )
    else:
        say.problem(
            "writable",
            f"this user ({_name(_user())}) cannot make a file in {target.directory}: "
            f"{error_text(error)}",
            "run as the directory's owner, or give that user a directory of its own",
            **facts,
        )


def _owner(say: Findings, target: Target, status: os.stat_result) -> None:
    """A log's directory has to be the writer's own and nobody else's to write to (the C core)."""
    mode = stat.S_IMODE(status.st_mode)
    facts: dict[str, Any] = {"owner": status.st_uid, "mode": f"{mode:03o}"}
    foreign, shared = status.st_uid != _user(), bool(mode & SHARED)
    place = f"{target.directory} belongs to {_name(status.st_uid)} and has mode {mode:03o}"
    if not foreign and not shared:
        say.ok("owner", place, **facts)
    elif foreign and target.is_log:
        say.problem(
            "owner",
            f"{place}, and this user is {_name(_user())}: writers refuse it",
            "run the writer as the directory's owner",
            **facts,
        )
    elif shared and target.is_log:
        say.problem(
            "owner",
            f"{place}: writers refuse a log that others may write to",
            f"chmod 700 {shlex.quote(str(target.directory))}, or WalConfig(allow_shared_dir=True)",
            **facts,
        )
    elif shared and not mode & stat.S_ISVTX:
        say.note(
            "owner",
            f"{place}: others may rename or remove a log that is made in it",
            "give logs a directory that only their owner may write to",
            **facts,
        )
    else:
        say.note(
            "owner",
            f"{place}: make logs in directories of their own below it, which "
            "writers do with mode 700",
            **facts,
        )


def _lock(say: Findings, lock: Path, roots: Roots) -> None:
    """Whether a writer has the log open; asked without keeping one out for more than a moment."""
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        say.ok("lock", "no writer ever locked this log", locked=False)
        return
    except OSError as error:
        _lock_by_table(say, lock, error, roots)
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        say.note(
            "lock",
            f"a writer has the log open (process {_holder(file)})",
            "a second writer gets LockedError until it is closed",
            locked=True,
        )
    except OSError as error:
        say.warn("lock", f"LOCK cannot be asked: {error_text(error)}", "use a local filesystem")
    else:
        say.ok("lock", "no writer has the log open", locked=False)
    finally:
        os.close(file)


def _lock_by_table(say: Findings, lock: Path, error: OSError, roots: Roots) -> None:
    """Look for the lock's inode among all locks: for those who may not open the file."""
    try:
        status = lock.lstat()
    except OSError:
        status = None
    table = read_text(roots.proc / "locks")
    if status is None or table is None:
        say.note("lock", f"whether a writer is at work cannot be seen: {error_text(error)}")
        return
    match = re.search(rf"FLOCK\s+\w+\s+\w+\s+(-?\d+)\s+{_inode_as_listed(status)}\s", table)
    if match:
        say.note("lock", f"a writer has the log open (process {match[1]})", locked=True)
    else:
        say.ok("lock", "no writer has the log open", locked=False)


def _inode_as_listed(status: os.stat_result) -> str:
    """Return the pattern of a file in /proc/locks: major:minor:inode, the device in hex.

    Where no one device is behind a filesystem (btrfs, overlay), stat tells another number than the
    table has, and any will do.
    """
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    device = f"{major:02x}:{minor:02x}" if major else "[0-9a-f]+:[0-9a-f]+"
    return f"{device}:{status.st_ino}"


def _holder(file: int) -> str:
    text = os.pread(file, PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
    return text if text.isdigit() else "unknown"


def _user() -> int:
    return os.geteuid()


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
