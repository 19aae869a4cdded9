"""Limits of this process that a writer meets: locked memory, open files, file size."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from walengine.backend import IoUringStatus
from walengine.config import WalConfig
from walengine.doctor.findings import Finding, Findings, size
from walengine.doctor.roots import Roots, field, read_text

CAP_IPC_LOCK = 1 << 14
FILES_OF_A_WRITER = 16  # its segments, META, LOCK and directory, its ring and its eventfd; rounded
FILES_WANTED = 256
REGISTERED_FILES = "registered_files"
NO_LIMIT = resource.RLIM_INFINITY
ALL_USERS = "0 0 4294967295"  # /proc/self/uid_map where there is no user namespace


@dataclass(frozen=True, slots=True)
class Limits:
    """Soft limits, in bytes or numbers; RLIM_INFINITY where there is none.

    Attributes:
        locked_bytes: RLIMIT_MEMLOCK.
        files: RLIMIT_NOFILE.
        file_bytes: RLIMIT_FSIZE.
    """

    locked_bytes: int
    files: int
    file_bytes: int

    def may_make(self, count: int) -> bool:
        """Return whether a file may have so many bytes."""
        return self.file_bytes == NO_LIMIT or self.file_bytes >= count


def own_limits() -> Limits:
    """Return those of this process."""
    names = (resource.RLIMIT_MEMLOCK, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)
    return Limits(*(resource.getrlimit(name)[0] for name in names))


def examine(
    limits: Limits, status: IoUringStatus, config: WalConfig, segment_bytes: int, roots: Roots
) -> list[Finding]:
    """Say which limits a writer of this configuration would meet."""
    say = Findings("limits")
    _locked_memory(say, limits, status, config, roots)
    _files(say, limits, status)
    _file_size(say, limits, segment_bytes)
    return say.made


def _locked_memory(
    say: Findings, limits: Limits, status: IoUringStatus, config: WalConfig, roots: Roots
) -> None:
    """Registered buffers count against the limit of a user, for all of his processes together."""
    wanted = config.io.registered_buffers * config.io.buffer_size
    limit = limits.locked_bytes
    exempt = _may_lock_all(roots)
    facts = {
        "limit_bytes": None if limit == NO_LIMIT else limit,
        "default_bytes": wanted,
        "exempt": exempt,
        "registered_buffers": status.registered_buffers,
    }
    shape = f"{config.io.registered_buffers} buffers of {size(config.io.buffer_size)}"
    needs = f"a writer of the default configuration registers {shape}, {size(wanted)}"
    remedy = (
        "raise RLIMIT_MEMLOCK: ulimit -l, memlock in /etc/security/limits.conf, LimitMEMLOCK= of a "
        "systemd unit, docker run --ulimit memlock=N"
    )
    if limit == NO_LIMIT or exempt:
        why = "this process may lock as much memory as it likes" if exempt else "it has no limit"
        say.ok("memlock", f"{needs}, and {why}", **facts)
    elif "registered_buffers" in status.fallbacks or limit < wanted:
        say.warn(
            "memlock",
            f"{needs}, and RLIMIT_MEMLOCK is {size(limit)}: it writes from plain memory instead, "
            "which costs speed and no promise",
            remedy,
            **facts,
        )
    elif limit < 2 * wanted + wanted // 2:
        count = limit // wanted
        say.note(
            "memlock",
            f"{needs}, and RLIMIT_MEMLOCK is {size(limit)} for all processes of this user: "
            f"{'one such writer fits' if count == 1 else 'two hardly fit'}, others write from "
            "plain memory",
            remedy,
            **facts,
        )
    else:
        say.ok("memlock", f"{needs}, and RLIMIT_MEMLOCK is {size(limit)}", **facts)


def _may_lock_all(roots: Roots) -> bool:
    """Return whether the limit is none for this process; root of a user namespace has one."""
    capabilities = field(read_text(roots.proc / "self/status"), "CapEff") or "0"
    users = (read_text(roots.proc / "self/uid_map") or ALL_USERS).split()
    return bool(int(capabilities, 16) & CAP_IPC_LOCK) and users == ALL_USERS.split()


def _files(say: Findings, limits: Limits, status: IoUringStatus) -> None:
    limit = limits.files
    facts = {"limit": None if limit == NO_LIMIT else limit, "writer": FILES_OF_A_WRITER}
    remedy = "raise RLIMIT_NOFILE: ulimit -n, or LimitNOFILE= of a systemd unit"
    if limit == NO_LIMIT or limit >= FILES_WANTED:
        shown = "no limit" if limit == NO_LIMIT else f"{limit:,}"
        say.ok(
            "nofile", f"RLIMIT_NOFILE is {shown}, and a writer opens about a dozen files", **facts
        )
    elif limit < FILES_OF_A_WRITER or REGISTERED_FILES in status.fallbacks:
        say.warn(
            "nofile",
            f"RLIMIT_NOFILE is {limit}, too few for a writer and its ring's table of files",
            remedy,
            **facts,
        )
    else:
        say.note("nofile", f"RLIMIT_NOFILE is {limit}: room for few writers", remedy, **facts)


def _file_size(say: Findings, limits: Limits, segment_bytes: int) -> None:
    limit = limits.file_bytes
    facts = {"limit_bytes": None if limit == NO_LIMIT else limit, "segment_bytes": segment_bytes}
    if limits.may_make(segment_bytes):
        shown = "not set" if limit == NO_LIMIT else size(limit)
        say.ok(
            "fsize",
            f"RLIMIT_FSIZE is {shown}: a segment of {size(segment_bytes)} may be made",
            **facts,
        )
        return
    say.problem(
        "fsize",
        f"RLIMIT_FSIZE is {size(limit)}, and a segment has {size(segment_bytes)}",
        "raise it (ulimit -f unlimited), or open the log with a smaller WalConfig.segment_bytes",
        **facts,
    )
