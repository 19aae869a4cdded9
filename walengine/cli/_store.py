"""Where a command's objects are: --store URL, as a configuration, and what is read there."""

from __future__ import annotations

import asyncio
import os
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import click

from walengine.buffer.store.port import ObjectStore
from walengine.buffer.store.probe import make_store
from walengine.buffer.store_config import ObjectStoreConfig

FORMS = "file:///DIRECTORY, s3://BUCKET, gs://BUCKET or az://ACCOUNT/CONTAINER, each with /PREFIX"

store_option = click.option(
    "--store", "url", metavar="URL", help=f"Where the objects are: {FORMS}."
)


class Place(NamedTuple):
    """What a URL means.

    Attributes:
        store: The store.
        prefix: What all names begin with, or "".
    """

    store: ObjectStoreConfig
    prefix: str

    def name(self, name: str) -> str:
        """Return an object's name from one that is relative to the URL."""
        return f"{self.prefix}/{name}" if self.prefix else name


def place_of(url: str) -> Place:
    """Return the store that --store means; nothing is asked of it.

    Raises:
        click.BadParameter: It means none.
    """
    parts = split_url("--store", url)
    if parts.scheme == "memory":
        raise click.BadParameter(
            f"--store {url}: memory is one process's own, and this command's ends with it; "
            "use file:///DIRECTORY"
        )
    if parts.scheme not in _READERS:
        raise click.BadParameter(f"--store {url}: {FORMS} is what it takes")
    if parts.query or parts.fragment:
        raise click.BadParameter(f"--store {url}: write ? as %3F and # as %23")
    if "@" in parts.netloc:
        raise click.BadParameter(
            "--store: no user and no password in it, every user of this machine could read them; "
            "credentials come from the environment or from a --config file"
        )
    try:
        return _READERS[parts.scheme](url, parts)
    except ValueError as error:
        raise click.BadParameter(f"--store {url}: {error}") from None


def split_url(option: str, url: str) -> SplitResult:
    """Take a URL apart.

    Raises:
        click.BadParameter: It is none: a bracket without its other half, for one.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        # It may hold a password, which no message shows.
        raise click.BadParameter(f"{option}: this is no URL ({error})") from None


def read_object(url: str, name: str, max_bytes: int) -> bytes | None:
    """Return an object's bytes, or None if there is none; nothing is written.

    Raises:
        click.BadParameter: The URL means no store, or the name no object.
        ObjectTooLargeError: The object has more than max_bytes.
        StorageError: The store failed.
        UnsupportedStoreError: Its package is missing.
    """
    place = place_of(url)
    try:
        return asyncio.run(_read(make_store(place.store), place.name(name), max_bytes))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


async def _read(store: ObjectStore, name: str, max_bytes: int) -> bytes | None:
    try:
        found = await store.get(name, max_bytes=max_bytes)
    finally:
        await store.aclose()
    return None if found is None else found.data


# ---- the kinds of URLs ---------------------------------------------------------------------------


def _directory(url: str, parts: SplitResult) -> Place:
    if parts.netloc or not url.startswith("file:///"):
        raise click.BadParameter(f"--store {url}: three slashes, then the directory's whole path")
    return Place(ObjectStoreConfig.Local(unquote(parts.path)), "")


def _s3(_url: str, parts: SplitResult) -> Place:
    """Take what the URL cannot say from the variables that Amazon's own programs read."""
    region = _variable("AWS_REGION", "AWS_DEFAULT_REGION")
    if region is None:
        raise ValueError("set AWS_REGION, or name the region in a --config file")
    endpoint = _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    allow_http = _variable("AWS_ALLOW_HTTP") in {"1", "true"}
    if endpoint is not None and endpoint.startswith("http:") and not allow_http:
        raise ValueError(f"endpoint {endpoint} is not encrypted: use https, or AWS_ALLOW_HTTP=true")
    store = ObjectStoreConfig.Aws(region, _bucket(parts), endpoint=endpoint, allow_http=allow_http)
    return Place(store, _prefix(parts.path))


def _google(_url: str, parts: SplitResult) -> Place:
    return Place(ObjectStoreConfig.Gcp(_bucket(parts)), _prefix(parts.path))


def _azure(_url: str, parts: SplitResult) -> Place:
    account, (container, _, prefix) = parts.netloc, parts.path.strip("/").partition("/")
    if not account or not container:
        raise ValueError("az://ACCOUNT/CONTAINER, then a prefix if you want one")
    return Place(ObjectStoreConfig.Azure(account, container), _prefix(prefix))


_READERS = {"file": _directory, "s3": _s3, "gs": _google, "az": _azure}


def _bucket(parts: SplitResult) -> str:
    if not parts.netloc:
        raise ValueError("the bucket's name is missing")
    return parts.netloc


def _prefix(path: str) -> str:
    return "/".join(segment for segment in unquote(path).split("/") if segment)


def _variable(*names: str) -> str | None:
    """Return the first of these environment variables that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
