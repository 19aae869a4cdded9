"""The filesystem: its type, its mount options, what it does with a sync and with direct writes."""

from __future__ import annotations

import errno
from typing import Any

from walengine.doctor._calls import error_text
from walengine.doctor.findings import Finding, Findings
from walengine.doctor.mounts import MEMORY, NETWORK_REFUSED, SYNCS_DIRECT, Mount
from walengine.doctor.scratch import BLOCK_BYTES
from walengine.doctor.trial import Trial

LOCAL_DISK = "put the log on ext4 or xfs on a local disk"
NETWORK = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "gpfs",
        "lustre",
        "ocfs2",
        "virtiofs",
    )
)


def examine(mount: Mount | None, trial: Trial) -> list[Finding]:
    """Say what the filesystem is and what came of trying it."""
    say = Findings("filesystem")
    if mount is None:
        say.note("type", "the machine does not tell which filesystem this is", None, type=None)
    else:
        _kind(say, mount)
        _read_only(say, mount)
        _barriers(say, mount)
        _journal(say, mount)
        _other_options(say, mount)
    if trial.create_error is None:
        _syncs(say, trial)
        _direct(say, mount, trial)
        _cow(say, mount, trial)
    return say.made


def _kind(say: Findings, mount: Mount) -> None:
    """As the C core judges it when a log is opened; see docs/DURABILITY.md, "Filesystems"."""
    kind = mount.kind
    facts = {
        "type": kind,
        "mount_point": mount.point,
        "source": mount.source,
        "device": mount.device,
        "options": list(mount.options),
    }
    where = f"{kind} on {mount.source}, mounted at {mount.point}"
    if kind in {"ext4", "xfs"}:
        say.ok("type", f"{where}: tested, power cuts included", **facts)
    elif kind == "btrfs":
        say.ok("type", f"{where}: written for, tested without power cuts", **facts)
    elif kind in MEMORY:
        say.warn(
            "type",
            f"{where}: it is kept in memory, and nothing survives power loss",
            LOCAL_DISK,
            **facts,
        )
    elif kind in NETWORK_REFUSED:
        say.problem(
            "type",
            f"{where}: a network filesystem keeps neither the lock nor the order of writes, so "
            "writers refuse it",
            LOCAL_DISK,
            **facts,
        )
    elif kind == "overlay":
        say.warn(
            "type",
            f"{where}: a container's own layer, not tested, and gone with it",
            "mount a volume of the host and put the log there",
            **facts,
        )
    elif kind in NETWORK:
        say.warn(
            "type",
            f"{where}: another machine or the host answers a sync; not tested",
            LOCAL_DISK,
            **facts,
        )
    elif kind in {"ext2", "vfat", "exfat", "msdos"}:
        say.warn(
            "type",
            f"{where}: it has no journal, so a power cut may cost the directory",
            LOCAL_DISK,
            **facts,
        )
    else:
        say.warn("type", f"{where}: walengine was not tested on it", LOCAL_DISK, **facts)


# ---- mount options -------------------------------------------------------------------------------


def _read_only(say: Findings, mount: Mount) -> None:
    if "ro" not in mount.options:
        return
    say.problem(
        "read_only",
        f"{mount.point} is mounted read-only: logs can be read here, and no writer can work",
        f"mount -o remount,rw {mount.point}; if the kernel made it read-only, look at dmesg first",
    )


def _barriers(say: Findings, mount: Mount) -> None:
    """Whether a sync reaches the device at all."""
    off = mount.has("nobarrier", "volatile")
    if mount.value("barrier") == "0":
        off = "barrier=0"
    if mount.value("fsync_mode") == "nobarrier":
        off = "fsync_mode=nobarrier"
    if off == "volatile":
        say.warn(
            "barriers",
            "the option volatile makes the overlay leave out every sync",
            "mount it without volatile",
            option=off,
        )
    elif off:
        say.warn(
            "barriers",
            f"the option {off} keeps a sync from flushing the device's cache: what was "
            "acknowledged can be lost with the power",
            f"mount -o remount,barrier {mount.point}, unless the cache has a battery of its own",
            option=off,
        )
    elif mount.kind not in MEMORY:
        say.ok("barriers", "no mount option keeps a sync from flushing the device", option=None)


