"""Where a command's objects are: --store URL, and what is read there."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from walengine.buffer.store.port import ObjectStore

store_option = click.option(
    "--store", "url", metavar="URL", help="Where the objects are: file:///DIRECTORY."
)


def read_object(url: str, name: str, max_bytes: int) -> bytes | None:
    """Return an object's bytes, or None if there is none; nothing is written.

    Raises:
        click.BadParameter: The URL means no store, or the name no object.
        ObjectTooLargeError: The object has more than max_bytes.
        StorageError: The store failed.
    """
    import asyncio  # noqa: PLC0415 (a fifth of the time that any other command takes to start)

    store = _store(url)
    try:
        return asyncio.run(_read(store, name, max_bytes))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


async def _read(store: ObjectStore, name: str, max_bytes: int) -> bytes | None:
    try:
        found = await store.get(name, max_bytes=max_bytes)
    finally:
        await store.aclose()
    return None if found is None else found.data


def _store(url: str) -> ObjectStore:
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise click.BadParameter(f"--store {url}: write ? as %3F and # as %23")
    if parts.scheme != "file":
        raise click.BadParameter(f"--store {url}: file:///DIRECTORY is what it takes")
    if parts.netloc or not parts.path.startswith("/"):
        raise click.BadParameter(f"--store {url}: three slashes, then the directory's whole path")
    from walengine.buffer.store.local import LocalStore  # noqa: PLC0415 (the same)

    return LocalStore(Path(unquote(parts.path)))
