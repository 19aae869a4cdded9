"""What the local store's tests share: a store in a directory, and programs that use one."""

import subprocess
import sys
import textwrap
from pathlib import Path

__all__ = ["PREAMBLE", "files_below", "get", "program", "put"]

PREAMBLE = """
import asyncio, os, signal, sys, threading, time
from walengine.buffer.store.local import LocalStore
from walengine.buffer import StorageError
path = sys.argv[1]
"""


def program(code: str, *arguments: object, **options) -> subprocess.Popen:
    source = PREAMBLE + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", source, *map(str, arguments)],
                            text=True, **options)  # fmt: skip


def get(check, name="a"):
    async def body(store):
        found = await store.get(name)
        return found and found.data

    return check(body)


def put(check, name="a", data=b"1", **options):
    async def body(store):
        await store.put(name, data)

    check(body, **options)


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