def _journal(say: Findings, mount: Mount) -> None:
    """What data= changes; ext4 shows it only where it is not the default."""
    mode = mount.value("data")
    if mode == "journal":
        say.warn(
            "journal",
            "data=journal writes every byte twice, and takes direct writes through the page cache",
            "mount with data=ordered, the default",
            data=mode,
        )
    elif mode == "writeback":
        say.note(
            "journal",
            "data=writeback may show stale blocks after a power cut: the log's checksums tell "
            "them from records, other files have no such guard",
            data=mode,
        )


def _other_options(say: Findings, mount: Mount) -> None:
    if option := mount.has("sync", "dirsync"):
        say.note(
            "synchronous",
            f"the option {option} makes every write or directory change wait for the device, "
            "which the log does not need",
            f"mount -o remount,async {mount.point}",
            option=option,
        )
    quota = mount.has(
        "usrquota",
        "grpquota",
        "prjquota",
        "usrjquota",
        "grpjquota",
        "uquota",
        "gquota",
        "pquota",
        "quota",
    )
    if quota and quota not in {"noquota", "quota=off"}:
        say.note(
            "quota", f"quotas are on ({quota}): a log can be full before the disk is", option=quota
        )


# ---- what was tried ------------------------------------------------------------------------------


def _syncs(say: Findings, trial: Trial) -> None:
    for error, what in (
        (trial.write_error, "a write of 4096 bytes"),
        (trial.sync_error, "a sync"),
        (trial.name_sync_error, "a sync of the directory"),
    ):
        if error is not None:
            facts = {"errno": error.errno}
            say.problem("sync", f"{what} failed: {error_text(error)}", _remedy(error), **facts)
            return
    say.ok("sync", "a file could be made, written and synced, and the directory synced")


def _remedy(error: OSError) -> str:
    remedies = {
        errno.EIO: "look at dmesg and at the device (smartctl -a) before you trust it again",
        errno.ENOSPC: "free space",
        errno.EDQUOT: "raise the quota, or free space",
        errno.EFBIG: "raise ulimit -f (RLIMIT_FSIZE)",
    }
    return remedies.get(error.errno or 0, LOCAL_DISK)


def _direct(say: Findings, mount: Mount | None, trial: Trial) -> None:
    """Whether direct_io=True would be direct, and in which steps."""
    told = trial.alignment
    facts: dict[str, Any] = {
        "works": trial.direct,
        "step_bytes": trial.direct_step_bytes,
        "statx_memory_bytes": told.memory_bytes if told else None,
        "statx_offset_bytes": told.offset_bytes if told else None,
    }
    if not trial.direct:
        reason = error_text(trial.direct_error) if trial.direct_error else "unknown"
        say.note(
            "direct_io",
            f"direct writes of {BLOCK_BYTES} bytes do not work here ({reason}): direct_io=True "
            "goes through the page cache",
            **facts,
        )
        return
    if mount is not None and mount.kind not in SYNCS_DIRECT:
        say.note(
            "direct_io",
            f"direct writes of {BLOCK_BYTES} bytes are accepted, and {mount.kind} may drop their "
            "sync: direct_io=True goes through the page cache",
            **facts,
        )
        return
    if told and told.offset_bytes:
        detail = (
            f"the filesystem wants offsets of {told.offset_bytes} and memory of "
            f"{told.memory_bytes} bytes"
        )
    else:
        detail = f"steps of {trial.direct_step_bytes} bytes were accepted, and statx does not tell"
    if mount is not None and mount.kind in MEMORY:
        detail = "accepted, though there is no device behind the memory"
    say.ok("direct_io", f"direct, synced writes of {BLOCK_BYTES} bytes work ({detail})", **facts)


def _cow(say: Findings, mount: Mount | None, trial: Trial) -> None:
    """Overwriting in place: what btrfs does only for files without copy-on-write."""
    if mount is None or mount.kind != "btrfs":
        return
    if trial.nocow or mount.has("nodatacow"):
        say.ok("nocow", "btrfs lets the log's files be overwritten in place (NOCOW)", nocow=True)
        return
    say.warn(
        "nocow",
        "btrfs refuses to overwrite files in place (NOCOW): a full disk may poison a writer",
        "put the log on ext4 or xfs, or in a subvolume mounted with nodatacow",
        nocow=False,
    )
