"""The directory as a store: links, what is no file, removed and foreign directories."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from local_stores import PREAMBLE, files_below, program, put
from needs import needs_linux, needs_root, needs_tool

from walengine.buffer import ObjectTooLargeError, StorageError, UnsupportedStoreError
from walengine.buffer.store import _tree

# ---- hostile directories -------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    return path


def test_no_link_leads_out_of_the_root(root, check, outside):
    put(check)
    (root / "link").symlink_to(outside / "secret")
    (root / "directory").symlink_to(outside)

    async def body(store):
        for name in ("link", "directory/secret", "directory/new"):
            for call in (store.get(name), store.head(name), store.put(name, b"x"),
                         store.create(name, b"x"), store.replace(name, b"x", "e"),
                         store.delete(name), store.get_if_changed(name, "e")):  # fmt: skip
                with pytest.raises(StorageError, match="symbolic link"):
                    await call
        return [info.name async for info in store.list()]

    assert check(body) == ["a"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert files_below(outside) == ["secret"]


def test_links_in_the_stores_own_places_are_refused(root, check, outside):
    put(check)
    lock = root / ".walengine" / "lock"
    lock.unlink()
    lock.symlink_to(outside / "secret")
    with pytest.raises(StorageError):
        put(check)
    lock.unlink()
    lock.hardlink_to(outside / "secret")
    with pytest.raises(StorageError):
        put(check)
    lock.unlink()
    (root / ".walengine").rmdir()
    (root / ".walengine").symlink_to(outside)
    with pytest.raises(StorageError):
        put(check)
    assert (outside / "secret").read_bytes() == b"secret"


def test_what_is_no_file_is_no_object(root, check, monkeypatch):
    put(check, "d/below")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)
        listener.bind("socket")

    async def body(store):
        for name in ("fifo", "socket"):
            for call in (store.get(name), store.put(name, b""), store.delete(name),
                         store.create(name, b"")):  # fmt: skip
                with pytest.raises(StorageError, match="no regular file"):
                    await call
        assert await store.get("d") is None
        assert await store.head("d") is None
        assert await store.replace("d", b"", "e") is None
        await store.delete("d")
        for call in (store.put("d", b""), store.create("d", b"")):
            with pytest.raises(StorageError, match="directory in its place"):
                await call
        assert await store.get("d/below/x") is None
        await store.delete("d/below/x")
        with pytest.raises(StorageError, match="no directory"):
            await store.put("d/below/x", b"")
        return [info.name async for info in store.list()]

    assert check(body) == ["d/below"]


def test_a_sparse_file_is_not_read(root, check):
    put(check)
    os.truncate(root / "a", 1 << 40)

    async def body(store):
        with pytest.raises(ObjectTooLargeError, match="more than the 1000 bytes"):
            await store.get("a", max_bytes=1000)

    check(body)


def test_a_removed_lock_is_made_anew(root, check):
    async def body(store):
        etag = await store.create("a", b"1")
        (root / ".walengine" / "lock").unlink()
        assert await store.replace("a", b"2", etag)

    check(body)


def test_a_removed_root_is_an_error_and_no_empty_store(root, check):
    async def body(store):
        await store.put("a", b"1")
        (root / "a").unlink()
        (root / ".walengine" / "lock").unlink()
        (root / ".walengine").rmdir()
        root.rmdir()
        for call in (store.get("a"), store.put("a", b"2")):
            with pytest.raises(StorageError, match="removed while it was open"):
                await call

    check(body)


def test_reading_makes_no_directory(root, check):
    async def body(store):
        assert await store.get("a") is None
        assert await store.head("a") is None
        await store.delete("a")
        return [info async for info in store.list()]

    assert check(body) == []
    assert not root.exists()


def test_modes_do_not_depend_on_the_umask(root, check):
    for mask in (0o000, 0o077):
        before = os.umask(mask)
        try:
            put(check, f"p{mask}/a")
        finally:
            os.umask(before)
        assert (root / f"p{mask}").stat().st_mode & 0o777 == 0o700
        assert (root / f"p{mask}/a").stat().st_mode & 0o777 == 0o600
    assert root.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_write_to_is_refused_or_asked_for(root, check):
    root.mkdir()
    root.chmod(0o770)
    with pytest.raises(UnsupportedStoreError, match="allow_shared_dir"):
        put(check)
    put(check, allow_shared_dir=True)
    assert (root / "a").stat().st_mode & 0o777 == 0o660


def test_a_directory_of_another_user_is_refused_or_asked_for(root, check, monkeypatch):
    """Its owner could do anything to the queue, and could not read what this user puts there."""
    root.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: root.stat().st_uid + 1)
    with pytest.raises(UnsupportedStoreError, match=r"belongs to user \d+.*run as its owner"):
        put(check)
    assert files_below(root) == []
    put(check, allow_shared_dir=True)


TWO_USERS = """
# Everything that is imported later may be in a directory that the user may not look into.
import encodings.ascii, hashlib, walengine.buffer.store.local
user = int(sys.argv[2])
os.setgroups([int(sys.argv[3])])
os.setgid(user)
os.setuid(user)
os.umask(0o077)

