"""The devices behind a mount, on machines that this one is not."""

from __future__ import annotations

import pytest
from machines import Machine, levels, the

from walengine.doctor import device
from walengine.doctor.devices import chain_of


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def names(mount, machine):
    return [each.name for each in chain_of(mount, machine.roots)]


def kinds(mount, machine):
    return [each.kind for each in chain_of(mount, machine.roots)]


def test_an_nvme_disk_with_fua(machine):
    machine.disk(
        "nvme0n1", "259:0", "pci0000:00/nvme/nvme0", queue__fua="1", device__model="Fast Disk 900"
    )
    machine.partition("nvme0n1", "nvme0n1p2", "259:2")
    mount = machine.mount("/data", "xfs", "/dev/nvme0n1p2", "259:2")
    assert names(mount, machine) == ["nvme0n1p2", "nvme0n1"]
    assert kinds(mount, machine) == ["partition", "NVMe"]
    found = device.examine(mount, machine.roots)
    assert levels(found) == {}
    assert the(found, "device").text == (
        "nvme0n1: NVMe Fast Disk 900, write cache write back, with FUA, scheduler none"
    )
    assert "a direct write can pass it (FUA)" in the(found, "cache").text
    (partition, disk) = the(found, "chain").facts["devices"]
    assert (partition["fua"], disk["fua"], disk["logical_bytes"]) == (True, True, 512)


def test_a_sata_disk_that_turns_and_has_a_volatile_cache(machine):
    machine.disk("sda", "8:0", queue__rotational="1", device__vendor="ATA", device__model="Old 1TB")
    machine.partition("sda", "sda1", "8:1")
    found = device.examine(machine.mount("/", "ext4", "/dev/sda1", "8:1"), machine.roots)
    assert levels(found) == {"rotational": "note"}
    assert the(found, "device").text.startswith("sda: SCSI or SATA Old 1TB, write cache write back")
    assert "each sync flushes it" in the(found, "cache").text


def test_a_disk_that_the_kernel_was_told_not_to_flush(machine):
    """Goal: 'write through' in the queue, and a drive that says it has a volatile cache."""
    cache = {"device__scsi_disk__0:0:0:0__cache_type": "write back"}
    machine.disk("sda", "8:0", queue__write_cache="write through", **cache)
    found = device.examine(machine.mount("/", "ext4", "/dev/sda", "8:0"), machine.roots)
    assert levels(found) == {"cache": "warning"}
    assert "told to send no flush" in the(found, "cache").text
    assert "echo 'write back'" in the(found, "cache").remedy


def test_a_disk_without_a_volatile_cache(machine):
    machine.disk("nvme0n1", "259:0", queue__write_cache="write through")
    found = device.examine(machine.mount("/", "ext4", "/dev/nvme0n1", "259:0"), machine.roots)
    assert levels(found) == {"cache": "note"}
    assert "power-loss protection" in the(found, "cache").text


def test_a_virtual_disk(machine):
    machine.disk("vda", "254:0", "pci0000:00/virtio1", queue__rotational="1")
    found = device.examine(machine.mount("/", "ext4", "/dev/vda", "254:0"), machine.roots)
    assert levels(found) == {"hosted": "note"}, "whether it turns is not to be seen from inside"
    machine.disk("sdb", "8:16", device__vendor="VMware", device__model="Virtual disk")
    found = device.examine(machine.mount("/b", "ext4", "/dev/sdb", "8:16"), machine.roots)
    assert levels(found) == {"hosted": "note"}


def test_lvm_on_luks_on_an_array(machine):
    for name, number in (("sda", "8:0"), ("sdb", "8:16")):
        machine.disk(name, number)
    machine.stack(
        "md0", "9:0", ["sda", "sdb"], md__level="raid1", md__degraded="0",
        queue__write_cache="write back",
    )  # fmt: skip
    machine.stack("dm-0", "252:0", ["md0"], dm__name="crypt", dm__uuid="CRYPT-LUKS2-0815-crypt")
    machine.stack("dm-1", "252:1", ["dm-0"], dm__name="vg-log", dm__uuid="LVM-AbCd")
    mount = machine.mount("/log", "xfs", "/dev/mapper/vg-log", "252:1")
    assert names(mount, machine) == ["dm-1", "dm-0", "md0", "sda", "sdb"]
    assert kinds(mount, machine) == ["LVM", "dm-crypt", "md", "SCSI or SATA", "SCSI or SATA"]
    assert levels(device.examine(mount, machine.roots)) == {}


