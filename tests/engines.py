"""What a log can write with: each backend, each provider of the ring, and direct writes.

A test that takes the fixture engine (conftest.py) runs on each. It makes its configurations with
config(), here and in the programs that it starts: an environment variable names the engine.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from walengine import IoUringConfig, PortableWalWriter, WalConfig

__all__ = ["ENGINES", "VARIABLE", "Engine", "config", "current", "environment", "put"]

VARIABLE = "WALENGINE_TEST_ENGINE"


@dataclass(frozen=True)
class Engine:
    """One way to write."""

    name: str
    backend: str
    ring: str | None = None  # the provider
    direct: bool = False

    def __str__(self) -> str:
        return self.name


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("pwrite", "pwrite"),
        Engine("liburing", "io_uring", "liburing"),
        Engine("builtin", "io_uring", "builtin"),
        Engine("liburing-direct", "io_uring", "liburing", direct=True),
        Engine("pwrite-direct", "pwrite", direct=True),
    )
}

DEFAULT = Engine("", "auto")


def environment(engine: Engine) -> dict[str, str]:
    """The variables that choose it; WALENGINE_BACKEND would override it."""
    return {VARIABLE: engine.name, "WALENGINE_RING": engine.ring or "", "WALENGINE_BACKEND": ""}


def current() -> Engine:
    """The engine of the test that runs; the default where it names none."""
    return ENGINES.get(os.environ.get(VARIABLE, ""), DEFAULT)


def config(io: IoUringConfig | None = None, **fields: object) -> WalConfig:
    """A WalConfig with these fields, and the rest as the engine wants it."""
    engine = current()
    io = dataclasses.replace(io or IoUringConfig(), direct_io=engine.direct)
    return WalConfig(io=io, backend=engine.backend, **fields)


def put(wal: PortableWalWriter, data: bytes) -> None:
    """Append a record that is not durable yet: a direct append would wait for its sync."""
    (wal.append_batched if current().direct else wal.append)(data)
