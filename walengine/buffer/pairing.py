"""Which manifest the batches below a prefix belong to: the owner object.

A producer and a consumer that mean the same manifest but different prefixes, or one prefix and two
manifests, would go on without a word: batches would be left behind, or collected as nobody's. So
the first of them to come writes ``<prefix>/_queue.json``::

    {"manifest_path": "ingest/manifest", "version": 1}

and who finds another manifest's path in it stops. It is changed by ``adopt`` only: a decision of a
person, and no option in a file that is copied along.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from walengine.buffer._environment import Environment, open_environment
from walengine.buffer.config import OWNER_NAME, ConsumerConfig, ProducerConfig
from walengine.buffer.errors import FormatError, PairingError, StorageError
from walengine.buffer.location import path_problem
from walengine.buffer.store.port import ObjectStore

__all__ = ["Adoption", "adopt", "check_owner", "decode_owner", "encode_owner", "ensure_owner"]

VERSION = 1
OWNER_BYTES_MAX = 16 * 1024
ATTEMPTS_MAX = 5


@dataclass(frozen=True, slots=True)
class Adoption:
    """What ``adopt`` did.

    Attributes:
        owner: Name of the owner object.
        manifest_path: The manifest that it names now.
        previous: The one that it named before; None if there was no owner, or no readable one.
    """

    owner: str
    manifest_path: str
    previous: str | None


async def ensure_owner(store: ObjectStore, data_path_prefix: str, manifest_path: str) -> None:
    """Claim the prefix for the manifest, unless it has an owner.

    Raises:
        PairingError: It is another manifest's.
        FormatError: The owner object is none.
        StorageError: The store failed.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        if await check_owner(store, data_path_prefix, manifest_path):
            return
        try:
            await store.create(owner_name(data_path_prefix), encode_owner(manifest_path))
        except StorageError as error:
            if not error.unclear or attempt == ATTEMPTS_MAX:
                raise
        # Created, by this call, by an earlier one of unclear outcome or by somebody else: look.
    if not await check_owner(store, data_path_prefix, manifest_path):
        raise StorageError(
            f"{store.url}: {owner_name(data_path_prefix)} was created {ATTEMPTS_MAX} times, and is "
            "not there: something deletes it",
            object=owner_name(data_path_prefix),
        )


async def check_owner(store: ObjectStore, data_path_prefix: str, manifest_path: str) -> bool:
    """Tell whether the manifest owns the prefix: False where nobody does.

    Raises:
        PairingError: It is another manifest's.
        FormatError: The owner object is none.
        StorageError: The store failed.
    """
    name = owner_name(data_path_prefix)
    found = await store.get(name, max_bytes=OWNER_BYTES_MAX)
    if found is None:
        return False
    owner = decode_owner(found.data, name)
    if owner != manifest_path:
        raise PairingError(
            f"{store.url}: this configuration means manifest {manifest_path} with the prefix "
            f"{data_path_prefix}, but {name} says that the prefix belongs to manifest {owner}: "
            "correct manifest_path or data_path_prefix; if the prefix shall really change hands, "
            "walengine buffer adopt",
            object=name,
        )
    return True


async def adopt(
    config: ProducerConfig | ConsumerConfig, *, environment: Environment | None = None
) -> Adoption:
    """Make the configuration's manifest the owner of its prefix, whoever was.

    Batches that the former manifest lists are the new one's garbage from then on, and its consumer
    deletes them after the grace period. So nothing of the former queue may be in use any more.

    Args:
        config: Names store, manifest and prefix.
        environment: For tests and embedding; None: opened from the configuration, and closed.

    Raises:
        PairingError: Somebody else changed the owner at the same time.
        StorageError: The store failed.
    """
    around = environment or await open_environment(config.object_store)
    try:
        return await _adopt(around.store, config.data_path_prefix, config.manifest_path)
    finally:
        if environment is None:
            await around.aclose()


def owner_name(data_path_prefix: str) -> str:
    """Return the name of the prefix's owner object."""
    return f"{data_path_prefix}/{OWNER_NAME}"


def encode_owner(manifest_path: str) -> bytes:
    """Return the bytes of an owner object."""
    document = {"manifest_path": manifest_path, "version": VERSION}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def decode_owner(data: bytes, name: str) -> str:
    """Return the manifest path that an owner object names; keys of later versions are ignored.

    Raises:
        FormatError: It names none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    path = document.get("manifest_path") if isinstance(document, dict) else None
    if not isinstance(path, str) or path_problem(path):
        raise FormatError(
            f"owner object {name}: it names no manifest path; look at it, then "
            "walengine buffer adopt",
            object=name,
        )
    return path


async def _adopt(store: ObjectStore, data_path_prefix: str, manifest_path: str) -> Adoption:
    name = owner_name(data_path_prefix)
    found = await store.get(name, max_bytes=OWNER_BYTES_MAX)
    if found is None:
        await ensure_owner(store, data_path_prefix, manifest_path)
        return Adoption(name, manifest_path, None)
    try:
        previous = decode_owner(found.data, name)
    except FormatError:
        previous = None
    if previous != manifest_path:
        await _replace(store, name, manifest_path, found.etag)
    return Adoption(name, manifest_path, previous)


async def _replace(store: ObjectStore, name: str, manifest_path: str, etag: str) -> None:
    try:
        if await store.replace(name, encode_owner(manifest_path), etag) is not None:
            return
    except StorageError as error:
        if not error.unclear:
            raise
        now = await store.get(name, max_bytes=OWNER_BYTES_MAX)
        if now is not None and now.data == encode_owner(manifest_path):
            return
        raise
    raise PairingError(
        f"{store.url}: {name} was changed by somebody else at the same time: look, and try again",
        object=name,
    )


Adoption.__module__ = adopt.__module__ = "walengine.buffer"