def test_a_layer_that_passes_no_flush_on(machine):
    machine.disk("sda", "8:0")
    machine.stack(
        "dm-0", "252:0", ["sda"], dm__name="odd", dm__uuid="", queue__write_cache="write through"
    )
    found = device.examine(machine.mount("/", "ext4", "/dev/mapper/odd", "252:0"), machine.roots)
    (warning,) = [each for each in found if each.level == "warning"]
    assert warning.text == "dm-0 passes no flush on, and sda below it has a volatile cache"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"md__level": "raid5", "md__consistency_policy": "resync"}, {"array": "note"}),
        ({"md__level": "raid5", "md__consistency_policy": "ppl"}, {}),
        ({"md__level": "raid6", "md__consistency_policy": "journal"}, {}),
        ({"md__level": "raid10", "md__consistency_policy": "bitmap"}, {}),
        ({"md__level": "raid1", "md__degraded": "1"}, {"array": "warning"}),
    ],
)
def test_arrays(machine, files, expected):
    machine.disk("sda", "8:0")
    machine.stack("md0", "9:0", ["sda"], **files)
    found = device.examine(machine.mount("/", "ext4", "/dev/md0", "9:0"), machine.roots)
    assert levels(found) == expected


def test_a_loop_device_over_a_file(machine):
    machine.disk("sda", "8:0")
    machine.mount("/", "ext4", "/dev/sda", "8:0")
    machine.stack("loop3", "7:3", [], loop__backing_file="/images/disk image.img")
    mount = machine.mount("/mnt", "xfs", "/dev/loop3", "7:3")
    assert names(mount, machine) == ["loop3", "sda"]
    found = device.examine(mount, machine.roots)
    assert levels(found) == {"loop": "note"}
    assert "/images/disk image.img" in the(found, "loop").text


def test_btrfs_over_two_disks(machine):
    """Goal: it has a number of its own, so its devices are found by the source's name."""
    machine.disk("sda", "8:0")
    machine.disk("sdb", "8:16")
    for name in ("sda", "sdb"):
        machine.write(f"sys/fs/btrfs/0815/devices/{name}/size", "1")
    mount = machine.mount("/", "btrfs", "/dev/sda", "0:35")
    assert names(mount, machine) == ["sda", "sdb"]


def test_a_mapping_without_a_number_is_found_by_its_name(machine):
    machine.disk("sda", "8:0")
    machine.stack("dm-4", "252:4", ["sda"], dm__name="vg-root", dm__uuid="LVM-x")
    assert names(machine.mount("/", "btrfs", "/dev/mapper/vg-root", "0:35"), machine) == [
        "dm-4",
        "sda",
    ]


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("zram0", {}, {"memory": "warning"}),
        ("nbd0", {}, {"remote": "note"}),
        ("sdc", {"removable": "1"}, {"removable": "warning"}),
        ("sdc", {"ro": "1"}, {"read_only": "problem"}),
        ("sdc", {"queue__scheduler": "mq-deadline [bfq]"}, {"scheduler": "note"}),
    ],
)
def test_what_may_be_in_the_way(machine, name, files, expected):
    machine.disk(name, "240:0", **files)
    found = device.examine(machine.mount("/", "ext4", f"/dev/{name}", "240:0"), machine.roots)
    assert levels(found) == expected


def test_a_disk_on_usb(machine):
    machine.disk("sdc", "8:32", "pci0000:00/usb2/2-1")
    found = device.examine(machine.mount("/", "ext4", "/dev/sdc", "8:32"), machine.roots)
    assert levels(found) == {"removable": "warning"}


def test_no_device_is_seen(machine):
    """A container's /dev/root, ZFS, FUSE: no guess."""
    found = device.examine(machine.mount("/", "zfs", "tank/log", "0:40"), machine.roots)
    assert levels(found) == {"chain": "note"}
    assert device.examine(machine.mount("/t", "tmpfs", "tmpfs", "0:41"), machine.roots) == []
    assert device.examine(None, machine.roots) == []


def test_a_stack_that_contains_itself_ends(machine):
    machine.stack("dm-0", "252:0", [])
    machine.stack("dm-1", "252:1", ["dm-0"])
    (machine.roots.sys / "devices/virtual/block/dm-0/slaves/dm-1").symlink_to(machine.roots.sys)
    assert names(machine.mount("/", "ext4", "/dev/dm-1", "252:1"), machine) == ["dm-1", "dm-0"]
