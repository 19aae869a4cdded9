"""The devices behind the directory: what a sync means to them, and who could be lying."""

from __future__ import annotations

import dataclasses
from typing import Any

from walengine.doctor.devices import Device, chain_of
from walengine.doctor.findings import Finding, Findings
from walengine.doctor.mounts import MEMORY, Mount
from walengine.doctor.roots import Roots

WRITE_BACK = "write back"
WRITE_THROUGH = "write through"
HOSTED = frozenset(("virtio", "Xen"))
REMOTE = frozenset(("network block device", "Ceph RBD", "DRBD"))
HOSTED_MODELS = ("QEMU", "VMware", "VBOX", "Msft", "Google", "Amazon", "Virtual")
PARITY = frozenset(("raid4", "raid5", "raid6"))
CLOSED_HOLE = frozenset(("journal", "ppl"))


def examine(mount: Mount | None, roots: Roots) -> list[Finding]:
    """Say what is below a filesystem, and how it treats a sync."""
    say = Findings("device")
    if mount is None or mount.kind in MEMORY:
        return say.made
    chain = chain_of(mount, roots)
    if not chain:
        say.note(
            "chain",
            f"no block device is seen behind {mount.source}: what a sync costs and reaches is "
            f"up to {mount.kind}",
            devices=[],
        )
        return say.made
    names = " on ".join(device.name for device in chain)
    facts = [dataclasses.asdict(device) for device in chain]
    say.ok("chain", f"the filesystem lies on {names}", devices=facts)
    by_name = {device.name: device for device in chain}
    for device in chain:
        _one(say, device)
        _flush_passes(say, device, by_name)
        _dangers(say, device)
    return say.made


def _one(say: Findings, device: Device) -> None:
    """Describe a device; a partition has its disk's queue."""
    label = f" {device.label}" if device.label else ""
    if device.kind == "partition":
        return
    parts = [f"{device.name}: {device.kind}{label}"]
    if device.write_cache:
        parts.append(f"write cache {device.write_cache}")
    if device.fua is not None and device.write_cache == WRITE_BACK:
        parts.append("with FUA" if device.fua else "without FUA")
    if device.scheduler:
        parts.append(f"scheduler {device.scheduler}")
    say.ok("device", ", ".join(parts), device=device.name)


# ---- what a sync means to it ---------------------------------------------------------------------


def _flush_passes(say: Findings, device: Device, by_name: dict[str, Device]) -> None:
    """Whether the kernel sends this device a flush, and passes it on to what is below."""
    if device.kind == "partition" or device.write_cache is None:
        return
    below = [by_name[name] for name in device.lower if name in by_name]
    volatile = [lower.name for lower in below if lower.write_cache == WRITE_BACK]
    facts: dict[str, Any] = {
        "device": device.name,
        "write_cache": device.write_cache,
        "fua": device.fua,
    }
    if device.write_cache == WRITE_THROUGH and volatile:
        say.warn(
            "cache",
            f"{device.name} passes no flush on, and {volatile[0]} below it has a volatile cache",
            f"cat /sys/block/{device.name}/queue/write_cache and set it to 'write back'",
            **facts,
        )
    elif device.write_cache == WRITE_THROUGH and device.reported_cache == WRITE_BACK:
        say.warn(
            "cache",
            f"{device.name} reports a volatile cache, and the kernel was told to send no flush",
            f"echo 'write back' > /sys/block/{device.name}/queue/write_cache",
            **facts,
        )
    elif below:
        return  # what matters is at the bottom
    elif device.write_cache == WRITE_THROUGH:
        who = "its host says" if is_hosted(device) else "it says"
        say.note(
            "cache",
            f"{device.name} gets no flush, since {who} it has no volatile cache: true of drives "
            "with power-loss protection, and not to be checked from here",
            **facts,
        )
    else:
        cost = (
            "a direct write can pass it (FUA), other syncs flush it"
            if device.fua
            else "each sync flushes it"
        )
        say.ok("cache", f"{device.name} has a volatile cache, and {cost}", **facts)


# ---- what may be in the way ----------------------------------------------------------------------


def _dangers(say: Findings, device: Device) -> None:
    name = device.name
    facts: dict[str, Any] = {"device": name}
    if device.read_only:
        say.problem("read_only", f"{name} is read-only", f"blockdev --setrw /dev/{name}", **facts)
    if device.kind == "memory":
        say.warn(
            "memory",
            f"{name} is in memory: nothing on it survives power loss",
            "put the log on a disk",
            **facts,
        )
    if device.kind == "md":
        _array(say, device)
    if device.kind in REMOTE:
        say.note(
            "remote",
            f"{name} ({device.kind}) is on another machine, which answers a sync",
            None,
            **facts,
        )
    elif is_hosted(device):
        say.note(
            "hosted",
            f"{name} is a virtual disk: the host decides whether a flush reaches the hardware",
            "use a cache mode that honours flushes (QEMU: none, writeback or directsync)",
            **facts,
        )
    elif device.removable and device.kind not in {"partition", "loop"}:
        say.warn(
            "removable",
            f"{name} can be unplugged, and some USB bridges ignore flushes",
            "put the log on a built-in disk",
            **facts,
        )
    elif device.rotational and not device.lower:
        say.note(
            "rotational",
            f"{name} turns: a sync waits for the platter, several ms each",
            "share syncs among writers, or use a solid-state disk",
            **facts,
        )
    if device.kind == "loop":
        say.note(
            "loop",
            f"{name} is a file ({device.label}): each sync is one of the filesystem below as well",
            "measure on the filesystem below, too",
            **facts,
        )
    if device.scheduler == "bfq" and not device.lower:
        say.note(
            "scheduler",
            f"{name} uses bfq, which trades latency of syncs for fairness",
            f"echo mq-deadline > /sys/block/{name}/queue/scheduler",
            **facts,
        )


def _array(say: Findings, device: Device) -> None:
    facts: dict[str, Any] = {
        "device": device.name,
        "level": device.label,
        "degraded": device.degraded,
    }
    if device.degraded:
        say.warn(
            "array",
            f"{device.name} ({device.label}) is degraded: {device.degraded} missing",
            "replace the failed disk; mdadm --detail shows which",
            **facts,
        )
    elif device.label in PARITY and device.consistency not in CLOSED_HOLE:
        say.note(
            "array",
            f"{device.name} is {device.label} with a write hole: a power cut followed by the "
            "failure of a disk can damage blocks beside those being written",
            "use a journal or --consistency-policy=ppl, or RAID 1 or 10 for the log",
            **facts,
        )


def is_hosted(device: Device) -> bool:
    """Return whether a hypervisor makes this disk."""
    model = device.label or ""
    return device.kind in HOSTED or (
        device.kind in {"SCSI or SATA", "NVMe"} and any(name in model for name in HOSTED_MODELS)
    )
