"""The port: what the buffer asks of an object store, and not one call more.

Every store behind it keeps these rules. The conformance kit in the tests asserts them.

- **Names** are paths of non-empty segments, parted by one ``/``: see ``check_name``. Any other name
  is a ``ValueError``, before the store is asked.
- **No object is below another one's name**: where there is ``a``, a write to ``a/b`` may fail, as
  it must in a directory.
- **Atomic**: a reader sees an object whole, old or new, never a mixture and never a part.
- **Durable**: when a write returns, the object survives what the store promises to survive; on a
  local directory, power loss. What a read has shown is durable too: nobody can act on an object
  that a power loss takes back.
- **Read after write**: a read that begins after a write returned sees it or a later one.
- **Conditions**: of all ``create`` calls for one name that is absent, one succeeds; of all
  ``replace`` calls with one etag, one succeeds. ``put`` and ``delete`` heed no condition.
- **Etags** tell contents apart and may repeat when a content does (S3's etag is its hash), so a
  ``replace`` after A, B, A succeeds with the etag of the first A. Put a counter into what is
  swapped. Two stores' etags have nothing in common.
- **Outcomes** of a conditional write are three: an etag (done), None (the condition did not hold;
  nothing was written), ``StorageError``. Its ``unclear`` says whether the write may have happened
  all the same, now or in a moment: a lost reply looks like a lost request. A cancelled call is
  unclear too: what had begun may go on.
- **Nothing is retried** in a conditional write: a retry would meet its own success and call it a
  conflict. Other calls may be repeated inside.
- **Memory**: ``get`` reads at most ``max_bytes`` and a little more, whatever the store says of the
  object's size.

Calls may overlap in any number, from any task of one event loop. Opening does the I/O that a
constructor must not: ``open_store`` in probe.py.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from walengine.buffer.errors import ObjectTooLargeError, StorageError

NAME_BYTES_MAX: Final = 1024
"""Longest name in bytes of UTF-8; the limit of S3."""

SEGMENT_BYTES_MAX: Final = 255
"""Longest part of a name between slashes; the limit of file names."""

# What XML 1.0 cannot carry in a list of objects, what file names cannot hold, and what some
# servers take for another slash.
_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff\ufffe\uffff\u2028\u2029]")


class NotModified(enum.Enum):
    """The type of ``NOT_MODIFIED``."""

    NOT_MODIFIED = "not modified"


NOT_MODIFIED: Final = NotModified.NOT_MODIFIED
"""``get_if_changed`` found the object with the etag that the caller knows."""

Data: TypeAlias = bytes | bytearray | memoryview
"""What is written: contiguous bytes, which must not change before the call returns."""

Unchanged: TypeAlias = Literal[NotModified.NOT_MODIFIED]


class StoredObject:
    """An object as it was read.

    Attributes:
        data: Its bytes.
        etag: What ``replace`` takes; opaque. A store whose etags are hashes works it out when it is
            first asked for.
    """

    __slots__ = ("_etag", "data")

    data: bytes
    _etag: str | Callable[[bytes], str]

    def __init__(self, data: bytes, etag: str | Callable[[bytes], str]) -> None:
        self.data = data
        self._etag = etag

    @property
    def etag(self) -> str:
        """What tells this content from the next, for ``replace`` and ``get_if_changed``."""
        if not isinstance(self._etag, str):
            self._etag = self._etag(self.data)
        return self._etag

    def __repr__(self) -> str:
        """Leave the bytes out: they are somebody's data."""
        return f"StoredObject(<{len(self.data)} bytes>)"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store tells about an object without sending it.

    Attributes:
        name: Its name.
        size_bytes: Its size.
        last_modified_ms: When it was written, by the store's clock, in ms since 1970; some stores
            know whole seconds only.
    """

    name: str
    size_bytes: int
    last_modified_ms: int


class ObjectStore(Protocol):
    """An object store, as the buffer sees it; the rules stand at the top of this file.

    Attributes:
        url: Where it is, for messages: ``file:///var/queue``, ``s3://bucket``. Never a secret.
    """

    @property
    def url(self) -> str:
        """Where the store is, for messages; never with a secret."""
        ...

    async def get(self, name: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Return the object, or None where there is none.

        Raises:
            ObjectTooLargeError: It has more than max_bytes.
            StorageError: The store failed; so with every method.
            ValueError: The name is not valid; so with every method.
        """
        ...

    async def get_if_changed(
        self, name: str, etag: str, *, max_bytes: int | None = None
    ) -> StoredObject | Unchanged | None:
        """Return the object, NOT_MODIFIED if its etag is this one, or None where there is none."""
        ...

    async def head(self, name: str) -> ObjectInfo | None:
        """Return what is known about the object, or None where there is none."""
        ...

    async def put(self, name: str, data: Data) -> None:
        """Write the object, over whatever is there."""
        ...

    async def create(self, name: str, data: Data) -> str | None:
        """Write the object only if there is none.

        Returns:
            Its etag, or None if there is one and nothing was written.
        """
        ...

    async def replace(self, name: str, data: Data, etag: str) -> str | None:
        """Write the object only if the one there has this etag: compare and set.

        Returns:
            The new etag, or None if the object is another or absent and nothing was written.
        """
        ...

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield the objects below ``prefix/`` at any depth, all of them for "", in any order.

        What is written or deleted meanwhile may be in or out; everything else is there, once.
        """
        ...

    async def delete(self, name: str) -> None:
        """Delete the object; one that is not there is no error."""
        ...

    async def aclose(self) -> None:
        """Wait for what is under way and release what the store holds; twice is once."""
        ...


def check_name(name: str) -> str:
    """Return name if it can be an object's.

    A valid name is made of segments parted by single slashes, in the form that every store takes
    as it stands. No segment is empty, ``.`` or ``..``, has more than SEGMENT_BYTES_MAX bytes of
    UTF-8 or begins with ``.walengine`` (the local store's own); none holds a control character, a
    line separator, a backslash or a surrogate. The whole has at most NAME_BYTES_MAX bytes.

    Raises:
        TypeError: It is no str.
        ValueError: It is not valid; the message says where.
    """
    if not isinstance(name, str):
        raise TypeError(f"an object's name must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError("an object's name must not be empty")
    return _checked(name, "object name")


def check_size(url: str, name: str, size_bytes: int, max_bytes: int | None) -> None:
    """Refuse an object that is larger than its reader wants.

    Raises:
        ObjectTooLargeError: It is.
    """
    if max_bytes is not None and size_bytes > max_bytes:
        raise ObjectTooLargeError(
            f"{url}: {name} has more than the {max_bytes} bytes allowed",
            object=name,
            max_bytes=max_bytes,
        )


def check_open(url: str, *, is_closed: bool) -> None:
    """Refuse a call to a closed store.

    Raises:
        StorageError: It is closed.
    """
    if is_closed:
        raise StorageError(f"{url}: the store is closed; open it again")


def check_prefix(prefix: str) -> str:
    """Return prefix if objects can be below it: a valid name, or "" for all.

    Raises:
        TypeError: It is no str.
        ValueError: It is not valid.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"a prefix must be a str, not {type(prefix).__name__}")
    return _checked(prefix, "prefix") if prefix else prefix


def _checked(name: str, kind: str) -> str:
    if unusable := _UNUSABLE.search(name):
        raise ValueError(
            f"{kind} {name!r}: no character {unusable[0]!r}, as at offset {unusable.start()}"
        )
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"{kind} of {len(name)} characters: at most {NAME_BYTES_MAX} bytes")
    for segment in name.split("/"):
        _check_segment(segment, name, kind)
    return name


def _check_segment(segment: str, name: str, kind: str) -> None:
    if not segment:
        raise ValueError(f"{kind} {name!r}: no leading, trailing or doubled slash")
    if segment in {".", ".."}:
        raise ValueError(f"{kind} {name!r}: no segment {segment!r}")
    if segment.startswith(".walengine"):
        raise ValueError(f"{kind} {name!r}: names with .walengine are the local store's own")
    if len(segment.encode()) > SEGMENT_BYTES_MAX:
        raise ValueError(f"{kind} {name[:80]!r}…: a segment has at most {SEGMENT_BYTES_MAX} bytes")