async def main():
    store = LocalStore(path, allow_shared_dir=True)
    found = await store.get("queue/a")
    etag = await (store.replace("queue/a", b"2", found.etag) if found else
                  store.create("queue/a", b"1"))
    print("wrote" if etag else "lost")
    await store.aclose()

asyncio.run(main())
"""


def test_users_of_one_group_share_a_directory_whatever_their_own_groups_and_umasks(tmp_path):
    needs_root()
    group, users = 4321, (4322, 4323)
    root = Path(tempfile.mkdtemp(dir="/tmp"))  # tmp_path's parents are root's alone
    try:
        os.chown(root, 0, group)
        root.chmod(0o2770)
        for user in users:
            done = program(TWO_USERS, root, user, group, stdout=subprocess.PIPE)
            assert done.communicate(timeout=60)[0] == "wrote\n"
        assert (root / "queue/a").read_bytes() == b"2"
        assert {path.stat().st_gid for path in root.rglob("*")} == {group}
    finally:
        shutil.rmtree(root)


def test_a_link_in_the_place_of_a_directory_just_made_is_not_followed(
    root, check, tmp_path, monkeypatch
):
    """In a shared directory somebody may swap what was made before its mode is set."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    make = os.mkdir

    def swapped(name, mode, *, dir_fd=None):
        make(name, mode, dir_fd=dir_fd)
        if name == "queue":
            os.rmdir(name, dir_fd=dir_fd)
            os.symlink(victim, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    root.mkdir()
    root.chmod(0o770)
    with pytest.raises(StorageError):
        put(check, "queue/a", allow_shared_dir=True)
    assert victim.stat().st_mode & 0o777 == 0o700


def test_the_entry_of_a_directory_that_was_there_is_made_durable(root, check, monkeypatch):
    """Who made it (a shell, a process that died) need not have synced the directory above."""
    synced = []
    sync = os.fsync

    def noting(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    root.mkdir()
    put(check)
    assert root.parent.stat().st_ino in synced
    synced.clear()
    put(check)
    assert root.parent.stat().st_ino not in synced  # it was, before the store was in it


def test_network_filesystems_are_refused(root, check, monkeypatch):
    needs_linux()
    put(check)
    monkeypatch.setattr(_tree, "filesystem_of", lambda _descriptor: "nfs4")
    with pytest.raises(UnsupportedStoreError, match=r"network filesystem \(nfs4\)"):
        put(check)


def test_a_mount_point_with_a_line_separator_in_its_name_hides_no_filesystem(tmp_path):
    """Goal: whoever may mount (FUSE needs no root) cannot break or blind another's store."""
    needs_linux()
    needs_root()
    needs_tool("unshare")
    odd = tmp_path / "a\u2028\u2028b"
    odd.mkdir()
    code = """
    from walengine.buffer.store._tree import filesystem_of
    from walengine.doctor.mounts import mount_of
    from walengine.doctor.roots import Roots
    print(filesystem_of(os.open(path, os.O_RDONLY)), mount_of(path, Roots()).kind)
    """
    source = PREAMBLE + textwrap.dedent(code)
    mount = 'mount -t tmpfs none "$0" && exec "$1" -c "$2" "$0"'
    run = ["unshare", "--mount", "sh", "-c", mount, odd, sys.executable, source]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout == "tmpfs tmpfs\n", done.stderr


def test_the_filesystem_is_told_by_the_mount(tmp_path):
    needs_linux()
    answer = subprocess.run(["stat", "-f", "-c", "%T", "/proc"], capture_output=True, check=True)
    assert answer.stdout.strip() == b"proc"
    descriptor = os.open("/proc", os.O_RDONLY)
    try:
        assert _tree.filesystem_of(descriptor) == "proc"
    finally:
        os.close(descriptor)
