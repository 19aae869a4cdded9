"""Whether another consumer is active: what ``consume`` leaves behind for the next one to see.

The manifest has an epoch and nothing else: it shows that there was a consumer, not whether there
still is. So ``consume`` keeps an object beside the queue's owner object, ``_consumer.json``, with
its epoch, renews it every ten seconds and marks it when it ends. This is for people, to keep them
from taking a queue over by mistake. What keeps two consumers apart is the epoch, always.

A consumer is taken for gone if it says so, if it has been silent for half a minute, or if it was a
process of this machine that is no more. One of another program leaves no such object: nobody can
tell about it, and ``--take-over`` has to be said.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any, Final

from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue
from walengine.buffer.config import CONSUMER_NAME
from walengine.buffer.errors import QueueError, StorageError

__all__ = ["Presence", "refuse_active"]

RENEW_S: Final = 10.0
SILENCE_MAX_S: Final = 30.0
BYTES_MAX = 16 * 1024
NUMBERS = ("epoch", "renewed_ms", "pid")


async def refuse_active(queue: Queue, environment: Environment) -> None:
    """Raise unless the queue is known to have no consumer.

    Raises:
        QueueError: There is one, or there may be.
        StorageError: The store failed.
    """
    epoch = (await queue.read_manifest()).manifest.epoch
    if epoch == 0:
        return
    found = await environment.store.get(name_of(queue), max_bytes=BYTES_MAX)
    note = _decoded(found.data) if found is not None else {}
    if note.get("epoch") != epoch:
        raise QueueError(
            f"{queue.name}: a consumer has had it (epoch {epoch}), and it is not known whether it "
            "is still there: end it, then --take-over; if it goes on it will be refused"
        )
    silent_s = (environment.wall_ms() - note.get("renewed_ms", 0)) / 1000
    if note.get("ended") or silent_s > SILENCE_MAX_S or _is_dead(note):
        return
    raise QueueError(
        f"{queue.name}: a consumer is active, process {note.get('pid')} on {note.get('host')}, "
        f"seen {max(silent_s, 0):.0f} s ago: end it, or fence it with --take-over"
    )


def name_of(queue: Queue) -> str:
    """Return the name of the object."""
    return f"{queue.data_path_prefix}/{CONSUMER_NAME}"


class Presence:
    """Keeps the object fresh while the block lasts, and marks it at its end.

    A store that fails here fails nobody: the object only warns.

    Args:
        queue: Whose consumer.
        environment: Has the store and the clock; open as long as the block lasts.
        epoch: The consumer's.
    """

    def __init__(self, queue: Queue, environment: Environment, epoch: int) -> None:
        self._name = name_of(queue)
        self._environment = environment
        self._epoch = epoch
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Write it, and go on renewing it."""
        await self._write(ended=False)
        self._renewing = asyncio.create_task(self._renew())

    async def __aexit__(self, *_: object) -> None:
        """Mark it."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._write(ended=True)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._write(ended=False)

    async def _write(self, *, ended: bool) -> None:
        store = self._environment.store
        with contextlib.suppress(StorageError):
            # A newer consumer's is not written over; between the two calls it may be, harmlessly.
            found = await store.get(self._name, max_bytes=BYTES_MAX)
            if found is None or _decoded(found.data).get("epoch", 0) <= self._epoch:
                await store.put(self._name, self._encoded(ended=ended))

    def _encoded(self, *, ended: bool) -> bytes:
        note = {
            "epoch": self._epoch,
            "renewed_ms": self._environment.wall_ms(),
            "ended": ended,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": _machine(),
        }
        return json.dumps(note, indent=2).encode() + b"\n"


def _decoded(data: bytes) -> dict[str, Any]:
    """Return what a note says; nothing if it is none, or has a number that cannot be."""
    try:
        note = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) and all(map(_is_number, map(note.get, NUMBERS))) else {}


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_dead(note: dict[str, Any]) -> bool:
    """Tell whether it was a process of this machine, and is no more."""
    machine = _machine()
    if machine is None or note.get("machine") != machine:
        return False
    return not Path(f"/proc/{note['pid']}").exists()


def _machine() -> str | None:
    """Return what this boot of this machine has alone, with its namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
