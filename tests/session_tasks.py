"""A session of session_child.py with asyncio: 200 tasks append, stage, flush and trim, and die.

Tasks acknowledge like threads do; each has idents of its own, so that the oracle can tell whether
its records stand in the order of its calls.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import engines

from walengine import AsyncWalWriter

if TYPE_CHECKING:
    from session_child import Session

TASKS = 200


class Task:
    """One task of a session, until the process dies or the session is over."""

    def __init__(self, session: Session, wal: AsyncWalWriter, number: int) -> None:
        self.session = session
        self.wal = wal
        self.idents = session.idents(number)
        self.random = random.Random(f"{session.job['seed']} {number}")

    async def run(self) -> None:
        while not self.session.stopping:
            dice = self.random.random()
            if dice < 0.6:
                await self.append_durable()
            elif dice < 0.75:
                await self.append()
            elif dice < 0.85:
                await self.append_group()
            elif dice < 0.995:
                await self.stage()
            elif self.session.job["trims"]:
                await self.trim()

    async def append_durable(self) -> None:
        ident = next(self.idents)
        self.session.durable(await self.wal.append_durable(self.session.content(ident)), ident)

    async def append(self) -> None:
        ident = next(self.idents)
        call = self.wal.append_with_checksum if ident % 3 == 0 else self.wal.append
        self.session.appended(await call(self.session.content(ident)), ident)

    async def append_group(self) -> None:
        idents = [next(self.idents) for _ in range(self.random.randrange(1, 6))]
        records = [self.session.content(ident) for ident in idents]
        atomic = self.random.random() < 0.5
        lsns = await self.wal.append_many(records, durable=True, atomic=atomic)
        for lsn, ident in zip(lsns, idents, strict=True):
            self.session.durable(lsn, ident)

    async def stage(self) -> None:
        before = self.wal.last_lsn
        ident = next(self.idents)
        await self.wal.append_batched(self.session.content(ident))
        await self.wal.flush_batch()
        self.session.flushed(before, ident)

    async def trim(self) -> None:
        lsn = self.session.trim_target(self.wal.durable_lsn)
        if lsn < 1:
            return
        self.session.trimming(lsn)
        await self.wal.truncate_before(lsn)
        self.session.trimmed(lsn)


async def run(session: Session, job: dict) -> None:
    async with AsyncWalWriter(job["path"], session.config()) as wal:
        engine = engines.current()
        assert engine.backend in {wal.backend, "auto"}
        assert engine.ring in {wal.stats().ring, None}
        session.opened(wal.last_lsn, wal.first_lsn)
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(Task(session, wal, number).run())


def write(session: Session, job: dict) -> None:
    """Write from many tasks of one loop, until the process is killed or dies at a fail point."""
    asyncio.run(run(session, job))
