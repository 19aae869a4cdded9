"""Directories and files beneath one root, reached by descriptors and through no symbolic link.

A name is walked segment by segment with ``openat`` and O_NOFOLLOW, so what somebody plants in the
directory (a link to elsewhere, a FIFO, a device) is refused and never opened, and a name cannot
leave the root. O_NONBLOCK keeps an open from waiting for a FIFO's other side.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from walengine.buffer.errors import UnsupportedStoreError

OWN_DIRECTORY = ".walengine"
"""Directory in the root for the lock and the temporaries; no object's name can mean it."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# By the names of /proc/self/mountinfo. A lock on them is not one for all machines, or rename and
# fsync mean something else; 9p and virtiofs are a host's directory, shared with other guests.
_NETWORK_FILESYSTEMS = frozenset(
    [
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "smb3", "smbfs", "virtiofs",
        "fuse.blobfuse2", "fuse.ceph", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs",
        "fuse.goofys", "fuse.juicefs", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs",
        "fuse.smbnetfs", "fuse.sshfs",
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Modes:
    """Permissions of what is made, whatever the umask."""

    file: int
    directory: int


PRIVATE = Modes(0o600, 0o700)
SHARED = Modes(0o660, 0o770)


class Tree:
    """The directory of a local store, held open.

    Attributes:
        root: Descriptor of the directory.
        own: Descriptor of OWN_DIRECTORY in it.
    """

    def __init__(self, path: Path, modes: Modes) -> None:
        """Open the directory, which is made if it is not there.

        Raises:
            OSError: It cannot be opened or made.
            UnsupportedStoreError: It is on a network filesystem, another user's, or others may
                write to it.
        """
        self._modes = modes
        # Directories whose own entries are known to be synced, by this process.
        self._synced: set[str] = set()
        _make_root(path, modes)
        # The user's own path may lead through links: only what is below is not the user's word.
        self.root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.own = -1
        try:
            _refuse_network_filesystem(self.root, path)
            _refuse_shared_directory(self.root, path, modes)
            with self.directory(OWN_DIRECTORY, create=True) as own:
                self.own = os.dup(own)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.own, self.root):
            if descriptor >= 0:
                os.close(descriptor)
        self.own = self.root = -1

    @contextlib.contextmanager
    def directory(self, path: str, *, create: bool = False) -> Iterator[int]:
        """Open the directory at this path below the root ("" is the root), for the block.

        With create, directories that are missing are made, and each one's entry is durable.

        Raises:
            OSError: ENOENT: there is none. ENOTDIR or ELOOP: something else is in its place.
        """
        descriptor = self._open(path, create=create)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, path: str, *, create: bool) -> int:
        if not create:
            return self._walk(path, create=False)
        if path in self._synced:
            # Unless somebody removed what was there, there is nothing to make or to sync.
            with contextlib.suppress(FileNotFoundError):
                return self._walk(path, create=False)
        descriptor = self._walk(path, create=True)
        self._synced.add(path)
        return descriptor

    def _walk(self, path: str, *, create: bool) -> int:
        """Step down from the root, segment by segment, to a new descriptor."""
        descriptor = os.dup(self.root)
        for segment in path.split("/") if path else ():
            try:
                if create:
                    self._make(segment, descriptor)
                below = os.open(segment, _DIRECTORY, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    def _make(self, segment: str, parent: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(segment, self._modes.directory, dir_fd=parent)
            # By descriptor: whoever shares the directory may have put a link in its place.
            made = os.open(segment, _DIRECTORY, dir_fd=parent)
            try:
                _set_mode(made, self._modes.directory)
            finally:
                os.close(made)
        # Also where it was there: who made it may have died before this.
        os.fsync(parent)


def open_regular(name: str, directory: int) -> int | None:
    """Open the regular file of this name for reading, or return None where there is no file.

    A directory in its place is no object: None.

    Raises:
        OSError: It cannot be opened; EINVAL or ELOOP where it is a link, a FIFO or a device.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ELOOP if stat.S_ISLNK(found.st_mode) else errno.EINVAL, "", name)
        return os.open(name, _FILE, dir_fd=directory)
    except FileNotFoundError:
        return None


def split(name: str) -> tuple[str, str]:
    """Return (path of the directory, last segment)."""
    directory, _, last = name.rpartition("/")
    return directory, last


def _make_root(path: Path, modes: Modes) -> None:
    """Make the store's directory where it is missing; its entry above it is durable.

    One that is there and holds no store yet may have been made a moment ago, by its owner or by a
    process that died before this.
    """
    if not path.is_dir():
        _make_with_parents(path, modes)
    elif not (path / OWN_DIRECTORY).exists():
        above = path / ".."
        if above.stat().st_dev != path.stat().st_dev:
            return  # mounted here: its entry is no matter of files
        with contextlib.suppress(PermissionError):  # a place that its owner may not look into
            _sync_directory(above)


def _make_with_parents(path: Path, modes: Modes) -> None:
    """Make a directory and what is missing above it; each one's entry is durable."""
    if path.is_dir():
        return
    _make_with_parents(path.parent, modes)
    with contextlib.suppress(FileExistsError):
        path.mkdir(modes.directory)
        _set_mode(path, modes.directory)
    _sync_directory(path.parent)


def _set_mode(made: int | Path, mode: int) -> None:
    """Set a new directory's mode whatever the umask; it keeps the group that it was made with.

    The set-group-ID bit, which it has from the directory above, is how users of a group share what
    they make, each with a first group of its own.
    """
    kept = os.stat(made).st_mode & stat.S_ISGID  # noqa: PTH116 (or a descriptor)
    os.chmod(made, mode | kept)  # noqa: PTH101


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_network_filesystem(root: int, path: Path) -> None:
    kind = filesystem_of(root)
    if kind in _NETWORK_FILESYSTEMS:
        raise UnsupportedStoreError(
            f"{path}: a network filesystem ({kind}) keeps neither the lock nor the order of "
            "writes; put the queue on a local disk or into an object store"
        )


def filesystem_of(descriptor: int) -> str | None:
    """Return the filesystem's name, by the mount that the descriptor is on; None: not known.

    The kernel tells the mount's id of every descriptor; its line in mountinfo holds the type
    behind a lone dash. Sources: proc_pid_fdinfo(5), proc_pid_mountinfo(5).
    """
    try:
        facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    mount = next((line.split()[1] for line in facts.splitlines() if line.startswith("mnt_id:")), "")
    # Not splitlines(): the kernel escapes no other ends of line that a mount point may have.
    for line in mounts.split("\n"):
        if mount and line.startswith(f"{mount} "):
            return line.partition(" - ")[2].split(" ")[0]
    return None


def _refuse_shared_directory(root: int, path: Path, modes: Modes) -> None:
    """Refuse a directory that is not this user's alone, unless it is meant to be shared.

    Its owner may do anything in it, and could not read what another user puts there.
    """
    found = os.fstat(root)
    if modes is not PRIVATE:
        return
    if found.st_uid != os.geteuid():
        raise UnsupportedStoreError(
            f"{path}: this directory belongs to user {found.st_uid}, and this process is user "
            f"{os.geteuid()}; run as its owner, or allow_shared_dir=True"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise UnsupportedStoreError(
            f"{path}: group or others may write to this directory (mode {mode:04o}), "
            "and so could put anything into the queue; chmod go-w, or allow_shared_dir=True"
        )
