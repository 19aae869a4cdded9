"""The mount that a path lies on, from mountinfo."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

from walengine.doctor.roots import Roots, field, read_text

FIELDS_MIN = 10
MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs"))
# Where direct_io is direct: direct writes are known to sync themselves (csrc/io_direct.c).
SYNCS_DIRECT = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", *MEMORY))
NETWORK_REFUSED = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs"))  # as the C core refuses them


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    Attributes:
        point: Where it is mounted.
        kind: Type of the filesystem, such as "ext4" or "fuse.sshfs".
        source: What is mounted: a device's path, a share, or a name without meaning.
        device: "major:minor"; the major is 0 where no one block device is behind it.
        options: Of the mount and of the filesystem, without repetitions.
    """

    point: str
    kind: str
    source: str
    device: str
    options: tuple[str, ...]

    def has(self, *names: str) -> str | None:
        """Return the first option that is one of names, with or without a value."""
        for option in self.options:
            if option in names or option.partition("=")[0] in names:
                return option
        return None

    def value(self, name: str) -> str | None:
        """Return the value of an option name=value."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def mount_of(path: Path | str, roots: Roots) -> Mount | None:
    """Return the mount that path lies on, or None where the machine does not tell.

    The kernel tells the mount of what can be opened. Names alone do not: a mount may be covered by
    a later one above it. They have to do for what cannot be opened.
    """
    real = os.path.realpath(path)
    number = _number_of(real, roots)
    best: Mount | None = None
    for mount_number, mount in _mounts(roots):
        if mount_number == number:
            return mount
        # Of two mounts on one point the later one lies above.
        if _is_below(real, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _number_of(path: str, roots: Roots) -> str | None:
    """Return the number of the mount that an existing path lies on (proc_pid_fdinfo(5))."""
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, AttributeError):  # not to be reached, or no Linux
        return None
    try:
        return field(read_text(roots.proc / f"self/fdinfo/{file}"), "mnt_id")
    finally:
        os.close(file)


def _is_below(path: str, point: str) -> bool:
    return point in {"/", path} or path.startswith(point + "/")


def _mounts(roots: Roots) -> Iterator[tuple[str, Mount]]:
    """Yield each mount with its number.

    A line: number parent major:minor root point options optional... - type source super.
    """
    # Not splitlines(): the kernel escapes no other ends of line that a mount point may have.
    for line in (read_text(roots.proc / "self/mountinfo") or "").split("\n"):
        fields = line.split(" ")
        if len(fields) < FIELDS_MIN or "-" not in fields:
            continue
        kind, source, *super_options = fields[fields.index("-") + 1 :]
        options = dict.fromkeys(",".join([fields[5], *super_options[:1]]).split(","))
        mount = Mount(_plain(fields[4]), kind, _plain(source), fields[2], tuple(options))
        yield fields[0], mount


def _plain(text: str) -> str:
    r"""Undo mountinfo's escapes: \040 for a blank."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
