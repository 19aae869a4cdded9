"""Lanes: single appends of many threads at once, one native call each, beside all other calls."""

from __future__ import annotations

import contextlib
import errno
import random
import threading
import time
from textwrap import dedent

import pytest
from engines import config
from processes import output_of

from walengine import IoUringConfig, PortableWalWriter, WalError, WalPoisonedError, _native, replay
from walengine._handover import QUIET_APPENDS

pytestmark = pytest.mark.usefixtures("engine")

THREADS = 16


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def wal(engine, log):
    writer = PortableWalWriter(log, config())
    yield writer
    _native._fault_clear()
    with contextlib.suppress(WalPoisonedError):
        writer.close()


def data_of(log):
    return [record.data for record in replay(log)]


def in_threads(work, count=THREADS):
    """Run work(number) in so many threads at once; an exception of any of them fails the test."""
    problems = []

    def run(number):
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 (raised in the test below)
            problems.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


# ---- when they are open --------------------------------------------------------------------------


def test_an_append_opens_them_and_a_staged_record_closes_them(wal, log):
    assert wal.append_durable(b"1") == 1
    assert wal._lanes
    assert wal.append_batched(b"2") == 1
    assert not wal._lanes
    assert (wal.pending_batch_ops(), wal.last_lsn) == (1, 2)
    assert wal.append_durable(b"3") == 3
    assert wal.append_many([b"4", b"5"]) == range(4, 6)
    wal.flush_batch()
    wal.close()
    assert data_of(log) == [b"%d" % i for i in range(1, 6)]


def test_after_some_appends_with_nothing_staged_they_are_open_again(wal):
    wal.append_batched(b"staged")
    for _ in range(QUIET_APPENDS):
        wal.append_durable(b"x")
        assert not wal._lanes
    wal.append_durable(b"x")
    wal.append_durable(b"x")
    assert wal._lanes
    assert wal.last_lsn == wal.durable_lsn == QUIET_APPENDS + 3


def test_who_mixes_staging_and_appends_goes_on_staging(wal):
    """Goal: no native call for each staged record, and none for opening and closing."""
    calls = []
    real = wal._native.lanes
    wal._native.lanes = lambda *, are_open: calls.append(are_open) or real(are_open=are_open)
    for _ in range(10):
        for _ in range(20):
            wal.append_batched(b"staged")
        wal.append_durable(b"x")
    assert calls.count(False) <= 1
    assert wal.durable_lsn == 210


@pytest.mark.parametrize("call", ["flush_batch", "sync"])
def test_a_flush_leaves_them_open_and_covers_what_they_took(wal, call):
    assert wal.append(b"1") == 1
    getattr(wal, call)()
    assert wal._lanes
    assert wal.durable_lsn == 1


def test_a_refused_call_goes_the_way_of_the_others(wal, log):
    """Goal: a call on its way when lanes close is not lost, and stands behind what was staged."""
    wal.append_durable(b"1")
    real = wal._native.append_in_lane

    def late(record, crc, *, durable):
        wal._native.append_in_lane = real
        wal.append_batched(b"2")
        return real(record, crc, durable=durable)

    wal._native.append_in_lane = late
    assert wal.append_durable(b"3") == 3
    wal.close()
    assert data_of(log) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("are_open", [True, False])
def test_an_interrupt_between_here_and_c_is_made_good(wal, log, are_open):
    """Method: opening, or closing, is broken off when C has done it, or before."""
    real = wal._native.lanes
    if not are_open:
        wal.append(b"1")

    def broken(*, are_open):
        wal._native.lanes = real
        if not are_open:
            real(are_open=are_open)
        raise KeyboardInterrupt

    wal._native.lanes = broken
    with pytest.raises(KeyboardInterrupt):
        wal.append(b"1") if are_open else wal.append_batched(b"not taken")
    expected = [b"1"] * (not are_open)
    for record in (b"2", b"3"):
        expected.append(record)
        assert wal.append_durable(record) == wal.last_lsn == len(expected)
    wal.close()
    assert data_of(log) == expected


@pytest.mark.parametrize("handler", ["append", "append_batched"])
@pytest.mark.parametrize("first", ["append", "append_batched", "last_lsn"])
def test_a_signal_handler_may_come_by_in_the_middle(wal, log, first, handler):
    """Method: what it would do is done when C has opened or closed the lanes, before we know."""
    if first != "append":
        wal.append(b"0")
    real = wal._native.lanes

    def lanes(*, are_open):
        answer = real(are_open=are_open)
        wal._native.lanes = real
        getattr(wal, handler)(b"handler")
        return answer

    wal._native.lanes = lanes
    expected = [b"handler", b"1"] if first == "append" else [b"0", b"handler", b"1"]
    if first == "last_lsn":
        assert wal.last_lsn in (1, 2)
        wal.append_batched(b"1")
    else:
        getattr(wal, first)(b"1")
    for data in (b"2", b"3"):
        expected.append(data)
        assert wal.append_durable(data) == wal.last_lsn == len(expected)
    wal.close()
    assert data_of(log) == expected


# ---- order ---------------------------------------------------------------------------------------


