"""S3, Google Cloud Storage and Azure as object stores, through obstore (the extra ``cloud``).

Two clients of one bucket. One retries, for what may be done twice: reads, ``put``, ``delete``. The
other never does, for conditional writes: a retry would meet its own success and report a conflict.

Errors are told apart by what they say of a write:

- the condition did not hold (412, or 404 for ``replace``): None;
- refused before anything was done (401, 403, a bad request, no connection was made): a
  ``StorageError`` that is not unclear;
- all else, a time-out, a reply that broke off, 409, a 5xx: unclear. S3 answers 409 when another
  conditional write was under way; nothing was written then, but other servers say 409 for more.

The messages of obstore hold URLs, and a URL may hold a signature: queries are cut off, and so is
every configured secret.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from walengine.buffer.errors import StorageError, UnsupportedStoreError
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
from walengine.buffer.store_config import (
    AwsObjectStoreConfig,
    AzureObjectStoreConfig,
    GcpObjectStoreConfig,
    ObjectStoreConfig,
)

if TYPE_CHECKING:
    from obstore import GetResult, UpdateVersion
    from obstore.store import ClientConfig, RetryConfig

_CHUNK_BYTES = 1 << 20
_LISTED_AT_ONCE = 1000
_MESSAGE_MAX = 1000
_SECRET_MIN = 8

# A reply that takes longer is given up: the producer's own rules go on from there.
REQUEST_TIMEOUT_S = 30.0
# A request's time holds for its body, too, and a producer has several batches under way. With one
# limit for all sizes, a line that they share would end every one of them, for ever.
SLOWEST_BYTES_PER_S = 512 * 1024
CONNECT_TIMEOUT_S = 5.0
_RETRIES_MAX = 5
_RETRYING_MAX = timedelta(seconds=60)

_QUERY = re.compile(r"\?[^\s\"')]+")
# obstore has no classes for most of what tells a refusal from a loss; its texts have the status of
# the answer, or the kind of failure where there was none. What has neither is unclear.
_STATUS = re.compile(r" - Server returned non-2xx status code: (\d{3})")
_REFUSED = frozenset({"400", "401", "403", "404", "405", "411", "413", "414", "416", "431", "501"})
_KIND = re.compile(r"HttpError \{\s+kind: (\w+)")
_NOT_SENT = "Connect"


class CloudStore:
    """A bucket or container.

    Args:
        config: Which, and how to get in.
        request_timeout_s: Seconds for one request with its reply; a ``put`` has some more for its
            bytes.

    Raises:
        UnsupportedStoreError: The package obstore is missing.
        StorageError: The configuration is none that obstore takes.
    """

    def __init__(
        self, config: ObjectStoreConfig, *, request_timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        self.url = config.url
        self._closed = False
        self._pid = os.getpid()
        self._under_way = 0
        self._idle = asyncio.Event()  # set when the last call that is under way ends
        self._secrets = _secrets_of(config)
        self._failures = _failure_classes()
        # Google's conditions are on an object's generation, the others' on its etag.
        self._by_version = isinstance(config, GcpObjectStoreConfig)
        options: ClientConfig = {
            "allow_http": getattr(config, "allow_http", False),
            "timeout": timedelta(seconds=request_timeout_s),
            "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, request_timeout_s)),
        }
        self._request_timeout_s = request_timeout_s
        self._putters: dict[int, Any] = {}  # by how often the time for a request is doubled
        with self._failing("open", ""):
            make = _maker(config)
            patience: RetryConfig = {"max_retries": _RETRIES_MAX, "retry_timeout": _RETRYING_MAX}
            self._make_putter: Callable[[float], Any] = lambda seconds: make(
                options | {"timeout": timedelta(seconds=seconds)}, patience
            )
            self._patient = self._putter(0)
            self._once = make(options, {"max_retries": 0, "retry_timeout": timedelta(0)})

    def __repr__(self) -> str:
        """Show the bucket and no secret."""
        return f"CloudStore({self.url!r})"

    async def get(self, name: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Return the object, or None."""
        found = await self._get(name, None, max_bytes)
        return found if isinstance(found, StoredObject) else None

    async def get_if_changed(
        self, name: str, etag: str, *, max_bytes: int | None = None
    ) -> StoredObject | Unchanged | None:
        """Return the object, NOT_MODIFIED or None."""
        if not self._by_version:
            return await self._get(name, etag, max_bytes)
        # No request is conditional on a generation's change.
        found = await self._get(name, None, max_bytes)
        return NOT_MODIFIED if found and found is not NOT_MODIFIED and found.etag == etag else found

    async def head(self, name: str) -> ObjectInfo | None:
        """Return size and time, or None."""
        with self._failing("read", check_name(name)):
            try:
                return _info(await self._patient.head_async(name))
            except (FileNotFoundError, self._failures.NotFoundError):
                return None

    async def put(self, name: str, data: Data) -> None:
        """Write the object, over whatever is there."""
        with self._failing("write", check_name(name), writes=True):
            body = _body(data)
            await self._putter(len(body)).put_async(name, body, use_multipart=False)

    async def create(self, name: str, data: Data) -> str | None:
        """Write the object only if there is none."""
        with self._failing("write", check_name(name), writes=True):
            try:
                done = await self._once.put_async(name, _body(data), mode="create")
            except (FileExistsError, self._failures.AlreadyExistsError) as error:
                if _says_conflict(error):
                    raise
                return None
            return self._etag(done)
        raise AssertionError  # the block above returns or raises

    async def replace(self, name: str, data: Data, etag: str) -> str | None:
        """Write the object only if the one there has this etag."""
        mode: UpdateVersion = {"version": etag} if self._by_version else {"e_tag": etag}
        with self._failing("write", check_name(name), writes=True):
            try:
                done = await self._once.put_async(name, _body(data), mode=mode)
            except (FileNotFoundError, self._failures.NotFoundError):
                return None
            except self._failures.PreconditionError as error:
                if _says_conflict(error):
                    raise
                return None
            return self._etag(done)
        raise AssertionError  # the block above returns or raises

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is below prefix; what has no valid name is no object of ours."""
        with self._failing("list", check_prefix(prefix)):
            stream = aiter(self._patient.list(prefix or None, chunk_size=_LISTED_AT_ONCE))
        while True:
            # Not around the yield: a listing that is left half-way is no call under way.
            with self._failing("list", prefix):
                some = await anext(stream, None)
            if some is None:
                return
            for meta in some:
                if _is_name(meta["path"]):
                    yield _info(meta)

    async def delete(self, name: str) -> None:
        """Delete the object; one that is not there is no error."""
        with self._failing("delete", check_name(name), writes=True):
            try:
                await self._patient.delete_async(name)
            except (FileNotFoundError, self._failures.NotFoundError):
                return

    async def aclose(self) -> None:
        """Refuse further calls and wait for those under way; connections close when idle."""
        self._closed = True
        while self._under_way and self._pid == os.getpid():
            self._idle.clear()
            await self._idle.wait()

    # ---- helpers ---------------------------------------------------------------------------------

    def _putter(self, size_bytes: int) -> Any:
        """Return a patient client whose requests have time for so many bytes on a slow line."""
        least_s = self._request_timeout_s + size_bytes / SLOWEST_BYTES_PER_S
        doublings = math.ceil(math.log2(least_s / self._request_timeout_s))
        if doublings not in self._putters:
            self._putters[doublings] = self._make_putter(self._request_timeout_s * 2**doublings)
        return self._putters[doublings]

    async def _get(
        self, name: str, etag: str | None, max_bytes: int | None
    ) -> StoredObject | Unchanged | None:
        with self._failing("read", check_name(name)):
            try:
                options: Any = {"if_none_match": etag} if etag else {}
                found = await self._patient.get_async(name, options=options)
            except (FileNotFoundError, self._failures.NotFoundError):
                return None
            except self._failures.NotModifiedError:
                return NOT_MODIFIED
            data = await self._read(name, found, max_bytes)
            return StoredObject(data, self._etag(found.meta))
        raise AssertionError  # the block above returns or raises

    async def _read(self, name: str, found: GetResult, max_bytes: int | None) -> bytes:
        """Read the body, which must be as long as its head says, and no longer than allowed."""
        size_bytes = found.meta["size"]
        check_size(self.url, name, size_bytes, max_bytes)
        parts = []
        read_bytes = 0
        async for part in found.stream(min_chunk_size=_CHUNK_BYTES):
            read_bytes += len(part)
            check_size(self.url, name, read_bytes, max_bytes)
            parts.append(part)
        if read_bytes != size_bytes:
            raise StorageError(
                f"{self.url}: {name}: {read_bytes} bytes came of {size_bytes}; read it again",
                object=name,
            )
        return b"".join(parts)

    def _etag(self, meta: Any) -> str:
        etag = meta.get("version" if self._by_version else "e_tag")
        if not etag:
            raise UnsupportedStoreError(
                f"{self.url}: the store tells no version of an object, so none can be compared"
            )
        return str(etag)

    @contextmanager
    def _failing(self, verb: str, name: str, *, writes: bool = False) -> Iterator[None]:
        """Turn what obstore raises in the block, a call, into a StorageError without secrets."""
        check_open(self.url, is_closed=self._closed)
        if self._pid != os.getpid():  # the client's threads are not here
            raise StorageError(f"{self.url}: opened in the parent process; open it in this one")
        self._under_way += 1
        try:
            yield
        except (self._failures.BaseError, OSError) as error:
            text, refused = _explained(str(error), name)
            # Its cause would show the secrets that are taken out here.
            raise StorageError(
                f"{self.url}: cannot {verb} {name or 'the store'}: {self._without_secrets(text)}",
                object=name or None,
                unclear=writes and not refused,
            ) from None
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _without_secrets(self, text: str) -> str:
        text = _QUERY.sub("?…", text)
        for secret in self._secrets:
            if len(secret) < _SECRET_MIN:
                continue  # a test's; in words of the message it would make holes
            text = text.replace(secret, "…")
        return text


def _failure_classes() -> Any:
    try:
        from obstore import exceptions  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UnsupportedStoreError(
            "stores in the cloud need the package obstore: pip install 'walengine[cloud]'"
        ) from None
    return exceptions


def _maker(config: ObjectStoreConfig) -> Callable[[ClientConfig, RetryConfig], Any]:
    """Return what makes a client of the bucket with these options."""
    from obstore.store import AzureStore, GCSStore, S3Store  # noqa: PLC0415 (an extra)

    keys: dict[str, Any]
    if isinstance(config, AwsObjectStoreConfig):
        style = config.virtual_hosted_style
        keys = {
            "region": config.region,
            "endpoint": config.endpoint,
            "virtual_hosted_style_request": config.endpoint is None if style is None else style,
            "access_key_id": config.access_key_id,
            "secret_access_key": config.secret_access_key,
            "session_token": config.session_token,
        }
        return lambda options, retries: S3Store(
            config.bucket, client_options=options, retry_config=retries, **_given(keys)
        )
    if isinstance(config, GcpObjectStoreConfig):
        keys = {
            "service_account": config.service_account_path,
            "service_account_key": config.service_account_key,
        }
        return lambda options, retries: GCSStore(
            config.bucket, client_options=options, retry_config=retries, **_given(keys)
        )
    assert isinstance(config, AzureObjectStoreConfig)  # noqa: S101 (the union has no other)
    keys = {
        "account_name": config.account,
        "endpoint": config.endpoint,
        "account_key": config.account_key,
        "sas_key": config.sas_token,
    }
    return lambda options, retries: AzureStore(
        config.container, client_options=options, retry_config=retries, **_given(keys)
    )


def _given(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _secrets_of(config: ObjectStoreConfig) -> list[str]:
    known = fields(config)  # type: ignore[arg-type]
    secret = [each.name for each in known if each.metadata["secret"]]
    return [value for name in secret if (value := getattr(config, name))]


def _body(data: Data) -> bytes:
    # obstore copies anything else, and reads a memoryview of other items wrongly.
    return data if isinstance(data, bytes) else bytes(data)


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], int(meta["last_modified"].timestamp() * 1000))


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def _says_conflict(error: BaseException) -> bool:
    """Tell a 409, another write was under way, from a condition that did not hold."""
    return "409 Conflict" in str(error)


def _explained(text: str, name: str) -> tuple[str, bool]:
    """Return (one or two lines of obstore's text, whether nothing was done and that is known)."""
    message, _, structure = text.partition("\n\nDebug source:")
    status = _STATUS.search(message)
    if status is not None:
        # A name may hold any words: one that sounds like a server's proves nothing.
        refused = status[1] in _REFUSED and not _STATUS.search(name)
        return message.strip()[:_MESSAGE_MAX], refused
    kind = _KIND.search(structure)
    if kind is None:
        return message.strip()[:_MESSAGE_MAX], False
    return f"{message.strip()[:_MESSAGE_MAX]} ({kind[1]})", kind[1] == _NOT_SENT
