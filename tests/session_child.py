"""A warm interpreter whose forked children write to logs, acknowledge, and die.

Starting Python costs 150 ms and forking it 3 ms, so a suite of hundreds of kills keeps one server.
It reads jobs, one JSON object a line, and forks a child for each. Children and server share one
pipe to the parent: a frame is smaller than PIPE_BUF, so frames of threads never mix, and the
server's DEAD comes after everything that the child had said.

An acknowledgement is written only after the call that it stands for has returned.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Iterator
from itertools import count

import engines
import session_tasks

from walengine import PortableWalWriter, WalConfig, _native

FRAME = struct.Struct("<BQQ")  # kind, LSN, ident (or whatever the kind says)

BORN = 1  # pid
DEAD = 2  # 0, wait status
APPENDED = 3  # LSN, ident: append() returned
DURABLE = 4  # LSN, ident: and then sync() returned
FLUSHED = 5  # last LSN before it was staged, ident: flush_batch() returned
TRIMMING = 6  # LSN: truncate_before() is about to be called
TRIMMED = 7  # LSN: it returned
OPENED = 8  # last LSN, first LSN
FINISHED = 9  # the job is done; the child ends by itself

ACKNOWLEDGED = frozenset({DURABLE, FLUSHED})

THREADS = 4
THREADS_MAX = 20  # of a job
KEPT_RECORDS = 250  # that trims leave
IDENT_SESSION = 1 << 32
IDENT_THREAD = 1 << 24

HEAD = struct.Struct("<Q")


def content(ident: int) -> bytes:
    """The record with this ident; most are small, some empty, few larger than 64 KiB."""
    kind = ident % 97
    if kind == 5:
        return b""
    size = 70_000 if kind == 11 else 5_000 if kind == 23 else 8 + ident * 7 % 300
    head = HEAD.pack(ident)
    body = HEAD.pack(ident * 0x9E3779B97F4A7C15 % 2**64)
    return (head + body * (size // 8 + 1))[:size]


def config(job: dict) -> WalConfig:
    return engines.config(segment_bytes=job["segment_bytes"], strict_sectors=job["strict_sectors"])


def open_log(job: dict) -> PortableWalWriter:
    """Open it with the engine that was asked for, and none that it fell back to."""
    wal = PortableWalWriter(job["path"], config(job))
    engine = engines.current()
    assert engine.backend in {wal.backend, "auto"}
    assert engine.ring in {wal.stats().ring, None}
    return wal


class Session:
    """What the threads of one child share: the log, the pipe, the count that arms a fail point."""

    def __init__(self, job: dict) -> None:
        self.job = job
        self.lock = threading.Lock()
        self.acknowledged = 0
        self.enough = threading.Event()
        self.stopping = False

    def say(self, kind: int, lsn: int, ident: int = 0) -> None:
        os.write(1, FRAME.pack(kind, lsn, ident))
        if kind not in ACKNOWLEDGED:
            return
        with self.lock:
            self.acknowledged += 1
            reached = self.acknowledged == self.job["acks"]
        if reached:
            if self.job["mode"] in {"write", "tasks"} and self.job["fail_point"]:
                _native._fail_point_arm(self.job["fail_point"], self.job["nth"])
            self.enough.set()

    # ---- what session_tasks says -----------------------------------------------------------------

    def config(self) -> WalConfig:
        return config(self.job)

    def content(self, ident: int) -> bytes:
        return content(ident)

    def idents(self, number: int) -> Iterator[int]:
        return count(self.job["session"] * IDENT_SESSION + number * IDENT_THREAD)

    def trim_target(self, durable_lsn: int) -> int:
        return durable_lsn - KEPT_RECORDS

    def opened(self, last_lsn: int, first_lsn: int) -> None:
        self.say(OPENED, last_lsn, first_lsn)

    def appended(self, lsn: int, ident: int) -> None:
        self.say(APPENDED, lsn, ident)

    def durable(self, lsn: int, ident: int) -> None:
        self.say(DURABLE, lsn, ident)

    def flushed(self, before_lsn: int, ident: int) -> None:
        self.say(FLUSHED, before_lsn, ident)

    def trimming(self, lsn: int) -> None:
        self.say(TRIMMING, lsn)

    def trimmed(self, lsn: int) -> None:
        self.say(TRIMMED, lsn)


class Worker(threading.Thread):
    """One thread of a session: appends, syncs, flushes and trims until the process dies."""

    def __init__(self, session: Session, wal: PortableWalWriter, number: int) -> None:
        super().__init__(daemon=True)
        self.session = session
        self.wal = wal
        self.ident_next = session.job["session"] * IDENT_SESSION + number * IDENT_THREAD
        self.random = random.Random(f"{session.job['seed']} {number}")

    def run(self) -> None:
        try:
            while not self.session.stopping:
                self.act()
        except BaseException:  # noqa: BLE001 (the parent sees the exit status)
            if not self.session.job["may_fail"]:
                traceback.print_exc()
                os._exit(1)

    def act(self) -> None:
        dice = self.random.random()
        if dice < self.session.job["durable"]:
            self.append_durable()
        elif dice < 0.55:
            self.append(durable=True)
        elif dice < 0.75:
            self.append(durable=False)
        elif dice < 0.97:
            self.stage(self.random.randrange(1, 8))
        elif self.session.job["trims"]:
            self.trim()

    def next_ident(self) -> int:
        self.ident_next += 1
        return self.ident_next - 1

    def append(self, durable: bool) -> None:
        ident = self.next_ident()
        call = self.wal.append_with_checksum if ident % 3 == 0 else self.wal.append
        lsn = call(content(ident))
        self.session.say(APPENDED, lsn, ident)
        if durable:
            self.wal.sync()
            self.session.say(DURABLE, lsn, ident)

    def append_durable(self) -> None:
        ident = self.next_ident()
        lsn = self.wal.append_durable(content(ident))
        self.session.say(APPENDED, lsn, ident)
        self.session.say(DURABLE, lsn, ident)

    def stage(self, count: int) -> None:
        before = self.wal.last_lsn
        idents = [self.next_ident() for _ in range(count)]
        for ident in idents:
            self.wal.append_batched(content(ident))
        self.wal.flush_batch()
        for ident in idents:
            self.session.say(FLUSHED, before, ident)

    def trim(self) -> None:
        lsn = self.wal.durable_lsn - KEPT_RECORDS
        if lsn < 1:
            return
        self.session.say(TRIMMING, lsn)
        self.wal.truncate_before(lsn)
        self.session.say(TRIMMED, lsn)


def write(session: Session, job: dict) -> None:
    """Write from some threads; then die at a fail point, be killed, or close and go on to that."""
    wal = open_log(job)
    session.say(OPENED, wal.last_lsn, wal.first_lsn)
    if job["lying"]:
        _native._fault_set(_native._FAULT_SYNC, _native._FAULT_SKIP)
    workers = [Worker(session, wal, number) for number in range(job["threads"])]
    for worker in workers:
        worker.start()
    if job["mode"] == "write":
        for worker in workers:
            worker.join()
        signal.pause()  # poisoned: the parent ends it
    session.enough.wait()
    session.stopping = True
    for worker in workers:
        worker.join()
    if job["mode"] == "close":
        _native._fail_point_arm(job["fail_point"], job["nth"])
    wal.close()
    if job["mode"] == "unseal":
        wal = open_log(job)
        _native._fail_point_arm(job["fail_point"], job["nth"])
        ident = job["session"] * IDENT_SESSION + THREADS_MAX * IDENT_THREAD
        session.say(APPENDED, wal.append(content(ident)), ident)


def extend(session: Session, job: dict) -> None:
    """Open, append a few records durably, and close or be killed."""
    wal = open_log(job)
    session.say(OPENED, wal.last_lsn, wal.first_lsn)
    for number in range(job["count"]):
        ident = job["session"] * IDENT_SESSION + number
        lsn = wal.append(content(ident))
        wal.sync()
        session.say(DURABLE, lsn, ident)
    if job["close"]:
        wal.close()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def recover(session: Session, job: dict) -> None:
    """Open a log and die meanwhile: at a fail point, or before the nth operation on a file."""
    if job["fail_point"]:
        _native._fail_point_arm(job["fail_point"], job["nth"])
    else:
        _native._fault_set(_native._FAULT_ALL, _native._FAULT_KILL, nth=job["nth"], sticky=False)
    wal = open_log(job)
    ident = job["session"] * IDENT_SESSION + (THREADS_MAX + 1) * IDENT_THREAD
    session.say(APPENDED, wal.append(content(ident)), ident)


MODES = {
    "tasks": session_tasks.write,
    "write": write,
    "close": write,
    "unseal": write,
    "extend": extend,
    "recover": recover,
}


def child(job: dict) -> None:
    if job["engine"]:
        os.environ.update(engines.environment(engines.ENGINES[job["engine"]]))
    session = Session(job)
    session.say(BORN, os.getpid())
    try:
        MODES[job["mode"]](session, job)
        session.say(FINISHED, 0)
    except BaseException:  # noqa: BLE001 (the parent sees the exit status)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    logging.getLogger("walengine").setLevel(logging.CRITICAL)  # torn ends are what is wanted
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        _, status = os.waitpid(pid, 0)
        os.write(1, FRAME.pack(DEAD, 0, status))


if __name__ == "__main__":
    main()
