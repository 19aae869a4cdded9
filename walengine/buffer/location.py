"""Where objects are: paths, what a manifest may point to, and the names of batches.

A batch object is called ``<prefix>/<ULID>.batch``. The ULID's 16 last characters, 80 random bits,
are the batch's *identity*: they stay while a batch is tried again and again, so that who meets it
twice can tell. Its 10 first characters are a time in ms, stamped anew at each upload: collectors
judge an object's age by them, and must never find an object old that is about to be listed.

    01JQ8V3K7M 5Z9XW2C4T6R8B1N3   ingest/01JQ8V3K7M5Z9XW2C4T6R8B1N3.batch
    time       identity

Locations come out of a manifest that anyone with access to the bucket may have written. They are
checked before a store sees them.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ulid import ULID

from walengine.buffer.store.port import NAME_BYTES_MAX, check_name

__all__ = [
    "BatchName",
    "BatchNamer",
    "identity_of",
    "location_problem",
    "normalise_path",
    "normalise_prefix",
    "parse_batch_name",
    "path_problem",
]

# What object_store, the client that OpenData uses, leaves as it is; everything else it encodes,
# and then two programs mean different objects by one name.
_ENCODED = re.compile(r"[^ !$&'()+,\-./0-9:;=@A-Z_a-z]")

# Upper case only, as ULIDs are written: what spells one otherwise is somebody else's object.
_BATCH = re.compile(
    r"(?:.*/)?(?P<time>[0-7][0-9A-HJKMNP-TV-Z]{9})(?P<identity>[0-9A-HJKMNP-TV-Z]{16})\.batch",
)
_IDENTITY = re.compile(r"[0-9A-HJKMNP-TV-Z]{16}")
_TIME_CHARACTERS = 10
_NAME_CHARACTERS = len("/.batch") + 26
_TIME_BYTES, _RANDOM_BYTES = 6, 10


class BatchName(NamedTuple):
    """The name of a batch object, taken apart.

    Attributes:
        location: The whole path, prefix included.
        time_ms: When it was stamped, in ms since 1970 by the clock of who stamped it.
        identity: What stays the same over uploads: 16 characters.
    """

    location: str
    time_ms: int
    identity: str


class BatchNamer:
    """Gives batches their names: a new identity or a kept one, always under a later time.

    Each name's time is later than that of the name before, whatever the clock does: if it stands
    or steps back, the time is one more than the last. So names sort in the order they were given.

    Args:
        prefix: Where the objects are, normalised.
        clock_ms: Now, in ms since 1970; the store's time where it is known.
        random_bytes: Where identities come from; takes a number of bytes.

    Example:
        >>> namer = BatchNamer("ingest")
        >>> first = namer.new()
        >>> again = namer.restamp(first.identity)
        >>> again.identity == first.identity, again.location > first.location
        (True, True)
    """

    def __init__(
        self,
        prefix: str,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._prefix = prefix
        self._clock_ms = clock_ms
        self._random_bytes = random_bytes
        self._last_ms = -1
        self._lock = threading.Lock()

    def new(self) -> BatchName:
        """Return a name with a new identity."""
        random = self._random_bytes(_RANDOM_BYTES)
        identity = str(ULID.from_bytes(bytes(_TIME_BYTES) + random))[_TIME_CHARACTERS:]
        return self.restamp(identity)

    def restamp(self, identity: str) -> BatchName:
        """Return a name for a batch that has its identity, under the time it is now.

        Raises:
            ValueError: That is no identity.
        """
        if _IDENTITY.fullmatch(identity) is None:
            raise ValueError(f"{identity!r} is no identity: 16 characters of a ULID")
        with self._lock:
            self._last_ms = now_ms = max(self._clock_ms(), self._last_ms + 1)
        stamp = ULID.from_bytes(now_ms.to_bytes(_TIME_BYTES, "big") + bytes(_RANDOM_BYTES))
        location = f"{self._prefix}/{str(stamp)[:_TIME_CHARACTERS]}{identity}.batch"
        return BatchName(location, now_ms, identity)


def parse_batch_name(location: str, prefix: str | None = None) -> BatchName | None:
    """Return the parts of a batch's name, or None if it is not named like one.

    Args:
        location: The whole path.
        prefix: Only direct children of this prefix count; None: wherever it is.
    """
    match = _BATCH.fullmatch(location)
    if match is None or (prefix is not None and location[:-_NAME_CHARACTERS] != prefix):
        return None
    time_ms = ULID.from_str(match["time"] + match["identity"]).milliseconds
    return BatchName(location, time_ms, match["identity"])


def identity_of(location: str) -> str:
    """Return what tells this batch from every other, over all of its uploads.

    A location that is not named as ours are (other clients have other schemes) is its own identity,
    whole: a part of it need not be unique. The two kinds cannot meet, since a location holds a
    slash.
    """
    match = _BATCH.fullmatch(location)
    return match["identity"] if match else location


def normalise_path(path: str, what: str = "path") -> str:
    """Return path without leading, trailing and doubled slashes.

    Args:
        path: As a configuration has it.
        what: Its name there, for the message.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, too long, has a segment ``.`` or ``..``, or a character that some
            client would encode.
    """
    if not isinstance(path, str):
        raise TypeError(f"{what} must be a str, not {type(path).__name__}")
    normal = "/".join(segment for segment in path.split("/") if segment)
    if not normal:
        raise ValueError(f"{what} must not be empty: a queue has a place of its own in the store")
    if problem := path_problem(normal):
        raise ValueError(f"{what} {path!r}: {problem}")
    return normal


def normalise_prefix(prefix: str, what: str = "data_path_prefix") -> str:
    """Return the prefix without leading, trailing and doubled slashes, if batches fit below it.

    Raises:
        TypeError: It is no str.
        ValueError: As with ``normalise_path``, and if it leaves no room for a batch's name.
    """
    normal = normalise_path(prefix, what)
    if len(normal) + _NAME_CHARACTERS > NAME_BYTES_MAX:
        raise ValueError(f"{what} has {len(normal)} characters: a batch's name would not fit")
    return normal


def location_problem(location: str, prefixes: Iterable[str]) -> str | None:
    """Return what is wrong with a location, or None if it may be fetched.

    Args:
        location: As the manifest has it.
        prefixes: Below which it may be, each normalised.
    """
    if problem := path_problem(location):
        return problem
    prefixes = tuple(prefixes)
    if any(location.startswith(f"{prefix}/") for prefix in prefixes):
        return None
    return "it lies outside of " + " and ".join(f"{prefix}/" for prefix in prefixes)


def path_problem(path: str) -> str | None:
    """Return what is wrong with a path that should be normal, or None."""
    if match := _ENCODED.search(path):
        return f"no character {match[0]!r}, as at offset {match.start()}: some clients encode it"
    try:
        check_name(path)
    except ValueError as error:
        return str(error)
    return None
