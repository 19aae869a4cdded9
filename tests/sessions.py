"""The parent's side of killed writers: sessions with their acknowledgements, and the oracle.

Server starts sessions (session_child.py) and ends them. Oracle knows what a log must hold and
judges what recovery gives back: everything acknowledged, byte for byte, a dense prefix of what was
handed over, in each thread's order, and nothing else; nothing that an earlier recovery dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import engines
from session_child import (
    ACKNOWLEDGED,
    APPENDED,
    BORN,
    DEAD,
    DURABLE,
    FINISHED,
    FLUSHED,
    FRAME,
    HEAD,
    IDENT_SESSION,
    IDENT_THREAD,
    THREADS,
    TRIMMED,
    TRIMMING,
    content,
)

import walengine

__all__ = ["Acks", "Oracle", "Server", "Session"]

JOB = {
    "mode": "write",
    "acks": 100,  # acknowledged before the fail point is armed, or the close
    "fail_point": "",
    "nth": 1,
    "lying": False,  # syncs report success and do nothing
    "may_fail": False,  # the disk goes away under it
    "trims": True,
    "threads": THREADS,
    "durable": 0.1,  # of what a thread does: append_durable
    "segment_bytes": 32768,
    "strict_sectors": False,
    "seed": 0,
    "engine": "",  # of engines.py; "": the default
}


@dataclass
class Acks:
    """What a session acknowledged."""

    appended: dict[int, int] = field(default_factory=dict)  # LSN to ident: handed over
    durable: dict[int, int] = field(default_factory=dict)  # LSN to ident: synced
    flushed: dict[int, int] = field(default_factory=dict)  # ident to the last LSN before it
    trimming: int = 1  # the highest that was asked for
    trimmed: int = 1  # the highest that was acknowledged

    @property
    def count(self) -> int:
        return len(self.durable) + len(self.flushed)

    def take(self, kind: int, lsn: int, ident: int) -> None:
        if kind == APPENDED:
            self.appended[lsn] = ident
        elif kind == DURABLE:
            self.durable[lsn] = ident
        elif kind == FLUSHED:
            self.flushed[ident] = lsn
        elif kind == TRIMMING:
            self.trimming = max(self.trimming, lsn)
        elif kind == TRIMMED:
            self.trimmed = max(self.trimmed, lsn)


class Session:
    """One child: read what it says, end it, see how it died."""

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.number = number
        self.acks = Acks()
        self.counting = True
        self.finished = False
        self.was_killed = False  # by us; else it died by itself
        self.status: int | None = None
        kind, self.pid, _ = server.frame()
        assert kind == BORN

    def frames(self) -> Iterator[int]:
        """Take what it says, frame by frame, until it is dead; yields the kinds."""
        while self.status is None:
            kind, lsn, ident = self.server.frame()
            if kind == DEAD:
                self.status = ident
            elif kind == FINISHED:
                self.finished = True
            elif self.counting or kind == TRIMMING:
                self.acks.take(kind, lsn, ident)
            yield kind

    def stop_counting(self) -> None:
        """What it acknowledges from now on binds nobody: its disk is gone."""
        self.counting = False

    def read_acks(self, count: int) -> None:
        """Take acknowledgements until there are so many, or the child is dead."""
        seen = 0
        for kind in self.frames():
            seen += kind in ACKNOWLEDGED
            if seen >= count:
                break

    def kill(self) -> None:
        if self.status is not None:
            return
        self.was_killed = True
        with contextlib.suppress(ProcessLookupError):  # it died at its fail point meanwhile
            os.kill(self.pid, signal.SIGKILL)

    def drain(self) -> None:
        """Take everything it said, to its death."""
        for _ in self.frames():
            pass

    @property
    def died_by_sigkill(self) -> bool:
        return self.status is not None and os.WTERMSIG(self.status) == signal.SIGKILL


class Server:
    """The fork server: a context manager."""

    def __init__(self) -> None:
        self.sessions = 0
        self.newest: Session | None = None

    def __enter__(self) -> Self:
        program = Path(__file__).with_name("session_child.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def start(self, path: Path, **job: object) -> Session:
        if self.newest is not None and self.newest.status is None:
            self.newest.kill()  # a failed test left it
            self.newest.drain()
        self.sessions += 1
        unknown = job.keys() - JOB.keys() - {"count", "close"}
        assert not unknown, unknown
        fixed = {
            "path": str(path),
            "session": self.sessions,
            "engine": engines.current().name,
        }
        line = json.dumps(JOB | job | fixed)
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        self.newest = Session(self, self.sessions)
        return self.newest

    def run(self, path: Path, **job: object) -> Session:
        """Start a session that ends by itself; wait for that."""
        session = self.start(path, **job)
        session.drain()
        return session

    def frame(self) -> tuple[int, int, int]:
        data = self.process.stdout.read(FRAME.size)
        assert len(data) == FRAME.size, "the fork server ended"
        return FRAME.unpack(data)


class Oracle:
    """What a log must hold, through any number of crashes.

    Attributes:
        fixed: LSN to data of what recovery returned and a later append followed: it stays.
        last: The last LSN of that.
        trim: No record below may be missing that was not asked to be trimmed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fixed: dict[int, bytes] = {}
        self.last = 0
        self.trimming = 1
        self.trimmed = 1

    def recovered(self) -> dict[int, bytes]:
        """What comes back: LSN to data, dense, in order, within the bounds of the trims."""
        found = [(record.lsn, record.data) for record in walengine.replay(self.path)]
        report = walengine.recover(self.path)
        first = report.first_lsn
        lsns = [lsn for lsn, _ in found]
        assert lsns == list(range(first, report.last_lsn + 1))
        assert self.trimmed <= first <= self.trimming
        return dict(found)

    def judge(self, *sessions: Session, power_loss: bool = False) -> dict[int, bytes]:
        """Recover behind a crash; fail on anything lost, damaged, swapped or invented.

        Args:
            sessions: All since the log was settled.
            power_loss: What was handed over and not synced may be gone.
        """
        for acks in (session.acks for session in sessions):
            self.trimming = max(self.trimming, acks.trimming)
            self.trimmed = max(self.trimmed, acks.trimmed)
        found = self.recovered()
        self._check_fixed(found)
        for acks in (session.acks for session in sessions):
            self._check_acks(found, acks.durable)
            self._check_flushed(found, acks.flushed)
            if not power_loss:
                self._check_acks(found, acks.appended)
        self._check_fresh(found, {session.number for session in sessions})
        return found

    def settle(self, extend: Callable[[], Session], found: dict[int, bytes]) -> None:
        """A few more appends by the next writer: what follows is exactly what was found and those.

        Goal: nothing that recovery dropped comes back (I4).
        """
        session = extend()
        expected = found | {lsn: content(ident) for lsn, ident in session.acks.durable.items()}
        again = self.recovered()
        assert again == expected
        self.fixed = again
        self.last = max(again, default=0)

    def _check_fixed(self, found: dict[int, bytes]) -> None:
        first = min(found, default=self.last + 1)
        kept = {lsn: data for lsn, data in self.fixed.items() if lsn >= first}
        lost = sorted(kept.keys() - found.keys())
        assert not lost, f"records of an earlier round are gone: {lost[:5]}"
        assert all(found[lsn] == data for lsn, data in kept.items())

    def _check_acks(self, found: dict[int, bytes], acked: dict[int, int]) -> None:
        first = min(found, default=1)
        lost = [lsn for lsn in acked if lsn >= first and lsn not in found]
        assert not lost, (
            f"acknowledged and gone: {sorted(lost)[:5]} of 1 to {max(found, default=0)}"
        )
        wrong = [lsn for lsn, i in acked.items() if lsn >= first and found[lsn] != content(i)]
        assert not wrong, f"acknowledged and different: {sorted(wrong)[:5]}"

    def _check_flushed(self, found: dict[int, bytes], flushed: dict[int, int]) -> None:
        first = min(found, default=1)
        present = {HEAD.unpack_from(data)[0] for data in found.values() if data}
        lost = [
            ident
            for ident, before in flushed.items()
            if content(ident) and before + 1 >= first and ident not in present
        ]
        assert not lost, f"flushed and gone: {len(lost)} records"

    def _check_fresh(self, found: dict[int, bytes], sessions: set[int]) -> None:
        """Every new record was appended by these sessions, once, in the order of its thread."""
        threads = defaultdict(list)
        for lsn, data in found.items():
            if lsn <= self.last or not data:
                continue
            (ident,) = HEAD.unpack_from(data)
            assert data == content(ident), f"LSN {lsn} was never appended"
            assert ident // IDENT_SESSION in sessions, f"LSN {lsn} is of another session"
            threads[ident // IDENT_THREAD].append(ident % IDENT_THREAD)
        is_whole = min(found, default=1) <= self.last + 1
        for thread, numbers in threads.items():
            begin = 0 if is_whole else numbers[0]
            base = thread * IDENT_THREAD
            handed = [n for n in range(begin, numbers[-1] + 1) if content(base + n)]
            assert numbers == handed, f"thread {thread}: holes or another order"
