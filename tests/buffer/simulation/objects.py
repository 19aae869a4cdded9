"""The object store that all processes share, and everything that ever happened in it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Stored(NamedTuple):
    data: bytes
    etag: str
    modified_ms: int


class Happened(NamedTuple):
    """A change of the store; data is None for a deletion."""

    at_s: float
    who: str
    verb: str
    name: str
    data: bytes | None


class Objects:
    """Names and what they hold; every change is told to those who watch, before and after it.

    Attributes:
        now: What there is.
        history: Every change, in order.
    """

    def __init__(self, world):
        self.world = world
        self.now = {}
        self.history = []
        self.watchers = []

    def get(self, name):
        return self.now.get(name)

    def put(self, who, name, data, verb="put"):
        # An etag is a hash of the content, as S3's is: the same content, the same etag.
        etag = hashlib.blake2b(data, digest_size=8).hexdigest()
        self.now[name] = Stored(data, etag, self.world.now_ms())
        self._tell(Happened(self.world.now_s, who, verb, name, data))
        return etag

    def create(self, who, name, data):
        if name in self.now:
            return None
        return self.put(who, name, data, "create")

    def replace(self, who, name, data, etag):
        there = self.now.get(name)
        if there is None or there.etag != etag:
            return None
        return self.put(who, name, data, "replace")

    def delete(self, who, name):
        if self.now.pop(name, None) is not None:
            self._tell(Happened(self.world.now_s, who, "delete", name, None))

    def below(self, prefix):
        below = prefix and prefix + "/"
        return [(name, there) for name, there in self.now.items() if name.startswith(below)]

    def _tell(self, happened):
        self.history.append(happened)
        for watch in self.watchers:
            watch(happened)
