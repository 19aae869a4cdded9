"""A directory as an object store: compare-and-set, durable, safe between processes.

An object is a file. It is written under a temporary name and synced, compared and renamed under one
lock (``_gate.py``), and its directory is synced before the lock is let go. Etags are hashes of the
content, worked out when asked for. Names are walked below the root and through no link
(``_tree.py``). The work is done in threads of the store's own: a disk that stalls must not stall
the event loop, nor the loop's shared executor.

What a store in the cloud allows and a directory does not: an object below another one's name
(``a`` and ``a/b``). A name in a directory that was emptied leaves the empty directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import stat
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from walengine.buffer.errors import StorageError
from walengine.buffer.store._files import (
    etag_of,
    etag_of_file,
    info_of,
    is_absent,
    read_all,
    remove,
    write_all,
)
from walengine.buffer.store._gate import LOCK_TIMEOUT_S, Gate, collect_temporaries, temporary
from walengine.buffer.store._tree import PRIVATE, SHARED, Tree, open_regular, split
from walengine.buffer.store.port import (
    NOT_MODIFIED,
    Data,
    ObjectInfo,
    StoredObject,
    Unchanged,
    check_name,
    check_open,
    check_prefix,
    check_size,
)

T = TypeVar("T")

_THREADS_MAX = 16
_LISTED_AT_ONCE = 512

_NEXT_STEPS = {
    errno.ENOENT: "the store's directory was removed while it was open; open it again",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EACCES: "give this user the right to write and search there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "the filesystem is mounted for reading only",
    errno.ELOOP: "a symbolic link is in its path, and none is followed",
    errno.ENOTDIR: "something in its path is no directory: an object, or a symbolic link",
    errno.EISDIR: "there is a directory in its place, with objects below it",
    errno.EINVAL: "it is no regular file",
    errno.EXDEV: "another filesystem is mounted below the store's directory; it has to be one",
    errno.EMFILE: "raise the limit of open files",
    errno.ENAMETOOLONG: "the filesystem takes shorter names only",
}


# (last segment, descriptor of its directory) -> does the condition of a write hold?
_Condition: TypeAlias = Callable[[str, int], bool]


@dataclass(frozen=True, slots=True)
class _Opened:
    tree: Tree
    gate: Gate


@dataclass(slots=True)
class _Progress:
    """How far a write came: an error behind that point leaves it unclear."""

    began: bool = False


class LocalStore:
    """Objects as files in one directory, which is made when the first is written.

    Args:
        path: The directory.
        allow_shared_dir: Accept a directory that is another user's, or that group or others may
            write to, and let its group read and write what is made in it: chmod g+s, or each
            user's own group gets that.
        lock_timeout_s: Seconds that a call waits for another process's step before it fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        allow_shared_dir: bool = False,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self._path = Path(path).absolute()
        self._modes = SHARED if allow_shared_dir else PRIVATE
        self._lock_timeout_s = lock_timeout_s
        self._opening = threading.Lock()
        self._opened: _Opened | None = None
        self._pool = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="walengine-local-store")
        self._pid = os.getpid()
        self._closed = False
        self._finalizer: Callable[[], object] | None = None

    @property
    def url(self) -> str:
        """``file://`` and the directory."""
        return self._path.as_uri()

    async def get(self, name: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Return the object, or None."""
        data = await self._run(self._read, check_name(name), max_bytes)
        return None if data is None else StoredObject(data, etag_of)

    async def get_if_changed(
        self, name: str, etag: str, *, max_bytes: int | None = None
    ) -> StoredObject | Unchanged | None:
        """Return the object, NOT_MODIFIED or None; the file is read to tell."""

        def read() -> StoredObject | Unchanged | None:
            data = self._read(name, max_bytes)
            if data is None:
                return None
            found = etag_of(data)
            return NOT_MODIFIED if found == etag else StoredObject(data, found)

        check_name(name)
        return await self._run(read)

    async def head(self, name: str) -> ObjectInfo | None:
        """Return size and time, or None."""
        return await self._run(self._head, check_name(name))

    async def put(self, name: str, data: Data) -> None:
        """Write the object, over whatever is there."""
        await self._run(self._write, check_name(name), data, None)

    async def create(self, name: str, data: Data) -> str | None:
        """Write the object only if there is none."""

        def create() -> str | None:
            return etag_of(data) if self._write(name, data, is_absent) else None

        check_name(name)
        return await self._run(create)

    async def replace(self, name: str, data: Data, etag: str) -> str | None:
        """Write the object only if the one there has this etag."""

        def replace() -> str | None:
            def is_current(last: str, directory: int) -> bool:
                return etag_of_file(last, directory) == etag

            # Most conflicts are seen here, before anything is written and synced for nothing.
            if not self._holds(name, is_current):
                return None
            return etag_of(data) if self._write(name, data, is_current) else None

        check_name(name)
        return await self._run(replace)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is below prefix, some hundreds at a time."""
        found = self._walk(check_prefix(prefix))
        try:
            while some := await self._run(lambda: [*itertools.islice(found, _LISTED_AT_ONCE)]):
                for info in some:
                    yield info
        finally:
            with contextlib.suppress(ValueError):  # it runs in a thread that nobody waits for
                found.close()

    async def delete(self, name: str) -> None:
        """Delete the object, durably; one that is not there is no error."""
        await self._run(self._delete, check_name(name))

    async def aclose(self) -> None:
        """Wait for what is under way and close the directory."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        if self._finalizer is not None:
            self._finalizer()

    # ---- in the threads --------------------------------------------------------------------------

    async def _run(self, step: Callable[..., T], *arguments: object) -> T:
        check_open(self.url, is_closed=self._closed)
        if self._pid != os.getpid():
            raise StorageError(f"{self.url}: opened in the parent process; open it in this one")
        return await asyncio.get_running_loop().run_in_executor(self._pool, step, *arguments)

    def _read(self, name: str, max_bytes: int | None) -> bytes | None:
        with self._failing("read", name), self._file(name) as (descriptor, size_bytes):
            if descriptor is None:
                return None
            check_size(self.url, name, size_bytes, max_bytes)
            data = read_all(descriptor, size_bytes, max_bytes)
            check_size(self.url, name, len(data), max_bytes)
            return data

    def _head(self, name: str) -> ObjectInfo | None:
        with self._failing("read", name), self._file(name) as (descriptor, _):
            return None if descriptor is None else info_of(name, os.fstat(descriptor))

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[tuple[int | None, int]]:
        """Open the object's file for the block: (descriptor or None, size)."""
        descriptor = None
        with self._directory(name) as directory:
            if directory is not None:
                descriptor = open_regular(split(name)[1], directory)
        if descriptor is None:
            yield None, 0
            return
        try:
            yield descriptor, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _directory(self, name: str) -> Iterator[int | None]:
        """Open the object's directory under the shared lock, for the block; None: there is none."""
        opened = self._open()
        if opened is None:
            yield None
            return
        with opened.gate.shared(), contextlib.ExitStack() as stack:
            try:
                found = stack.enter_context(opened.tree.directory(split(name)[0]))
            except FileNotFoundError:
                found = None
            except NotADirectoryError:
                self._refuse_links(opened.tree, name)
                found = None
            yield found

    def _refuse_links(self, tree: Tree, name: str) -> None:
        """Tell an object above the name, below which nothing can be, from a link there."""
        above = split(name)[0]
        while above:
            directory, last = split(above)
            with contextlib.suppress(NotADirectoryError, FileNotFoundError):
                with tree.directory(directory) as descriptor:
                    found = os.stat(last, dir_fd=descriptor, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), above)
            above = directory

    def _holds(self, name: str, condition: _Condition) -> bool:
        with self._failing("read", name), self._directory(name) as directory:
            return directory is not None and condition(split(name)[1], directory)

    def _write(self, name: str, data: Data, condition: _Condition | None) -> bool:
        """Write the object if the condition holds; tell whether it did."""
        path, last = split(name)
        progress = _Progress()
        opened = self._made()
        with (
            self._failing("write", name, progress),
            opened.tree.directory(path, create=True) as directory,
            temporary(opened.tree, self._modes) as (descriptor, temporary_name),
        ):
            write_all(descriptor, data)
            os.fsync(descriptor)
            with opened.gate.exclusive() as lock:
                is_absent(last, directory)  # or an error, if what is there is no object
                if condition is not None and not condition(last, directory):
                    return False
                with opened.gate.note(lock, path):
                    progress.began = True
                    os.rename(
                        temporary_name, last, src_dir_fd=opened.tree.own, dst_dir_fd=directory
                    )
                    os.fsync(directory)
        return True

    def _delete(self, name: str) -> None:
        path, last = split(name)
        progress = _Progress()
        opened = self._open()
        if opened is None:
            return
        with self._failing("delete", name, progress), opened.gate.exclusive() as lock:
            try:
                with opened.tree.directory(path) as directory:
                    if is_absent(last, directory):
                        return
                    with opened.gate.note(lock, path):
                        progress.began = True
                        remove(last, directory)
            except NotADirectoryError:
                self._refuse_links(opened.tree, name)
            except (FileNotFoundError, IsADirectoryError):
                return  # no object has this name

    def _walk(self, prefix: str) -> Generator[ObjectInfo]:
        """Yield what is below prefix, with the descriptor of one directory at a time."""
        opened = self._open()
        directories = [prefix] if opened else []
        while opened and directories:
            path = directories.pop()
            with self._failing("list", path), contextlib.ExitStack() as stack:
                try:
                    descriptor = stack.enter_context(opened.tree.directory(path))
                except (FileNotFoundError, NotADirectoryError):
                    continue  # removed meanwhile, or an object
                for entry in stack.enter_context(os.scandir(descriptor)):
                    name = f"{path}/{entry.name}" if path else entry.name
                    if not _could_be_object(name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            yield info_of(name, entry.stat(follow_symlinks=False))

    def _made(self) -> _Opened:
        """Return the directory, open; it is made if it is not there."""
        with self._opening:
            if self._opened is None:
                with self._failing("open", ""):
                    tree = Tree(self._path, self._modes)
                self._finalizer = weakref.finalize(self, tree.close)
                with self._failing("clean up", ""):
                    collect_temporaries(tree)
                self._opened = _Opened(tree, Gate(tree, self._modes, self._lock_timeout_s))
            return self._opened

    def _open(self) -> _Opened | None:
        """Return the directory, open, or None where there is none yet."""
        if self._opened is None:
            with self._failing("open", ""):
                try:
                    self._path.stat()  # not exists(), to which a place it may not look at is empty
                except FileNotFoundError:
                    return None
        return self._made()

    @contextlib.contextmanager
    def _failing(self, verb: str, name: str, progress: _Progress | None = None) -> Iterator[None]:
        """Turn an OSError of the block into a StorageError that names the object."""
        try:
            yield
        except OSError as error:
            code = error.errno or 0
            step = _NEXT_STEPS.get(code)
            text = f"{os.strerror(code)} ({step})" if step else error.strerror or str(error)
            raise StorageError(
                f"{self.url}: cannot {verb} {name or 'the directory'}: {text}",
                object=name or None,
                errno=code,
                unclear=progress is not None and progress.began,
            ) from error


def _could_be_object(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True
