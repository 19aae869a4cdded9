"""The lock of a local store, and its temporaries: what keeps processes out of each other's way.

One lock file, never deleted, is locked for each step: shared to open an object, exclusive from the
comparison of a write to the moment when its name is durable. So a reader never sees a name that a
power loss could take back, unless its writer was killed between the rename and the directory's
sync. For that case the writer first notes the directory's path in the lock file and clears it
after; whoever takes the lock and finds a note syncs that directory before anything else.

Locks are polled and not waited for: a process that was stopped inside (SIGSTOP, a debugger) must
become an error for the others, with a time limit, and not threads that hang for ever.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import secrets
import stat
import threading
import time
from collections.abc import Iterator

from walengine.buffer.store._tree import Modes, Tree
from walengine.buffer.store.port import NAME_BYTES_MAX, check_prefix

LOCK = "lock"
TEMPORARY = "tmp-"
LOCK_TIMEOUT_S = 30.0
_POLL_MAX_S = 0.002

# A child of fork would keep the parent's locks as long as it lives; descriptors of open_locked.
_locked: set[int] = set()


class Gate:
    """The lock of one store, for one process; its threads queue up before it first."""

    def __init__(self, tree: Tree, modes: Modes, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self._tree = tree
        self._modes = modes
        self._timeout_s = timeout_s
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other readers, for the block.

        Raises:
            TimeoutError: Another process has held the lock for too long.
        """
        with self._locked(fcntl.LOCK_SH, self._deadline()) as lock:
            self._repair(lock)
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[int]:
        """Hold the lock alone, for the block; yields what ``note`` takes.

        Raises:
            TimeoutError: Another process has held the lock for too long.
        """
        deadline = self._deadline()
        if not self._turn.acquire(timeout=self._timeout_s):
            raise self._timed_out()
        try:
            with self._locked(fcntl.LOCK_EX, deadline) as lock:
                self._repair(lock)
                yield lock
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def note(self, lock: int, directory: str) -> Iterator[None]:
        """Leave word that the directory's entries change and are not synced yet.

        A block that ends with an error leaves the note: the next one who comes syncs again.
        """
        os.pwrite(lock, (directory or "/").encode(), 0)
        yield
        os.ftruncate(lock, 0)

    def _repair(self, lock: int) -> None:
        noted = os.pread(lock, NAME_BYTES_MAX, 0)
        if not noted:
            return
        with contextlib.suppress(ValueError, FileNotFoundError, NotADirectoryError):
            path = noted.decode()
            path = "" if path == "/" else check_prefix(path)
            with self._tree.directory(path) as descriptor:
                os.fsync(descriptor)
        os.ftruncate(lock, 0)

    @contextlib.contextmanager
    def _locked(self, kind: int, deadline: float) -> Iterator[int]:
        while True:
            lock = self._open()
            try:
                self._wait(lock, kind, deadline)
                if self._is_the_one(lock):
                    yield lock
                    return
            finally:
                close_locked(lock)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(LOCK, flags, self._modes.file, dir_fd=self._tree.own)
        _locked.add(lock)
        self._widen(lock)
        return lock

    def _widen(self, lock: int) -> None:
        """Give a lock file of ours that was just made what the umask took off its mode."""
        found = os.fstat(lock)
        is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        is_narrow = stat.S_IMODE(found.st_mode) != self._modes.file
        if is_plain and is_narrow and found.st_uid == os.geteuid():
            os.fchmod(lock, self._modes.file)

    def _wait(self, lock: int, kind: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._timed_out() from None
                time.sleep(random.uniform(0.0, _POLL_MAX_S))  # noqa: S311 (no secret)
            else:
                return

    def _is_the_one(self, lock: int) -> bool:
        """Tell whether the lock file is the directory's still: somebody may have removed it."""
        held = os.fstat(lock)
        if not stat.S_ISREG(held.st_mode) or held.st_nlink > 1:
            raise OSError(errno.EINVAL, "the lock is no plain file of its own", LOCK)
        try:
            there = os.stat(LOCK, dir_fd=self._tree.own, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def _timed_out(self) -> TimeoutError:
        return TimeoutError(
            errno.ETIMEDOUT,
            f"another process has held the lock for {self._timeout_s:g} s: is it stopped?",
        )


@contextlib.contextmanager
def temporary(tree: Tree, modes: Modes) -> Iterator[tuple[int, str]]:
    """Make a temporary file, locked, for the block; yields (descriptor, name in tree.own).

    It is removed at the end, if it has not been renamed by then. If that fails, the write has an
    outcome of its own all the same, and the next to open the store collects what is left.
    """
    descriptor, name = _new_temporary(tree, modes)
    try:
        yield descriptor, name
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=tree.own)
        close_locked(descriptor)


def _new_temporary(tree: Tree, modes: Modes) -> tuple[int, str]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = TEMPORARY + secrets.token_hex(8)
        descriptor = os.open(name, flags, modes.file, dir_fd=tree.own)
        _locked.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.fchmod(descriptor, modes.file)
            if os.fstat(descriptor).st_nlink == 1:
                return descriptor, name
        except BaseException:
            close_locked(descriptor)
            raise
        # A collector came between the open and the lock, and took it for a dead process's.
        close_locked(descriptor)


def collect_temporaries(tree: Tree) -> int:
    """Remove the temporaries whose writers are gone: those that nobody has locked.

    Returns:
        How many.
    """
    with os.scandir(tree.own) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(TEMPORARY)]
    return sum(_collect(name, tree.own) for name in names)


def _collect(name: str, own: int) -> bool:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=own)
    except OSError:
        return False  # gone meanwhile, or not ours to touch
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=own)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def close_locked(descriptor: int) -> None:
    """Unlock and close; the unlocking holds for a child's copies as well."""
    _locked.discard(descriptor)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _in_child() -> None:
    """Close the locks of the parent's threads, which are not here: no unlocking, that is theirs."""
    for descriptor in _locked:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _locked.clear()


os.register_at_fork(after_in_child=_in_child)