class Crowd:
    """Threads that make every kind of call, and keep what they were told."""

    def __init__(self, wal, seed, rounds):
        self.wal = wal
        self.seed = seed
        self.rounds = rounds
        self.given = {}  # data by the LSN that a call returned
        self.acknowledged = 0  # the highest LSN that any call has returned so far
        self.counts = [0] * THREADS

    def work(self, number):
        dice = random.Random(f"{self.seed} {number}")
        for _ in range(self.rounds):
            before = self.acknowledged
            lsns = self.act(number, dice)
            assert all(lsn > before for lsn in lsns), "an LSN below one acknowledged before"
            self.acknowledged = max([self.acknowledged, *lsns])

    def data(self, number):
        self.counts[number] += 1
        return b"%d %d" % (number, self.counts[number])

    def act(self, number, dice):
        wal = self.wal
        others = ["append", "batched", "many", "flush", "sync", "wait"]
        kind = dice.choice(["durable"] * 12 + others)
        if kind in {"durable", "append"}:
            data = self.data(number)
            lsn = (wal.append_durable if kind == "durable" else wal.append)(data)
            assert kind == "append" or wal.durable_lsn >= lsn
            self.given[lsn] = data
            return [lsn]
        if kind == "batched":
            wal.append_batched(self.data(number))
            return []
        if kind == "many":
            records = [self.data(number) for _ in range(dice.randrange(4))]
            durable, atomic = dice.random() < 0.5, dice.random() < 0.3
            lsns = wal.append_many(records, durable=durable, atomic=atomic)
            assert not (durable and records) or wal.durable_lsn >= lsns[-1]
            self.given.update(zip(lsns, records, strict=True))
            return lsns
        last = wal.last_lsn
        if kind == "wait":
            wal.wait_durable(last) if last else None
        else:
            (wal.flush_batch if kind == "flush" else wal.sync)()
        assert wal.durable_lsn >= last
        return []


def test_whatever_they_call_lsns_are_right_and_in_order(log, seed, scaled, count):
    """Goal: what a call returned is where its record is, each thread's in the order of its calls,
    and no call returns an LSN below one that was acknowledged before the call began.
    """
    io = IoUringConfig(registered_buffers=1, buffer_size=4096)
    with PortableWalWriter(log, config(io, segment_bytes=65536)) as wal:
        crowd = Crowd(wal, seed, scaled(150))
        in_threads(crowd.work)
        assert wal.last_lsn == sum(crowd.counts)
    records = {record.lsn: record.data for record in replay(log)}
    assert crowd.given.items() <= records.items()
    seen = [[] for _ in range(THREADS)]
    for data in records.values():
        number, i = map(int, data.split())
        seen[number].append(i)
    assert seen == [list(range(1, made + 1)) for made in crowd.counts]
    count("calls of 16 threads", THREADS * crowd.rounds)


# ---- poison, close, fork -------------------------------------------------------------------------


def test_a_poisoning_tells_each_of_many_waiters_once(wal):
    """Method: a sync stalls until all wait for it, or for the next, and every sync fails then."""
    outcomes = []

    def append(_number):
        try:
            outcomes.append(wal.append_durable(b"x"))
        except WalPoisonedError as error:
            outcomes.append(error)

    wal.append_durable(b"first")
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 60_000)
    threads = [threading.Thread(target=append, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    rounds = 0
    while wal.last_lsn < THREADS + 1:
        time.sleep(0.001)
        rounds += 1
        if rounds % 500 == 0:  # it may be the filler's sync that stalls: let that one go
            _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 60_000)
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO)
    for thread in threads:
        thread.join()
    errors = [outcome for outcome in outcomes if isinstance(outcome, WalError)]
    assert len(outcomes) == THREADS
    assert len(set(map(id, errors))) <= 1
    assert wal.durable_lsn == 1 + THREADS - len(errors)
    _native._fault_clear()
    if errors:
        assert list(errors[0].lost) == list(range(wal.durable_lsn + 1, THREADS + 2))
        wal.reopen()
    assert wal.append_durable(b"after") == wal.last_lsn == wal.durable_lsn


def test_closing_beside_them_loses_nothing_that_was_acknowledged(tmp_path):
    for turn in range(5):
        log = tmp_path / str(turn)
        wal = PortableWalWriter(log, config())
        given = {}

        def work(number, wal=wal, given=given):
            if number == 0:
                time.sleep(0.02)
                wal.close()
                return
            with contextlib.suppress(WalError):
                while True:
                    data = b"%d %d" % (number, len(given))
                    given[wal.append_durable(data)] = data

        in_threads(work)
        assert dict(enumerate(data_of(log), 1)) == given


def test_a_fork_beside_them(log):
    """Goal: the child is refused, whatever its parent's threads were at; they go on."""
    program = """
    wal = PortableWalWriter(sys.argv[1], config())
    wal.append_durable(b"first")
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 60_000)
    threads = [threading.Thread(target=wal.append_durable, args=(b"x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    while wal.last_lsn < 9:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        try:
            wal.append_durable(b"child")
        except walengine.ForkedError:
            wal.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    _native._fault_clear()
    for thread in threads:
        thread.join()
    assert wal.append_durable(b"last") == 10
    wal.close()
    """
    output_of(dedent(program), log)
    assert data_of(log) == [b"first", *[b"x"] * 8, b"last"]


def test_ctrl_c_ends_a_durable_append_beside_many(log):
    """Goal: the main thread leaves a stuck disk, and the others are all served afterwards."""
    program = """
    def interrupt_soon():
        while _native._fault_hits() == 0:
            time.sleep(0.001)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    wal = PortableWalWriter(sys.argv[1], config())
    wal.append_durable(b"first")
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 600_000)
    threads = [threading.Thread(target=wal.append_durable, args=(b"x",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    threading.Thread(target=interrupt_soon, daemon=True).start()
    try:
        wal.append_durable(b"mine")
        sys.exit("it was not interrupted")
    except KeyboardInterrupt:
        pass
    _native._fault_clear()
    for thread in threads:
        thread.join()
    wal.sync()
    assert wal.durable_lsn == wal.last_lsn
    wal.close()
    """
    output_of("import signal\n" + dedent(program), log)
    found = data_of(log)
    assert found[0] == b"first"
    assert sorted(found[1:]) in ([b"x"] * 16, [b"mine", *[b"x"] * 16])
