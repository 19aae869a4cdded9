"""The block devices behind a mount, as /sys tells: partition, dm, md, loop, disk."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

from walengine.doctor.mounts import Mount, mount_of
from walengine.doctor.roots import Roots, read_integer, read_text

DEVICES_MAX = 64  # of a chain; a stack of more is a cycle or no machine's

KINDS = (
    (r"nvme\d", "NVMe"),
    (r"vd[a-z]", "virtio"),
    (r"xvd[a-z]", "Xen"),
    (r"sr\d", "optical"),
    (r"mmcblk\d", "eMMC or SD"),
    (r"pmem\d", "persistent memory"),
    (r"(zram|ram|brd)\d", "memory"),
    (r"nbd\d", "network block device"),
    (r"rbd\d", "Ceph RBD"),
    (r"drbd\d", "DRBD"),
    (r"bcache\d", "bcache"),
    (r"dasd[a-z]", "DASD"),
)
DM_KINDS = {"LVM": "LVM", "CRYPT": "dm-crypt", "mpath": "multipath", "DMRAID": "dm-raid"}


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """One block device; None where /sys does not say.

    Attributes:
        name: As under /sys/class/block.
        kind: partition, dm, md, loop, or what sort of disk it is.
        label: Model of a disk, name of a mapping, level of an array, file of a loop device.
        lower: The devices right below it.
        write_cache: "write back" or "write through", as the kernel treats it.
        reported_cache: The same as the drive or the host reports it.
        fua: It can write past its cache.
        rotational: It turns.
        scheduler: Of its queue.
        logical_bytes, physical_bytes: Sizes of its blocks.
        read_only: Nothing can be written.
        removable: It can be taken out, or hangs on USB.
        degraded: md: disks that are missing.
        consistency: md: how it closes the write hole.
    """

    name: str
    kind: str
    label: str | None
    lower: tuple[str, ...]
    write_cache: str | None
    reported_cache: str | None
    fua: bool | None
    rotational: bool | None
    scheduler: str | None
    logical_bytes: int | None
    physical_bytes: int | None
    read_only: bool
    removable: bool
    degraded: int
    consistency: str | None


def chain_of(mount: Mount, roots: Roots) -> list[Device]:
    """Return the devices behind a mount, from the top; none where there is no block device."""
    chain: dict[str, Device] = {}
    todo = list(_names_of(mount, roots))
    while todo and len(chain) < DEVICES_MAX:
        name = todo.pop(0)
        if name not in chain:
            chain[name] = _device(name, roots)
            todo += chain[name].lower
    return list(chain.values())


def _names_of(mount: Mount, roots: Roots) -> Iterator[str]:
    """Yield the names of the devices that a filesystem lies on."""
    by_number = roots.sys / "dev/block" / mount.device
    if not mount.device.startswith("0:") and by_number.exists():
        yield by_number.resolve().name
        return
    first = _name_by_source(mount.source, roots)
    if first is None:
        return
    for devices in sorted(roots.sys.glob("fs/btrfs/*/devices")):
        names = sorted(entry.name for entry in devices.iterdir())
        if first in names:
            yield from names
            return
    yield first


def _name_by_source(source: str, roots: Roots) -> str | None:
    """Return the name of a device that is given by its path; its links are followed."""
    if not source.startswith("/dev/"):
        return None
    for path in (Path(source), Path(os.path.realpath(source))):
        name = str(path).removeprefix("/dev/").replace("/", "!")  # as /sys writes it: cciss!c0d0
        if (roots.sys / "class/block" / name).exists():
            return name
    mapped = source.removeprefix("/dev/mapper/")
    for file in sorted(roots.sys.glob("class/block/dm-*/dm/name")):
        if read_text(file) == mapped:
            return file.parent.parent.name
    return None


def _device(name: str, roots: Roots) -> Device:
    place = (roots.sys / "class/block" / name).resolve()
    parent = place.parent.name if (place / "partition").exists() else None
    lower = [parent] if parent else sorted(path.name for path in place.glob("slaves/*"))
    kind = "partition" if parent else _kind(name, place)
    backing = read_text(place / "loop/backing_file") if kind == "loop" else None
    if backing and not lower:
        below = mount_of(backing.removesuffix(" (deleted)"), roots)
        lower = list(_names_of(below, roots)) if below else []
    queue = place.parent / "queue" if parent else place / "queue"
    return Device(
        name=name,
        kind=kind,
        label=backing or _label(place, kind),
        lower=tuple(lower),
        write_cache=read_text(queue / "write_cache"),
        reported_cache=_reported_cache(place),
        fua=_flag(queue / "fua"),
        rotational=_flag(queue / "rotational"),
        scheduler=_scheduler(read_text(queue / "scheduler")),
        logical_bytes=read_integer(queue / "logical_block_size"),
        physical_bytes=read_integer(queue / "physical_block_size"),
        read_only=bool(_flag(place / "ro")),
        removable=bool(_flag(place / "removable")) or "/usb" in str(place),
        degraded=read_integer(place / "md/degraded") or 0,
        consistency=read_text(place / "md/consistency_policy"),
    )


def _kind(name: str, place: Path) -> str:
    if (place / "loop").exists() or re.match(r"loop\d", name):
        return "loop"
    if (place / "md").exists():
        return "md"
    if (place / "dm").exists():
        prefix = (read_text(place / "dm/uuid") or "").partition("-")[0]
        return DM_KINDS.get(prefix, "device-mapper")
    for pattern, kind in KINDS:
        if re.match(pattern, name):
            return kind
    return "SCSI or SATA" if re.match(r"sd[a-z]", name) else "disk"


def _label(place: Path, kind: str) -> str | None:
    if kind == "md":
        return read_text(place / "md/level")
    if (place / "dm").exists():
        return read_text(place / "dm/name")
    parts = (read_text(place / "device" / name) for name in ("vendor", "model"))
    # ATA drives have the bus for a vendor, virtio ones a number.
    words = [part for part in parts if part and part != "ATA" and not part.startswith("0x")]
    return " ".join(words) or None


def _reported_cache(place: Path) -> str | None:
    """Return what the drive says of its cache, whatever the kernel was told to believe."""
    for path in (place / "cache_type", *sorted(place.glob("device/scsi_disk/*/cache_type"))):
        text = read_text(path)
        if text:
            return text
    return None


def _flag(path: Path) -> bool | None:
    value = read_integer(path)
    return None if value is None else bool(value)


def _scheduler(text: str | None) -> str | None:
    """Return the one in brackets of 'none [mq-deadline] kyber'."""
    match = re.search(r"\[([\w-]+)\]", text or "")
    return match[1] if match else text or None
