"""Where the objects are: a tagged union, ``ObjectStoreConfig.Local("./data")`` and its siblings.

In files the tag is ``type``, with OpenData's words: ``{"type": "Local", "path": "./data"}``.
Credentials may be left out: the environment's and the machine's own are found then.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast
from urllib.parse import quote, urlsplit

from walengine.buffer._form import Form, check_all, setting
from walengine.buffer._kinds import Kind, boolean, text

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def _plain(name: str, value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError(f"{name} must be letters, digits, dots, dashes, not {value[:80]!r}")
    return value


def _line(name: str, value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError(f"{name} must be one line of printable text")
    return value


def _secret(name: str, value: str) -> str:
    # A key of Google is a document of several lines; nothing of it may show in the message.
    if not value or not value.replace("\n", "").replace("\r", "").isprintable():
        raise ValueError(f"{name} must be printable text")
    return value


def _path(name: str, value: str) -> str:
    if not value or "\x00" in value or not _is_utf8(value):
        raise ValueError(f"{name} must be a directory's path")
    return value


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _endpoint(name: str, value: str) -> str:
    """Check a URL; one with a user, a query or a fragment may hold a secret and is not shown."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or not value.isprintable():
        raise ValueError(f"{name} must be a URL like https://host:port")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{name} must hold no user, password, query or fragment")
    return value.rstrip("/")


class ObjectStoreConfig(Form, ABC):
    """Where objects are; one of Local, InMemory, Aws, Gcp, Azure.

    Attributes:
        url: For messages and for telling stores apart: ``s3://bucket``; without secrets.

    Example:
        >>> ObjectStoreConfig.from_dict({"type": "Local", "path": "./data"})
        LocalObjectStoreConfig(path='./data', allow_shared_dir=False)
    """

    __slots__ = ()

    tag: ClassVar[str] = ""
    Local: ClassVar[type[LocalObjectStoreConfig]]
    InMemory: ClassVar[type[InMemoryObjectStoreConfig]]
    Aws: ClassVar[type[AwsObjectStoreConfig]]
    Gcp: ClassVar[type[GcpObjectStoreConfig]]
    Azure: ClassVar[type[AzureObjectStoreConfig]]

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store is, for messages; never with a secret."""

    def to_dict(self, *, reveal_secrets: bool = False) -> dict[str, Any]:
        """Return the fields and the tag; without the secrets, unless they are wanted."""
        return {"type": self.tag} | Form.to_dict(self, reveal_secrets=reveal_secrets)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the store that a dict with ``type`` means; raises as ``Form.from_dict`` does."""
        if not isinstance(values, Mapping):
            raise TypeError(f"object_store must be a table, not {type(values).__name__}")
        rest = dict(values)
        chosen = _by_tag(rest.pop("type", None), cls)
        return cast("Self", super(ObjectStoreConfig, chosen).from_dict(rest))

    @classmethod
    def parse_env(cls, prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return the dict that the variables mean; {} where there is none of them."""
        tag = environ.get(prefix + "TYPE")
        if tag is None:
            return {}
        chosen = _by_tag(tag, cls)
        return {"type": tag} | super(ObjectStoreConfig, chosen).parse_env(prefix, environ)


@dataclass(frozen=True, slots=True)
class LocalObjectStoreConfig(ObjectStoreConfig):
    """A directory of this machine.

    Attributes:
        path: The directory; made when the first object is written.
        allow_shared_dir: Accept one that is another user's, or that group or others may write to.
    """

    tag: ClassVar[str] = "Local"

    path: str = setting(text(_path))
    allow_shared_dir: bool = setting(boolean(), False)

    def __post_init__(self) -> None:
        """Check every field; raises TypeError or ValueError."""
        check_all(self)

    @property
    def url(self) -> str:
        """``file://`` and the whole path."""
        return Path(self.path).absolute().as_uri()


@dataclass(frozen=True, slots=True)
class InMemoryObjectStoreConfig(ObjectStoreConfig):
    """This process's memory.

    Attributes:
        name: Stores of the same name share their objects.
    """

    tag: ClassVar[str] = "InMemory"

    name: str = setting(text(_line), "default")

    def __post_init__(self) -> None:
        """Check every field; raises TypeError or ValueError."""
        check_all(self)

    @property
    def url(self) -> str:
        """``memory://`` and the name."""
        return "memory://" + quote(self.name)


@dataclass(frozen=True, slots=True)
class AwsObjectStoreConfig(ObjectStoreConfig):
    """S3, or what speaks its protocol.

    Attributes:
        region: Like "us-west-2".
        bucket: Its name.
        endpoint: URL of another server than Amazon's.
        allow_http: Let everything travel unencrypted, if the endpoint says http.
        virtual_hosted_style: The bucket is in the host's name, as at Amazon; None: there, and not
            at an endpoint.
        access_key_id: None: from the environment or the machine, with the two below.
        secret_access_key: A secret.
        session_token: A secret.
    """

    tag: ClassVar[str] = "Aws"

    region: str = setting(text(_plain))
    bucket: str = setting(text(_plain))
    endpoint: str | None = setting(text(_endpoint), None)
    allow_http: bool = setting(boolean(), False)
    virtual_hosted_style: bool | None = setting(boolean(), None)
    access_key_id: str | None = setting(text(_line), None, secret=True)
    secret_access_key: str | None = setting(text(_secret), None, secret=True)
    session_token: str | None = setting(text(_secret), None, secret=True)

    def __post_init__(self) -> None:
        """Check every field; raises TypeError or ValueError."""
        check_all(self)
        _check_http(self.endpoint, self.allow_http)
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")

    @property
    def url(self) -> str:
        """``s3://`` and the bucket."""
        return f"s3://{self.bucket}"


@dataclass(frozen=True, slots=True)
class GcpObjectStoreConfig(ObjectStoreConfig):
    """Google Cloud Storage.

    Attributes:
        bucket: Its name.
        service_account_path: File with a service account's key; None: from the environment.
        service_account_key: The key itself; a secret.
    """

    tag: ClassVar[str] = "Gcp"

    bucket: str = setting(text(_plain))
    service_account_path: str | None = setting(text(_path), None)
    service_account_key: str | None = setting(text(_secret), None, secret=True)

    def __post_init__(self) -> None:
        """Check every field; raises TypeError or ValueError."""
        check_all(self)

    @property
    def url(self) -> str:
        """``gs://`` and the bucket."""
        return f"gs://{self.bucket}"


@dataclass(frozen=True, slots=True)
class AzureObjectStoreConfig(ObjectStoreConfig):
    """Azure Blob Storage.

    Attributes:
        account: The storage account's name.
        container: Its name.
        endpoint: URL of another server than Azure's.
        allow_http: Let everything travel unencrypted, if the endpoint says http.
        account_key: None: from the environment or the machine; a secret.
        sas_token: Instead of a key; a secret.
    """

    tag: ClassVar[str] = "Azure"

    account: str = setting(text(_plain))
    container: str = setting(text(_plain))
    endpoint: str | None = setting(text(_endpoint), None)
    allow_http: bool = setting(boolean(), False)
    account_key: str | None = setting(text(_secret), None, secret=True)
    sas_token: str | None = setting(text(_secret), None, secret=True)

    def __post_init__(self) -> None:
        """Check every field; raises TypeError or ValueError."""
        check_all(self)
        _check_http(self.endpoint, self.allow_http)

    @property
    def url(self) -> str:
        """``az://``, the account and the container."""
        return f"az://{self.account}/{self.container}"


ObjectStoreConfig.Local = LocalObjectStoreConfig
ObjectStoreConfig.InMemory = InMemoryObjectStoreConfig
ObjectStoreConfig.Aws = AwsObjectStoreConfig
ObjectStoreConfig.Gcp = GcpObjectStoreConfig
ObjectStoreConfig.Azure = AzureObjectStoreConfig

STORES: dict[str, type[ObjectStoreConfig]] = {
    store.tag: store
    for store in (
        LocalObjectStoreConfig,
        InMemoryObjectStoreConfig,
        AwsObjectStoreConfig,
        GcpObjectStoreConfig,
        AzureObjectStoreConfig,
    )
}


def object_store() -> Kind:
    """Return the kind of a field that holds one of them."""

    def check(name: str, value: Any) -> ObjectStoreConfig:
        if not isinstance(value, ObjectStoreConfig):
            raise TypeError(f"{name} must be an ObjectStoreConfig, not {type(value).__name__}")
        return value

    def read(name: str, value: Any) -> ObjectStoreConfig:  # noqa: ARG001 (every kind's)
        return ObjectStoreConfig.from_dict(value)

    return Kind(check, read=read)


def _by_tag(tag: Any, asked: type[ObjectStoreConfig]) -> Any:
    found = STORES.get(tag) if isinstance(tag, str) else None
    if found is None:
        raise ValueError(f"an object store's type must be one of {', '.join(STORES)}")
    if not issubclass(found, asked):
        raise ValueError(  # noqa: TRY004 (the tag is a value)
            f"the object store's type must be {asked.tag}, not {tag}"
        )
    return found


def _check_http(endpoint: str | None, allow_http: bool) -> None:
    if endpoint is not None and endpoint.startswith("http:") and not allow_http:
        raise ValueError(
            f"endpoint {endpoint} is not encrypted: use https, or allow it with allow_http=True"
        )


ObjectStoreConfig.__module__ = "walengine.buffer"
